"""Benchmark of stacked miners: K small models in one host actor per core, beside K actors with one model each.

All are Ray actors with one torch thread that train the same rounds on the same text at the same time. For each size and
K: miners trained per second (one round of one miner counts 1), per GB of the actors' memory (proportional set size),
and the time to start them. As many separate actors run as memory allows; with fewer than K, their rate is taken for K.

    python jobs/bench/stacked.py                  K = 1, 8, 64 of 119k and 1M parameters (about 20 minutes on two cores)
    python jobs/bench/stacked.py --quick          K = 1 and 8 of 119k, a minute or two
    python jobs/bench/stacked.py --sizes 119k --counts 64 --sequences 8    other batches
    ray job submit --working-dir . -- python jobs/bench/stacked.py --address auto
On a machine with a GPU, K = 512 is measured there too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import ray  # noqa: E402
from network import pss_mib  # noqa: E402

from raytensor import cluster, config  # noqa: E402

# size -> (hidden, layers, heads, vocabulary): 119,104 and 1,006,976 parameters
SIZES = {"119k": (64, 2, 2, 288), "1M": (128, 5, 4, 256)}
ACTOR_MIB = 300  # of a separate actor, for the decision how many fit
CPU_GOAL, GPU_GOAL = 5.0, 30.0


@dataclass(frozen=True)
class Work:
    """One miner's training in a round."""

    size: str
    steps: int
    sequences: int
    length: int

    def batches(self, number: int, round: int) -> np.ndarray:
        vocab = SIZES[self.size][3]
        return (
            np.random.default_rng((number, round))
            .integers(0, vocab, (self.steps, self.sequences, self.length + 1))
            .astype(np.uint16)
        )

    def model(self, number: int) -> Any:
        from raytensor.miners.model import spec
        from raytensor.training import models

        hidden, layers, heads, vocab = SIZES[self.size]
        profile = config.MinerProfile(hidden=hidden, layers=layers, heads=heads)
        return models.build(spec(profile, vocab, self.length, number))


class Separate:
    """One miner in its own process."""

    def __init__(self, work: Work, number: int, device: str) -> None:
        import torch

        from raytensor.training.engine import PlainEngine

        torch.set_num_threads(1)
        self._work, self._number = work, number
        self._engine = PlainEngine(work.model(number), 3e-3, device=device, compile=False)

    def ready(self) -> int:
        return os.getpid()

    def train(self, round: int) -> list[float]:
        return [self._engine.train_steps(self._work.batches(self._number, round))]


class Stacked:
    """Many miners in one process."""

    def __init__(self, work: Work, numbers: list[int], device: str) -> None:
        import torch

        from raytensor.training.recipe import Recipe
        from raytensor.training.stacked import StackedEngine

        torch.set_num_threads(1)
        self._work, self._numbers = work, numbers
        self._engine = StackedEngine((work.model(n) for n in numbers), [Recipe()] * len(numbers), device=device)

    def ready(self) -> int:
        return os.getpid()

    def train(self, round: int) -> list[float]:
        losses = self._engine.train({place: self._work.batches(n, round) for place, n in enumerate(self._numbers)})
        return [float(losses[place].mean()) for place in range(len(self._numbers))]


def measure(actors: list[Any], rounds: int, started: float) -> dict[str, Any]:
    """Seconds until all are ready, seconds of a round (best of `rounds`, after a warm-up), MiB, losses of the last
    one.
    """
    pids = ray.get([actor.ready.remote() for actor in actors], timeout=1800)
    spawn_s = time.monotonic() - started
    times, losses = [], []
    for round in range(rounds + 1):
        begun = time.monotonic()
        losses = [
            loss for found in ray.get([actor.train.remote(round) for actor in actors], timeout=1800) for loss in found
        ]
        times.append(time.monotonic() - begun)
    memory = sum(map(pss_mib, pids))
    for actor in actors:
        ray.kill(actor)
    return {"spawn_s": spawn_s, "round_s": min(times[1:]), "mib": memory, "losses": losses}


