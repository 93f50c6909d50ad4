"""Training throughput: a miner in its actor beside a bare torch loop with the same model, batch and precision.

    python jobs/bench/training.py [--quick] [--rounds 6] [--queries-per-s 1]     on a CPU, about three minutes
    python jobs/bench/training.py --sizes 124M 350M 1.2B                         on one GPU: bf16, compiled
    ray job submit --working-dir . -- python jobs/bench/training.py

On a CPU the two run alternately, round by round, and the goal is the median of the ratios of neighbours, so that other
load on the machine affects both. Then the miner trains while questions come at a stated rate, beside rounds without
any. On a GPU, for each size: tokens/s, model-FLOPs utilisation (PaLM, appendix B) and peak memory of the bare compiled
loop, of the miner, and of the miner under ZeRO-1 on one rank (what DeepSpeed costs where there is nothing to share).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import ray
import torch

from raytensor import cluster, config
from raytensor.config import MinerProfile
from raytensor.data.text import Text, unigram
from raytensor.miners.shard import FirstRank
from raytensor.training import models
from raytensor.training.loop import PEAKS
from raytensor.training.models import ModelSpec
from raytensor.types import Response, Task

HOTKEY = "bench"
# size -> (sequences a step, activation checkpointing) that fit a GPU of 80 GB at 1024 tokens.
GPU_SHAPES = {"124M": (32, False), "350M": (16, False), "1.2B": (8, False), "8B": (1, True)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds; says that it runs, not how fast")
    parser.add_argument("--rounds", type=int, default=8, help="pairs of rounds")
    parser.add_argument("--steps", type=int, default=24, help="optimizer steps a round")
    parser.add_argument("--model", default="1M", help="the model on a CPU")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--queries-per-s", type=float, default=1.0)
    parser.add_argument("--query-rows", type=int, default=32, help="texts of a question, 24 tokens each")
    parser.add_argument("--sizes", nargs="+", default=["124M", "350M", "1.2B"], help="models on a GPU")
    parser.add_argument("--gpu-steps", type=int, default=30)
    found = parser.parse_args()
    if found.quick:
        found.rounds, found.steps, found.gpu_steps = 2, 4, 6
    return found


class MeasuredHost(FirstRank):
    """The miner's host, which also reports the peak memory of its device."""

    def peak_gib(self) -> float:
        return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def bare_loop(
    model: torch.nn.Module, batches: list[np.ndarray], *, device: str, compiled: bool, state: dict[str, Any]
) -> float:
    """A plain torch loop; returns its seconds for these batches. `state` keeps the optimizer between calls."""
    if not state:
        model.to(device).train()
        decayed = [p for p in model.parameters() if p.ndim >= 2]
        rest = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        state["optimizer"] = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)

        def loss_of(tokens: torch.Tensor) -> torch.Tensor:
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

        state["loss"] = torch.compile(loss_of) if compiled else loss_of
    optimizer, loss_of = state["optimizer"], state["loss"]
    began, total = time.perf_counter(), []
    for batch in batches:
        tokens = torch.from_numpy(batch.astype(np.int64)).to(device, non_blocking=True)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = loss_of(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total.append(loss.detach())
    torch.stack(total).tolist()  # waits for the device
    return time.perf_counter() - began


def text_of(vocab: int) -> Text:
    draw = np.random.default_rng(0)
    train, heldout = (draw.integers(0, vocab, size).astype(np.uint16) for size in (2_000_000, 20_000))
    return Text(
        train, heldout, np.array([0, train.size]), np.array([0, heldout.size]), unigram(train, vocab), vocab, 1.0
    )


def start_miner(profile: MinerProfile, seq_len: int, vocab: int) -> Any:
    cfg = config.RunConfig(
        miners=config.Miners(num_miners=1, profiles=[profile], seq_len=seq_len, warmup_rounds=0, heldout_rows=8)
    )
    options = {"num_cpus": 1, "num_gpus": profile.gpus_per_rank, "max_restarts": 0}
    factory = ray.remote(concurrency_groups={"serving": 2})(MeasuredHost).options(**options)
    actor = factory.remote(
        cfg, [(HOTKEY, profile)], ray.put(text_of(vocab)), None, None, ("127.0.0.1", cluster.reserve_port())
    )
    ray.get(actor.ready.remote(), timeout=300)
    return actor


class Questions(threading.Thread):
    """Asks at a steady rate until it is stopped; counts answers and how long each took."""

    def __init__(self, actor: Any, per_s: float, rows: int, vocab: int) -> None:
        super().__init__(daemon=True)
        self._actor, self._per_s = actor, per_s
        draw = np.random.default_rng(1)
        tokens, lengths = (
            draw.integers(0, vocab, (rows, 24)).astype(np.int32),
            draw.integers(8, 25, rows).astype(np.int32),
        )
        self._task = Task("q", 1, 1, "v", HOTKEY, tokens, lengths, 64, 60.0)
        self._stopped = threading.Event()
        self.latencies_s: list[float] = []

    def run(self) -> None:
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            due += 1.0 / self._per_s
            began = time.monotonic()
            answer = ray.get(self._actor.serve.options(concurrency_group="serving").remote(self._task), timeout=60)
            assert isinstance(answer, Response)
            self.latencies_s.append(time.monotonic() - began)

    def stop(self) -> None:
        self._stopped.set()
        self.join(timeout=60)


def on_cpu(args: argparse.Namespace, goals: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    vocab = models.LLAMA_SIZES[args.model][5]
    spec = ModelSpec(args.model, vocab_size=vocab, seq_len=args.seq_len)
    model, state = models.build(spec), {}
    tokens = args.steps * args.batch * args.seq_len
    draw = np.random.default_rng(2)
    actor = start_miner(
        MinerProfile(model=args.model, steps=args.steps, batch_size=args.batch, lr=1e-3), args.seq_len, vocab
    )

    def bare() -> float:
        batches = list(draw.integers(0, vocab, (args.steps, args.batch, args.seq_len + 1)).astype(np.uint16))
        return tokens / bare_loop(model, batches, device="cpu", compiled=False, state=state)

    def miner(round: int) -> float:
        began = time.perf_counter()
        ray.get(actor.train.remote(round), timeout=600)
        return tokens / (time.perf_counter() - began)

    bare(), miner(0)  # warm
    alone: dict[str, list[float]] = {"bare loop": [], "miner": []}
    for round in range(1, args.rounds + 1):
        # Whoever is second in a pair is first in the next.
        for who in ("bare loop", "miner") if round % 2 else ("miner", "bare loop"):
            alone[who].append(bare() if who == "bare loop" else miner(round))
    ratios = [mine / theirs for mine, theirs in zip(alone["miner"], alone["bare loop"], strict=True)]
    quiet, served, latencies = [], [], []
    for round in range(args.rounds + 1, 2 * args.rounds + 1):
        quiet.append(miner(2 * round))
        questions = Questions(actor, args.queries_per_s, args.query_rows, vocab)
        questions.start()
        served.append(miner(2 * round + 1))
        questions.stop()
        latencies += questions.latencies_s
    ray.kill(actor)
    lost = statistics.median(1 - s / q for s, q in zip(served, quiet, strict=True))
    shape = f"{models.num_parameters(model):,} parameters), {args.batch} x {args.seq_len} tokens per step"
    print(f"\nmodel {args.model} ({shape}, fp32, one thread")
    for who, values in (*alone.items(), (f"miner, {args.queries_per_s:g} questions/s", served)):
        spread = f"(of {len(values)} rounds: {min(values):,.0f} .. {max(values):,.0f})"
        print(f"  {who:<28} {statistics.median(values):10,.0f} tokens/s   {spread}")
    goal(goals, "miner_of_bare_loop", statistics.median(ratios), "", 0.95, f"of {len(ratios)} pairs")
    load = f"{args.queries_per_s:g} questions/s of {args.query_rows} x 24 tokens"
    goal(goals, "share_lost_while_serving", lost, load, None)
    goal(goals, "answer_latency_median", statistics.median(latencies), "s", None)


@ray.remote(num_gpus=1, max_calls=1)
def bare_on_gpu(size: str, batch: int, steps: int, checkpointing: bool) -> dict[str, float]:
    torch.set_float32_matmul_precision("high")
    vocab = models.LLAMA_SIZES[size][5]
    model, state = models.build(ModelSpec(size)), {}
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    draw = np.random.default_rng(2)

    def some(count: int) -> list[np.ndarray]:
        return list(draw.integers(0, vocab, (count, batch, 1025)).astype(np.uint16))

    bare_loop(model, some(5), device="cuda", compiled=True, state=state)
    seconds = min(bare_loop(model, some(steps), device="cuda", compiled=True, state=state) for _ in range(3))
    flops = models.flops_per_token(model, 1024)
    return {
        "tokens_per_s": steps * batch * 1024 / seconds,
        "flops": flops,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
    }


def miner_on_gpu(size: str, batch: int, steps: int, checkpointing: bool, engine: str) -> dict[str, float]:
    profile = MinerProfile(
        model=size,
        steps=steps,
        batch_size=batch,
        lr=1e-3,
        engine=engine,
        precision="bf16",
        gpus_per_rank=1,
        activation_checkpointing=checkpointing,
    )
    actor = start_miner(profile, 1024, models.LLAMA_SIZES[size][5])
    try:
        ray.get(actor.train.remote(1), timeout=900)  # compiles
        seconds = []
        for round in (2, 3, 4):
            began = time.perf_counter()
            ray.get(actor.train.remote(round), timeout=900)
            seconds.append(time.perf_counter() - began)
        return {
            "tokens_per_s": steps * batch * 1024 / min(seconds),
            "peak_gib": ray.get(actor.peak_gib.remote(), timeout=60),
        }
    finally:
        ray.kill(actor)


def on_gpu(args: argparse.Namespace, goals: list[dict[str, Any]]) -> None:
    name = torch.cuda.get_device_name(0)
    peak = next((peak for part, peak in PEAKS.items() if part in name), None)
    print(f"\n{name}, bf16, compiled, 1024 tokens per sequence")
    print(f"{'model':<8} {'who':<18} {'tokens/s':>12} {'MFU':>7} {'peak GiB':>9}")
    for size in args.sizes:
        batch, checkpointing = GPU_SHAPES[size]
        bare = ray.get(bare_on_gpu.remote(size, batch, args.gpu_steps, checkpointing), timeout=1800)
        rows = {"bare compiled loop": bare} | {
            who: miner_on_gpu(size, batch, args.gpu_steps, checkpointing, engine)
            for who, engine in (("miner", "plain"), ("miner, ZeRO-1", "zero1"))
        }
        for who, row in rows.items():
            mfu = row["tokens_per_s"] * bare["flops"] / peak if peak else float("nan")
            row["mfu"] = mfu
            print(f"{size:<8} {who:<18} {row['tokens_per_s']:12,.0f} {mfu:7.1%} {row['peak_gib']:9.1f}")
        goal(goals, f"{size}_miner_of_bare_loop", rows["miner"]["tokens_per_s"] / bare["tokens_per_s"], "", 0.97)
        goal(goals, f"{size}_mfu", rows["miner"]["mfu"], f"of {name}", 0.45 if size == "1.2B" and peak else None)
        goal(goals, f"{size}_peak_memory", rows["miner"]["peak_gib"], "GiB", None)
        goal(
            goals,
            f"{size}_zero1_overhead",
            1 - rows["miner, ZeRO-1"]["tokens_per_s"] / rows["miner"]["tokens_per_s"],
            "of the miner's tokens/s",
            None,
        )


def goal(goals: list[dict[str, Any]], name: str, value: float, unit: str, least: float | None, note: str = "") -> None:
    ok = None if least is None else bool(value >= least)
    goals.append(
        {
            "name": name,
            "value": round(value, 4),
            "unit": unit,
            "goal": None if least is None else f">= {least:g}",
            "ok": ok,
        }
    )
    verdict = "" if ok is None else f"goal {least:g}: {'ok' if ok else 'MISSED'}"
    print(f"  {name:<28} {value:10.3f} {unit} {verdict} {note}", flush=True)


def main() -> int:
    args, goals = arguments(), []
    gpus = torch.cuda.device_count()
    cluster.connect(config.Cluster(num_cpus=4))
    try:
        on_cpu(args, goals)
        if gpus:
            on_gpu(args, goals)
        else:
            print(
                "\nno GPU: tokens/s, MFU and memory of 124M, 350M and 1.2B, and the overhead of ZeRO, were NOT measured"
            )
    finally:
        cluster.disconnect()
    cpus = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    machine = f"{platform.machine()}, {cpus}, {gpus} GPUs, torch {torch.__version__}"
    print(json.dumps({"bench": "training", "machine": machine, "goals": goals}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
