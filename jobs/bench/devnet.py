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
import asyncio
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from bittensor_core import Keypair  # noqa: E402
from substrateinterface import SubstrateInterface  # noqa: E402
from websocket import create_connection  # noqa: E402

from raytensor.devnet.author import Author  # noqa: E402
from raytensor.devnet.builtin import compact  # noqa: E402
from raytensor.devnet.chain import Chain  # noqa: E402
from raytensor.devnet.chain_spec import DEV_ACCOUNTS, build_runtime  # noqa: E402
from raytensor.devnet.hashing import blake2_256  # noqa: E402
from raytensor.devnet.launch import EmbeddedChain  # noqa: E402
from raytensor.devnet.pallet import Origin  # noqa: E402
from raytensor.devnet.persist import Disk  # noqa: E402
from raytensor.devnet.rpc import NodeRpc  # noqa: E402
from raytensor.devnet.server import Server  # noqa: E402

RAO, VALIDATORS = 10**9, 64
ALICE = DEV_ACCOUNTS["Alice"]
SENDERS = ("//Alice", "//Bob", "//Charlie")
TIMEOUT_S = 600.0


def transfers(num: int, genesis: bytes, spec_version: int) -> list[bytes]:
    """Signed transfers of 1 TAO to Dave, by turns of the rich accounts."""
    keys, made = [Keypair.create_from_uri(uri) for uri in SENDERS], []
    call = b"\5\3\0" + DEV_ACCOUNTS["Dave"] + compact(RAO)
    for i in range(num):
        key = keys[i % len(keys)]
        extra = b"\0" + compact(i // len(keys)) + b"\0\0"
        versions = spec_version.to_bytes(4, "little") + (1).to_bytes(4, "little")
        signature = bytes(key.sign(call + extra + versions + genesis + genesis + b"\0"))
        body = b"\x84\0" + bytes(key.public_key) + b"\1" + signature + extra + call
        made.append(compact(len(body)) + body)
    return made


def start_up(folder: Path, times: int) -> tuple[float, float]:
    """Seconds until a fresh node serves, on the clock and of its processor: the medians."""
    took, busy = [], []
    for i in range(times):
        started = time.monotonic()
        chain = EmbeddedChain(folder / f"start{i}", 0.25, folder / "log", TIMEOUT_S)
        took.append(time.monotonic() - started)
        ticks = Path(f"/proc/{chain.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        busy.append(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))
        chain.close()
    return statistics.median(took), statistics.median(busy)


def submit_and_seal(num: int) -> float:
    """Processor seconds for transfers from bytes to a sealed block."""
    chain = Chain(build_runtime())
    raws = transfers(num, chain.genesis.hash, chain.runtime.version.spec_version)
    before = time.process_time()
    for raw in raws:
        chain.pool.submit(raw)
    while chain.pool.has_ready():
        chain.seal(chain.runtime.timestamp_ms + 250)
    took = time.process_time() - before
    assert sum(len(block.extrinsics) - 1 for block in chain.by_number[1:]) == num
    return took


def sustained(folder: Path, num: int) -> float:
    """Transfers a second that one node with 0.25 s blocks takes over a websocket, until all are in blocks."""
    node = EmbeddedChain(folder / "sustained", 0.25, folder / "log", TIMEOUT_S)
    try:
        client = create_connection(node.endpoint, timeout=TIMEOUT_S)

        def ask(method: str, *params):
            client.send(json.dumps({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}))
            return json.loads(client.recv())["result"]

        spec = ask("state_getRuntimeVersion")["specVersion"]
        raws = transfers(num, bytes.fromhex(ask("chain_getBlockHash", 0)[2:]), spec)
        started = time.monotonic()
        for at in range(0, num, 100):
            batch = [
                {"jsonrpc": "2.0", "id": at + i, "method": "author_submitExtrinsic", "params": [f"0x{raw.hex()}"]}
                for i, raw in enumerate(raws[at : at + 100])
            ]
            client.send(json.dumps(batch))
            refused = [reply for reply in json.loads(client.recv()) if "error" in reply]
            assert not refused, refused[0]
        while ask("author_pendingExtrinsics"):
            assert time.monotonic() - started < TIMEOUT_S, "the pool did not empty"
            time.sleep(0.02)
        took = time.monotonic() - started
        client.close()
        return num / took
    finally:
        node.close()


class Network:
    """Subnets full of neurons, with validators that weigh all others, on a chain in this process, kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self.chain = Chain(build_runtime(block_time_ms=250), disk=Disk(folder))
        self.runtime = runtime = self.chain.runtime
        self.module = runtime.SubtensorModule
        self.admin("network_rate_limit", 0)
        self.admin("network_min_lock_cost", 100 * RAO)
        self.admin("lock_reduction_interval", 1)

    def admin(self, name: str, *values) -> None:
        self.runtime.dispatch(Origin.root(), self.runtime.call(f"AdminUtils.sudo_set_{name}", *values))

    def do(self, name: str, *values, signer: bytes = ALICE) -> None:
        self.runtime.dispatch(Origin.signed(signer), self.runtime.call(f"SubtensorModule.{name}", *values))

    def block(self) -> None:
        self.chain.seal(self.runtime.timestamp_ms + 250)

    def subnet(self, neurons: int, validators: int) -> int:
        """A subnet with epochs only when asked for. Returns its netuid."""
        for _ in range(4):
            self.block()
        known = set(self.module.netuids())
        self.do("register_network", self.hotkey(max(known) + 1, 0))
        (netuid,) = set(self.module.netuids()) - known
        self.do("start_call", netuid)
        for name, value in (
            ("tempo", 50_000),
            ("weights_set_rate_limit", 0),
            ("commit_reveal_weights_enabled", False),
            ("max_burn", RAO),
            ("max_allowed_uids", max(neurons, 64)),
        ):
            self.admin(name, netuid, value)
        for uid in range(1, neurons):
            self.module.Burn[netuid] = RAO // 1000
            self.do("burned_register", netuid, self.hotkey(netuid, uid))
        for uid in range(validators):
            self.do("add_stake", self.hotkey(netuid, uid), netuid, RAO)
        self.module.run_epoch(netuid, RAO)  # gives the permits
        uids = tuple(range(validators, neurons))
        for uid in range(validators):
            values = tuple(1 + (7 * uid + other) % 97 for other in uids)
            self.do("set_weights", netuid, uids, values, 0, signer=self.hotkey(netuid, uid))
        self.block()
        return netuid

    @staticmethod
    def hotkey(netuid: int, uid: int) -> bytes:
        return blake2_256(netuid.to_bytes(2, "big") + uid.to_bytes(2, "big"))


def median_s(function: Callable[[], object], times: int, clock: Callable[[], float] = time.process_time) -> float:
    took = []
    for _ in range(times):
        before = clock()
        function()
        took.append(clock() - before)
    return statistics.median(took)


class Served:
    """A chain behind a real port, from a thread of this process."""

    def __init__(self, chain: Chain) -> None:
        self._chain, self._up = chain, threading.Event()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()
        assert self._up.wait(TIMEOUT_S)

    def _run(self) -> None:
        server = Server(NodeRpc(self._chain, Author(self._chain, interval_s=None)))
        self.endpoint = f"ws://127.0.0.1:{self._loop.run_until_complete(server.start(0))}"
        self._up.set()
        self._loop.run_forever()


def by_storage(client: SubstrateInterface, netuid: int, neurons: int) -> None:
    """What a metagraph is made of, item by item: hotkeys as a map, the vectors, the stakes by hotkey."""
    keys = [key.value for _, key in client.query_map("SubtensorModule", "Keys", [netuid], page_size=1000)]
    assert len(keys) == neurons
    for item in ("Active", "Incentive", "Dividends", "Emission", "ValidatorPermit", "LastUpdate"):
        client.query("SubtensorModule", item, [netuid])
    at = [("SubtensorModule", "TotalHotkeyAlpha", [key, netuid]) for key in keys]
    client.query_multi([client.create_storage_key(*one) for one in at])


def by_api(endpoint: str, netuid: int) -> int:
    """The runtime API's bytes over the websocket; returns how many."""
    client = create_connection(endpoint, timeout=TIMEOUT_S)
    data = f"0x{netuid.to_bytes(2, 'little').hex()}"
    params = ["SubnetInfoRuntimeApi_get_metagraph", data]
    client.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "state_call", "params": params}))
    size = len(json.loads(client.recv())["result"]) // 2
    client.close()
    return size