def beside(work: Work, count: int, rounds: int, device: str) -> dict[str, Any]:
    """Figures of `count` miners, stacked and separate."""
    hosts = min(count, 1 if device == "cuda" else int(ray.cluster_resources()["CPU"]))
    share = {"num_cpus": 0.01, "num_gpus": 0.01 if device == "cuda" else 0}
    started = time.monotonic()
    numbers = [list(range(host, count, hosts)) for host in range(hosts)]
    stacked = measure(
        [ray.remote(Stacked).options(**share).remote(work, mine, device) for mine in numbers], rounds, started
    )
    free_mib = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    most = max(1, min(count, int(free_mib / (ACTOR_MIB if device == "cpu" else 3 * ACTOR_MIB))))
    started = time.monotonic()
    separate = measure(
        [ray.remote(Separate).options(**share).remote(work, n, device) for n in range(most)], rounds, started
    )
    order = [n for mine in numbers for n in mine]
    apart = [abs(stacked["losses"][order.index(n)] - separate["losses"][n]) for n in range(most)]
    rates = {"stacked": count / stacked["round_s"], "separate": most / separate["round_s"]}
    per_gb = {
        "stacked": rates["stacked"] / (stacked["mib"] / 1024),
        "separate": rates["separate"] / (separate["mib"] / 1024),
    }
    # Ten rounds from nothing: starting counts for all K.
    whole = {
        "stacked": stacked["spawn_s"] + 10 * stacked["round_s"],
        "separate": (separate["spawn_s"] + 10 * separate["round_s"]) * count / most,
    }
    return {
        "count": count,
        "most": most,
        "hosts": hosts,
        "rates": rates,
        "per_gb": per_gb,
        "whole": whole,
        "spawn": {"stacked": stacked["spawn_s"], "separate": separate["spawn_s"]},
        "mib": {"stacked": stacked["mib"], "separate": separate["mib"]},
        "apart": max(apart),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="K = 1 and 8 of 119k, few steps")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of a round")
    parser.add_argument(
        "--sequences", nargs="+", type=int, default=[2, 8], help="sequences of a step; the first decides the goals"
    )
    parser.add_argument("--length", type=int, default=32, help="tokens of a sequence")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that are timed; the best counts")
    parser.add_argument("--address", default=None, help="Ray cluster to join; a local one is started without it")
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.counts, args.sequences, args.rounds = ["119k"], [1, 8], [2], 2
    cluster.connect(config.Cluster(address=args.address))
    devices = ["cpu", *(["cuda"] if ray.cluster_resources().get("GPU") else [])]
    rows: list[dict[str, Any]] = []
    head = f"{'device':<7}{'size':<6}{'tokens':>7}{'K':>5}{'':>2}{'miners/s':>20}{'times':>7}"
    head += (
        f"{'miners/s per GB':>20}{'times':>7}{'start, s':>16}{'start + 10 rounds, s':>22}{'times':>7}{'loss apart':>12}"
    )
    print(f"a round is {args.steps} steps; stacked | separate\n{head}")
    for device in devices:
        for size in args.sizes:
            for sequences in args.sequences:
                for count in [*args.counts, *([512] if device == "cuda" else [])]:
                    work = Work(size, args.steps, sequences, args.length)
                    found = beside(work, count, args.rounds, device)
                    rows.append({"device": device, "size": size, "sequences": sequences, **found})
                    print(_line(work, device, found), flush=True)
    cluster.disconnect()
    print(json.dumps({"bench": "stacked", "machine": _machine(), "goals": _goals(rows, args)}))
    return 0


def _line(work: Work, device: str, f: dict[str, Any]) -> str:
    def pair(values: dict[str, float], digits: int) -> str:
        return f"{values['stacked']:.{digits}f} | {values['separate']:.{digits}f}"

    times = [
        f["rates"]["stacked"] / f["rates"]["separate"],
        f["per_gb"]["stacked"] / f["per_gb"]["separate"],
        f["whole"]["separate"] / f["whole"]["stacked"],
    ]
    note = "" if f["most"] == f["count"] else f"  (separate: {f['most']} at a time)"
    return (
        f"{device:<7}{work.size:<6}{work.sequences * work.length:>7}{f['count']:>5}  "
        f"{pair(f['rates'], 1):>20}{times[0]:>7.1f}{pair(f['per_gb'], 1):>20}{times[1]:>7.1f}"
        f"{pair(f['spawn'], 1):>16}{pair(f['whole'], 1):>22}{times[2]:>7.1f}{f['apart']:>12.1e}{note}"
    )


def _goals(rows: list[dict[str, Any]], args: argparse.Namespace) -> list[dict[str, Any]]:
    goals = []
    for row in rows:
        name = f"{row['device']}_{row['size']}_{row['sequences'] * args.length}tokens_K{row['count']}"
        judged = row["sequences"] == args.sequences[0] and (row["device"], row["size"], row["count"]) in (
            ("cpu", "119k", 64),
            ("cuda", "119k", 512),
        )
        goal = GPU_GOAL if row["device"] == "cuda" else CPU_GOAL
        figures = {
            "stacked_miners_per_s": (row["rates"]["stacked"], "miners/s", False),
            "separate_miners_per_s": (row["rates"]["separate"], "miners/s", False),
            "times_per_s": (row["rates"]["stacked"] / row["rates"]["separate"], "x", judged),
            "times_per_s_with_start": (row["whole"]["separate"] / row["whole"]["stacked"], "x", judged),
            "times_per_s_and_gb": (row["per_gb"]["stacked"] / row["per_gb"]["separate"], "x", judged),
            "stacked_mib": (row["mib"]["stacked"], "MiB", False),
            "separate_mib": (row["mib"]["separate"], "MiB", False),
        }
        for key, (value, unit, counts) in figures.items():
            goals.append(
                {
                    "name": f"{name}_{key}",
                    "value": value,
                    "unit": unit,
                    "goal": f">= {goal:g}" if counts else None,
                    "ok": value >= goal if counts else None,
                }
            )
    return goals


def _machine() -> dict[str, Any]:
    import torch

    return {
        "cpus": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    sys.exit(main())
