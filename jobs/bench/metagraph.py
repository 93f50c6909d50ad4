"""Reading metagraphs: one sync beside bittensor 11.3's on the same node, and hundreds of readers of one snapshot actor.

A node in this process (real port, real JSON-RPC) has a subnet of each size, with 64 validators that weigh all others.
Each client is a process of its own, reads each subnet a few times and tells its median:

    raytensor         read_metagraph, without and with the weights
    bittensor 11.3    client.subnets.metagraph(netuid), with and without commitments; needs RAYTENSOR_BITTENSOR_PYTHON,
                      the interpreter of an environment that has bittensor 11.3

Then readers, threads of a few Ray actors, ask the snapshot actor for one subnet as fast as they can while blocks are
made; a proxy before the node counts every request.

    RAYTENSOR_BITTENSOR_PYTHON=... python jobs/bench/metagraph.py
    python jobs/bench/metagraph.py --sizes 64 --readers 40 --blocks 3        smaller
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent), str(ROOT / "tests" / "chain")]

VALIDATORS = 64
TIMEOUT_S = 120.0
READER_ACTORS = 4
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
        from devnet import Network

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


class Readers:
    """Threads that read the same subnet as fast as they get answers."""

    def __init__(self, reader, netuid: int, count: int) -> None:
        self._stop, self._seen, self._reads, self._lock = threading.Event(), set(), 0, threading.Lock()
        self._failed: str | None = None
        self._threads = [threading.Thread(target=self._run, args=(reader, netuid), daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, reader, netuid: int) -> None:
        try:
            while not self._stop.is_set():
                block = reader.latest(netuid).metagraph.block
                with self._lock:
                    self._seen.add(block)
                    self._reads += 1
        except Exception as error:  # the thread's edge: told by `stop`
            self._failed = f"{type(error).__name__}: {error}"

    def seen(self) -> set[int]:
        with self._lock:
            return set(self._seen)

    def stop(self) -> tuple[int, str | None]:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        return self._reads, self._failed


def readers(args: argparse.Namespace, node: Node, goals: list[dict]) -> None:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray
    from faults import FaultProxy

    from raytensor.chain.reads.snapshots import snapshot_actor

    here = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), here])
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with FaultProxy(node.endpoint) as proxy:
            netuid, size = node.netuids[0], args.sizes[0]
            reader = snapshot_actor(proxy.endpoint, timeout_s=TIMEOUT_S)
            first = reader.latest(netuid).metagraph.block
            Actor = ray.remote(num_cpus=0.1, max_concurrency=4)(Readers)
            each = [args.readers // READER_ACTORS + (n < args.readers % READER_ACTORS) for n in range(READER_ACTORS)]
            actors = [Actor.remote(reader, netuid, count) for count in each if count]
            ray.get([actor.seen.remote() for actor in actors], timeout=TIMEOUT_S)
            before, started = proxy.requests.copy(), time.monotonic()
            for n in range(1, args.blocks + 1):
                node.make_block()
                while not all(
                    first + n in seen for seen in ray.get([a.seen.remote() for a in actors], timeout=TIMEOUT_S)
                ):
                    if time.monotonic() - started > TIMEOUT_S:
                        raise SystemExit(f"block {first + n} did not reach all readers")
            asked, took = proxy.requests - before, time.monotonic() - started
            ends = ray.get([actor.stop.remote() for actor in actors], timeout=2 * TIMEOUT_S)
        failed = [why for _, why in ends if why]
        reads, requests = sum(count for count, _ in ends), asked.total()
        print(
            f"\n{args.readers} readers of a subnet of {size} over {args.blocks} blocks: {requests} requests to the node "
            f"({', '.join(f'{name} {n}' for name, n in asked.items())}), {reads} snapshots read, "
            f"{reads / took:.0f} a second"
        )
        for why in failed[:1]:
            print(f"a reader failed: {why}")
        goals += [
            {
                "name": f"requests a block for {args.readers} readers",
                "value": requests / args.blocks,
                "unit": "",
                "goal": 1,
                "ok": requests <= args.blocks and not failed,
            },
            {
                "name": "snapshots read a second",
                "value": round(reads / took),
                "unit": "1/s",
                "goal": None,
                "ok": not failed,
            },
        ]
    finally:
        ray.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[256, 4096], help="neurons of each subnet (default 256 4096)"
    )
    parser.add_argument("--times", type=int, default=5, help="syncs of each kind in each of three rounds (default 5)")
    parser.add_argument("--readers", type=int, default=500, help="(default 500)")
    parser.add_argument("--blocks", type=int, default=10, help="blocks made while they read (default 10)")
    args = parser.parse_args()
    if min(*args.sizes, args.times, args.readers, args.blocks) < 1 or min(args.sizes) < 8:
        parser.error("at least 8 neurons, and 1 of everything else")
    goals: list[dict] = []
    started = time.monotonic()
    node = Node(args.sizes)
    print(
        f"subnets of {', '.join(map(str, args.sizes))} neurons made in {time.monotonic() - started:.0f} s", flush=True
    )
    sync(args, node, goals)
    readers(args, node, goals)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    print(json.dumps({"bench": "metagraph", "machine": machine, "goals": goals}))
    return 0 if all(goal["ok"] for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
