"""Benchmark of full blocks: weight settings in one block beside the limit that the chain's block weight sets.

Blocks are long enough for the writer to prepare what fills one. The limit is the chain's own: the normal class's
max_total of System.BlockWeights over the ref_time of one item of batch_set_weights (TransactionPaymentApi_query_info).
Beside it, on a few settings each: the usual loop, which waits for each extrinsic, and a pool of one per hotkey.

    python jobs/bench/chain_capacity.py                            60 hotkeys x 16 subnets, blocks of 3 s
    python jobs/bench/chain_capacity.py --hotkeys 4 --subnets 8    smaller: never fills a block
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from chain import Net, by_loops  # noqa: E402
from chain_network import BANK, PALLET, TIMEOUT_S, hotkey, make_network  # noqa: E402

from raytensor.chain.calls import Call  # noqa: E402
from raytensor.chain.rpc.client import ChainClient  # noqa: E402
from raytensor.chain.writer.limits import Meter  # noqa: E402
from raytensor.chain.writer.policy import Policy  # noqa: E402
from raytensor.chain.writer.settings import WriterSettings  # noqa: E402
from raytensor.chain.writer.writer import ChainWriter  # noqa: E402
from raytensor.devnet.launch import EmbeddedChain  # noqa: E402
from raytensor.types import Fate, Weights  # noqa: E402

GOAL = 0.9


def limit_per_block(client: ChainClient, net: Net, asked: list[Weights]) -> int:
    """Settings that the normal class of one block carries."""
    normal = client.constant("System", "BlockWeights")["per_class"]["normal"]["max_total"]["ref_time"]
    two = [w for w in asked if w.hotkey == net.hotkeys[0]][:2]
    args = {"netuids": [w.netuid for w in two], "weights": [net.row(w) for w in two], "version_keys": [0, 0]}
    item = Meter(client, hotkey(0).open().public_key).per_item(Call(PALLET, "batch_set_weights", args))
    return normal // item


def by_writer(writer: ChainWriter, asked: list[Weights]) -> Counter[int]:
    """Settings by block."""
    receipts = writer.set_weights(asked)
    failed = [receipt for receipt in receipts if receipt.fate is not Fate.INCLUDED]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(asked)} failed, the first: {failed[0]}")
    return Counter(receipt.block or 0 for receipt in receipts)


def loops_per_block(net: Net, endpoint: str, asked: list[Weights], workers: int) -> float:
    """Settings a block of loops that wait for each, over the blocks from the head to the last inclusion."""
    go = by_loops(net, endpoint, asked, workers)
    head = net.client.head().number
    last, _, failed = go()
    return (len(asked) - failed) / max(1, last - head)


def measure(net: Net, endpoint: str, writer: ChainWriter) -> tuple[int, Counter[int], float, float]:
    """(limit, the writer's settings by block, the loop's and the pool's settings a block)."""
    asked = net.weights(0)
    limit = limit_per_block(net.client, net, asked)
    loop = loops_per_block(net, endpoint, net.weights(1)[:2], 1)
    few = [w for w in net.weights(2) if w.netuid == net.netuids[0]]
    pool = loops_per_block(net, endpoint, few, len(net.hotkeys))
    writer.set_weights(net.weights(3)[:2])  # metadata, costs and nonces are read
    net.client.wait_for_block(net.client.head().number + 1, TIMEOUT_S)
    blocks = by_writer(writer, asked)
    if wrong := net.wrong(asked):
        raise SystemExit(f"{wrong} of {len(asked)} rows on the chain are not what was asked")
    return limit, blocks, loop, pool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hotkeys", type=int, default=60)
    parser.add_argument("--subnets", type=int, default=16)
    parser.add_argument("--block-time", type=float, default=3.0, help="seconds (default 3; the real chain has 12)")
    args = parser.parse_args()
    logging.getLogger("raytensor").setLevel(logging.CRITICAL)  # the loops use the writer's keys on purpose
    folder = Path(tempfile.mkdtemp(prefix="raytensor-capacity-"))
    chain = EmbeddedChain(folder / "state", args.block_time, folder / "log")
    signers = {key.ss58: key for key in (BANK, *(hotkey(n) for n in range(args.hotkeys)))}
    policy = Policy(transfers=True)
    settings = WriterSettings(timeout_s=60.0, inclusion_timeout_s=TIMEOUT_S, policy=policy, stop_on_foreign=False)
    client = ChainClient(chain.endpoint, 60.0)
    writer = ChainWriter(chain.endpoint, signers, folder / "writer.db", settings)
    try:
        netuids = make_network(client, writer, args.hotkeys, args.subnets, args.subnets)
        print("set up", flush=True)
        limit, blocks, loop, pool = measure(Net(client, netuids, args.hotkeys), chain.endpoint, writer)
    finally:
        for one in (writer, client, chain):
            one.close()
    fullest = max(blocks.values())
    share, enough = fullest / limit, blocks.total() >= limit
    print(f"settings in {len(blocks)} blocks of {args.block_time:g} s: {dict(sorted(blocks.items()))}")
    print(f"limit {limit} a block; fullest {fullest} ({share:.2f} of it); loop {loop:.1f}, pool {pool:.1f} a block")
    goals = [
        {"name": "settings in the fullest block", "value": fullest, "unit": "", "goal": None, "ok": True},
        {"name": "limit of the block weight", "value": limit, "unit": "", "goal": None, "ok": True},
        {
            "name": "share of the limit",
            "value": round(share, 3),
            "unit": "",
            "goal": GOAL if enough else None,
            "ok": share >= GOAL or not enough,
        },
        {"name": "loop: settings a block", "value": round(loop, 2), "unit": "", "goal": None, "ok": True},
        {"name": "pool: settings a block", "value": round(pool, 2), "unit": "", "goal": None, "ok": True},
    ]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(json.dumps({"bench": "chain_capacity", "machine": machine, "goals": goals}))
    return 0 if all(goal["ok"] for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
