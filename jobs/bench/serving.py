"""Text for prompts: 32 prompts of 64 new tokens at once, answered by a miner's host alone and while it trains.

    python jobs/bench/serving.py                     about six minutes on two cores
    python jobs/bench/serving.py --quick             says that it runs, not how fast

Three ways, in the same actor, with the same model, in the same run: the batch with a cache of keys and values; one full
forward pass for each token, each a question of its own, as miners did it before (for `--old-tokens` tokens of each
prompt, the first and shortest ones); and transformers' `generate` with its cache, prompt after prompt, on a copy of the
model. Each way runs alone and beside training: the batch within its share of the time, full forward passes between two
training steps, `generate` once without a limit and once within the same share as the batch (`--paced-prompts` prompts,
with a pause after each). What training loses is its rate beside the prompts against its rate in the quiet seconds
before and after them; on a machine with other load that is noise, and the share of the host's processor time that the
batch took says more. Medians over the passes.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import os
import platform
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import ray
import torch
from training import goal, text_of

from raytensor import cluster, config
from raytensor.config import MinerProfile
from raytensor.miners.generation import TOP_K, GenerationRequest, NewTokens
from raytensor.miners.group import LANES
from raytensor.miners.host import MinerHost, Trained
from raytensor.miners.streams import Streams
from raytensor.training import models
from raytensor.types import Task

HOTKEY, VOCAB = "bench", 1024
OURS, OLD, THEIRS, PACED = "batch with a cache", "full forward passes", "generate, one by one", "generate, in the share"
Made = list[list[int]]


class MeasuredHost(MinerHost):
    """A host that can also answer prompts by transformers' `generate`, and tells what it has done."""

    _clocks: dict[str, int] = {}

    def train(self, *args: Any) -> Trained:
        self._clocks["train"] = time.pthread_getcpuclockid(threading.get_ident())
        return super().train(*args)

    def generate(self, *args: Any) -> dict[str, NewTokens]:
        self._clocks["generate"] = time.pthread_getcpuclockid(threading.get_ident())
        return super().generate(*args)

    def processor_s(self) -> tuple[float, float]:
        """Processor time of the thread that trains and of the one that continues prompts; each computes by itself."""
        return time.clock_gettime(self._clocks["train"]), time.clock_gettime(self._clocks["generate"])

    def steps(self) -> int:
        engine: Any = self._miners[HOTKEY].engine
        return engine.steps

    def one_by_one(self, prompts: list[list[int]], new: int, share: float) -> tuple[Made, float]:
        """(new tokens of each prompt, seconds), each prompt after the one before and a pause that keeps the share."""
        engine: Any = self._miners[HOTKEY].engine
        model: Any = copy.deepcopy(engine.model).eval()
        model.generation_config.update(eos_token_id=None, pad_token_id=0)
        options: dict[str, Any] = {"do_sample": False, "use_cache": True}
        with torch.inference_mode():
            model.generate(torch.tensor([prompts[0]]), max_new_tokens=2, **options)
            began, made = time.perf_counter(), []
            for prompt in prompts:
                at = time.perf_counter()
                made.append(
                    model.generate(torch.tensor([prompt]), max_new_tokens=new, **options)[0, len(prompt) :].tolist()
                )
                time.sleep((time.perf_counter() - at) * (1 / share - 1))
        return made, time.perf_counter() - began


class Training(threading.Thread):
    """Trains rounds one after another until it is stopped."""

    def __init__(self, actor: Any, first_round: int) -> None:
        super().__init__(daemon=True)
        self._actor, self.round = actor, first_round
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.is_set():
            ray.get(self._actor.train.remote(self.round), timeout=600)
            self.round += 1

    def stop(self) -> int:
        """Returns the next round."""
        self._stopped.set()
        self.join(timeout=600)
        return self.round


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short pass; says that it runs, not how fast")
    parser.add_argument("--model", default="1M")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--prompt-tokens", type=int, default=24, help="tokens of the longest prompt")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--old-tokens", type=int, default=6, help="of each prompt, by full forward passes")
    parser.add_argument("--paced-prompts", type=int, default=3)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--share", type=float, default=config.Generation().share)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--quiet-s", type=float, default=6.0, help="of training alone, before and after each way")
    found = parser.parse_args()
    if found.quick:
        found.prompts, found.new_tokens, found.old_tokens, found.passes, found.quiet_s = 8, 8, 2, 1, 2.0
    return found


