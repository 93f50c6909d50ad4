"""Follows a subnet block by block, in a thread with a connection of its own.

In: an endpoint and a netuid. Out: a call of `on_block` per new best block, and of `on_epoch` with the metagraph each
time consensus ran; `promises`, what miners had committed to at the newest block, where that is asked for. Costs one small
request a block (with promises another), and a read of the subnet an epoch. Waits for: the chain, at most `timeout_s` a request; a chain that does not answer is told once
through `on_silence` and asked again until it does.
Knows nothing of rounds; what is slow here delays nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from raytensor.chain.reads.commitments import read_commits
from raytensor.chain.reads.metagraph import PALLET, next_epoch, read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.errors import ChainError
from raytensor.types import Metagraph, Promises


@dataclass(frozen=True, slots=True)
class Tick:
    """A block, and how far the subnet's tempo is."""

    block: int
    tempo: int
    blocks_until_epoch: int


class Follower:
    """Starts with `start`, ends with `close`. The newest tick and metagraph can be read at any time."""

    def __init__(
        self,
        endpoint: str,
        netuid: int,
        *,
        on_block: Callable[[Tick], None],
        on_epoch: Callable[[Metagraph], None],
        on_silence: Callable[[str], None],
        timeout_s: float = 20.0,
        poll_s: float = 0.2,
        with_promises: bool = False,
    ) -> None:
        self._endpoint, self._netuid = endpoint, netuid
        self._on_block, self._on_epoch, self._on_silence = on_block, on_epoch, on_silence
        self._timeout_s, self._poll_s = timeout_s, poll_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chain-follower", daemon=True)
        self.tick: Tick | None = None
        self.metagraph: Metagraph | None = None
        self._with_promises = with_promises
        self.promises: Promises | None = None

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop asking; waits a moment for the request that is under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def wait_for_epoch_after(self, block: int, timeout_s: float) -> bool:
        """Wait until consensus ran at a block later than `block` and its metagraph was read; False at the time-out."""
        waited = 0.0
        while not (self.metagraph is not None and self.metagraph.last_epoch_block > block):
            if waited >= timeout_s or self._stop.wait(self._poll_s):
                return False
            waited += self._poll_s
        return True

    def _run(self) -> None:
        client: ChainClient | None = None
        silent = False
        while not self._stop.is_set():
            try:
                if client is None:
                    client = ChainClient(self._endpoint, self._timeout_s)
                self._look(client)
                silent = False
                continue
            except ChainError as error:
                if client is not None:
                    client.close()
                    client = None
                if not silent and not self._stop.is_set():
                    self._on_silence(str(error))
                silent = True
            self._stop.wait(self._poll_s)
        if client is not None:
            client.close()

    def _look(self, client: ChainClient) -> None:
        head = client.next_head(self._poll_s)  # the endpoint tells it: that costs no request
        if head is None or (self.tick is not None and head.number <= self.tick.block):
            return
        names = ("Tempo", "LastEpochBlock", "PendingEpochAt")
        tempo, last, pending = client.query_many([(PALLET, name, [self._netuid]) for name in names], head.hash)
        epoch_at = next_epoch(last, tempo, pending)
        self.tick = Tick(head.number, tempo, max(0, epoch_at - head.number))
        self._on_block(self.tick)
        if self._with_promises:
            self.promises = Promises(head.number, head.hash, read_commits(client, self._netuid, head.hash))
        if self.metagraph is None or last > self.metagraph.last_epoch_block:
            metagraph = read_metagraph(client, self._netuid, head=head)
            self.metagraph = metagraph
            self._on_epoch(metagraph)
