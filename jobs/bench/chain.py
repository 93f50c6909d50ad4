"""Benchmark of weight setting: the chain writer beside the usual loop and beside a pool of such loops, on one node.

Every hotkey is a validator on every subnet and sets a full row of weights on each. Four ways, one after the other:

    loop      one connection, one extrinsic a piece, each waited for (submit_extrinsic with wait_for_inclusion=True)
    pool      one such loop per hotkey, side by side, each in a process of its own
    writer    raytensor's ChainWriter, each hotkey signing: native batches
    delegate  the same with one key that is the hotkeys' proxy: batches of proxied calls

Counted are blocks from the head at the start to the last inclusion, seconds, and extrinsics; after each way the rows
are read back from the chain and compared with what was asked. Setting the network up, connecting and reading metadata
are not counted.

    python jobs/bench/chain.py                              20 hotkeys x 64 subnets, as the goal asks
    python jobs/bench/chain.py --hotkeys 4 --subnets 8      smaller
    ray job submit --working-dir . -- python jobs/bench/chain.py
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from chain_network import BANK, PALLET, TIMEOUT_S, hotkey, make_network  # noqa: E402

from raytensor.chain.rpc.client import ChainClient  # noqa: E402
from raytensor.chain.wallet import DevKey  # noqa: E402
from raytensor.chain.weights import resolve  # noqa: E402
from raytensor.chain.writer.policy import Policy  # noqa: E402
from raytensor.chain.writer.settings import WriterSettings  # noqa: E402
from raytensor.chain.writer.writer import ChainWriter  # noqa: E402
from raytensor.devnet.launch import EmbeddedChain  # noqa: E402
from raytensor.types import Fate, Weights  # noqa: E402

DELEGATE = DevKey("//bench//delegate")
FULL, GOAL = (20, 64), 50.0  # the size and the ratio that are asked for
LOOP_TIMEOUT_S = 6 * 3600.0


class Net:
    """What is set, and whether the chain has it."""

    def __init__(self, client: ChainClient, netuids: list[int], num_hotkeys: int) -> None:
        self.client, self.netuids, self.hotkeys = client, netuids, [hotkey(n).ss58 for n in range(num_hotkeys)]
        keys = [(netuid, address) for netuid in netuids for address in self.hotkeys]
        uids = client.query_many([(PALLET, "Uids", [netuid, address]) for netuid, address in keys])
        self.uids: dict[int, dict[str, int]] = {netuid: {} for netuid in netuids}
        for (netuid, address), uid in zip(keys, uids):
            self.uids[netuid][address] = uid

    def weights(self, way: int) -> list[Weights]:
        """One full row per hotkey and subnet, other rows for each way."""

        def value(netuid: int, me: int, other: int) -> float:
            return 1.0 + (7 * netuid + 13 * me + 29 * other + 31 * way) % 97

        return [
            Weights(netuid, address, {to: value(netuid, n, m) for m, to in enumerate(self.hotkeys)})
            for n, address in enumerate(self.hotkeys)
            for netuid in self.netuids
        ]

    def row(self, weights: Weights) -> list[tuple[int, int]]:
        found = resolve(weights.values.items(), self.uids[weights.netuid], netuid=weights.netuid)
        return list(zip(found.uids, found.values))

    def wrong(self, asked: list[Weights]) -> int:
        """How many rows of the chain are not what was asked."""
        keys = [(PALLET, "Weights", [w.netuid, self.uids[w.netuid][w.hotkey]]) for w in asked]
        stored = self.client.query_many(keys)
        return sum([tuple(pair) for pair in row or ()] != self.row(w) for w, row in zip(asked, stored))


def plain_loop(endpoint: str, jobs: list[tuple[str, list]], start: Barrier, ends: Queue) -> None:
    """Some hotkeys' rows the usual way; then puts (block of the last inclusion, extrinsics that did not succeed)."""
    from substrateinterface import Keypair, SubstrateInterface

    chain = SubstrateInterface(url=endpoint)
    chain.init_runtime()  # a loop that has been running for long has its metadata
    start.wait(TIMEOUT_S)  # connected
    start.wait(TIMEOUT_S)  # and now
    block = failed = 0
    for uri, rows in jobs:
        pair = Keypair.create_from_uri(uri)
        for netuid, row in rows:
            args = {"netuid": netuid, "dests": [u for u, _ in row], "weights": [w for _, w in row], "version_key": 0}
            extrinsic = chain.create_signed_extrinsic(chain.compose_call(PALLET, "set_weights", args), pair)
            receipt = chain.submit_extrinsic(extrinsic, wait_for_inclusion=True)
            failed += not receipt.is_success
            block = chain.get_block_number(receipt.block_hash)
    ends.put((block, failed))
    chain.close()


def by_loops(net: Net, endpoint: str, asked: list[Weights], workers: int) -> Callable[[], tuple[int, int, int]]:
    """Starts loops that wait for the word; what is returned gives it: (last block, extrinsics, failed)."""
    jobs = [
        (hotkey(n).uri, [(w.netuid, net.row(w)) for w in asked if w.hotkey == address])
        for n, address in enumerate(net.hotkeys)
    ]
    spawn = multiprocessing.get_context("spawn")
    start, ends = spawn.Barrier(workers + 1), spawn.Queue()
    loops = [
        spawn.Process(target=plain_loop, args=(endpoint, jobs[n::workers], start, ends), daemon=True)
        for n in range(workers)
    ]
    for loop in loops:
        loop.start()

    def go() -> tuple[int, int, int]:
        start.wait(TIMEOUT_S)
        found = [ends.get(timeout=LOOP_TIMEOUT_S) for _ in loops]
        return max(block for block, _ in found), len(asked), sum(failed for _, failed in found)

    start.wait(TIMEOUT_S)
    return go


