"""Benchmark of the embedded chain: start, transfers, epochs, metagraphs, memory, answers under load.

Start and sustained extrinsics are measured on a node of its own, through its websocket; the rest in this process, so
that nothing but the chain's work is counted (processor seconds of one core), metagraphs with the client's part too. In
the end the same network is served by `raytensor devnet` from its state folder, with blocks every 0.25 s, transfers and
metagraph readers, and system_health is asked all the time.

    python jobs/bench/devnet.py                                    as the goals ask: 64 subnets of 256, one of 4096
    python jobs/bench/devnet.py --subnets 4 --large 512 --transfers 200     smaller
    ray job submit --working-dir . -- python jobs/bench/devnet.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from devnet_extrinsics import RAO, start_up, submit_and_seal, sustained  # noqa: E402
from devnet_load import answers_under_load, resident_mb  # noqa: E402
from devnet_network import Network, Served, by_api, by_storage, one_block  # noqa: E402
from substrateinterface import SubstrateInterface  # noqa: E402

VALIDATORS = 64
QUICK = {"transfers": 200, "subnets": 4, "neurons": 64, "large": 256, "times": 2, "seconds": 5}


def median_s(function: Callable[[], object], times: int, clock: Callable[[], float] = time.process_time) -> float:
    took = []
    for _ in range(times):
        before = clock()
        function()
        took.append(clock() - before)
    return statistics.median(took)


class Table:
    """Prints a row per figure and keeps it as a goal."""

    def __init__(self) -> None:
        self.goals: list[dict] = []

    def row(self, name: str, value: float, unit: str, goal: float | None = None, *, least: bool = False) -> None:
        ok = None if goal is None else (value >= goal if least else value <= goal)
        self.goals.append({"name": name, "value": round(value, 3), "unit": unit, "goal": goal, "ok": ok})
        want = "" if goal is None else f"{'at least' if least else 'at most'} {goal:g}: {'ok' if ok else 'MISSED'}"
        print(f"{name:<58}{value:>12.3f} {unit:<18}{want}", flush=True)


def measure_extrinsics(table: Table, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        took, busy = start_up(Path(folder), options.times)
        table.row("start until it serves", took, "s", 1.5)
        table.row("start until it serves, of its processor", busy, "CPU s", 1)
        seconds = statistics.median(submit_and_seal(options.transfers) for _ in range(options.times))
        table.row(f"{options.transfers} transfers submitted and sealed", seconds, "CPU s")
        rate = options.transfers / seconds
        table.row("transfers submitted and sealed", rate, "a CPU second", 2_000, least=True)
        rate = sustained(Path(folder), 5 * options.transfers)
        table.row("transfers at 0.25 s blocks, over a websocket", rate, "a second")


def measure_network(table: Table, options: argparse.Namespace, network: Network) -> tuple[list[int], list[int]]:
    """Epochs, memory and metagraphs. Returns all netuids, and those whose metagraphs are read."""
    validators = min(VALIDATORS, options.neurons // 4)
    netuids = [network.subnet(options.neurons, validators) for _ in range(options.subnets)]
    shape = f"{options.neurons} x {validators}"
    took = median_s(lambda: network.module.run_epoch(netuids[0], RAO), options.times)
    table.row(f"epoch of {shape}", took * 1000, "CPU ms", 20)
    took = median_s(lambda: one_block(network, netuids[0]), options.times)
    table.row(f"blocks with an epoch of {shape} each", 1 / took, "a CPU second")
    table.row(f"resident, {options.subnets} subnets of {options.neurons}", resident_mb(), "MB", 1024)
    sizes = [(netuids[0], options.neurons)]
    if options.large:
        sizes.append((network.subnet(options.large, min(VALIDATORS, options.large // 4)), options.large))
    served = Served(network.chain)
    with SubstrateInterface(url=served.endpoint) as client:
        client.init_runtime()
        for netuid, neurons in sizes:
            took = median_s(partial(by_storage, client, netuid, neurons), options.times, time.monotonic)
            table.row(f"metagraph of {neurons}, storage by substrate-interface", took, "s")
            took = median_s(partial(by_api, served.endpoint, netuid), options.times, time.monotonic)
            table.row(f"metagraph of {neurons}, one runtime API call", took, "s")
    return netuids, [netuid for netuid, _ in sizes]


def measure_load(table: Table, seconds: float, network: Network, folder: Path, netuids: list, read: list) -> None:
    for netuid in netuids:  # the usual epochs again
        network.admin("tempo", netuid, 360)
    network.block()
    network.chain.disk.close()
    said = answers_under_load(folder / "state", folder / "log", read, seconds)
    table.row("restart of all that until it serves", said["start"], "s")
    table.row("worst answer to system_health meanwhile", said["worst"] * 1000, "ms", 250)
    table.row("median answer to system_health meanwhile", said["median"] * 1000, "ms")
    table.row(f"blocks in those {seconds:g} s of 0.25 s each", said["blocks"], "")
    table.row("resident, that node", said["resident"], "MB", 1024)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transfers", type=int, default=1_000)
    parser.add_argument("--subnets", type=int, default=64)
    parser.add_argument("--neurons", type=int, default=256)
    parser.add_argument("--large", type=int, default=4_096, help="neurons of the one large subnet; 0 leaves it out")
    parser.add_argument("--times", type=int, default=5, help="repetitions of what takes a median")
    parser.add_argument("--seconds", type=float, default=60, help="of answers under load; 0 leaves them out")
    parser.add_argument("--quick", action="store_true", help="4 subnets of 64, one of 256, 200 transfers, 5 seconds")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    return options


def main() -> None:
    options, table = parse(), Table()
    measure_extrinsics(table, options)
    with tempfile.TemporaryDirectory() as kept:
        network = Network(Path(kept) / "state")
        netuids, read = measure_network(table, options, network)
        if options.seconds:
            measure_load(table, options.seconds, network, Path(kept), netuids, read)
    load = os.getloadavg()[0]
    table.row("load of the machine at the end", load, f"of {os.cpu_count()} cores")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table.row("peak resident, with the clients", peak, "MB")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}"
    print(json.dumps({"bench": "devnet", "machine": machine, "goals": table.goals}))


if __name__ == "__main__":
    main()
