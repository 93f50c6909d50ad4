"""Benchmark of the consensus: one epoch from a Python call on one core, beside exact numpy in the same run.

Dense networks of validators x miners, Yuma 1, Yuma 3, and Yuma 3 with liquid alpha. Every size is checked to the last
bit against the numpy baseline before it is timed. The memory floor is the time to read weights and bonds and to write
bonds (6 bytes a pair) at the speed that this machine's memory shows in the same run.

    python jobs/bench/consensus.py [--quick] [--sizes 16x64,64x256]
    ray job submit --working-dir . -- python jobs/bench/consensus.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from consensus_numpy import numpy_epoch  # noqa: E402

from raytensor.consensus import DenseRows, EpochInput, epoch, epochs  # noqa: E402

# (validators, miners) -> ms: the goal, and a tenth of the quickest published Python implementation
SIZES = {
    (16, 64): (0.08, 0.05),
    (64, 256): (0.3, 0.15),
    (256, 1024): (4, 4),
    (256, 4096): (16, 11),
    (1024, 16384): (250, 380),
}
VERSIONS = {"yuma1": (False, False), "yuma3": (True, False), "yuma3 liquid": (True, True)}
LIQUID_GOAL = {(256, 4096): 60}
LARGE = ((256, 4096), (1024, 16384))
FLOOR_GOALS = {"yuma1": 15, "yuma3": 15, "yuma3 liquid": 50}
TWO_CORES = 1.7
FIRST_CALL = """
import sys, time; sys.path[:0] = [{root!r}, {here!r}]
begin = time.perf_counter()
from consensus import network
from raytensor.consensus import epoch
inputs = network(16, 64, True, True)
imported = time.perf_counter()
epoch(inputs)
print(time.perf_counter() - imported)
"""


def network(validators: int, miners: int, yuma3: bool, liquid_alpha: bool, seed: int = 1) -> EpochInput:
    """A network where every validator weighs every miner, with bonds from earlier epochs."""
    rng = np.random.default_rng(seed)
    n = validators + miners
    quality = rng.uniform(0.2, 1.0, (miners, 1))
    opinion = np.clip(quality + rng.normal(0, 0.1, (miners, validators)), 0.01, 1)
    weights = np.round(opinion / opinion.max(axis=0) * 65535).astype(np.uint16)
    bonds = rng.integers(0, 65536, (miners, validators), dtype=np.uint16)
    across, down = np.arange(validators, dtype=np.uint32), np.arange(validators, n, dtype=np.uint32)
    stake = np.zeros(n, np.uint64)
    stake[:validators] = rng.integers(10**12, 10**15, validators)
    return EpochInput(
        block=5_000_000,
        tempo=360,
        activity_cutoff=5000,
        last_update=np.full(n, 4_999_900, np.uint64),
        block_at_registration=np.full(n, 1_000_000, np.uint64),
        stake=stake,
        validator_permit=np.arange(n) < validators,
        weights=DenseRows.checked(n, across, down, weights),
        bonds=DenseRows.checked(n, across, down, bonds),
        max_validators=validators,
        emission=148_000_000_000,
        yuma3=yuma3,
        liquid_alpha=liquid_alpha,
        last_mechanism_step_block=4_999_640,
    )


def best_ms(call: Callable[[], object], budget_s: float, clock: Callable[[], float] = time.process_time) -> float:
    """The quickest of as many calls as fit the budget, at least 3. Processor time, which other work disturbs little."""
    times, end = [], time.perf_counter() + budget_s
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 2000):
        begin = clock()
        call()
        times.append(clock() - begin)
    return min(times) * 1e3


def floor_ns_per_pair() -> float:
    """Reading two u16 arrays and writing one, far larger than the caches."""
    pairs = 1 << 25
    a, b, out = np.ones(pairs, np.uint16), np.ones(pairs, np.uint16), np.zeros(pairs, np.uint16)
    return best_ms(lambda: np.add(a, b, out=out), 1.0) * 1e6 / pairs


def first_call_s() -> tuple[float, float]:
    """Seconds of the first epoch in a fresh process: compiling, and with the compiled code on disk."""
    here = str(Path(__file__).resolve().parent)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", FIRST_CALL.format(root=str(ROOT), here=here)]
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        run = lambda: subprocess.run(  # noqa: E731
            command, env=environment, capture_output=True, text=True, check=True, timeout=600
        )
        return float(run().stdout), float(run().stdout)


def measure(size: tuple[int, int], version: str, floor_ns: float, budget_s: float, goals: list[dict]) -> None:
    """Check one size and version against numpy, time both, print the row and add its goals."""
    inputs = network(*size, *VERSIONS[version])
    pairs = size[0] * size[1]
    result = epoch(inputs, threads=1)
    incentive, dividends, bonds = numpy_epoch(inputs)
    assert np.array_equal(result.raw.incentive[size[0] :], incentive.astype(np.int64)), "incentive differs from numpy"
    assert np.array_equal(result.raw.dividends[: size[0]], dividends.astype(np.int64)), "dividends differ from numpy"
    assert np.array_equal(result.bonds.values, bonds), "bonds differ from numpy"
    fast = best_ms(lambda: epoch(inputs, threads=1), budget_s)
    numpy_ms = best_ms(lambda: numpy_epoch(inputs), budget_s / 2)
    floor = floor_ns * pairs / 1e6
    name = f"{size[0]}x{size[1]} {version}"
    print(
        f"{name:<24} {fast:>9.3f} {numpy_ms:>10.2f} {numpy_ms / fast:>7.1f} {pairs * 6 / 1e6:>9.2f} "
        f"{fast * 1e6 / pairs:>8.2f} {fast / floor:>7.1f}",
        flush=True,
    )
    wanted, wish = SIZES[size]
    if version == "yuma3 liquid":
        wanted = LIQUID_GOAL.get(size)
    add = lambda what, value, unit, goal: goals.append(  # noqa: E731
        {"name": name + what, "value": value, "unit": unit, "goal": goal, "ok": None if goal is None else value <= goal}
    )
    add("", round(fast, 4), "ms", wanted)
    goals[-1]["numpy_ms"] = round(numpy_ms, 3)
    if version != "yuma3 liquid":
        add(", a tenth of the best peer", round(fast, 4), "ms", wish)
    if size in LARGE:
        add(", times the memory floor", round(fast / floor, 2), "x", FLOOR_GOALS[version])


def measure_two_cores(size: tuple[int, int], version: str, cores: set[int], budget_s: float, goals: list[dict]) -> None:
    """The time on the clock of one thread and of two, on two cores."""
    if len(cores) < 2:
        return
    os.sched_setaffinity(0, cores)
    inputs = network(*size, *VERSIONS[version])
    one, two = (best_ms(lambda n=n: epoch(inputs, threads=n), budget_s, time.perf_counter) for n in (1, 2))
    name, gain = f"{size[0]}x{size[1]} {version}, two cores", round(one / two, 2)
    print(f"{name:<32} {one:.2f} ms with one thread, {two:.2f} ms with two: {gain} times")
    goals.append({"name": name, "value": gain, "unit": "x", "goal": TWO_CORES, "ok": gain >= TWO_CORES})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter, and without the largest size")
    parser.add_argument("--sizes", help="validators x miners, separated by commas")
    args = parser.parse_args()
    sizes = list(SIZES)[:-1] if args.quick else list(SIZES)
    if args.sizes:
        sizes = [tuple(int(part) for part in size.split("x")) for size in args.sizes.split(",")]
    cores = set()
    if hasattr(os, "sched_setaffinity"):
        cores = set(sorted(os.sched_getaffinity(0))[-2:])
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core, for numpy too
    budget_s = 0.5 if args.quick else 3.0

    goals: list[dict] = []
    floor_ns = floor_ns_per_pair()
    print(f"memory floor: {floor_ns:.3f} ns a pair ({6 / floor_ns:.1f} GB/s), one core; ms are the best of many calls")
    names = f"{'ms':>9} {'numpy ms':>10} {'times':>7} {'MB moved':>9} {'ns/pair':>8} {'/ floor':>7}"
    print(f"{'validators x miners':<24} {names}")
    for size in sizes:
        for version in VERSIONS:
            measure(size, version, floor_ns, budget_s, goals)

    for size in sizes:
        if size in LARGE:
            for version in VERSIONS:
                measure_two_cores(size, version, cores, budget_s, goals)

    inputs = network(64, 256, True, False)
    begin = time.perf_counter()
    epochs(inputs, 1000, threads=1)
    elapsed = time.perf_counter() - begin
    print(f"1000 consecutive epochs of 64x256, Yuma 3: {elapsed:.2f} s")
    goals.append({"name": "1000 epochs of 64x256", "value": round(elapsed, 3), "unit": "s", "goal": None, "ok": None})
    compiling, loading = first_call_s()
    print(f"first call: {compiling:.1f} s with compilation, {loading:.2f} s with the compiled code on disk")
    goals.append({"name": "first call, compiling", "value": round(compiling, 2), "unit": "s", "goal": None, "ok": None})
    goals.append({"name": "first call, cached", "value": round(loading, 2), "unit": "s", "goal": None, "ok": None})
    machine = f"{platform.processor() or platform.machine()}, 1 core"
    print(json.dumps({"bench": "consensus", "machine": machine, "goals": goals}))


if __name__ == "__main__":
    main()
