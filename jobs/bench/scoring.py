"""Responses scored per second: the pool beside the serial loop of the field and beside the bare forward.

    python jobs/bench/scoring.py [--quick] [--items 160] [--scorers 2] [--rounds 3]
    python jobs/bench/scoring.py --device cuda --scorers 1 --hidden 768 --layers 12 --heads 12 --vocab 50257 \\
        --rows 32 --length 512 --items 400 --isolate no

All variants score the same items in one run:
(a) a serial loop: one miner after the other, one sequence per forward;
(b) the bare forward in a loop with the data in memory, in one process, and in as many processes as there are scorers;
(c) the pool with one scorer and with all; with one crashing item in twenty; with one hanging item in twenty.
Each round runs all of them, and medians over the rounds are shown, so that other load on the machine affects all alike.
Beside them stands the processor time per item of all processes that take part (driver, actors, their children), which
other load changes little. The scores of (b) and (c) must be equal to the bit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scoring_model import DIE, HANG, Scorer, Work

POISON_EVERY = 20
WAIT_S = 600.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 items, one round")
    parser.add_argument("--items", type=int, default=160)
    parser.add_argument("--scorers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--isolate", choices=["yes", "no"], help="score in a forked child; default: yes on a CPU")
    parser.add_argument("--pack", type=int, default=2, help="items per call at most")
    parser.add_argument("--hang-limit", type=float, default=2.0, help="seconds after which a hung item is given up")
    for name, value in Work().__dict__.items():
        if isinstance(value, int):
            parser.add_argument(f"--{name.replace('_size', '')}", type=int, default=value, dest=name)
    args = parser.parse_args()
    if args.quick:
        args.items, args.rounds = min(args.items, 40), 1
    return args


class Bench:
    """The actors, and the seconds that each variant took."""

    def __init__(self, args: argparse.Namespace) -> None:
        import ray

        from raytensor.pool import Packing, Pool

        self.ray, self.args = ray, args
        self.work = Work(**{name: getattr(args, name) for name in Work.__dataclass_fields__})
        self.items = [self.work.item(number) for number in range(args.items)]
        gpus = 1.0 if args.device == "cuda" else 0.0
        isolate = args.isolate == "yes" or (args.isolate is None and args.device == "cpu")
        scorer = ray.remote(num_cpus=0.1, num_gpus=gpus / 4)(Scorer)

        def factory():
            return scorer.remote(self.work, isolate, args.hang_limit)

        self.bare = [factory() for _ in range(args.scorers)]
        self.pools = {
            size: Pool(factory, "score_all", size, packing=Packing(max_items=args.pack), max_replacements=1000)
            for size in sorted({1, args.scorers})
        }
        self.cpu_s: dict[str, list[float]] = defaultdict(list)
        for pool in self.pools.values():  # every constructor has returned before anything is measured
            for number in range(4 * pool.size):
                pool.submit(str(number), self.items[0])
            list(pool.drain(WAIT_S))
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.scores: list[float] = []
        self.num_parameters = 0
        self.serial_gap = 0.0

    def run(self) -> None:
        ray, args, items = self.ray, self.args, self.items
        few = items[: max(4, len(items) // 8)]
        before = self._cpu([self.bare[0]])
        took, self.scores, self.num_parameters = ray.get(self.bare[0].tight.remote(items), timeout=WAIT_S)
        self.cpu_s["tight 1"].append(self._cpu([self.bare[0]]) - before)
        self.seconds["tight 1"].append(took)
        together = ray.get(
            [actor.tight.remote(items[n :: args.scorers]) for n, actor in enumerate(self.bare)], timeout=WAIT_S
        )
        self.seconds["tight all"].append(max(took for took, *_ in together))
        took, scores = ray.get(self.bare[0].serial.remote(few), timeout=WAIT_S)
        self.seconds["serial"].append(took * len(items) / len(few))
        self.serial_gap = max(self.serial_gap, *(abs(a - b) for a, b in zip(scores, self.scores)))
        for size in self.pools:
            actors = self.pools[size].actors
            before = self._cpu(actors)
            self.seconds[f"pool of {size}"].append(self._pool(size, items))
            self.cpu_s[f"pool of {size}"].append(self._cpu(actors) - before)
        for name, poison in (("pool with crashes", DIE), ("pool with hangs", HANG)):
            self.seconds[name].append(self._pool(args.scorers, items, poison=poison))

    def _cpu(self, actors: list) -> float:
        """Processor seconds so far of these actors, their children and this process (fields 14, 15 of
        /proc/PID/stat).
        """
        pids = [
            os.getpid(),
            *(pid for pids in self.ray.get([actor.pids.remote() for actor in actors], timeout=WAIT_S) for pid in pids),
        ]
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
        return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")

    def _pool(self, size: int, items: list, *, poison: str = "") -> float:
        pool = self.pools[size]
        started = time.perf_counter()
        num_bad = 0
        for number, item in enumerate(items):
            pool.submit(str(number), item)
            if poison and number % (POISON_EVERY - 1) == POISON_EVERY - 2:
                num_bad += 1
                pool.submit(f"bad {number}", poison)
        found = dict(pool.drain(WAIT_S))
        took = time.perf_counter() - started
        bad = [found.pop(key) for key in list(found) if key.startswith("bad")]
        assert len(bad) == num_bad and all(type(one).__name__ == "Failure" for one in bad), bad
        scores = [found[str(number)] for number in range(len(items))]
        assert scores == self.scores, "a score depends on how it was computed"
        return took


def main() -> None:
    args = arguments()
    from raytensor import cluster, config

    cluster.connect(config.Cluster(num_cpus=max(4, os.cpu_count() or 1)))
    try:
        bench = Bench(args)
        for _ in range(args.rounds):
            bench.run()
    finally:
        cluster.disconnect()

    took = {name: statistics.median(values) for name, values in bench.seconds.items()}
    number, size = len(bench.items), args.scorers
    print(
        f"\n{number} items of {bench.work.rows * bench.work.parts} x {bench.work.length} tokens, "
        f"{bench.num_parameters:,} parameters, {args.device}; {args.rounds} rounds; "
        f"{1000 * took['tight 1'] / number:.1f} ms an item"
    )
    print(f"{'':24}{'items/s':>10}{'min':>9}{'max':>9}{'cpu ms an item':>16}")
    for name, seconds in took.items():
        rates = [number / value for value in bench.seconds[name]]
        cpu = f"{1000 * statistics.median(bench.cpu_s[name]) / number:16.1f}" if name in bench.cpu_s else ""
        print(f"{name:24}{number / seconds:10.2f}{min(rates):9.2f}{max(rates):9.2f}{cpu}")
    print(f"largest gap between a score of one sequence a forward and the others: {bench.serial_gap:.2e} nats")

    def ratio(over: str, under: str) -> float:
        """Median over the rounds of took[over] / took[under]."""
        return statistics.median(a / b for a, b in zip(bench.seconds[over], bench.seconds[under]))

    on_gpu = args.device == "cuda"
    goals = []

    def goal(name: str, value: float, unit: str, least: float | None = None, most: float | None = None) -> None:
        ok = (least is None or value >= least) and (most is None or value <= most)
        goals.append(
            {"name": name, "value": round(value, 3), "unit": unit, "goal": least if most is None else most, "ok": ok}
        )

    goal(
        f"pool of {size} / bare forward in {size} processes",
        ratio("tight all", f"pool of {size}"),
        "x",
        least=0.9 if on_gpu else 0.8,
    )
    goal("pool of 1 / bare forward", ratio("tight 1", "pool of 1"), "x", least=0.9 if on_gpu else 0.8)
    by_cpu = statistics.median(a / b for a, b in zip(bench.cpu_s["tight 1"], bench.cpu_s["pool of 1"]))
    goal("pool of 1 / bare forward, by processor time", by_cpu, "x")
    if size > 1:
        goal(f"{size} scorers / one", ratio("pool of 1", f"pool of {size}"), "x", least=1.7 if size == 2 else None)
    goal(f"pool of {size} / serial loop", ratio("serial", f"pool of {size}"), "x", least=5.0 if on_gpu else None)
    goal(
        "loss to one crashing item in 20", 100 * (1 - 1 / ratio("pool with crashes", f"pool of {size}")), "%", most=10.0
    )
    goal(
        f"loss to one hanging item in 20, {args.hang_limit:g} s each",
        100 * (1 - 1 / ratio("pool with hangs", f"pool of {size}")),
        "%",
    )
    goal("responses scored", number / took[f"pool of {size}"], "items/s")
    if on_gpu:
        goal("uids scored", 3600 * number / took[f"pool of {size}"], "per GPU-hour")
    load, version = f"{os.getloadavg()[0]:.1f}", platform.python_version()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {load}, Python {version}"
    print()
    print(json.dumps({"bench": "scoring", "machine": machine, "goals": goals}))


if __name__ == "__main__":
    main()
