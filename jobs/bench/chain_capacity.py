"""Benchmark of full blocks: weight settings and commits in a block beside the limit that the chain's block weight sets.

The node makes blocks only on request: the writer's extrinsics are in the pool before the first block is made, so that a
block has what its weight admits and no more. The limit is the chain's own: the normal class's max_total of
System.BlockWeights over the ref_time of one item of a native batch (TransactionPaymentApi_query_info). Beside it, on a
few settings: the usual loop, which waits for each extrinsic, and a pool of such loops; their blocks are made as soon as
each loop has an extrinsic in the pool. Subnets, neurons and stake are made in this process, not by extrinsics.

    python jobs/bench/chain_capacity.py                            64 hotkeys x 80 subnets: a full block of commits
    python jobs/bench/chain_capacity.py --hotkeys 8 --subnets 16   a full block of settings; commits never fill one
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from chain import Net, by_loops  # noqa: E402
from chain_network import PALLET, TIMEOUT_S, hotkey, sudo  # noqa: E402
from devnet_network import Network  # noqa: E402

from raytensor.chain.calls import Call  # noqa: E402
from raytensor.chain.rpc.client import ChainClient  # noqa: E402
from raytensor.chain.writer.limits import Meter, read_limits  # noqa: E402
from raytensor.chain.writer.settings import WriterSettings  # noqa: E402
from raytensor.chain.writer.writer import ChainWriter  # noqa: E402
from raytensor.devnet.launch import EmbeddedChain  # noqa: E402
from raytensor.types import Fate, Weights  # noqa: E402

GOAL = 0.9
SETTERS, SET_SUBNETS, LOOPS = 8, 16, 4  # hotkeys and subnets with plain weights; loops of the pool
BLOCK_S = 12.0  # of the real chain


class Validators(Network):
    """Subnets with the same hotkeys: those that the writer has the keys of."""

    @staticmethod
    def hotkey(netuid: int, uid: int) -> bytes:
        return hotkey(uid).open().public_key


def make_chain(folder: Path, hotkeys: int, subnets: int) -> list[int]:
    network = Validators(folder)
    netuids = [network.subnet(hotkeys, hotkeys - 1) for _ in range(subnets)]
    for netuid in netuids:
        network.do("add_stake", network.hotkey(netuid, hotkeys - 1), netuid, 10**9)
        network.module.run_epoch(netuid, 10**9)
    network.block()
    network.chain.disk.close()
    return netuids


@contextmanager
def blocks_for(endpoint: str, count: int) -> Iterator[None]:
    """A block as soon as the pool has so many extrinsics, or some and no new one for a second."""
    stop, client = threading.Event(), ChainClient(endpoint, 60.0)

    def make() -> None:
        seen, since = 0, time.monotonic()
        while not stop.wait(0.02):
            now = len(client.rpc("author_pendingExtrinsics"))
            since = time.monotonic() if now != seen else since
            seen = now
            if now >= count or (now and time.monotonic() - since > 1.0):
                client.rpc("dev_newBlock")

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(TIMEOUT_S)
        client.close()


@dataclass
class Filled:
    """What a writer put into blocks. prepared_s: until all its extrinsics were in the pool."""

    limit: int
    blocks: Counter[int]
    prepared_s: float

    @property
    def fullest(self) -> int:
        return max(self.blocks.values())

    def goals(self, what: str) -> list[dict]:
        share, enough = self.fullest / self.limit, self.blocks.total() >= self.limit
        print(
            f"{what}: {list(self.blocks.values())} in the blocks, limit {self.limit}, fullest {share:.2f} of it; "
            f"in the pool after {self.prepared_s:.1f} s",
            flush=True,
        )
        return [
            figure(f"{what}: limit of the block weight", self.limit),
            figure(f"{what}: in the fullest block", self.fullest),
            figure(f"{what}: share of the limit", round(share, 3), GOAL if enough else None, share >= GOAL),
            figure(f"{what}: seconds until all are in the pool", round(self.prepared_s, 1)),
        ]


def figure(name: str, value: float, wanted: float | None = None, reached: bool = True) -> dict:
    return {"name": name, "value": value, "unit": "", "goal": wanted, "ok": reached or wanted is None}


def fill(client: ChainClient, writer: ChainWriter, asked: list[Weights], batch: Call, fate: Fate) -> Filled:
    """Let the writer send everything, then make blocks until it has all receipts. batch: a native one of two items."""
    per_class = client.constant("System", "BlockWeights")["per_class"]["normal"]
    item = Meter(client, hotkey(0).open().public_key).per_item(batch)
    limits, signers = read_limits(client), {w.hotkey for w in asked}
    each = min(limits.max_items, limits.max_ref_time // item)
    extrinsics = len(signers) * -(-(len(asked) // len(signers)) // each)
    receipts, began = [], time.monotonic()
    setting = threading.Thread(target=lambda: receipts.extend(writer.set_weights(asked)), daemon=True)
    setting.start()
    until("extrinsics in the pool", lambda: writer.state()["open_extrinsics"] >= extrinsics)
    prepared_s = time.monotonic() - began
    while setting.is_alive():
        client.rpc("dev_newBlock")
        number = client.head().number
        until("block read", lambda number=number: writer.state()["block"] >= number or not setting.is_alive())
        setting.join(0.1)  # its receipts are on their way
    bad = [receipt for receipt in receipts if receipt.fate is not fate]
    if bad or len(receipts) != len(asked):
        raise SystemExit(f"{len(bad)} of {len(asked)} failed, the first: {bad[:1]}")
    blocks = Counter(receipt.block or 0 for receipt in receipts)
    return Filled(per_class["max_total"]["ref_time"] // item, Counter(dict(sorted(blocks.items()))), prepared_s)


def until(what: str, seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not seen():
        if time.monotonic() > deadline:
            raise SystemExit(f"no {what} within {TIMEOUT_S:g} s")
        time.sleep(0.02)


def loops_per_block(net: Net, endpoint: str, asked: list[Weights], workers: int) -> float:
    """Settings a block of loops that wait for each, over the blocks from the head to the last inclusion."""
    go = by_loops(net, endpoint, asked, workers)
    head = net.client.head().number
    with blocks_for(endpoint, workers):
        last, _, failed = go()
    return (len(asked) - failed) / max(1, last - head)


def settings(client: ChainClient, writer: ChainWriter, net: Net) -> Filled:
    """Plain weights of some hotkeys on some subnets."""
    netuids = net.netuids[:SET_SUBNETS]
    asked = [w for w in net.weights(0) if w.netuid in netuids and w.hotkey in net.hotkeys[:SETTERS]]
    rows = [net.row(w) for w in asked[:2]]
    batch = Call(PALLET, "batch_set_weights", {"netuids": netuids[:2], "weights": rows, "version_keys": [0, 0]})
    filled = fill(client, writer, asked, batch, Fate.INCLUDED)
    if wrong := net.wrong(asked):
        raise SystemExit(f"{wrong} of {len(asked)} rows on the chain are not what was asked")
    return filled


def commits(client: ChainClient, writer: ChainWriter, net: Net) -> Filled:
    """Hash commits of every hotkey on every subnet."""
    asked, digests = net.weights(1), ["0x" + "11" * 32, "0x" + "22" * 32]
    batch = Call(PALLET, "batch_commit_weights", {"netuids": net.netuids[:2], "commit_hashes": digests})
    filled = fill(client, writer, asked, batch, Fate.COMMITTED)
    found = client.query_many([(PALLET, "WeightCommits", [w.netuid, w.hotkey]) for w in asked])
    if missing := sum(not one for one in found):
        raise SystemExit(f"{missing} of {len(asked)} commits are not on the chain")
    return filled


def measure(chain: EmbeddedChain, client: ChainClient, writer: ChainWriter, net: Net) -> list[dict]:
    few = [w for w in net.weights(2) if w.netuid in net.netuids[:3] and w.hotkey in net.hotkeys[:LOOPS]]
    loop = loops_per_block(net, chain.endpoint, few[:3], 1)
    pool = loops_per_block(net, chain.endpoint, few, LOOPS)
    print(f"loop {loop:.1f} settings a block, pool of {LOOPS} loops {pool:.1f}", flush=True)
    goals = [figure("loop: settings a block", round(loop, 2)), figure("pool: settings a block", round(pool, 2))]
    goals += settings(client, writer, net).goals("settings")
    with blocks_for(chain.endpoint, 1):
        sudo(client, [("sudo_set_commit_reveal_weights_enabled", [netuid, True]) for netuid in net.netuids])
    return goals + commits(client, writer, net).goals("commits")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hotkeys", type=int, default=64)
    parser.add_argument("--subnets", type=int, default=80)
    args = parser.parse_args()
    if not SETTERS <= args.hotkeys <= 64 or not SET_SUBNETS <= args.subnets <= 120:
        parser.error(f"{SETTERS} to 64 hotkeys, {SET_SUBNETS} to 120 subnets")
    logging.getLogger("raytensor").setLevel(logging.CRITICAL)  # the loops use the writer's keys on purpose
    folder, started = Path(tempfile.mkdtemp(prefix="raytensor-capacity-")), time.monotonic()
    netuids = make_chain(folder / "state", args.hotkeys, args.subnets)
    chain = EmbeddedChain(folder / "state", None, folder / "log", TIMEOUT_S)
    signers = {key.ss58: key for key in map(hotkey, range(args.hotkeys))}
    limits = {"timeout_s": 60.0, "inclusion_timeout_s": TIMEOUT_S, "lease_s": TIMEOUT_S}
    client = ChainClient(chain.endpoint, 60.0)
    client.rpc("dev_newBlock", [{"count": 3}])  # the loops read the state of the block before the last
    options = WriterSettings(**limits, stop_on_foreign=False, commit_kind="hash", renewal="hold")
    writer = ChainWriter(chain.endpoint, signers, folder / "writer.db", options)
    try:
        print(
            f"{args.hotkeys} hotkeys x {args.subnets} subnets; set up in {time.monotonic() - started:.0f} s", flush=True
        )
        goals = measure(chain, client, writer, Net(client, netuids, args.hotkeys))
    finally:
        for one in (writer, client, chain):
            one.close()
    print(f"{time.monotonic() - started:.0f} s in all; the real chain makes a block every {BLOCK_S:g} s")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(
        json.dumps(
            {"bench": "chain_capacity", "machine": f"{machine}, Python {platform.python_version()}", "goals": goals}
        )
    )
    return 0 if all(goal["ok"] for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
