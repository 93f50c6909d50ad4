"""`raytensor run` computes what it did when these digests were recorded: evidence and weights, every bit.

    python test_digests.py EXPERIMENT SEED ROUNDS FOLDER [SETTING ...]    prints the digests of such a run

digests.json holds a sha256 for each round of each run, and the digest of a small training on the machine that recorded
them. Floating point differs between processors; where that training gives another digest, the comparison says nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from raytensor.training.models import ModelSpec, build

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).parent / "digests.json"
# What makes a run shorter and changes nothing of what it computes.
FAST = ["miners.checkpoint_every=0", "miners.heldout_rows=16", "miners.num_hosts=1", "chain.block_time_s=0.1"]


def digests(folder: Path) -> dict[str, str]:
    """{round: sha256 of the evidence and the weights of all validators} of a folder with evidence logs."""
    rounds: dict[int, hashlib._Hash] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if "evidence" in entry:
                number = entry["evidence"]["round"]
            elif "weights" in entry:
                number = entry["round"]
            else:
                continue
            text = path.name + json.dumps(entry, sort_keys=True)
            rounds.setdefault(number, hashlib.sha256()).update(text.encode())
    return {str(number): digest.hexdigest() for number, digest in sorted(rounds.items())}


def play(
    experiment: str, seed: int, rounds: int, runs: Path, *more: str, env: dict[str, str] | None = None
) -> dict[str, str]:
    """The digests of a run, played by the command that a user types. env: of its process, with a Ray of its own."""
    name = f"{experiment}-{seed}"
    settings = [f"experiment={experiment}", f"seed={seed}", f"rounds={rounds}", f"name={name}", f"paths.runs={runs}"]
    if env is None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        env |= {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "raytensor", "run", *settings, *more]
    done = subprocess.run(command, env=env, cwd=runs, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return digests(runs / name / "evidence")


@cache
def training_digest() -> str:
    """sha256 of a model of a run's size after a few steps on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = build(ModelSpec(hidden=128, layers=2, heads=4, vocab_size=1024, seq_len=32, seed=0))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        draw = np.random.Generator(np.random.Philox(0))
        for _ in range(4):
            tokens = torch.from_numpy(draw.integers(0, 1024, (16, 33)))
            logits = model(input_ids=tokens[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        parts = (parameter.detach().numpy().tobytes() for parameter in model.parameters())
        return hashlib.sha256(b"".join(parts)).hexdigest()
    finally:
        torch.set_num_threads(threads)


def recorded(name: str) -> dict[str, str]:
    """The digests of a run, {round: sha256}, where they can be compared."""
    known = json.loads(RECORDED.read_text())
    if training_digest() != known["training"]:
        pytest.skip("this machine's floating point is another than that of the machine that recorded the digests")
    return known["runs"][name]


def compare(experiment: str, seed: int, rounds: int, runs: Path, env: dict[str, str]) -> None:
    expected = recorded(f"{experiment}-{seed}")
    found = play(experiment, seed, rounds, runs, *FAST, env=env)
    assert found == {str(number): expected[str(number)] for number in range(1, rounds + 1)}


def test_the_first_round_of_collab_is_equal_to_the_bit(tmp_path, joining):
    """Four rounds of the query mechanism: test_run.py."""
    compare("collab", 0, 1, tmp_path, joining())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("experiment", ["default", "cheats", "collab"])
def test_four_rounds_are_equal_to_the_bit(experiment, seed, tmp_path, joining):
    compare(experiment, seed, 4, tmp_path, joining())


if __name__ == "__main__":
    experiment, seed, rounds, folder, *more = sys.argv[1:]
    print(json.dumps({f"{experiment}-{seed}": play(experiment, int(seed), int(rounds), Path(folder), *more)}))