def resident_mb(pid: int | str = "self") -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def answers_under_load(state: Path, log: Path, netuids: list[int], seconds: float) -> dict[str, float]:
    """A node over that state, with transfers and readers of metagraphs: start, worst and usual answers in seconds."""
    started = time.monotonic()
    node = EmbeddedChain(state, 0.25, log, TIMEOUT_S)
    took = time.monotonic() - started
    stop = threading.Event()

    def connected(work: Callable[[Callable], None]) -> None:
        client = create_connection(node.endpoint, timeout=TIMEOUT_S)

        def ask(method: str, *params):
            client.send(json.dumps({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}))
            return json.loads(client.recv())["result"]

        while not stop.is_set():
            work(ask)
        client.close()

    def read(ask: Callable) -> None:
        for netuid in netuids:
            ask("state_call", "SubnetInfoRuntimeApi_get_metagraph", f"0x{netuid.to_bytes(2, 'little').hex()}")
            stop.wait(0.05)

    def send(ask: Callable) -> None:
        genesis, spec = bytes.fromhex(ask("chain_getBlockHash", 0)[2:]), ask("state_getRuntimeVersion")["specVersion"]
        for raw in transfers(20_000, genesis, spec):
            ask("author_submitExtrinsic", f"0x{raw.hex()}")
            if stop.is_set():
                return

    threads = [threading.Thread(target=connected, args=(work,), daemon=True) for work in (read, send)]
    for thread in threads:
        thread.start()
    waited: list[float] = []
    heads: set[str] = set()

    def watch(ask: Callable) -> None:
        before = time.monotonic()
        ask("system_health")
        waited.append(time.monotonic() - before)
        heads.add(ask("chain_getHead"))
        if sum(waited) + 0.01 * len(waited) > seconds:
            stop.set()
        time.sleep(0.01)

    try:
        connected(watch)
        return {
            "start": took,
            "worst": max(waited),
            "median": statistics.median(waited),
            "blocks": len(heads) - 1,
            "resident": resident_mb(node.pid),
        }
    finally:
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT_S)
        node.close()


