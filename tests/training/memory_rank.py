"""One rank that trains and answers, and prints its peaks of resident memory: `memory_rank.py RANK RANKS PORT CASES`.

Started with an allocator that returns freed memory at once, so that resident memory is what lives.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import numpy as np
import torch

from raytensor.training import engine, models, ranks
from raytensor.training.models import ModelSpec
from raytensor.training.ranks import Ranks
from raytensor.training.recipe import Recipe

SMALL = ModelSpec(hidden=32, layers=2, heads=2, vocab_size=64, seq_len=16)


def resident(key: str) -> int:
    """Bytes: VmRSS now, VmHWM the peak since `forget`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peaks(spec: ModelSpec, recipe: Recipe, group: Ranks, strategy: str, rows: int) -> tuple[int, int]:
    """Bytes at the peak of a step beside a snapshot, and of an answer."""
    made = engine.make(strategy, models.build(spec), recipe, group)
    batches = np.random.default_rng(0).integers(0, 64, (2, rows, spec.seq_len + 1))
    made.train_steps(batches[:1])
    snapshot = made.snapshot()
    forget()
    made.train_steps(batches[1:])
    step = resident("VmHWM")
    del snapshot
    forget()
    asked = 128 * group.size
    made.log_probs(np.zeros((asked, spec.seq_len), np.int32), np.full(asked, spec.seq_len, np.int32))
    return step, resident("VmHWM")


def main(rank: int, size: int, port: int, cases: list[dict]) -> None:
    torch.set_num_threads(1)
    group = ranks.join(rank, size, ("127.0.0.1", port)) if size > 1 else ranks.alone()
    for case in cases:
        recipe = Recipe(**case["recipe"])
        peaks(SMALL, recipe, group, case["strategy"], 2 * size * recipe.accumulate)  # what is loaded on the first use
        gc.collect()
        before = resident("VmRSS")
        found = peaks(ModelSpec(**case["spec"]), recipe, group, case["strategy"], case["rows"])
        gc.collect()
        print(json.dumps([peak - before for peak in found]), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
