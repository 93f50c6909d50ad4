"""Benchmark of snapshots: a subnet of 256 neurons read over RPC, restored, its next epoch compared, 100 tempos played.

The subnet (64 validators that weigh 191 miners, tempo 360, some epochs old) is on a node in a process of its own. It is
read through its websocket into a file; a chain restored from the file makes the same blocks as the node; then the
blocks of 100 tempos are made with a changed rule and, as the baseline, without one.

    python jobs/bench/snapshot.py [--quick]
    ray job submit --working-dir . -- python jobs/bench/snapshot.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT)]

from raytensor.chain.reads.state import read_subnets  # noqa: E402
from raytensor.chain.reads.state_file import StateSnapshot, read_state, write_state  # noqa: E402
from raytensor.chain.rpc.client import ChainClient  # noqa: E402
from raytensor.consensus import load_kernels  # noqa: E402
from raytensor.devnet.chain import Chain  # noqa: E402
from raytensor.devnet.chain_spec import DEV_ACCOUNTS, build_runtime  # noqa: E402
from raytensor.devnet.fork.state import Fork  # noqa: E402
from raytensor.devnet.fork.tempos import play  # noqa: E402
from raytensor.devnet.launch import EmbeddedChain  # noqa: E402
from raytensor.devnet.pallet import Origin  # noqa: E402
from raytensor.devnet.persist import Disk  # noqa: E402

RAO = 10**9
COMPARED = ("Incentive", "Consensus", "Dividends", "ValidatorTrust", "ValidatorPermit", "StakeWeight", "Emission")
READ_GOAL_S, PLAY_GOAL_S = 10, 60


def build(folder: Path, num_validators: int, num_miners: int, tempo: int) -> int:
    """A chain on disk with the subnet; returns its netuid."""
    runtime, disk = build_runtime(), Disk(folder)
    chain, module = Chain(runtime, disk=disk), runtime.SubtensorModule
    owner = DEV_ACCOUNTS["Alice"]

    def seal(count: int) -> None:
        for _ in range(count):
            chain.seal(runtime.timestamp_ms + runtime.block_time_ms)

    module.NetworkRateLimit.set(0)
    seal(2)
    runtime.dispatch(Origin.signed(owner), runtime.call("SubtensorModule.register_network", bytes([1]) * 32))
    netuid = max(module.netuids())
    runtime.dispatch(Origin.signed(owner), runtime.call("SubtensorModule.start_call", netuid))
    module.SubnetEmissionEnabled[netuid], module.CommitRevealWeightsEnabled[netuid] = True, False
    module.Tempo[netuid], module.WeightsSetRateLimit[netuid], module.Yuma3On[netuid] = 20, 0, False
    rng = np.random.default_rng(1)
    keys = [rng.bytes(32) for _ in range(num_validators + num_miners)]
    for number, hotkey in enumerate(keys):
        coldkey = DEV_ACCOUNTS["Bob" if number % 2 else "Charlie"]
        module.append_neuron(netuid, hotkey)
        module.own_hotkey(coldkey, hotkey)
        if number < num_validators:
            amount = int(rng.integers(50, 500)) * RAO
            module.add_stake_to(hotkey, coldkey, netuid, amount)
            module.SubnetAlphaOut[netuid] = module.SubnetAlphaOut[netuid] + amount
    seal(21)
    uids = tuple(range(num_validators + 1, num_validators + num_miners + 1))
    for hotkey in keys[:num_validators]:
        weights = tuple(int(weight) for weight in rng.integers(1, 65536, num_miners))
        runtime.dispatch(Origin.signed(hotkey), runtime.call("SubtensorModule.set_weights", netuid, uids, weights, 0))
    seal(45)
    module.apply_tempo(netuid, tempo)
    seal(5)
    disk.close()
    return netuid


def epoch_of(chain: Chain, netuid: int) -> dict:
    """What the next epoch of a restored chain stores, with the stakes after it."""
    module = chain.runtime.SubtensorModule
    index = module.SubnetEpochIndex[netuid]
    while module.SubnetEpochIndex[netuid] == index:
        chain.seal(chain.runtime.timestamp_ms + chain.runtime.block_time_ms)
    found = {name: getattr(module, name)[netuid].tolist() for name in COMPARED}
    found["Bonds"] = {uid: row.tolist() for uid, row in module.Bonds.items(netuid)}
    found["stakes"] = sorted((k.hex(), alpha) for (k, on), alpha in module.TotalHotkeyAlpha.items() if on == netuid)
    return found


def same_epoch(client: ChainClient, snapshot: StateSnapshot, netuid: int) -> bool:
    """Whether the node's next epoch equals that of a restored chain, to the bit."""
    restored = Chain(build_runtime(), fork=Fork(snapshot))
    expected = epoch_of(restored, netuid)
    client.rpc("dev_newBlock", [{"to": restored.best.number}], timeout_s=600)
    theirs = Chain(build_runtime(), fork=Fork(read_subnets(client, [netuid], at=restored.best.number)))
    module = theirs.runtime.SubtensorModule
    found = {name: getattr(module, name)[netuid].tolist() for name in COMPARED}
    found["Bonds"] = {uid: row.tolist() for uid, row in module.Bonds.items(netuid)}
    found["stakes"] = sorted((k.hex(), alpha) for (k, on), alpha in module.TotalHotkeyAlpha.items() if on == netuid)
    assert sum(found["Emission"]) > 0, "the epoch paid nobody"
    return found == expected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 tempos of 36 blocks")
    args = parser.parse_args()
    num_tempos, tempo = (10, 36) if args.quick else (100, 360)
    load_kernels()
    goals: list[dict] = []

    def goal(name: str, value: float, unit: str, wanted: float | None, ok: bool | None = None) -> None:
        ok = value <= wanted if ok is None and wanted is not None else ok
        goals.append({"name": name, "value": round(value, 3), "unit": unit, "goal": wanted, "ok": ok})
        print(f"{name:<60} {value:>10.3f} {unit:<4} {'' if ok is None else 'ok' if ok else 'missed'}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        state, file = Path(folder) / "chain", Path(folder) / "subnet.state"
        netuid = build(state, 64, 191, tempo)
        node = EmbeddedChain(state, 12, Path(folder) / "log", timeout_s=120)
        try:
            with ChainClient(node.endpoint, timeout_s=120) as client:
                begin, cpu = time.perf_counter(), time.process_time()
                snapshot = read_subnets(client, [netuid])
                write_state(snapshot, file)
                elapsed, cpu = time.perf_counter() - begin, time.process_time() - cpu
                goal(f"snapshot of {len(snapshot.neurons(netuid))} neurons over RPC", elapsed, "s", READ_GOAL_S)
                goal("  processor time of the reader", cpu, "s", None)
                goal("  size of the file", os.path.getsize(file) / 1e6, "MB", None)
                begin = time.perf_counter()
                Fork(read_state(file)).restore(build_runtime())
                goal("read from the file and restored", time.perf_counter() - begin, "s", None)
                equal = same_epoch(client, snapshot, netuid)
                goal("next epoch equal to the original chain's", float(equal), "", 1, ok=equal)
        finally:
            node.close()
        for name, changes in (
            ("unchanged", ()),
            ("with set.kappa=0.7 and Yuma 3", ("set.kappa=0.7", "set.yuma3=true")),
        ):
            fork = Fork(read_state(file))
            begin, cpu = time.perf_counter(), time.process_time()
            found = play(fork, netuid, changes, num_tempos)
            elapsed, cpu = time.perf_counter() - begin, time.process_time() - cpu
            both = " (both sides)" if changes else ""
            goal(f"{num_tempos} tempos of {tempo} blocks, {name}{both}", elapsed, "s", PLAY_GOAL_S)
            goal("  processor time", cpu, "s", None)
        gain = sum(row["change_rao"] > 0 for row in found.rows())
        print(f"{gain} hotkeys gain, the largest change is {found.rows()[0]['change_rao'] / 1e9:.3f} alpha")
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(json.dumps({"bench": "snapshot", "machine": machine, "goals": goals}))


if __name__ == "__main__":
    main()
