"""The transaction pool: ready and future extrinsics by account and nonce, and their watchers.

In: raw extrinsics; after each block the extrinsics that it included. Out: ready extrinsics in order of arrival, nonces
in order per account; statuses for every watcher, the last of which is always final.
Bounds: READY_LIMIT and FUTURE_LIMIT extrinsics, READY_BYTES.
Errors are `PoolError`s with the codes and messages of Substrate's author RPC.
Knows nothing of sockets; reads the state only through the executive.

    submit -> future -> ready -> in a block -> finalized      or: invalid | dropped | usurped
"""

from collections.abc import Callable, Iterable
from typing import Any

from raytensor.devnet.executive import Executive, InvalidTransaction, UnknownTransaction, Validity
from raytensor.devnet.extrinsic import Extrinsic, decode_extrinsic
from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.scale import ScaleError

READY_LIMIT, FUTURE_LIMIT = 8192, 4096
READY_BYTES = 64 * 1024 * 1024
FUTURE_BLOCKS = 256  # how long an extrinsic may wait for an earlier nonce; on a real node there is no limit
NEVER = 1 << 62
BAN_BLOCKS = 30  # how long an extrinsic that was invalid in a block is refused without a check
TOO_LOW = "The transaction has too low priority to replace another transaction already in the pool."
POOL_FULL = "The transaction couldn't enter the pool because of the limit"

Watcher = Callable[[Any], None]


