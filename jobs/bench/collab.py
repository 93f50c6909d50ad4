"""Collaborative training: does the shared model learn, is work paid and cheating not, what goes over the wire.

    python jobs/bench/collab.py [--quick] [--only bytes loss pay robust elastic] [--crews 2]

Bytes of Python's own documentation, a Llama of about 117,000 parameters (two layers of 64), sequences of 64 bytes. All
parts train the same model from the same start on the same machine:

  bytes    payloads as they are sent, beside float32
  loss     four workers of 600 steps of 16 sequences: data parallel (600 steps of 64), alone, and collaborative
  pay      40 windows: ten miners that work, cheat or break; and again without the copier
  robust   three byzantine miners beside seven, and those seven alone
  elastic  one of four miners is killed and two join; and the four undisturbed
The full run takes about half an hour of two free cores; --quick a few minutes, with goals that are not meant to hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from collab_play import Play, heldout_rows

from raytensor.config import Data
from raytensor.data.text import Text, prepare
from raytensor.mechanisms.collab.codec import Codec
from raytensor.training.delta_evaluator import DeltaEvaluator
from raytensor.training.engine import PlainEngine
from raytensor.training.models import ModelSpec, build
from raytensor.training.recipe import Recipe

PARTS = ("bytes", "loss", "pay", "robust", "elastic")
SHAPE = {"hidden": 64, "layers": 2, "heads": 2, "seq_len": 64, "inner_steps": 10, "batch_size": 16, "judge_rows": 64}
SPEC = {"hidden": 64, "layers": 2, "heads": 2, "seq_len": 64, "vocab_size": 256, "seed": 0}
FIELD = {
    "honest0": "honest",
    "honest1": "honest",
    "honest2": "honest",
    "honest3": "honest",
    "lazy": "lazy",
    "copy": "copy",
    "wrong": "wrong_data",
    "noise": "random",
    "flip": "sign_flip",
    "zero": "constant",
    "stale": "stale",
}


class Report:
    def __init__(self) -> None:
        self.goals: list[dict] = []

    def goal(self, name: str, value: float, unit: str, goal: float, *, least: bool = False) -> None:
        ok = value >= goal if least else value <= goal
        self.goals.append({"name": name, "value": round(value, 5), "unit": unit, "goal": goal, "ok": bool(ok)})
        asked, verdict = "at least" if least else "at most", "ok" if ok else "MISSED"
        print(f"  {name:<58} {value:>10.4g} {unit:<12} {asked} {goal:g}: {verdict}", flush=True)


def recipe(steps: int) -> Recipe:
    return Recipe(lr=3e-3, schedule="cosine", total_steps=steps)


def plain(words: Text, steps: int, rows: int, seed: int) -> float:
    """Held-out loss of AdamW on `rows` random sequences a step."""
    engine = PlainEngine(build(ModelSpec(**SPEC)), **vars(recipe(steps)))
    draw, width = np.random.default_rng(seed), SPEC["seq_len"] + 1
    for _ in range(steps):
        starts = draw.integers(0, len(words.train) - width, rows)
        engine.train_steps([words.train[starts[:, None] + np.arange(width)]])
    return DeltaEvaluator(engine.model).loss(heldout_rows(words, SPEC["seq_len"], 768))


def play(words: Text, roles: dict[str, str], steps: int, crews: int, **rule: object) -> Play:
    return Play(Path(tempfile.mkdtemp(prefix="collab-")), roles, words, recipe(steps), crews=crews, **(SHAPE | rule))


def bytes_part(report: Report) -> None:
    size = sum(p.numel() for p in build(ModelSpec(**SPEC)).parameters())
    vector = (np.random.default_rng(0).standard_normal(size) * 1e-3).astype(np.float32)
    for k, goal in ((512, 17), (64, 130)):
        report.goal(
            f"float32 / payload at k={k}, {size} values",
            4 * size / len(Codec(k).encode(vector)),
            "times",
            goal,
            least=True,
        )


def loss_part(report: Report, words: Text, steps: int, crews: int) -> None:
    data_parallel = plain(words, steps, 64, 1)
    alone = plain(words, steps, 16, 2)
    for name, rule in (
        ("512 of 4096 at 2 bits", {"k": 512, "outer_lr": 1.5}),
        ("uncompressed, Nesterov 0.7/0.5", {"k": 0, "outer_lr": 0.7, "outer_momentum": 0.5}),
    ):
        running = play(words, {f"worker{n}": "honest" for n in range(4)}, steps, crews, **rule)
        for _ in range(steps // 10):
            running.window()
        together = running.heldout_loss()
        running.close()
        print(
            f"  {name}: together {together:.4f}, data parallel {data_parallel:.4f}, alone {alone:.4f} nats/byte",
            flush=True,
        )
        compressed = rule["k"] > 0
        report.goal(f"{name}: above data parallel", 100 * (together / data_parallel - 1), "%", 8 if compressed else 7)
        report.goal(
            f"{name}: of the gap recovered",
            100 * (alone - together) / (alone - data_parallel),
            "%",
            35 if compressed else 40,
            least=True,
        )


def pay_part(report: Report, words: Text, windows: int, crews: int) -> None:
    paid = {}
    for name, roles in (("with", FIELD), ("without", {h: b for h, b in FIELD.items() if b != "copy"})):
        running = play(words, roles, windows * 10, crews)
        for _ in range(windows):
            running.window(victim="honest0")
        paid[name] = running.mechanism.weights(running.state)
        running.close()
        print(f"  {name} the copier: " + ", ".join(f"{h} {paid[name].get(h, 0.0):.4f}" for h in roles), flush=True)
    shares = paid["with"]
    honest = [shares[h] for h in FIELD if FIELD[h] == "honest"]
    report.goal("least honest / lazy", min(honest) / max(shares["lazy"], 1e-12), "times", 5, least=True)
    for hotkey, behaviour in FIELD.items():
        if behaviour not in ("honest", "lazy"):
            report.goal(f"share of {behaviour}", 100 * shares.get(hotkey, 0.0), "%", 1)
    loss = 1 - shares["honest0"] / paid["without"]["honest0"]
    report.goal("what the victim of the copier loses", 100 * loss, "%", 5)


def robust_part(report: Report, words: Text, windows: int, crews: int) -> None:
    honest = {f"honest{n}": "honest" for n in range(7)}
    losses = {}
    for name, roles in (
        ("honest only", honest),
        ("with three", honest | {"flip": "sign_flip", "huge": "huge", "nan": "nan"}),
    ):
        running = play(words, roles, windows * 10, crews)
        curve = [running.heldout_loss()]
        for _ in range(windows):
            running.window()
            curve.append(running.heldout_loss())
        losses[name] = curve
        running.close()
        print(f"  {name}: {curve[0]:.4f} -> {curve[-1]:.4f} nats/byte", flush=True)
    report.goal(
        "three byzantine of ten: final loss above",
        100 * (losses["with three"][-1] / losses["honest only"][-1] - 1),
        "%",
        3,
    )
    rises = np.diff(losses["with three"]) / losses["with three"][:-1]
    report.goal("largest rise of the loss in one window", 100 * float(rises.max()), "%", 5)


def elastic_part(report: Report, words: Text, windows: int, crews: int) -> None:
    four, losses = {f"m{n}": "honest" for n in range(4)}, {}
    for name in ("undisturbed", "killed and joined"):
        running = play(words, four, windows * 10, crews)
        for number in range(windows):
            if name != "undisturbed" and number == windows // 4:
                running.leave("m3")
            if name != "undisturbed" and number == windows // 2:
                running.join("m4", "honest")
                running.join("m5", "honest")
            running.window()
        losses[name] = running.heldout_loss()
        running.close()
    print(f"  {losses}", flush=True)
    report.goal(
        "one killed, two joined: final loss above",
        100 * (losses["killed and joined"] / losses["undisturbed"] - 1),
        "%",
        3,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a sixth of the windows")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument("--crews", type=int, default=2, help="Ray actors that the miners are spread over")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(address="local", num_cpus=args.crews, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    words = prepare(Data(tokenizer="bytes"), Path("~/.cache/raytensor").expanduser())
    windows, steps = (8, 100) if args.quick else (40, 600)
    report, started = Report(), time.monotonic()
    for part in args.only:
        print(f"{part}:", flush=True)
        if part == "bytes":
            bytes_part(report)
        elif part == "loss":
            loss_part(report, words, steps, args.crews)
        else:
            {"pay": pay_part, "robust": robust_part, "elastic": elastic_part}[part](report, words, windows, args.crews)
    machine = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    machine |= {
        "load": round(os.getloadavg()[0], 1),
        "wall_s": round(time.monotonic() - started, 1),
        "quick": args.quick,
    }
    print(json.dumps({"bench": "collab", "machine": machine, "goals": report.goals}))
    ray.shutdown()


if __name__ == "__main__":
    main()
