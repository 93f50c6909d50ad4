"""The chain: blocks one after another on one runtime, sealed from the pool; it forks only when told to.

In: timestamps from the author, extrinsics from the pool. Out: `Block`s, best and finalized, to listeners and, with a
state folder, to the disk. Knows nothing of time or sockets.

    seal(): inherent -> ready extrinsics while limits allow -> finalize -> header -> pool, listeners -> disk -> final

A block is announced when it is made, and final only once it is on disk.

Header hash = blake2_256(SCALE(parent, Compact<number>, state root, extrinsics root, digest)). The state is a function
of the genesis and the extrinsics, so the state root chains these; the genesis root commits to state and metadata.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from raytensor.devnet.builtin import compact
from raytensor.devnet.executive import Executive, InvalidTransaction, UnknownTransaction
from raytensor.devnet.extrinsic import bare_extrinsic, decode_extrinsic
from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Call
from raytensor.devnet.pallets.mev_shield import is_carrier
from raytensor.devnet.pool import Entry, Pool
from raytensor.devnet.runtime import Runtime
from raytensor.devnet.scale import ScaleError


class Block:
    """A sealed block. `extrinsics`: length-prefixed bytes, None once the body is forgotten."""

    __slots__ = ("number", "hash", "parent", "state_root", "extrinsics_root", "logs", "extrinsics")

    def __init__(
        self,
        number: int,
        parent: bytes,
        state_root: bytes,
        extrinsics_root: bytes,
        logs: tuple[bytes, ...],
        extrinsics: list[bytes] | None,
    ) -> None:
        self.number, self.parent, self.state_root, self.extrinsics_root = number, parent, state_root, extrinsics_root
        self.logs, self.extrinsics = logs, extrinsics
        digest = compact(len(logs)) + b"".join(logs)
        self.hash = blake2_256(parent + compact(number) + state_root + extrinsics_root + digest)

    def header(self) -> dict[str, Any]:
        """The header as JSON-RPC gives it."""
        return {
            "parentHash": f"0x{self.parent.hex()}",
            "number": hex(self.number),
            "stateRoot": f"0x{self.state_root.hex()}",
            "extrinsicsRoot": f"0x{self.extrinsics_root.hex()}",
            "digest": {"logs": [f"0x{log.hex()}" for log in self.logs]},
        }


class Chain:
    """Best chain, finality `finality_lag` blocks behind (None: only by `finalize`). `disk` stores every block.

    listeners      called with (block, changed keys) after each sealed block
    on_finalized   called with each newly finalized block
    """

    def __init__(self, runtime: Runtime, *, finality_lag: int = 0, disk: Any = None) -> None:
        self.runtime, self.finality_lag, self.disk = runtime, finality_lag, disk
        self.by_number: list[Block] = [self._genesis()]
        self.by_hash: dict[bytes, Block] = {self.genesis.hash: self.genesis}
        self.finalized_number = 0
        self.executive = Executive(runtime, self.genesis.hash, self.block_hash)
        self.pool = Pool(self.executive)
        self.listeners: list[Callable[[Block, list], None]] = []
        self.on_finalized: list[Callable[[Block], None]] = []
        self._unshielded: set[bytes] = set()  # accounts of the encrypted extrinsics of the open block
        self._unfinalized: list[tuple[Block, list[Entry]]] = []
        self.storing: Future[None] | None = None  # of the last block, with a disk
        if disk is not None:
            disk.restore(self)

    def _genesis(self) -> Block:
        runtime = self.runtime
        content = b"".join(
            item.raw_key(key) + item.codec.encode(item.current[key]) for item, key in runtime.genesis_changes
        )
        root = blake2_256(runtime.metadata(14) + runtime.metadata(15) + content)
        return Block(0, bytes(32), root, blake2_256(b""), (), [])

    @property
    def genesis(self) -> Block:
        return self.by_number[0]

    @property
    def best(self) -> Block:
        return self.by_number[-1]

    @property
    def finalized(self) -> Block:
        return self.by_number[self.finalized_number]

    def block_hash(self, number: int) -> bytes | None:
        return self.by_number[number].hash if 0 <= number < len(self.by_number) else None

    def body(self, block: Block) -> list[bytes] | None:
        """The block's extrinsics, from the disk if memory forgot them; None if nobody has them."""
        if block.extrinsics is None and self.disk is not None:
            return self.disk.body(block.number)
        return block.extrinsics

    def restored(self, blocks: list[Block], finalized_number: int) -> None:
        """Go on from blocks that the disk held; the runtime's state is already theirs."""
        for block in blocks:
            self.by_number.append(block)
            self.by_hash[block.hash] = block
        self.finalized_number = finalized_number
        self.runtime.block_number = self.best.number

    def seal(self, timestamp_ms: int, budget_s: float | None = None, *, wait: bool = True) -> Block:
        """Make the next block from what is ready. `budget_s`: wall-clock time after which no more is taken in.
        wait: until it is on disk, and final as far as the lag says; else whoever asks waits for `storing` and calls
        `settle`.
        """
        runtime, executive = self.runtime, self.executive
        deadline = None if budget_s is None else time.monotonic() + budget_s
        number = self.best.number + 1
        slot = timestamp_ms // max(runtime.block_time_ms, 1)
        logs = (("PreRuntime", (b"aura", slot.to_bytes(8, "little"))),)
        runtime.parent_hash, runtime.digest_logs = self.best.hash, logs
        runtime.start_block(number, timestamp_ms)
        executive.start_block()
        inherent = runtime.call("Timestamp.set", timestamp_ms)
        executive.apply_inherent(inherent, 0)
        extrinsics = [bare_extrinsic(runtime.codecs, inherent)]
        included, invalid = self._fill(extrinsics, deadline)
        changes = runtime.finish_block()
        block = self._append(number, logs, extrinsics)
        if self.disk is not None:
            self.storing = self.disk.store(block, changes, max(self.finalized_number, number - self.finality_lag))
        self._announce(block, changes, included, invalid)
        if wait:
            self.settle()
        return block

    def settle(self) -> None:
        """Wait for the disk; then everything but the last `finality_lag` blocks is final."""
        if self.storing is not None:
            self.storing.result()
        self._finalize(self.best.number - self.finality_lag)

    def _fill(self, extrinsics: list[bytes], deadline: float | None) -> tuple[list[Entry], list[Entry]]:
        """Apply ready extrinsics until the block is full. Returns (included, invalid)."""
        included: list[Entry] = []
        invalid: list[Entry] = []
        blocked: set[bytes] = set()  # accounts whose next extrinsic has to wait for another block
        exhausted = 0
        for entry in self.pool.ready():
            if deadline is not None and time.monotonic() > deadline and included:
                break
            if entry.account in blocked:
                continue
            try:
                self.executive.apply(entry.extrinsic, len(extrinsics))
            except InvalidTransaction as error:
                blocked.add(entry.account)
                if error.reason == "ExhaustsResources":
                    exhausted += 1
                    if exhausted > 64:  # nothing of the usual size fits any more
                        break
                elif error.reason != "Future":
                    invalid.append(entry)
                continue
            extrinsics.append(entry.extrinsic.raw)
            included.append(entry)
            if is_carrier(entry.extrinsic.call):
                self._unshield(entry.extrinsic.call, extrinsics)
        return included, invalid

    def _unshield(self, carrier: Call, extrinsics: list[bytes]) -> None:
        """Apply what a carrier holds right behind it. One that can't be in a block now is lost, as on the chain."""
        raw = self.runtime.MevShield.open(carrier)
        if raw is None:
            return
        try:
            extrinsic = decode_extrinsic(self.runtime.codecs, raw)
            validity = self.executive.validate(extrinsic)
            self.executive.apply(extrinsic, len(extrinsics))
        except (ScaleError, InvalidTransaction, UnknownTransaction):
            return
        extrinsics.append(raw)
        self._unshielded.add(validity.account)

    def _append(self, number: int, logs: tuple, extrinsics: list[bytes]) -> Block:
        parent = self.best
        root = blake2_256(b"".join(blake2_256(raw) for raw in extrinsics))
        encoded = tuple(self.runtime.codecs("DigestItem").encode(log) for log in logs)
        block = Block(number, parent.hash, blake2_256(parent.state_root + root), root, encoded, extrinsics)
        self.by_number.append(block)
        self.by_hash[block.hash] = block
        forgotten = number - self.runtime.store.history_blocks
        if forgotten > 0:
            self.by_number[forgotten].extrinsics = None
        return block

    def _announce(self, block: Block, changes: list, included: list[Entry], invalid: list[Entry]) -> None:
        self.pool.after_block(block.number, included, invalid, self._unshielded)
        self._unshielded.clear()
        status = {"inBlock": f"0x{block.hash.hex()}"}
        for entry in included:
            entry.tell(status)
        for listener in self.listeners:
            listener(block, changes)
        self._unfinalized.append((block, [entry for entry in included if entry.watchers]))

    def finalize(self, number: int) -> None:
        """Everything up to `number` is final from now on, whatever the lag."""
        self.settle()
        if self.disk is not None and number > self.finalized_number:
            self.disk.store_finalized(number).result()
        self._finalize(number)

    def _finalize(self, number: int) -> None:
        """Tell the watchers of everything up to `number`."""
        while self._unfinalized and self._unfinalized[0][0].number <= number:
            block, entries = self._unfinalized.pop(0)
            self.finalized_number = block.number
            for listener in self.on_finalized:
                listener(block)
            for entry in entries:
                entry.tell({"finalized": f"0x{block.hash.hex()}"})

    def roll_back(self, count: int, *, keep: bool) -> Block:
        """The last `count` blocks leave the chain, as in a reorganisation: what is built next stands in their place.
        Their extrinsics go back into the pool (`keep`) or are lost. Returns the new best block.

        Raises ValueError if one of them is final, or the state before them is forgotten.
        """
        self.settle()
        target = self.best.number - count
        if target < self.finalized_number:
            raise ValueError(f"block {target + 1} is final; a node with a greater --finality-lag can go back further")
        if target < self.runtime.store.oldest_block:
            raise ValueError(f"the state of block {target} is forgotten")
        gone = self.by_number[target + 1 :]
        bodies = [self.body(block) or [] for block in gone]
        changes = self.runtime.store.revert(target)
        if self.disk is not None:
            self.disk.revert(target, changes)
        del self.by_number[target + 1 :]
        for block in gone:
            del self.by_hash[block.hash]
        runtime = self.runtime
        runtime.block_number, runtime.timestamp_ms = target, runtime.Timestamp.Now.get()
        watchers = {}
        for block, entries in self._unfinalized:
            if block.number > target:
                for entry in entries:
                    entry.tell({"retracted": f"0x{block.hash.hex()}"})
                    watchers[entry.extrinsic.hash] = entry.watchers
        self._unfinalized = [(block, entries) for block, entries in self._unfinalized if block.number <= target]
        # The first extrinsic of a block is its inherent, which the next block makes anew.
        returned = [raw for body in bodies for raw in body[1:]] if keep else []
        self.pool.start_over(returned, watchers)
        return self.best