class PoolError(Exception):
    """A refusal, as JSON-RPC code, message and data."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class Entry:
    """An extrinsic in the pool, ordered by a nonce of `account`. `valid_till`: first block that cannot include it."""

    __slots__ = ("extrinsic", "account", "priority", "valid_till", "tag", "ready", "since", "watchers")

    def __init__(self, extrinsic: Extrinsic, validity: Validity) -> None:
        self.extrinsic, self.account = extrinsic, validity.account
        self.priority, self.valid_till, self.tag = validity.priority, validity.valid_till, validity.tag
        self.ready = False
        self.since = 0  # block since when it waits for an earlier nonce
        self.watchers: list[Watcher] = []

    def report(self, status: Any) -> None:
        """Pass a status to all watchers."""
        for watcher in self.watchers:
            watcher(status)


class Pool:
    """The pool of one node. on_ready: called when an extrinsic becomes ready."""

    def __init__(self, executive: Executive) -> None:
        self.executive = executive
        self.runtime = executive.runtime
        self._ready: dict[bytes, Entry] = {}  # by hash, in order of readiness
        self._future: dict[bytes, Entry] = {}
        self._queues: dict[bytes, dict[int, Entry]] = {}  # by account and nonce
        self._next: dict[bytes, int] = {}  # next nonce of the accounts with a queue
        self._tagged: dict[bytes, Entry] = {}  # by a tag beside the nonce
        self._banned: dict[bytes, int] = {}  # hash -> block at which the ban ends
        self._ready_bytes = 0
        self.on_ready: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._ready) + len(self._future)

    def submit(self, raw: bytes, watcher: Watcher | None = None) -> bytes:
        """Add a length-prefixed extrinsic. Returns its hash. Raises `PoolError` if it is refused."""
        digest = blake2_256(raw)
        if digest in self._ready or digest in self._future:
            raise PoolError(1013, "Transaction Already Imported", f"0x{digest.hex()}")
        if self._banned.get(digest, 0) > self.runtime.block_number:
            raise PoolError(1012, "Transaction is temporarily banned")
        try:
            extrinsic = decode_extrinsic(self.runtime.codecs, raw)
        except ScaleError as error:
            raise PoolError(1001, f"Extrinsic has invalid format: {error}") from None
        try:
            with self.runtime.in_next_block():
                validity = self.executive.validate(extrinsic)
        except InvalidTransaction as error:
            raise PoolError(1010, "Invalid Transaction", error.text) from None
        except UnknownTransaction as error:
            raise PoolError(1011, "Unknown Transaction Validity", error.text) from None
        self._insert(Entry(extrinsic, validity), watcher)
        return digest

    def _insert(self, entry: Entry, watcher: Watcher | None) -> None:
        extrinsic = entry.extrinsic
        account, nonce = entry.account, extrinsic.nonce
        old = self._queues.get(account, {}).get(nonce)
        if old is not None and entry.priority <= old.priority:
            raise PoolError(1014, f"Priority is too low: ({old.priority} vs {entry.priority})", TOO_LOW)
        rival = self._tagged.get(entry.tag) if entry.tag is not None else None
        if rival is not None and rival is not old:
            raise PoolError(1014, f"Priority is too low: ({rival.priority} vs {entry.priority})", TOO_LOW)
        next_nonce = self.next_nonce(account)
        ready = nonce == next_nonce or (old is not None and old.ready)
        if old is None and self._is_full(ready, len(extrinsic.raw)):
            raise PoolError(1016, "Immediately Dropped", POOL_FULL)
        if old is not None:
            self._remove(old, {"usurped": f"0x{extrinsic.hash.hex()}"})
        self._queues.setdefault(account, {})[nonce] = entry
        if entry.tag is not None:
            self._tagged[entry.tag] = entry
        self._next.setdefault(account, next_nonce)
        if watcher is not None:
            entry.watchers.append(watcher)
        if ready:
            self._promote(entry)
            self._advance(account)
            for listener in self.on_ready:
                listener()
        else:
            entry.since = self.runtime.block_number
            self._future[extrinsic.hash] = entry
            entry.report("future")

    def _is_full(self, ready: bool, size: int) -> bool:
        if not ready:
            return len(self._future) >= FUTURE_LIMIT
        return len(self._ready) >= READY_LIMIT or self._ready_bytes + size > READY_BYTES

    def next_nonce(self, account: bytes) -> int:
        """The nonce after those on chain and those of ready extrinsics (system_accountNextIndex)."""
        known = self._next.get(account)
        return self.runtime.System.Account[account].nonce if known is None else known

    def _promote(self, entry: Entry) -> None:
        entry.ready = True
        self._ready[entry.extrinsic.hash] = entry
        self._ready_bytes += len(entry.extrinsic.raw)
        entry.report("ready")

    def _unready(self, entry: Entry) -> None:
        entry.ready = False
        del self._ready[entry.extrinsic.hash]
        self._ready_bytes -= len(entry.extrinsic.raw)

    def _advance(self, account: bytes) -> None:
        """Mark the account's extrinsics without a gap in their nonces as ready, and move its next nonce behind them."""
        queue, nonce = self._queues.get(account), self._next.get(account, 0)
        while queue and nonce in queue:
            entry = queue[nonce]
            if not entry.ready:
                del self._future[entry.extrinsic.hash]
                self._promote(entry)
            nonce += 1
        if queue:
            self._next[account] = nonce

    def _recount(self, account: bytes) -> None:
        """After a block or a removal: end stale extrinsics, find the first gap, demote the extrinsics behind it."""
        state_nonce = self.runtime.System.Account[account].nonce
        queue = self._queues.get(account)
        if not queue:
            return
        for entry in [entry for nonce, entry in queue.items() if nonce < state_nonce]:
            self._remove(entry, "invalid")
        if account not in self._queues:
            return
        self._next[account] = state_nonce
        self._advance(account)
        for nonce, entry in queue.items():
            if nonce >= self._next[account] and entry.ready:
                self._unready(entry)
                entry.since = self.runtime.block_number
                self._future[entry.extrinsic.hash] = entry
                entry.report("future")

    def _remove(self, entry: Entry, status: Any) -> None:
        extrinsic = entry.extrinsic
        if entry.ready:
            self._unready(entry)
        else:
            del self._future[extrinsic.hash]
        if entry.tag is not None:
            del self._tagged[entry.tag]
        queue = self._queues[entry.account]
        del queue[extrinsic.nonce]
        if not queue:
            del self._queues[entry.account], self._next[entry.account]
        if status is not None:
            entry.report(status)

    def ready(self) -> list[Entry]:
        """A snapshot of the ready entries: operational ones first, then by the time when they became ready."""
        entries = list(self._ready.values())
        if any(entry.priority > 1 for entry in entries):
            entries.sort(key=lambda entry: -entry.priority)
        return entries

    def has_ready(self) -> bool:
        return bool(self._ready)

    def pending(self) -> list[bytes]:
        """The ready extrinsics as bytes."""
        return [entry.extrinsic.raw for entry in self._ready.values()]

    def after_block(
        self, number: int, included: list[Entry], invalid: list[Entry], others: Iterable[bytes] = ()
    ) -> None:
        """Remove the extrinsics that block `number` includes; end those that its author found invalid, that have
        expired or that waited too long; mark those that became ready.

        others  accounts with an extrinsic in the block that was not in the pool.
        """
        accounts = {entry.account for entry in (*included, *invalid)} | set(others)
        for entry in included:
            self._remove(entry, None)
        for entry in invalid:
            self._banned[entry.extrinsic.hash] = number + BAN_BLOCKS
            self._remove(entry, "invalid")
        expired = [e for e in (*self._ready.values(), *self._future.values()) if (e.valid_till or NEVER) <= number + 1]
        waited = [entry for entry in self._future.values() if entry.since + FUTURE_BLOCKS <= number]
        ended = {id(entry): (entry, "dropped") for entry in waited}
        ended |= {id(entry): (entry, "invalid") for entry in expired}
        for entry, status in ended.values():
            accounts.add(entry.account)
            self._remove(entry, status)
        for account in accounts:
            self._recount(account)
        for digest in [digest for digest, until in self._banned.items() if until <= number]:
            del self._banned[digest]

    def revalidate(self, first: Iterable[bytes], watchers: dict[bytes, list[Watcher]]) -> None:
        """After a rollback: submit `first`, then the pooled extrinsics, again; invalid ones end.

        watchers  those of the extrinsics in `first`, by hash.
        """
        pooled = [*self._ready.values(), *self._future.values()]
        kept = {entry.extrinsic.hash: entry.watchers for entry in pooled} | watchers
        self._ready, self._future, self._queues, self._next, self._banned = {}, {}, {}, {}, {}
        self._tagged, self._ready_bytes = {}, 0
        for raw in [*first, *(entry.extrinsic.raw for entry in pooled)]:
            observers = kept.get(blake2_256(raw), [])
            try:
                digest = self.submit(raw)
            except PoolError:
                for watcher in observers:
                    watcher("invalid")
                continue
            entry = self._ready.get(digest) or self._future[digest]
            entry.watchers += observers
