"""A subnet on a chain in this process, served over a websocket, to take snapshots of."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from subnetkit import ALICE, BOB, CHARLIE, RAO, Kit, account

from raytensor.devnet.author import Author
from raytensor.devnet.chain import Chain
from raytensor.devnet.rpc import NodeRpc
from raytensor.devnet.server import Server

TEMPO = 10


class ChainKit(Kit):
    """A `Kit` whose blocks are those of a chain."""

    def __init__(self) -> None:
        super().__init__(check=False)
        self.chain = Chain(self.runtime)

    def blocks(self, count: int = 1) -> None:
        for _ in range(count):
            self.chain.seal(self.runtime.timestamp_ms + self.runtime.block_time_ms)

    def until(self, done: Callable[[], bool], limit: int = 1_000) -> int:
        for count in range(1, limit + 1):
            self.blocks()
            if done():
                return count
        raise AssertionError(f"not within {limit} blocks")


def neuron_keys(num_neurons: int) -> list[bytes]:
    return [account(100 + number) for number in range(num_neurons)]


def market(num_validators: int = 4, num_miners: int = 12, *, tempo: int = TEMPO) -> tuple[ChainKit, int]:
    """A subnet some epochs old: validators with stake, parents and root stake, weights and bonds."""
    kit = ChainKit()
    netuid = kit.subnet(tempo=tempo, hotkey=account(1))
    kit.admin("max_registrations_per_block", netuid, 1_000)
    kit.admin("target_registrations_per_interval", netuid, 1_000)
    kit.admin("serving_rate_limit", netuid, 0)
    kit.admin("tx_rate_limit", 0)
    keys = neuron_keys(num_validators + num_miners)
    for number, hotkey in enumerate(keys):
        validates = number < num_validators
        kit.neuron(netuid, BOB if validates else CHARLIE, hotkey, stake_tao=20 + 3 * number if validates else 0)
        if number % 8 == 7:
            kit.blocks()
    kit.ok(ALICE, "add_stake", keys[0], 0, 500 * RAO)
    kit.ok(ALICE, "add_stake", keys[1], netuid, 11 * RAO)
    kit.module.PendingChildKeyCooldown.set(0)
    kit.ok(BOB, "set_children", keys[0], netuid, ((2**62, keys[1]),))
    epochs_later(kit, netuid, 2)
    uids = tuple(range(num_validators + 1, num_validators + 1 + num_miners))
    for number, hotkey in enumerate(keys[:num_validators]):
        values = tuple((7 * number + 5 * i) % 40 + 1 + 3 * i for i in range(num_miners))
        kit.ok(hotkey, "set_weights", netuid, uids, values, 0)
    kit.module.SubnetMovingPrice[netuid] = 3 << 31  # 1.5 TAO: root's dividends are paid
    epochs_later(kit, netuid, 2)
    kit.blocks(3)
    return kit, netuid


def epochs_later(kit: Kit, netuid: int, count: int) -> None:
    target = kit.module.SubnetEpochIndex[netuid] + count
    kit.until(lambda: kit.module.SubnetEpochIndex[netuid] == target, limit=100_000)


@contextmanager
def served(chain: Chain) -> Iterator[str]:
    """The endpoint of the chain; blocks are made by the test alone."""
    loop, started, port = asyncio.new_event_loop(), threading.Event(), []
    server = Server(NodeRpc(chain, Author(chain, interval_s=None)), [])

    async def start() -> None:
        port.append(await server.start(0))
        started.set()

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield f"ws://127.0.0.1:{port[0]}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
