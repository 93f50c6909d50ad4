"""The chain: a sequence of blocks on one runtime, sealed from the pool. It forks only by `roll_back`.

In: timestamps from the author, extrinsics from the pool. Out: `Block`s, best and finalized, to listeners and, with a
state folder, to the disk. Knows nothing of clocks or sockets.

    seal(): inherent -> ready extrinsics while limits allow -> finalize -> header -> pool, listeners -> disk -> final

A block is announced when it is sealed, and final once it is on disk.

The state is a function of the genesis and the extrinsics, so a state root hashes the parent's state root and the
extrinsics root. The genesis state root hashes the genesis state and the metadata.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future

from raytensor.devnet.block import Block
from raytensor.devnet.executive import Executive, InvalidTransaction, UnknownTransaction
from raytensor.devnet.extrinsic import bare_extrinsic, decode_extrinsic
from raytensor.devnet.fork.state import Fork
from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Call
from raytensor.devnet.pallets.mev_shield import is_carrier
from raytensor.devnet.persist import Disk
from raytensor.devnet.pool import Entry, Pool
from raytensor.devnet.runtime import Runtime
from raytensor.devnet.scale import ScaleError


class Chain:
    """The best chain; the last `finality_lag` blocks are not final. `disk` stores every block.

    fork          the state that the chain starts from; the block after the genesis is then that of the snapshot. A
                  chain on disk goes on without it.
    listeners     called with (block, changed keys) after each sealed block.
    on_finalized  called with each newly finalized block.
    on_upgrade    called after the runtime was replaced.
    storing       future of the last block's write, with a disk.
    """

    def __init__(
        self, runtime: Runtime, *, finality_lag: int = 0, disk: Disk | None = None, fork: Fork | None = None
    ) -> None:
        self.runtime, self.finality_lag, self.disk = runtime, finality_lag, disk
        digest = fork.digest if fork is not None else disk.fork_digest if disk is not None else b""
        self.genesis = self._genesis(digest)
        self.by_number: dict[int, Block] = {0: self.genesis}  # ascending; those before a fork's block are not there
        self.by_hash: dict[bytes, Block] = {self.genesis.hash: self.genesis}
        self.finalized_number = 0
        self.executive = Executive(runtime, self.genesis.hash, self.block_hash)
        self.pool = Pool(self.executive)
        self.listeners: list[Callable[[Block, list], None]] = []
        self.on_finalized: list[Callable[[Block], None]] = []
        self._unshielded: set[bytes] = set()  # accounts of the encrypted extrinsics of the open block
        self._unfinalized: list[tuple[Block, list[Entry]]] = []
        self.on_upgrade: list[Callable[[], None]] = []
        self._upgrading = False
        self.storing: Future[None] | None = None
        if disk is not None:
            self._restore(disk)
        if fork is not None and self.best.number == 0:
            self._start_from(fork)

    def _genesis(self, digest: bytes) -> Block:
        runtime = self.runtime
        content = b"".join(
            item.raw_key(key) + item.codec.encode(item.current[key]) for item, key in runtime.genesis_changes
        )
        root = blake2_256(runtime.metadata(14) + runtime.metadata(15) + content + digest)
        return Block(0, bytes(32), root, blake2_256(b""), (), [])

    def _start_from(self, fork: Fork) -> None:
        """Append the block of a snapshot, which is final."""
        fork.restore(self.runtime)
        root = blake2_256(self.genesis.state_root + fork.digest)
        block = Block(fork.block, self.genesis.hash, root, blake2_256(b""), (), [])
        self.by_number[block.number] = block
        self.by_hash[block.hash] = block
        self.finalized_number = block.number
        if self.disk is not None:
            self.disk.store_fork(block, self.runtime.store, fork.digest)

    @property
    def best(self) -> Block:
        return next(reversed(self.by_number.values()))

    @property
    def finalized(self) -> Block:
        return self.by_number[self.finalized_number]

    def block_hash(self, number: int) -> bytes | None:
        block = self.by_number.get(number)
        return None if block is None else block.hash

    def body(self, block: Block) -> list[bytes] | None:
        """The block's extrinsics, from memory or from the disk; None if neither has them."""
        if block.extrinsics is None and self.disk is not None:
            return self.disk.body(block.number)
        return block.extrinsics

    def _restore(self, disk: Disk) -> None:
        """Continue from the last block on disk; loads its state into the runtime."""
        blocks, self.finalized_number = disk.restore(self.genesis.hash, self.runtime)
        for block in blocks:
            self.by_number[block.number] = block
            self.by_hash[block.hash] = block
        self.runtime.block_number = self.best.number

    def seal(self, timestamp_ms: int, budget_s: float | None = None, *, wait: bool = True) -> Block:
        """Seal the next block from the ready extrinsics.

        budget_s  wall-clock seconds after which no further extrinsic is applied.
        wait      return once the block is on disk and finality has advanced. Otherwise the caller waits for `storing`,
                  then calls `settle`.
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
        if self._upgrading:
            self._upgrade(number)
        if wait:
            self.settle()
        return block

    def upgrade(self) -> int:
        """Replace the runtime in the state of the next block, whose number is returned (upgrade.py)."""
        self._upgrading = True
        return self.best.number + 1

    def _upgrade(self, number: int) -> None:
        """The code changed in block `number`: what is in the pool was signed for the old version."""
        self._upgrading = False
        self.runtime.upgrades.apply(number)
        if self.disk is not None:
            self.disk.store_upgrades(self.runtime.upgrades.borders)
        self.pool.revalidate([], {})
        for listener in self.on_upgrade:
            listener()

    def settle(self) -> None:
        """Wait for the disk, then finalize all but the last `finality_lag` blocks."""
        if self.storing is not None:
            self.storing.result()
        self._finalize(self.best.number - self.finality_lag)

    def _fill(self, extrinsics: list[bytes], deadline: float | None) -> tuple[list[Entry], list[Entry]]:
        """Apply ready extrinsics until the block is full. Returns (included, invalid)."""
        included: list[Entry] = []
        invalid: list[Entry] = []
        blocked: set[bytes] = set()  # accounts whose next extrinsic must wait for a later block
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
                    if exhausted > 64:  # no extrinsic of the usual size fits
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
        """Apply the encrypted extrinsic of a carrier right behind it. An invalid one is dropped, as in Subtensor."""
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
        self.by_number[number] = block
        self.by_hash[block.hash] = block
        too_old = number - self.runtime.store.history_blocks
        if too_old > 0 and too_old in self.by_number:
            self.by_number[too_old].extrinsics = None
        return block

    def _announce(self, block: Block, changes: list, included: list[Entry], invalid: list[Entry]) -> None:
        self.pool.after_block(block.number, included, invalid, self._unshielded)
        self._unshielded.clear()
        status = {"inBlock": f"0x{block.hash.hex()}"}
        for entry in included:
            entry.report(status)
        for listener in self.listeners:
            listener(block, changes)
        self._unfinalized.append((block, [entry for entry in included if entry.watchers]))

    def finalize(self, number: int) -> None:
        """Finalize all blocks up to `number`, whatever the finality lag."""
        self.settle()
        if self.disk is not None and number > self.finalized_number:
            self.disk.store_finalized(number).result()
        self._finalize(number)

    def _finalize(self, number: int) -> None:
        """Mark the blocks up to `number` as final; calls listeners and watchers."""
        while self._unfinalized and self._unfinalized[0][0].number <= number:
            block, entries = self._unfinalized.pop(0)
            self.finalized_number = block.number
            for listener in self.on_finalized:
                listener(block)
            for entry in entries:
                entry.report({"finalized": f"0x{block.hash.hex()}"})

    def roll_back(self, count: int, *, keep: bool) -> Block:
        """Remove the last `count` blocks, as a reorganisation does. Returns the new best block.

        keep  return their extrinsics to the pool; otherwise they are lost.

        Raises ValueError if one of the blocks is final or the state before them is no longer kept.
        """
        self.settle()
        target = self.best.number - count
        if target < self.finalized_number:
            raise ValueError(
                f"block {target + 1} is final; start the node with a greater --finality-lag to roll back further"
            )
        if target < self.runtime.store.oldest_block:
            raise ValueError(f"the state of block {target} is no longer kept")
        removed = [self.by_number[number] for number in range(target + 1, self.best.number + 1)]
        bodies = [self.body(block) or [] for block in removed]
        changes = self.runtime.store.revert(target)
        if self.disk is not None:
            self.disk.revert(target, changes)
        if any(border > target for border in self.runtime.upgrades.borders):
            self.runtime.upgrades.revert(target)
            if self.disk is not None:
                self.disk.store_upgrades(self.runtime.upgrades.borders)
        for block in removed:
            del self.by_number[block.number]
            del self.by_hash[block.hash]
        runtime = self.runtime
        runtime.block_number, runtime.timestamp_ms = target, runtime.Timestamp.Now.get()
        watchers = {}
        for block, entries in self._unfinalized:
            if block.number > target:
                for entry in entries:
                    entry.report({"retracted": f"0x{block.hash.hex()}"})
                    watchers[entry.extrinsic.hash] = entry.watchers
        self._unfinalized = [(block, entries) for block, entries in self._unfinalized if block.number <= target]
        # The first extrinsic of a block is its inherent; the next block has its own.
        returned = [raw for body in bodies for raw in body[1:]] if keep else []
        self.pool.revalidate(returned, watchers)
        return self.best
