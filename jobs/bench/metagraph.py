"""Reading metagraphs: one sync beside bittensor 11.3's on the same node, and what following a subnet costs the node.

A node in this process (real port, real JSON-RPC) has a subnet of each size, with 64 validators that weigh all others.
Each client is a separate process, reads each subnet a few times and reports its median:

    raytensor         read_metagraph, without and with the weights
    bittensor 11.3    client.subnets.metagraph(netuid), with and without commitments; needs RAYTENSOR_BITTENSOR_PYTHON,
                      the interpreter of an environment that has bittensor 11.3

Then a follower watches all subnets over one connection while blocks are made; a proxy before the node counts every
request.

    RAYTENSOR_BITTENSOR_PYTHON=... python jobs/bench/metagraph.py
    python jobs/bench/metagraph.py --sizes 64 --blocks 3        smaller
    ray job submit --working-dir . -- python jobs/bench/metagraph.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent), str(ROOT / "tests" / "chain")]

VALIDATORS = 64
TIMEOUT_S = 120.0
ROUNDS = 3

OURS = """
import json, sys, time
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.reads.metagraph import read_metagraph
endpoint, times, netuids = sys.argv[1], int(sys.argv[2]), [int(n) for n in sys.argv[3:]]
client, found = ChainClient(endpoint, 120.0), {}
for netuid in netuids:
    for name, options in (("sync", {"with_weights": False}), ("sync with weights", {})):
        took = []
        for _ in range(times):
            started = time.perf_counter()
            graph = read_metagraph(client, netuid, **options)
            took.append(time.perf_counter() - started)
        found[f"{netuid} {name}"] = took
    found[f"{netuid} neurons"] = len(graph.hotkeys)
print(json.dumps(found))
"""
THEIRS = """
import asyncio, json, sys, time
import bittensor as bt
endpoint, times, netuids = sys.argv[1], int(sys.argv[2]), [int(n) for n in sys.argv[3:]]
async def main():
    found = {}
    async with bt.Client(endpoint) as client:
        for netuid in netuids:
            for name, options in (("sync", {"commitments": False}), ("sync with commitments", {})):
                took = []
                for _ in range(times):
                    started = time.perf_counter()
                    graph = await client.subnets.metagraph(netuid, **options)
                    took.append(time.perf_counter() - started)
                found[f"{netuid} {name}"] = took
            found[f"{netuid} neurons"] = len(graph.neurons)
    found["version"] = bt.__version__
    print(json.dumps(found))
