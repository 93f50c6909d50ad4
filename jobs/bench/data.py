"""Benchmark of the data engine: prepared folders beside one thread that tokenizes while the model trains.

The corpus is the standard library's documentation, `--copies` times, as JSON lines. The baseline is the stream of
`data.source`: one thread reads, tokenizes and packs. Both feed the same batches thread, and a training of the 1M model
of `raytensor train` measures how long its steps wait for it. Each sequence that the reader gives is read for the first
time, its hashes included; the files are in the page cache. Opening is measured on manifests whose shards do not exist.

    python jobs/bench/data.py [--quick]
    ray job submit --working-dir . -- python jobs/bench/data.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from raytensor import cluster, config
from raytensor.config import Data
from raytensor.config.train import TrainConfig, Training
from raytensor.data import prepare, shards
from raytensor.data.mixture import Mixture
from raytensor.data.pretrained import load
from raytensor.data.stdlib import stdlib_documents
from raytensor.training import batches, loop, models
from raytensor.training import engine as engines
from raytensor.training.ranks import alone
from raytensor.training.recipe import Recipe

FEEDS, WAITS = 20.0, 0.01
SHAPES = ((8, 128), (32, 1024))  # sequences x tokens of a step: the default of `raytensor train`, and a GPU's at 124M


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one copy and few steps; says that it runs, not how fast")
    parser.add_argument("--copies", type=int, default=8, help="copies of the standard library's documentation")
    parser.add_argument("--steps", type=int, default=200, help="training steps whose waits are measured")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement of a rate")
    parser.add_argument("--shards", type=int, nargs=2, default=(10, 10_000), help="of the manifests that are opened")
    found = parser.parse_args()
    if found.quick:
        found.copies, found.steps, found.seconds = 1, 20, 0.5
    return found


def write_corpus(folder: Path, copies: int) -> Data:
    """A file for each copy, so that the parts are read side by side."""
    folder.mkdir()
    documents = list(stdlib_documents())
    for copy in range(copies):
        lines = (json.dumps({"text": f"copy {copy}\n{text}"}) + "\n" for text in documents)
        (folder / f"{copy}.jsonl").write_text("".join(lines))
    return Data(source="json", files=str(folder), tokenizer="bpe", vocab_size=1024)


def rate(cfg: TrainConfig, coder: Any, seconds: float) -> float:
    """Tokens per second that the batches thread gives to a caller who does nothing else."""
    shape = cfg.training
    with batches.of(cfg, coder, alone()) as found:
        found.batch()
        began, count = time.perf_counter(), 0
        while (spent := time.perf_counter() - began) < seconds:
            found.batch()
            count += 1
    return count * shape.batch_size * shape.seq_len / spent


def waits(cfg: TrainConfig, coder: Any, steps: int) -> tuple[float, float]:
    """(share of the steps' time that waits for data, ms of a step) of a training on one thread."""
    spec = loop.spec_of(cfg, coder.vocab_size)
    recipe = Recipe.of(cfg.training, total_steps=steps)
    engine = engines.make(cfg.training.engine, models.build(spec), recipe)
    with batches.of(cfg, coder, alone()) as found:
        engine.train_steps([found.batch()], own_rows=True)  # the first step makes the optimizer's state
        before, began = found.waited_s, time.perf_counter()
        engine.train_steps((found.batch() for _ in range(steps)), own_rows=True)
        spent = time.perf_counter() - began
        return (found.waited_s - before) / spent, spent / steps * 1e3


def opening_ms(folder: Path, digest: str, num_shards: int) -> float:
    """Milliseconds to open a folder of which only the manifest is there."""
    folder.mkdir()
    names = (f"train-00000-{number:05d}.tokens" for number in range(num_shards))
    records = tuple(shards.Record(name, 10**7, 10**4, 4 * 10**7, 2 * 10**7, "00" * 16) for name in names)
    shards.Manifest(digest, 1024, 0, {}, records, ()).save(folder)
    cfg, times = Data(prepared=[str(folder)]), []
    for _ in range(3):
        began = time.perf_counter()
        Mixture(cfg, digest, seq_len=128, batch_size=8, seed=0)
        times.append(time.perf_counter() - began)
    return min(times) * 1e3


def measure(args: argparse.Namespace, root: Path, goals: list[dict[str, Any]]) -> None:
    source = write_corpus(root / "corpus", args.copies)
    folder, cache = root / "prepared", str(root / "cache")
    began = time.perf_counter()
    manifest = prepare.prepare(source, folder, cache, block_bytes=2**23, say=lambda line: print(f"  {line}"))
    seconds = time.perf_counter() - began
    num_tokens = sum(record.num_tokens for record in (*manifest.train, *manifest.heldout))
    coder = load(str(folder / shards.TOKENIZER))
    prepared = Data(prepared=[str(folder)], tokenizer=str(folder / shards.TOKENIZER))
    print(f"\n{num_tokens:,} tokens of a vocabulary of {coder.vocab_size} in {len(manifest.train)} train shards")

    def of(data: Data, rows: int, length: int) -> TrainConfig:
        found = TrainConfig(data=data, training=Training(batch_size=rows, seq_len=length))
        found.paths.cache = cache
        return found

    for rows, length in SHAPES:
        one = rate(of(source, rows, length), coder, args.seconds)
        # Fewer sequences than there are, so that each is new, and its hashes are compared.
        fits = manifest.train[0].num_tokens * len(manifest.train) * 0.9 / (rows * length)
        new = rate_of_new(of(prepared, rows, length), coder, min(int(fits), int(args.seconds * 2e7 / rows / length)))
        name = f"feeds_of_one_thread_{rows}x{length}"
        print(f"  {rows} x {length} tokens: one thread {one:,.0f} tokens/s, prepared {new:,.0f} tokens/s")
        goal(goals, name, new / one, "times", FEEDS, at_least=True)
        again = rate(of(prepared, rows, length), coder, args.seconds)
        goal(goals, f"{name}_in_all_passes", again / one, "times", None)
        if (rows, length) == SHAPES[0]:
            goal(goals, "prepare_of_one_thread", num_tokens / seconds / one, f"times, {os.cpu_count()} CPUs", None)
    for name, data in (("one thread", source), ("prepared", prepared)):
        share, step_ms = waits(of(data, *SHAPES[0]), coder, args.steps)
        about = f"of a step of {step_ms:.0f} ms"
        key = f"waits_{name.replace(' ', '_')}"
        goal(goals, key, share, about, WAITS if name == "prepared" else None, at_least=False)
    few, many = (opening_ms(root / f"of-{count}", manifest.tokenizer, count) for count in args.shards)
    goal(goals, "opening_few", few, f"ms, {args.shards[0]:,} shards", None)
    goal(goals, "opening_many", many, f"ms, {args.shards[1]:,} shards, none of them touched", 1000.0, at_least=False)


def rate_of_new(cfg: TrainConfig, coder: Any, count: int) -> float:
    """Tokens per second of the first `count` batches, from the moment the folder is open."""
    with batches.of(cfg, coder, alone()) as found:
        began = time.perf_counter()
        for _ in range(count):
            found.batch()
        spent = time.perf_counter() - began
    return count * cfg.training.batch_size * cfg.training.seq_len / spent


def goal(goals: list[dict[str, Any]], name: str, value: float, unit: str, bound: float | None, **how: bool) -> None:
    at_least = how.get("at_least", True)
    ok = None if bound is None else bool(value >= bound if at_least else value < bound)
    text = None if bound is None else f"{'>=' if at_least else '<'} {bound:g}"
    goals.append({"name": name, "value": round(value, 5), "unit": unit, "goal": text, "ok": ok})
    verdict = "" if ok is None else f"goal {text}: {'ok' if ok else 'MISSED'}"
    print(f"  {name:<36} {value:10.4f} {unit}  {verdict}", flush=True)


def main() -> int:
    args, goals = arguments(), []
    torch.set_num_threads(1)
    cluster.connect(replace(config.Cluster(), num_cpus=os.cpu_count()))
    try:
        with tempfile.TemporaryDirectory() as root:
            measure(args, Path(root), goals)
    finally:
        cluster.disconnect()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, numpy {np.__version__}"
    print(json.dumps({"bench": "data", "machine": machine, "goals": goals}))
    return 0 if all(one["ok"] is not False for one in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