def by_writer(writer: ChainWriter, asked: list[Weights]) -> tuple[int, int, int]:
    """(last block, extrinsics, failed)."""
    before = writer.counters()["submitted"]
    receipts = writer.set_weights(asked)
    failed = [receipt for receipt in receipts if receipt.fate is not Fate.INCLUDED]
    if failed:
        print(f"  the first of {len(failed)} that failed: {failed[0]}", file=sys.stderr)
    return max((r.block or 0) for r in receipts), writer.counters()["submitted"] - before, len(failed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hotkeys", type=int, default=FULL[0])
    parser.add_argument("--subnets", type=int, default=FULL[1])
    parser.add_argument("--block-time", type=float, default=0.25, help="seconds (default 0.25; the real chain has 12)")
    parser.add_argument("--tempo", type=int, default=20)
    args = parser.parse_args()
    if not 1 <= args.hotkeys <= 60 or not 1 <= args.subnets <= 120:
        parser.error("1 to 60 hotkeys, 1 to 120 subnets")
    return args


def make_writers(endpoint: str, folder: Path, num_hotkeys: int) -> tuple[ChainWriter, ChainWriter]:
    """The writer whose hotkeys sign, and the one with a delegate."""
    signers = {hotkey(n).ss58: hotkey(n) for n in range(num_hotkeys)}
    # The four ways use the same keys, one after the other: what a real writer refuses.
    options = {"timeout_s": 60.0, "inclusion_timeout_s": TIMEOUT_S, "stop_on_foreign": False}
    settings = WriterSettings(**options, policy=Policy(transfers=True, proxies=True))
    writer = ChainWriter(endpoint, signers | {BANK.ss58: BANK}, folder / "writer.db", settings)
    journal = folder / "delegate" / "writer.db"
    return writer, ChainWriter(endpoint, signers, journal, WriterSettings(**options), delegate=DELEGATE)


def measure(
    net: Net, name: str, asked: list[Weights], act: Callable[[list[Weights]], Callable[[], tuple[int, int, int]]]
) -> tuple[int, list[dict]]:
    """(blocks, goals) of one way; prints its row."""
    go = act(asked)
    head, begin = net.client.head().number, time.monotonic()
    last, extrinsics, failed = go()
    took = time.monotonic() - begin
    for loop in multiprocessing.active_children():
        loop.join(TIMEOUT_S)
    wrong, blocks = net.wrong(asked), max(1, last - head)
    print(f"{name:<10}{blocks:>8}{took:>10.1f}{extrinsics:>12}{failed:>8}{wrong:>12}", flush=True)
    figures = (("blocks", blocks, "blocks"), ("seconds", round(took, 2), "s"), ("extrinsics", extrinsics, ""))
    ok = failed + wrong == 0
    return blocks, [
        {"name": f"{name}: {what}", "value": value, "unit": unit, "goal": None, "ok": ok}
        for what, value, unit in figures
    ]


def ratios(blocks: dict[str, int], full: bool) -> list[dict]:
    """How many times fewer blocks the writers need; prints a line each."""
    goals = []
    for name in ("writer", "delegate"):
        for other in ("loop", "pool"):
            times = blocks[other] / blocks[name]
            goal = GOAL if full and other == "loop" else None
            what = f"{name}: times fewer blocks than the {other}"
            print(f"{what}: {times:.1f}" + (f" (goal {goal:g})" if goal else ""))
            ok = goal is None or times >= goal
            goals.append({"name": what, "value": round(times, 1), "unit": "x", "goal": goal, "ok": ok})
    return goals


def main() -> int:
    args = parse()
    # The loops use the writers' keys on purpose: each of their extrinsics would be logged as foreign.
    logging.getLogger("raytensor").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="raytensor-bench-"))
    chain = EmbeddedChain(folder / "state", args.block_time, folder / "log")
    writer, delegate = make_writers(chain.endpoint, folder, args.hotkeys)
    client = ChainClient(chain.endpoint, 60.0)
    try:
        started = time.monotonic()
        netuids = make_network(client, writer, args.hotkeys, args.subnets, args.tempo, delegate=DELEGATE)
        net = Net(client, netuids, args.hotkeys)
        print(
            f"{args.hotkeys} hotkeys x {args.subnets} subnets = {args.hotkeys * args.subnets} weight settings, "
            f"{args.block_time:g} s blocks; set up in {time.monotonic() - started:.0f} s",
            flush=True,
        )
        ways: dict[str, Callable[[list[Weights]], Callable[[], tuple[int, int, int]]]] = {
            "loop": lambda asked: by_loops(net, chain.endpoint, asked, 1),
            "pool": lambda asked: by_loops(net, chain.endpoint, asked, args.hotkeys),
            "writer": lambda asked: lambda: by_writer(writer, asked),
            "delegate": lambda asked: lambda: by_writer(delegate, asked),
        }
        print(f"\n{'':<10}{'blocks':>8}{'seconds':>10}{'extrinsics':>12}{'failed':>8}{'wrong rows':>12}")
        goals, blocks = [], {}
        for number, (name, act) in enumerate(ways.items()):
            blocks[name], figures = measure(net, name, net.weights(number), act)
            goals += figures
    finally:
        for one in (client, writer, delegate, chain):
            one.close()
    print()
    goals += ratios(blocks, (args.hotkeys, args.subnets) == FULL)
    python = platform.python_version()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {python}"
    print(json.dumps({"bench": "chain", "machine": machine, "goals": goals}))
    return 0 if all(goal["ok"] for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