def start(args: argparse.Namespace) -> Any:
    profile = MinerProfile(model=args.model, steps=60, batch_size=8)  # a round as that of `mine`
    miners = config.Miners(num_miners=1, profiles=[profile], seq_len=args.seq_len, warmup_rounds=0, heldout_rows=8)
    miners.stacked = False  # so that a full forward pass waits for one training step and not for a round
    miners.generation = config.Generation(max_sequences=args.prompts, share=args.share)
    cfg = config.RunConfig(miners=miners)
    actor: Any = ray.remote(**LANES)(MeasuredHost).options(num_cpus=1)
    made = actor.remote(cfg, [(HOTKEY, profile)], ray.put(text_of(VOCAB)))
    ray.get(made.ready.remote(), timeout=300)
    return made


class Asker:
    """The prompts, and the three ways to answer them. Each returns (new tokens by prompt, tokens per second)."""

    def __init__(self, actor: Any, args: argparse.Namespace) -> None:
        self._actor, self._args = actor, args
        draw = np.random.default_rng(0)
        sizes = draw.integers(args.prompt_tokens // 2, args.prompt_tokens + 1, args.prompts)
        self.prompts = [draw.integers(1, VOCAB, size).tolist() for size in sizes]
        self.first_s: list[float] = []  # to the first token of each prompt, of the newest batch

    def batch(self) -> tuple[Made, float]:
        async def one(streams: Streams, prompt: list[int], number: int) -> list[int]:
            tokens, most = np.array(prompt, np.int32), self._args.new_tokens
            request = GenerationRequest("", str(number), HOTKEY, tokens, 0, most, 0.0, 0, -1, 600.0)
            made: list[int] = []
            async for new in streams.tokens(request):
                if not made:
                    self.first_s.append(time.perf_counter() - began)
                made += new
            return made

        async def every() -> Made:
            streams = Streams(lambda _: self._actor, Counter())
            return await asyncio.gather(*(one(streams, prompt, n) for n, prompt in enumerate(self.prompts)))

        self.first_s = []
        began = time.perf_counter()
        return self._rated(asyncio.run(every()), began)

    def full_forwards(self) -> tuple[Made, float]:
        async def one(prompt: list[int], number: int) -> list[int]:
            tokens = list(prompt)
            for step in range(self._args.old_tokens):
                shown, lengths = np.array([tokens], np.int32), np.array([len(tokens)], np.int32)
                task = Task(f"{number}/{step}", 0, 1, "v", HOTKEY, shown, lengths, TOP_K, 600.0)
                answer = await self._actor.serve.options(concurrency_group="serving").remote(task)
                tokens.append(int(answer.ids[0, 0]))
            return tokens[len(prompt) :]

        async def every() -> Made:
            return await asyncio.gather(*(one(prompt, number) for number, prompt in enumerate(self.prompts)))

        began = time.perf_counter()
        return self._rated(asyncio.run(every()), began)

    def one_by_one(self, *, paced: bool = False) -> tuple[Made, float]:
        prompts = self.prompts[: self._args.paced_prompts] if paced else self.prompts
        about = prompts, self._args.new_tokens, self._args.share if paced else 1.0
        call = self._actor.one_by_one.options(concurrency_group="serving").remote(*about)
        made, elapsed_s = ray.get(call, timeout=1200)
        return made, sum(map(len, made)) / elapsed_s

    @staticmethod
    def _rated(made: Made, began: float) -> tuple[Made, float]:
        return made, sum(map(len, made)) / (time.perf_counter() - began)


def steps_per_s(actor: Any, work: Callable[[], Any]) -> tuple[float, Any]:
    """(training steps per second during `work`, its result)."""
    steps = actor.steps.options(concurrency_group="serving").remote
    before, began = ray.get(steps(), timeout=600), time.perf_counter()
    found = work()
    return (ray.get(steps(), timeout=600) - before) / (time.perf_counter() - began), found


def measure(args: argparse.Namespace, actor: Any) -> tuple[dict[str, list[float]], bool]:
    """({figure: one value a pass}, whether the three ways gave the same tokens)."""
    asker = Asker(actor, args)
    ways = {OURS: asker.batch, OLD: asker.full_forwards, THEIRS: asker.one_by_one}
    found: dict[str, list[float]] = {}
    equal, round = True, 1
    asker.batch()  # makes the copy of the model
    clocks = actor.processor_s.options(concurrency_group="serving").remote
    for number in range(args.passes):
        made: dict[str, Made] = {}
        for name, way in ways.items():
            made[name], rate = way()
            found.setdefault(f"{name}, alone", []).append(rate)
            if name == OURS:
                found.setdefault("first token, alone", []).append(statistics.median(asker.first_s))
        whole, begun, theirs = made.values()
        equal &= whole == theirs and [one[: args.old_tokens] for one in whole] == begun
        training = Training(actor, round)
        training.start()
        quiet, _ = steps_per_s(actor, lambda: time.sleep(args.quiet_s))
        for name, way in {**ways, PACED: lambda: asker.one_by_one(paced=True)}.items():
            before = np.array(ray.get(clocks(), timeout=600))
            beside, (_, rate) = steps_per_s(actor, way)
            if name == OURS:
                train_s, generate_s = ray.get(clocks(), timeout=600) - before
                found.setdefault("share of processor time", []).append(generate_s / (train_s + generate_s))
                found.setdefault("first token, beside", []).append(statistics.median(asker.first_s))
            after, _ = steps_per_s(actor, lambda: time.sleep(args.quiet_s))
            found.setdefault(f"{name}, beside", []).append(rate)
            found.setdefault(f"{name}, lost", []).append(1 - beside / ((quiet + after) / 2))
            quiet = after
        round = training.stop()
        print(f"pass {number + 1} of {args.passes}: " + ", ".join(f"{k} {v[-1]:.3g}" for k, v in found.items()))
    return found, equal


def main() -> int:
    args, goals = arguments(), []
    cluster.connect(config.Cluster(num_cpus=4))
    try:
        found, equal = measure(args, start(args))
    finally:
        cluster.disconnect()
    middle = {name: statistics.median(values) for name, values in found.items()}
    print(f"\n{args.prompts} prompts of {args.new_tokens} new tokens, model {args.model}, share {args.share:g}")
    print(f"{'':<32} {'alone, tokens/s':>16} {'beside training':>16} {'training loses':>15}")
    for name in (OURS, OLD, THEIRS, PACED):
        alone, beside, lost = (middle.get(f"{name}, {what}", float("nan")) for what in ("alone", "beside", "lost"))
        print(f"{name:<32} {alone:16,.0f} {beside:16,.0f} {lost:15.1%}")
    print()
    for what, theirs in (("alone", THEIRS), ("beside", PACED)):
        mine = middle[f"{OURS}, {what}"]
        goal(goals, f"times_full_forward_{what}", mine / middle[f"{OLD}, {what}"], "x", 5.0)
        goal(goals, f"times_generate_{what}", mine / middle[f"{theirs}, {what}"], "x", 1.5)
        goal(goals, f"first_token_{what}", middle[f"first token, {what}"], "s", None)
    goal(goals, "training_kept", 1 - middle[f"{OURS}, lost"], "of its rate", 0.9)
    taken = middle["share of processor time"]
    goal(goals, "processor_time_left_to_training", 1 - taken, "of the host's, beside the batch", 0.9)
    for what in ("alone", "beside"):
        times = middle[f"{OURS}, beside"] / middle[f"{THEIRS}, {what}"]
        goal(goals, f"beside_training_times_generate_{what}", times, "x", None, "which has no share")
    goal(goals, "equal_tokens", float(equal), "", 1.0)
    cpus = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    machine = f"{platform.machine()}, {cpus}, torch {torch.__version__}, {models.LLAMA_SIZES.get(args.model, '')}"
    print(json.dumps({"bench": "serving", "machine": machine, "goals": goals}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
