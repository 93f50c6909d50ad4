"""Accepted nonces, remembered until they are no longer fresh, so that no request is answered twice.

In: (hotkey, nonce) of requests whose signature was checked. Out: a `Verdict`. One `NonceStore` serves all replicas of a
hotkey, in its own Ray actor (`shared_store`); each replica calls it through a `SharedNonces`, which batches the
requests that arrive while a call is in flight, so that the store never limits the replicas.
Bounds: a nonce is kept for `retention_s` after its timestamp; `max_entries` in total and `max_per_hotkey` of one
hotkey. At a limit new nonces are refused; none is forgotten. Knows nothing of HTTP or signatures.

A nonce is a timestamp, so the store needs no timers: nonces are kept in slices of one second, and a slice is dropped as
a whole. After a restart a store has no memory; until `ready_ns` it refuses every nonce that it could have accepted
before.
"""

import asyncio
import enum
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from raytensor.config.checks import check
from raytensor.config.wire import Freshness
from raytensor.wire.errors import Overloaded, ReplayedRequest, StaleRequest

_SLICE_NS = 10**9
NAMESPACE = "raytensor"


class Verdict(str, enum.Enum):
    """Whether a nonce is accepted."""

    NEW = "new"
    SEEN = "seen"
    OLD = "old"  # from before the store started, or from a slice that was dropped
    FULL = "full"  # the store is full


