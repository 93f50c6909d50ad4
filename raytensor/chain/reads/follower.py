"""Follows the blocks of a chain for any number of subnets, in one thread with one connection.

In: endpoints, netuids, what to read. Out, readable at any time: the newest `Seen` of each subnet (tick, metagraph,
commitments, the state that weights depend on). Optionally calls an observer per block, per epoch and when the chain
stops answering. A block costs one small request for all subnets. A metagraph is read after consensus ran and
every `refresh_blocks`, a view every `view_blocks`. `trouble` is the error of a subnet that cannot be read.
Waits for: the chain, at most `timeout_s` per request. A read that fails for any reason is tried again until it works.
Progress is a new block: `silence` is judged by the age of the newest one, in the thread of the caller.
Only endpoints of the chain that was followed first are used. Knows nothing of rounds.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raytensor.chain.reads.commitments import read_commits
from raytensor.chain.reads.epochs import epoch_blocks
from raytensor.chain.reads.metagraph import PALLET, read_metagraph
from raytensor.chain.reads.preflight import SubnetView, read_views
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.rpc.identity import ChainIdentity
from raytensor.errors import ChainError, ChainUnavailable
from raytensor.supervised import SupervisedThread
from raytensor.types import FileCommit, Metagraph, Promises

QUIET_S = 60.0  # a chain without a new block for so long is silent, whatever it answers
SKEWS = 5  # newest blocks by which the clock of this machine is judged
LONGEST_PAUSE_S = 2.0  # between two attempts to reach the chain
_CLOCK = ("Tempo", "LastEpochBlock", "PendingEpochAt")


@dataclass(frozen=True, slots=True)
class Tick:
    """A block, and how many blocks are left of the subnet's tempo."""

    block: int
    tempo: int
    blocks_until_epoch: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest state of a subnet.

    next_epoch  block of the next epoch, 0 if unknown.
    read_at     monotonic time at which the metagraph was read; trouble: why the newest read failed, "" if it did not.
    promises    commitments of miners, with their block; None before the first read, or if not requested.
    view        the state that weights depend on, None if not requested.
    """

    tick: Tick | None = None
    next_epoch: int = 0
    metagraph: Metagraph | None = None
    read_at: float = 0.0
    promises: Promises | None = None
    view: SubnetView | None = None
    trouble: str = ""

    @property
    def commits(self) -> Mapping[str, FileCommit]:
        """Commitments by hotkey."""
        return self.promises.commits if self.promises is not None else {}


@dataclass(frozen=True, slots=True)
class Reads:
    """What to read besides the clocks of the subnets.

    refresh_blocks       blocks between two metagraphs of the same epoch; None reads one per epoch.
    view_blocks          blocks between two views; None reads none.
    commitments          when to read the miners' commitments: "metagraph" (with each), "block", or None.
    mecid                incentive mechanism of the metagraphs.
    """

    refresh_blocks: int | None = None
    view_blocks: int | None = None
    commitments: str | None = None
    mecid: int = 0

    def __post_init__(self) -> None:
        assert self.commitments in (None, "metagraph", "block"), self.commitments


@dataclass(frozen=True, slots=True)
class Observer:
    """Callbacks, called in the follower's thread. They must not block or raise.

    on_block    (netuid, tick) for each new best block.
    on_epoch    the metagraph after each run of consensus, and the first one.
    on_silence  the cause, once each time the chain stops answering.
    """

    on_block: Callable[[int, Tick], None] = lambda netuid, tick: None
    on_epoch: Callable[[Metagraph], None] = lambda metagraph: None
    on_silence: Callable[[str], None] = lambda cause: None


class Follower:
    """Starts with `start`, ends with `close`. `seen`, `newest` and `silence` may be read from any thread.

    thread  its thread, to be watched.
    poll_s  seconds between two attempts to reach the chain, and the time within which `close` is noticed.
    """

    def __init__(
        self,
        endpoints: Sequence[str] | str,
        netuids: Sequence[int],
        reads: Reads = Reads(),
        observer: Observer = Observer(),
        *,
        timeout_s: float = 20.0,
        poll_s: float = 0.2,
    ) -> None:
        self._endpoints, self._netuids, self._reads, self._observer = endpoints, list(netuids), reads, observer
        self._timeout_s, self._poll_s = timeout_s, poll_s
        self._seen = {netuid: Seen() for netuid in netuids}
        self._newest, self._newest_at = -1, time.monotonic()  # the newest block and when it was seen
        self._cause = "it has not answered yet"
        self._reported = False  # the present silence, to the observer
        self._skews_s: deque[float] = deque(maxlen=SKEWS)
        self._views_at: int | None = None
        self._head: Head | None = None
        self._client: ChainClient | None = None
        self._identity: ChainIdentity | None = None
        pauses = poll_s, max(poll_s, LONGEST_PAUSE_S)
        self.thread = SupervisedThread(
            "chain-follower", self._step, on_error=self._failed, expected=(ChainError,), pause_s=pauses
        )

    def start(self) -> None:
        """Begin to follow."""
        self._newest_at = time.monotonic()
        self.thread.start()

    def close(self) -> None:
        """Stop; waits up to 2 s for the request in flight."""
        self.thread.close(timeout_s=2)

    def seen(self, netuid: int) -> Seen:
        """The newest state of a subnet. The object is replaced, never changed."""
        return self._seen[netuid]

    @property
    def newest(self) -> tuple[int, float]:
        """Number of the newest block, -1 before the first one, and the seconds since it was seen first."""
        return self._newest, time.monotonic() - self._newest_at

    @property
    def silence(self) -> tuple[float, str]:
        """Seconds since the newest block, and why there is no newer one; (0.0, "") while blocks come."""
        number, age_s = self.newest
        cause = self._cause
        if not cause and age_s > QUIET_S:
            cause = f"it answers, and has made no block after {number}"
        return (age_s, cause) if cause else (0.0, "")

    @property
    def clock_skew_s(self) -> float | None:
        """Seconds that this machine's clock is ahead of the chain's: the difference nearest to 0 of the newest blocks
        when they came. A few seconds are the block's way to us. None before five blocks.
        """
        skews = list(self._skews_s)
        return min(skews, key=abs) if len(skews) == SKEWS else None

    def wait_for_epoch_after(self, netuid: int, block: int, timeout_s: float) -> bool:
        """Wait for a metagraph of an epoch later than `block`. False at the time-out, or after `close`."""
        end = time.monotonic() + timeout_s
        while (metagraph := self._seen[netuid].metagraph) is None or metagraph.last_epoch_block <= block:
            if time.monotonic() >= end or self.thread.wait(min(self._poll_s, 0.2)):
                return False
        return True

    # The thread

    def _step(self, thread: SupervisedThread) -> None:
        if self._client is None:
            self._client = ChainClient(self._endpoints, self._timeout_s, identity=self._identity)
            self._identity = self._client.pin()
        head = self._client.next_head(self._poll_s)  # pushed by the endpoint, without a request
        if head is not None:
            self._look(self._client, head)
        self._cause, self._reported = "", False
        if thread.stopping:
            self._disconnect()

    def _failed(self, error: Exception) -> None:
        self._disconnect()
        self._cause = str(error) if isinstance(error, ChainError) else f"{type(error).__name__}: {error}"
        if not self._reported and not self.thread.stopping:
            self._reported = True
            self._observer.on_silence(self._cause)

    def _disconnect(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            client.close()

    def _look(self, client: ChainClient, head: Head) -> None:
        if self._head is not None and head.number <= self._head.number:
            return
        if head.number > self._newest:
            self._newest, self._newest_at = head.number, time.monotonic()
        names = [name for name in _CLOCK if client.runtime.has_storage(PALLET, name)]
        items = [(PALLET, name, [netuid]) for netuid in self._netuids for name in names]
        *values, now_ms = client.query_many([*items, ("Timestamp", "Now", [])], head.hash)
        self._skews_s.append(time.time() - int(now_ms or 0) / 1000)
        for place, netuid in enumerate(self._netuids):
            stored = dict(zip(names, values[len(names) * place :]))
            self._look_at(client, head, netuid, stored)
        every, before = self._reads.view_blocks, self._views_at
        if every and (before is None or head.number - before >= every):
            self._views_at = head.number
            for netuid in self._netuids:
                if self._seen[netuid].metagraph is not None:
                    self._view(client, netuid, head)
        self._head = head

    def _look_at(self, client: ChainClient, head: Head, netuid: int, stored: Mapping[str, Any]) -> None:
        """One subnet at a new block. stored: its clock by storage name, without what the runtime lacks."""
        tempo = int(stored.get("Tempo") or 0)
        last, epoch = epoch_blocks(stored, netuid, tempo, head.number)
        tick = Tick(head.number, tempo, max(0, epoch - head.number))
        self._update(netuid, tick=tick, next_epoch=epoch)
        self._observer.on_block(netuid, tick)
        if self._reads.commitments == "block":
            self._update(netuid, promises=self._promises(client, netuid, head))
        known = self._seen[netuid].metagraph
        if known is None or last > known.last_epoch_block or self._is_old(known, head):
            self._read(client, netuid, head)

    def _view(self, client: ChainClient, netuid: int, head: Head) -> None:
        try:
            self._update(netuid, view=read_views(client, {(netuid, 0)}, head)[netuid, 0])
        except ChainUnavailable:
            raise
        except ChainError as error:  # of this subnet alone
            self._update(netuid, trouble=str(error))

    def _is_old(self, metagraph: Metagraph, head: Head) -> bool:
        limit = self._reads.refresh_blocks
        return limit is not None and head.number - metagraph.block >= limit

    def _read(self, client: ChainClient, netuid: int, head: Head) -> None:
        before = self._seen[netuid].metagraph
        try:
            metagraph = read_metagraph(client, netuid, mecid=self._reads.mecid, head=head, with_weights=False)
            promises = self._seen[netuid].promises
            if self._reads.commitments == "metagraph":
                promises = self._promises(client, netuid, head)
        except ChainUnavailable:
            raise
        except ChainError as error:  # of this subnet alone
            self._update(netuid, trouble=str(error))
            return
        self._update(netuid, metagraph=metagraph, promises=promises, read_at=time.monotonic(), trouble="")
        if before is None or metagraph.last_epoch_block > before.last_epoch_block:
            self._observer.on_epoch(metagraph)

    @staticmethod
    def _promises(client: ChainClient, netuid: int, head: Head) -> Promises:
        return Promises(head.number, head.hash, read_commits(client, netuid, head.hash))

    def _update(self, netuid: int, **changes: object) -> None:
        self._seen[netuid] = replace(self._seen[netuid], **changes)
