"""A chain with full subnets in this process, for the devnet benchmark, and what serves and reads it.

In: a folder, sizes of subnets. Out: a `Network` whose epochs run when asked for; readers of its metagraphs.
"""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

from devnet_extrinsics import RAO, TIMEOUT_S
from substrateinterface import SubstrateInterface
from websocket import create_connection

from raytensor.devnet.author import Author
from raytensor.devnet.chain import Chain
from raytensor.devnet.chain_spec import DEV_ACCOUNTS, build_runtime
from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Origin
from raytensor.devnet.persist import Disk
from raytensor.devnet.rpc import NodeRpc
from raytensor.devnet.server import Server

ALICE = DEV_ACCOUNTS["Alice"]


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


def one_block(network: Network, netuid: int) -> None:
    """A block whose epoch of this subnet is due."""
    network.module.PendingEpochAt[netuid] = network.runtime.block_number + 1
    before = network.module.SubnetEpochIndex[netuid]
    network.block()
    assert network.module.SubnetEpochIndex[netuid] == before + 1
