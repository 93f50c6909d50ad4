"""Follows many subnets block by block over one connection, in a thread of its own.

In: an endpoint, netuids. Out, to be read at any time: each subnet's newest `Tick` and `Metagraph`, and what weights
depend on there (`SubnetView`). A metagraph is read when consensus ran and every `refresh_blocks`, a view every
`view_blocks`, each subnet by itself: one that can't be read is told and keeps none of the others from being read.
Waits for: the chain, at most `timeout_s` a request. A chain that does not answer is asked until it does; `silence` says
for how long and why. Knows nothing of rounds; what is slow here delays nobody.
Not `snapshots`: that reads each subnet once a block, for many readers; here one reader needs a metagraph once in
`refresh_blocks`, with commitments of the same block and views, which no snapshot has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from raytensor.chain.reads.commitments import read_commits
from raytensor.chain.reads.follower import Tick
from raytensor.chain.reads.metagraph import PALLET, next_epoch, read_metagraph
from raytensor.chain.reads.preflight import SubnetView, read_views
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.errors import ChainError, ChainUnavailable
from raytensor.types import Commit, Metagraph


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a subnet. read_at: when the metagraph was read (monotonic); trouble: why it could not be.
    commits: by hotkey, as of the metagraph's block."""

    tick: Tick | None = None
    next_epoch: int = 0
    metagraph: Metagraph | None = None
    commits: Mapping[str, Commit] = field(default_factory=dict)
    read_at: float = 0.0
    view: SubnetView | None = None
    trouble: str = ""


class SubnetsFollower:
    """Starts with `start`, ends with `close`; `seen` may be read from any thread."""

    def __init__(
        self,
        endpoints: Sequence[str] | str,
        netuids: Sequence[int],
        *,
        timeout_s: float = 20.0,
        refresh_blocks: int = 25,
        view_blocks: int = 5,
        poll_s: float = 1.0,
    ) -> None:
        self._endpoints, self._netuids = endpoints, list(netuids)
        self._timeout_s, self._poll_s = timeout_s, poll_s
        self._refresh_blocks, self._view_blocks = refresh_blocks, view_blocks
        self._stop = threading.Event()
        self._seen = {netuid: Seen() for netuid in netuids}
        self._silent_since, self._why = time.monotonic(), "it has not answered yet"
        self._views_at = -view_blocks
        self.head: Head | None = None
        self._thread = threading.Thread(target=self._run, name="subnets-follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop asking; waits a moment for the request that is under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def seen(self, netuid: int) -> Seen:
        """The newest that is known; replaced as a whole, never changed."""
        return self._seen[netuid]

    @property
    def silence(self) -> tuple[float, str]:
        """Seconds since the chain last answered, and why it does not ("" when it does)."""
        return (time.monotonic() - self._silent_since, self._why) if self._why else (0.0, "")

    # The thread

    def _run(self) -> None:
        client: ChainClient | None = None
        while not self._stop.is_set():
            try:
                if client is None:
                    client = ChainClient(self._endpoints, self._timeout_s)
                    self._look(client, client.head())
                head = client.next_head(self._poll_s)
                if head is not None:
                    self._look(client, head)
                self._why = ""
            except ChainError as error:
                if client is not None:
                    client.close()
                    client = None
                if not self._why:
                    self._silent_since = time.monotonic()
                self._why = str(error)
                self._stop.wait(self._poll_s)
        if client is not None:
            client.close()

    def _look(self, client: ChainClient, head: Head) -> None:
        if self.head is not None and head.number <= self.head.number:
            return
        names = ("Tempo", "LastEpochBlock", "PendingEpochAt")
        wanted = [(PALLET, name, [netuid]) for netuid in self._netuids for name in names]
        values = client.query_many(wanted, head.hash)
        for place, netuid in enumerate(self._netuids):
            tempo, last, pending = (value or 0 for value in values[3 * place : 3 * place + 3])
            epoch = next_epoch(last, tempo, pending)
            before = self._seen[netuid]
            self._seen[netuid] = replace(
                before, tick=Tick(head.number, tempo, max(0, epoch - head.number)), next_epoch=epoch
            )
            known = before.metagraph
            if known is None or last > known.last_epoch_block or head.number - known.block >= self._refresh_blocks:
                self._read(client, netuid, head)
        if head.number - self._views_at >= self._view_blocks:
            self._views_at = head.number
            for netuid in self._netuids:
                self._read_view(client, netuid, head)
        self.head = head

    def _read(self, client: ChainClient, netuid: int, head: Head) -> None:
        try:
            metagraph = read_metagraph(client, netuid, head=head, with_weights=False)
            commits = read_commits(client, netuid, head.hash)
        except ChainUnavailable:
            raise
        except ChainError as error:  # of this subnet alone
            self._seen[netuid] = replace(self._seen[netuid], trouble=str(error))
            return
        self._seen[netuid] = replace(
            self._seen[netuid], metagraph=metagraph, commits=commits, read_at=time.monotonic(), trouble=""
        )

    def _read_view(self, client: ChainClient, netuid: int, head: Head) -> None:
        if self._seen[netuid].metagraph is None:
            return
        view = read_views(client, {(netuid, 0)}, head)[netuid, 0]
        self._seen[netuid] = replace(self._seen[netuid], view=view)