class NonceStore:
    """A plain class; a Ray actor where replicas share it.

    fresh           how long a nonce is kept after its timestamp, and how far ahead of the clock it may be.
    max_entries     nonces in total; about 150 bytes each.
    max_per_hotkey  nonces of one hotkey, so that one caller can't fill the store.
    clock           wall time in nanoseconds.
    """

    def __init__(
        self,
        fresh: Freshness,
        max_entries: int = 2_000_000,
        max_per_hotkey: int = 200_000,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        check(fresh)
        assert max_entries > 0 and max_per_hotkey > 0, (max_entries, max_per_hotkey)
        self.retention_s = fresh.retention_s
        self._retention_ns = int(fresh.retention_s * 1e9)
        self._max_entries, self._max_per_hotkey = max_entries, max_per_hotkey
        self._clock = clock
        self._slices: dict[int, set[tuple[str, int]]] = {}
        self._per_hotkey: Counter[str] = Counter()
        self._size = 0
        self._lock = threading.Lock()
        self.ready_ns = clock() + int(fresh.max_skew_s * 1e9)

    def __len__(self) -> int:
        return self._size

    def verdicts(self, pairs: Sequence[tuple[str, int]]) -> list[Verdict]:
        """One verdict per (hotkey, nonce), in order; the new ones are stored.

        A key may be "hotkey:more" where a protocol needs more than the nonce to distinguish two requests.
        """
        with self._lock:
            oldest = (self._clock() - self._retention_ns) // _SLICE_NS  # the oldest slice that is kept
            self._drop_before(oldest)
            return [self._judge(key, nonce_ns, oldest) for key, nonce_ns in pairs]

    def ready_in_s(self) -> float:
        """Seconds until the store accepts requests that are signed from then on; 0 if it does now."""
        return max(0.0, (self.ready_ns - self._clock()) / 1e9)

    def _judge(self, key: str, nonce_ns: int, oldest: int) -> Verdict:
        if nonce_ns <= self.ready_ns or nonce_ns // _SLICE_NS < oldest:
            return Verdict.OLD
        nonces = self._slices.get(nonce_ns // _SLICE_NS)
        if nonces is not None and (key, nonce_ns) in nonces:
            return Verdict.SEEN
        hotkey = key.partition(":")[0]
        if self._size >= self._max_entries or self._per_hotkey[hotkey] >= self._max_per_hotkey:
            return Verdict.FULL
        if nonces is None:
            nonces = self._slices[nonce_ns // _SLICE_NS] = set()
        nonces.add((key, nonce_ns))
        self._per_hotkey[hotkey] += 1
        self._size += 1
        return Verdict.NEW

    def _drop_before(self, oldest: int) -> None:
        for number in [number for number in self._slices if number < oldest]:
            for key, _ in self._slices[number]:
                hotkey = key.partition(":")[0]
                self._per_hotkey[hotkey] -= 1
                if not self._per_hotkey[hotkey]:
                    del self._per_hotkey[hotkey]
            self._size -= len(self._slices.pop(number))


class NonceCheck(Protocol):
    """The nonce store as a server calls it: `check` returns when the nonce is new and raises otherwise."""

    retention_s: float

    async def check(self, key: str, nonce_ns: int) -> None: ...

    async def ready_in_s(self) -> float: ...


class LocalNonces:
    """A store in the process of the server: for a hotkey that one process serves."""

    def __init__(self, store: NonceStore) -> None:
        self._store = store
        self.retention_s = store.retention_s

    async def check(self, key: str, nonce_ns: int) -> None:
        """Returns if the nonce is new; raises ReplayedRequest, StaleRequest or Overloaded if not."""
        _raise_for(self._store.verdicts([(key, nonce_ns)])[0])

    async def ready_in_s(self) -> float:
        return self._store.ready_in_s()


class SharedNonces:
    """A store in a Ray actor that all replicas of a hotkey share.

    handle      of the `NonceStore` actor.
    timeout_s   time-out of a call to the store; the requests of a failed call are refused (Overloaded).
    max_queued  bound on the requests that wait for a verdict.
    """

    def __init__(self, handle: Any, retention_s: float, timeout_s: float = 2.0, max_queued: int = 10_000) -> None:
        self._handle = handle
        self.retention_s = retention_s
        self._timeout_s, self._max_queued = timeout_s, max_queued
        self._waiting: list[tuple[tuple[str, int], asyncio.Future[Verdict]]] = []
        self._sender: asyncio.Task[None] | None = None
        self.calls = 0  # calls to the store so far
        self.checks = 0  # verdicts requested so far

    async def check(self, key: str, nonce_ns: int) -> None:
        """Returns if the nonce is new; raises ReplayedRequest, StaleRequest or Overloaded if not."""
        if len(self._waiting) >= self._max_queued:
            raise Overloaded("too many requests wait for the nonce store")
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append(((key, nonce_ns), future))
        self.checks += 1
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        _raise_for(await future)

    async def ready_in_s(self) -> float:
        return await asyncio.wait_for(self._handle.ready_in_s.remote(), self._timeout_s)

    async def _send(self) -> None:
        from ray.exceptions import RayError  # as in `shared_store`

        while self._waiting:
            batch, self._waiting = self._waiting, []
            self.calls += 1
            try:
                call = self._handle.verdicts.remote([pair for pair, _ in batch])
                verdicts = await asyncio.wait_for(call, self._timeout_s)
            except (RayError, TimeoutError) as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(Overloaded(f"the nonce store does not answer ({type(error).__name__})"))
                continue
            for (_, future), verdict in zip(batch, verdicts, strict=True):
                if not future.done():
                    future.set_result(verdict)


def shared_store(hotkey: str, fresh: Freshness, num_cpus: float = 0.0) -> Any:
    """The handle of the store actor of a hotkey in this cluster; started if there is none. Needs Ray.

    It ends with the driver that started it. A restarted store refuses requests from before its start.
    """
    import ray  # optional: a server in one process needs none

    name = {"name": f"replay-{hotkey}", "namespace": NAMESPACE, "get_if_exists": True}
    return ray.remote(NonceStore).options(**name, num_cpus=num_cpus, max_restarts=-1).remote(fresh)


def _raise_for(verdict: Verdict) -> None:
    if verdict is Verdict.SEEN:
        raise ReplayedRequest("this nonce was already accepted from this hotkey")
    if verdict is Verdict.OLD:
        raise StaleRequest("the request was signed before this server could distinguish it from a replay")
    if verdict is Verdict.FULL:
        raise Overloaded("the nonce store has no room for another nonce of this hotkey")