def main() -> None:
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
        for name, value in (
            ("transfers", 200),
            ("subnets", 4),
            ("neurons", 64),
            ("large", 256),
            ("times", 2),
            ("seconds", 5),
        ):
            setattr(options, name, value)
    goals: list[dict] = []

    def row(name: str, value: float, unit: str, goal: float | None = None, least: bool = False) -> None:
        ok = None if goal is None else (value >= goal if least else value <= goal)
        goals.append({"name": name, "value": round(value, 3), "unit": unit, "goal": goal, "ok": ok})
        want = "" if goal is None else f"{'at least' if least else 'at most'} {goal:g}: {'ok' if ok else 'MISSED'}"
        print(f"{name:<58}{value:>12.3f} {unit:<18}{want}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        took, busy = start_up(Path(folder), options.times)
        row("start until it serves", took, "s", 1.5)
        row("start until it serves, of its processor", busy, "CPU s", 1)
        seconds = statistics.median(submit_and_seal(options.transfers) for _ in range(options.times))
        row(f"{options.transfers} transfers submitted and sealed", seconds, "CPU s")
        row("transfers submitted and sealed", options.transfers / seconds, "a CPU second", 2_000, least=True)
        row("transfers at 0.25 s blocks, over a websocket", sustained(Path(folder), 5 * options.transfers), "a second")

    kept = tempfile.TemporaryDirectory()
    network = Network(Path(kept.name) / "state")
    validators = min(VALIDATORS, options.neurons // 4)
    netuids = [network.subnet(options.neurons, validators) for _ in range(options.subnets)]
    took = median_s(lambda: network.module.run_epoch(netuids[0], RAO), options.times)
    shape = f"{options.neurons} x {validators}"
    row(f"epoch of {shape}", took * 1000, "CPU ms", 20)
    took = median_s(lambda: one_block(network, netuids[0]), options.times)
    row(f"blocks with an epoch of {shape} each", 1 / took, "a CPU second")
    row(f"resident, {options.subnets} subnets of {options.neurons}", resident_mb(), "MB", 1024)
    sizes = [(netuids[0], options.neurons)]
    if options.large:
        sizes.append((network.subnet(options.large, min(VALIDATORS, options.large // 4)), options.large))
    served = Served(network.chain)
    with SubstrateInterface(url=served.endpoint) as client:
        client.init_runtime()
        for netuid, neurons in sizes:
            took = median_s(partial(by_storage, client, netuid, neurons), options.times, time.monotonic)
            row(f"metagraph of {neurons}, storage by substrate-interface", took, "s")
            took = median_s(partial(by_api, served.endpoint, netuid), options.times, time.monotonic)
            row(f"metagraph of {neurons}, one runtime API call", took, "s")
    if options.seconds:
        for netuid in netuids:  # the usual epochs again
            network.admin("tempo", netuid, 360)
        network.block()
        network.chain.disk.close()
        folder = Path(kept.name)
        said = answers_under_load(folder / "state", folder / "log", [netuid for netuid, _ in sizes], options.seconds)
        row("restart of all that until it serves", said["start"], "s")
        row("worst answer to system_health meanwhile", said["worst"] * 1000, "ms", 250)
        row("median answer to system_health meanwhile", said["median"] * 1000, "ms")
        row(f"blocks in those {options.seconds:g} s of 0.25 s each", said["blocks"], "")
        row("resident, that node", said["resident"], "MB", 1024)
    kept.cleanup()
    load = os.getloadavg()[0]
    row("load of the machine at the end", load, f"of {os.cpu_count()} cores")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row("peak resident, with the clients", peak, "MB")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}"
    print(json.dumps({"bench": "devnet", "machine": machine, "goals": goals}))


def one_block(network: Network, netuid: int) -> None:
    """A block whose epoch of this subnet is due."""
    network.module.PendingEpochAt[netuid] = network.runtime.block_number + 1
    before = network.module.SubnetEpochIndex[netuid]
    network.block()
    assert network.module.SubnetEpochIndex[netuid] == before + 1


if __name__ == "__main__":
    main()
