"""Snapshots of subnets that many readers share: one request a block and subnet, whoever reads and how often.

In: endpoints. Out: for each (netuid, mechanism) that somebody asked for, its newest `Metagraph` with its age, known in
blocks and in seconds; a reader may name the greatest age that it accepts, and gets `StaleSnapshot` with age, limit and
cause instead of an older one. Kept: the last `keep` snapshots of each, and, with a folder, a Parquet file for each epoch.
A thread with a connection of its own is told the heads (that costs no request) and reads what is asked for: one runtime
call a block, and a second read when an epoch has run. A subnet that nobody asks for in `forget_s` is read no more.
A plain class; `snapshot_actor` makes it a named Ray actor, whose readers share one copy in the object store.
Waits for: the first read of a subnet (`timeout_s`). Knows nothing of rounds or writers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytensor.chain.reads.history import keep_epoch
from raytensor.chain.reads.metagraph import Clock, combine, read_by_storage, read_clock, read_graph
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.errors import ChainError, ChainUnavailable, StaleSnapshot
from raytensor.types import Metagraph

log = logging.getLogger(__name__)

Place = tuple[int, int]  # netuid, mecid


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A subnet and how old it is. age_blocks: blocks between it and the newest one that is known; age_s: seconds since
    its block was the newest."""

    metagraph: Metagraph
    age_blocks: int
    age_s: float


@dataclass
class _Subnet:
    kept: deque[tuple[Metagraph, float]]  # with the time at which its block was told
    asked_at: float
    clock: Clock | None = None
    trouble: str = ""


class Snapshots:
    """keep: snapshots of each subnet that stay in memory. history: folder of a Parquet file an epoch; None keeps none.

    Raises ChainUnavailable if no endpoint answers, ConfigError for unusable ones.
    """

    def __init__(
        self,
        endpoints: Sequence[str] | str,
        *,
        timeout_s: float = 20.0,
        keep: int = 8,
        forget_s: float = 600.0,
        history: str | Path | None = None,
    ) -> None:
        self._client = ChainClient(endpoints, timeout_s)
        self._timeout_s, self._keep, self._forget_s = timeout_s, keep, forget_s
        self._history = None if history is None else Path(history).expanduser()
        self._changed = threading.Condition()
        self._subnets: dict[Place, _Subnet] = {}
        self._head, self._head_at = self._client.head(), time.monotonic()
        self._trouble = ""
        self.reads = 0  # runtime calls and storage reads so far
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
        self._thread.start()

    def latest(
        self, netuid: int, mecid: int = 0, *, max_age_blocks: int | None = None, max_age_s: float | None = None
    ) -> Snapshot:
        """The newest snapshot. Waits only for the very first one of a subnet.

        Raises StaleSnapshot if it is older than a limit, ChainError if there is no such subnet.
        """
        subnet = self._await(netuid, mecid)
        with self._changed:
            metagraph, told_at = subnet.kept[-1]
            age_blocks = max(0, self._head.number - metagraph.block)
            # While its block is the newest that is known, it is as old as the silence of the chain.
            age_s = time.monotonic() - told_at
            cause = subnet.trouble or self._trouble or f"no new block for {time.monotonic() - self._head_at:.1f} s"
        for age, limit, unit in ((age_blocks, max_age_blocks, "blocks"), (age_s, max_age_s, "s")):
            if limit is not None and age > limit:
                raise StaleSnapshot(
                    f"the snapshot of subnet {netuid} is {age:.4g} {unit} old (block {metagraph.block}), at most {limit:g} "
                    f"are allowed: {cause}"
                )
        return Snapshot(metagraph, age_blocks, age_s)

    def kept(self, netuid: int, mecid: int = 0) -> list[Metagraph]:
        """The last snapshots, oldest first."""
        subnet = self._await(netuid, mecid)
        with self._changed:
            return [metagraph for metagraph, _ in subnet.kept]

    def state(self) -> dict[str, Any]:
        """How it is doing: newest block and its age, subnets that are read, what went wrong last ("" if nothing)."""
        with self._changed:
            return {
                "block": self._head.number,
                "block_age_s": time.monotonic() - self._head_at,
                "reads": self.reads,
                "subnets": sorted(self._subnets),
                "trouble": self._trouble,
            }

    def ready(self) -> bool:
        """Answers once the constructor has returned."""
        return True

    def close(self) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(timeout=self._timeout_s + 1)
        self._client.close()

    def _await(self, netuid: int, mecid: int) -> _Subnet:
        place, deadline = (netuid, mecid), time.monotonic() + self._timeout_s
        with self._changed:
            if place not in self._subnets:
                self._subnets[place] = _Subnet(deque(maxlen=self._keep), time.monotonic())
            subnet = self._subnets[place]
            subnet.asked_at = time.monotonic()
            while not subnet.kept:
                if subnet.trouble.startswith("there is no subnet"):
                    del self._subnets[place]
                    raise ChainError(subnet.trouble)
                left = deadline - time.monotonic()
                if left <= 0 or self._stop.is_set():
                    why = subnet.trouble or self._trouble or "the chain did not answer"
                    raise StaleSnapshot(f"there is no snapshot of subnet {netuid} after {self._timeout_s:g} s: {why}")
                self._changed.wait(left)
            return subnet

    # The thread

    def _run(self) -> None:
        """Reads at each new head. Whatever fails is told to readers as the cause of the age, and tried again."""
        while not self._stop.is_set():
            try:
                fresh = self._client.next_head(0.2 if not self._waiting() else 0.01)
                if fresh is not None:
                    with self._changed:
                        self._head, self._head_at = fresh, time.monotonic()
                self._trouble = ""
                for place in self._due():
                    self._read(place, self._head)
            except ChainError as error:
                if not self._trouble:
                    log.warning("%s", error)
                self._trouble = str(error)
                self._stop.wait(0.2)

    def _waiting(self) -> bool:
        with self._changed:
            return any(not subnet.kept and not subnet.trouble for subnet in self._subnets.values())

    def _due(self) -> list[Place]:
        with self._changed:
            now = time.monotonic()
            for place in [p for p, subnet in self._subnets.items() if now - subnet.asked_at > self._forget_s]:
                del self._subnets[place]
            return [p for p, s in self._subnets.items() if not s.kept or s.kept[-1][0].block_hash != self._head.hash]

    def _read(self, place: Place, head: Head) -> None:
        netuid, mecid = place
        subnet = self._subnets[place]
        try:
            graph = read_graph(self._client, netuid, mecid, head)
            self.reads += 1
            if graph is None:
                metagraph = read_by_storage(self._client, netuid, mecid=mecid, head=head, with_weights=False)
                self.reads += 3
            else:
                if subnet.clock is None or self._clock_is_old(subnet, graph):
                    subnet.clock = read_clock(self._client, netuid, mecid, graph, head)
                    self.reads += 1
                metagraph = combine(netuid, head, graph, subnet.clock)
            trouble = ""
        except ChainError as error:
            with self._changed:
                subnet.trouble = str(error)
                self._changed.notify_all()
            if isinstance(error, ChainUnavailable):
                raise
            return  # the trouble of this subnet alone
        if self._history is not None and (not subnet.kept or _epoch(subnet.kept[-1][0]) != _epoch(metagraph)):
            keep_epoch(self._history, metagraph, mecid)
        with self._changed:
            subnet.kept.append((metagraph, self._head_at))
            subnet.trouble = trouble
            self._changed.notify_all()

    @staticmethod
    def _clock_is_old(subnet: _Subnet, graph: Mapping[str, Any]) -> bool:
        """An epoch ran, neurons came, or the epoch that was due did not run (it was put off): the clock is read again."""
        known = subnet.kept[-1][0] if subnet.kept else None
        overdue = known is not None and 0 < known.next_epoch_block <= graph["block"]
        return (
            subnet.clock.last_step != graph["last_step"]
            or len(subnet.clock.validator_trust) != graph["num_uids"]
            or overdue
        )