asyncio.run(main())
"""


class Node:
    """A chain in this process behind a real port, with subnets that no epoch disturbs."""

    def __init__(self, sizes: list[int]) -> None:
        from devnet_network import Network

        network = Network(Path(tempfile.mkdtemp(prefix="raytensor-bench-")))
        self._chain = network.chain
        self.netuids = [network.subnet(size, min(VALIDATORS, size // 4)) for size in sizes]
        self._loop, up = asyncio.new_event_loop(), threading.Event()
        threading.Thread(target=self._run, args=(up,), daemon=True).start()
        assert up.wait(TIMEOUT_S), "the node did not serve"

    def _run(self, up: threading.Event) -> None:
        from raytensor.devnet.author import Author
        from raytensor.devnet.rpc import NodeRpc
        from raytensor.devnet.server import Server

        self._author = Author(self._chain, interval_s=None)
        server = Server(NodeRpc(self._chain, self._author))
        self.endpoint = f"ws://127.0.0.1:{self._loop.run_until_complete(server.start(0))}"
        up.set()
        self._loop.run_forever()

    def make_block(self) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (self._author.seal(), done.set()))
        assert done.wait(TIMEOUT_S), "the node made no block"


def ask(python: str, program: str, node: Node, times: int, environment: dict[str, str]) -> dict:
    command = [python, "-c", program, node.endpoint, str(times), *map(str, node.netuids)]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise SystemExit(f"{python} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def merge(known: dict, more: dict) -> None:
    for name, value in more.items():
        known[name] = known.get(name, []) + value if isinstance(value, list) else value


def sync(args: argparse.Namespace, node: Node, goals: list[dict]) -> None:
    theirs_python = os.environ.get("RAYTENSOR_BITTENSOR_PYTHON")
    ours, theirs = {}, {} if theirs_python else None
    for _ in range(ROUNDS):  # by turns, so that what else the machine does befalls both
        if theirs is not None:
            merge(theirs, ask(theirs_python, THEIRS, node, args.times, {}))
        merge(ours, ask(sys.executable, OURS, node, args.times, {"PYTHONPATH": str(ROOT)}))
    print(f"\n{'sync of one subnet, median of ' + str(ROUNDS * args.times):<46}{'neurons':>8}{'ms':>10}")

    def row(who: str, name: str, neurons: int, took: list[float], goal: float | None = None) -> float:
        value = statistics.median(took) * 1000
        ok = goal is None or value <= goal
        print(
            f"{who + ': ' + name:<46}{neurons:>8}{value:>10.1f}{'' if goal is None else '  ok' if ok else '  MISSED'}"
        )
        goals.append(
            {
                "name": f"{who}: {name}, {neurons} neurons",
                "value": round(value, 2),
                "unit": "ms",
                "goal": None if goal is None else round(goal, 2),
                "ok": ok,
            }
        )
        return value

    for netuid, size in zip(node.netuids, args.sizes):
        assert ours[f"{netuid} neurons"] == size, ours
        limit = None
        if theirs is not None:
            assert theirs[f"{netuid} neurons"] == size, theirs
            who = f"bittensor {theirs['version']}"
            row(who, "with commitments", size, theirs[f"{netuid} sync with commitments"])
            limit = row(who, "without", size, theirs[f"{netuid} sync"])
        row("raytensor", "sync", size, ours[f"{netuid} sync"], limit)
        row("raytensor", "with weights", size, ours[f"{netuid} sync with weights"])
    if theirs is None:
        print("RAYTENSOR_BITTENSOR_PYTHON is not set: nothing to compare with")


def follow(args: argparse.Namespace, node: Node, goals: list[dict]) -> None:
    """Count the requests that a `Follower` of all subnets makes per block, apart from its reads of metagraphs."""
    from faults import FaultProxy

    from raytensor.chain.reads.follower import Follower

    def until(done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not done():
            if time.monotonic() > end:
                raise SystemExit(f"{what} did not come within {TIMEOUT_S:g} s")
            time.sleep(0.002)

    with FaultProxy(node.endpoint) as proxy:
        follower = Follower(proxy.endpoint, node.netuids, timeout_s=TIMEOUT_S)
        follower.start()
        until(lambda: all(follower.seen(netuid).metagraph for netuid in node.netuids), "the first metagraphs")
        before, last, reads, started = proxy.requests.copy(), node.netuids[-1], 0, time.monotonic()
        epochs = {netuid: follower.seen(netuid).metagraph.last_epoch_block for netuid in node.netuids}
        first = follower.seen(last).tick.block
        for n in range(1, args.blocks + 1):
            node.make_block()
            until(lambda n=n: follower.seen(last).tick.block >= first + n, f"block {first + n}")
        took = time.monotonic() - started
        follower.close()
        asked = proxy.requests - before
        reads = sum(follower.seen(netuid).metagraph.last_epoch_block > epochs[netuid] for netuid in node.netuids)
    per_block = asked["state_queryStorageAt"] / args.blocks
    kinds, ms = ", ".join(f"{name} {n}" for name, n in asked.items()), took / args.blocks * 1000
    print(
        f"\nfollowing {len(node.netuids)} subnets over {args.blocks} blocks: {asked.total()} requests to the node "
        f"({kinds}), {reads} epochs, {ms:.1f} ms a block"
    )
    goals.append(
        {
            "name": f"requests a block for {len(node.netuids)} subnets, without epochs",
            "value": per_block,
            "unit": "",
            "goal": 1,
            "ok": per_block <= 1 or reads > 0,
        }
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[256, 4096], help="neurons of each subnet (default 256 4096)"
    )
    parser.add_argument("--times", type=int, default=5, help="syncs of each kind in each of three rounds (default 5)")
    parser.add_argument("--blocks", type=int, default=10, help="blocks made while it follows (default 10)")
    args = parser.parse_args()
    if min(*args.sizes, args.times, args.blocks) < 1 or min(args.sizes) < 8:
        parser.error("at least 8 neurons, and 1 of everything else")
    goals: list[dict] = []
    started = time.monotonic()
    node = Node(args.sizes)
    print(
        f"subnets of {', '.join(map(str, args.sizes))} neurons made in {time.monotonic() - started:.0f} s", flush=True
    )
    sync(args, node, goals)
    follow(args, node, goals)
    python = platform.python_version()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {python}"
    print(json.dumps({"bench": "metagraph", "machine": machine, "goals": goals}))
    return 0 if all(goal["ok"] for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