def _epoch(metagraph: Metagraph) -> int:
    return metagraph.last_epoch_block


class SharedSnapshots(Snapshots):
    """For a Ray actor: readers get the metagraph by a reference, so that all of a node share one copy of its arrays."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._shared: dict[Place, tuple[str, Any]] = {}
        super().__init__(*args, **settings)

    def shared(
        self, netuid: int, mecid: int = 0, max_age_blocks: int | None = None, max_age_s: float | None = None
    ) -> tuple[list[Any], int, float]:
        """([reference], age in blocks, age in seconds). Raises as `latest`."""
        import ray

        found = self.latest(netuid, mecid, max_age_blocks=max_age_blocks, max_age_s=max_age_s)
        with self._changed:
            known = self._shared.get((netuid, mecid))
            if known is None or known[0] != found.metagraph.block_hash:
                known = (found.metagraph.block_hash, ray.put(found.metagraph))
                self._shared[netuid, mecid] = known
        return [known[1]], found.age_blocks, found.age_s


class SnapshotReader:
    """What a reader holds: `latest` of the shared actor. Can be sent to other actors; keeps what it read last."""

    def __init__(self, actor: Any, timeout_s: float = 60.0) -> None:
        self._actor, self._timeout_s = actor, timeout_s
        self._last: tuple[Any, Metagraph] | None = None

    def __reduce__(self):
        return SnapshotReader, (self._actor, self._timeout_s)

    def latest(
        self, netuid: int, mecid: int = 0, *, max_age_blocks: int | None = None, max_age_s: float | None = None
    ) -> Snapshot:
        """As `Snapshots.latest`; the arrays are read-only views of the object store."""
        import ray

        asked = self._actor.shared.remote(netuid, mecid, max_age_blocks, max_age_s)
        try:
            (reference,), age_blocks, age_s = ray.get(asked, timeout=self._timeout_s)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, ChainError) else error) from None
        last = self._last
        if last is None or last[0] != reference:
            last = self._last = (reference, ray.get(reference, timeout=self._timeout_s))
        return Snapshot(last[1], age_blocks, age_s)


def snapshot_actor(
    endpoints: Sequence[str] | str,
    *,
    namespace: str = "raytensor",
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> SnapshotReader:
    """A reader of the one snapshot actor of this network: made if it is not there, else found.

    options: more of Ray's actor options. settings: of `Snapshots`.
    """
    import ray

    first = endpoints if isinstance(endpoints, str) else next(iter(endpoints))
    given = {"num_cpus": 0.1, "max_restarts": -1, "max_task_retries": 3, "max_concurrency": 64} | dict(options or {})
    actor = ray.remote(SharedSnapshots).options(
        name=f"snapshots:{first}", namespace=namespace, get_if_exists=True, **given
    )
    return SnapshotReader(actor.remote(endpoints, **settings))
