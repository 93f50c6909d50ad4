"""The store: all storage items of a runtime, an undo log per dispatch, one version per block.

In: declarations, ends of blocks. Out: rollback, the changed keys of a block, raw reads and listings at any kept block.
Bounds: keeps the state of the last `history_blocks` blocks. Knows nothing of pallets or JSON-RPC.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from raytensor.devnet.scale import Codecs, ScaleError
from raytensor.devnet.storage import ABSENT, Item, Map, StorageMap, StorageValue, UndoLog, Value

__all__ = ["ABSENT", "Map", "StorageMap", "StorageValue", "Store", "Value"]


class Store:
    """All storage items of a runtime. `check`: encode every write at once, so that a wrong value fails there."""

    def __init__(self, codecs: Codecs, *, history_blocks: int = 4096, check: bool = False) -> None:
        self.history_blocks = history_blocks
        self._undo = UndoLog(codecs, check)
        self._log = self._undo.entries
        self.items: dict[bytes, Item] = {}
        self._prefixes: list[bytes] = []
        self._changed: deque[tuple[int, list]] = deque()
        self._base_block = 0

    def add(self, pallet: str, name: str, decl: StorageValue | StorageMap) -> Value | Map:
        item = (Map if decl.keys else Value)(self._undo, pallet, name, decl)
        self.items[item.prefix] = item
        self._prefixes = sorted(self.items)
        return item

    def mark(self) -> int:
        """A position that `rollback` can return to. Marks nest."""
        return len(self._log)

    def rollback(self, mark: int) -> None:
        """Undo all writes since a mark."""
        while len(self._log) > mark:
            item, key, old = self._log.pop()
            item.restore(key, old)

    def commit(self, block: int) -> list[tuple[Item, Any]]:
        """Close a block: its changes become one version of each key. Returns the changed keys, first changed first."""
        before: dict[tuple[Item, Any], Any] = {}
        for item, key, old in self._log:
            before.setdefault((item, key), old)
        self._log.clear()
        for (item, key), old in before.items():
            item.history.setdefault(key, []).append((block, old))
        self._changed.append((block, list(before)))
        while len(self._changed) > self.history_blocks:
            oldest, changes = self._changed.popleft()
            for item, key in changes:
                versions = item.history[key]
                assert versions[0][0] == oldest
                versions.pop(0)
                if not versions:
                    del item.history[key]
        return list(before)

    def revert(self, block: int) -> list[tuple[Item, Any]]:
        """Return to the state after `block`, which must be kept, and drop all later versions. Returns the keys that
        changed since.
        """
        assert block >= self.oldest_block, f"the state of block {block} is not kept"
        self.rollback(0)
        changed: dict[tuple[Item, Any], None] = {}
        while self._changed and self._changed[-1][0] > block:
            number, changes = self._changed.pop()
            for item, key in changes:
                versions = item.history[key]
                written, old = versions.pop()
                assert written == number
                if not versions:
                    del item.history[key]
                item.restore(key, old)
                changed[item, key] = None
        return list(changed)

    @property
    def oldest_block(self) -> int:
        """The oldest block whose state can be read."""
        return max(self._changed[0][0] - 1, 0) if self._changed else self._base_block

    def load(self, block: int, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Replace the whole state by the (raw key, SCALE value) entries of a block's state; history starts at it.
        Raises `ScaleError` if an entry fits no declared item.
        """
        for item in self.items.values():
            for key in list(item.current):
                item.restore(key, ABSENT)
            item.history.clear()
        self._changed.clear()
        self._log.clear()
        self._base_block = block
        for raw, value in entries:
            item = self.items.get(raw[:32])
            if item is None:
                raise ScaleError(f"no storage item has the key 0x{raw.hex()}")
            item.restore(item.typed_key(raw), item.decode_value(value))

    @contextmanager
    def as_of(self, block: int) -> Iterator[None]:
        """Inside the context, current values are those after `block`; at its end they are the present ones again."""
        since = {change for number, changes in self._changed if number > block for change in changes}
        present = [(item, key, item.current.get(key, ABSENT)) for item, key in since]
        try:
            for item, key in since:
                item.restore(key, item.at(key, block))
            yield
        finally:
            for item, key, value in present:
                item.restore(key, value)

    def read_raw(self, raw: bytes, block: int | None = None) -> bytes | None:
        """SCALE of the value stored under a raw key; None if nothing is stored."""
        item = self.items.get(raw[:32])
        if item is None:
            return None
        try:
            key = item.typed_key(raw)
        except ScaleError:
            return None
        value = item.at(key, block)
        return None if value is ABSENT else item.codec.encode(value)

    def write_raw(self, raw: bytes, value: bytes | None) -> None:
        """Set (None: remove) the value under a raw key. Raises `ScaleError` if key or value fit no declared item."""
        item = self.items.get(raw[:32])
        if item is None:
            raise ScaleError(f"no storage item has the key 0x{raw.hex()}")
        key = item.typed_key(raw)
        if value is None:
            item._delete(key)
        else:
            item._write(key, item.decode_value(value))

    def raw_keys(self, prefix: bytes, start: bytes | None, count: int | None, block: int | None = None) -> list[bytes]:
        """Up to `count` existing raw keys under a prefix, ascending, strictly after `start`."""
        found: list[bytes] = []
        for item_prefix in self._prefixes:
            if not item_prefix.startswith(prefix[:32]):
                continue
            item = self.items[item_prefix]
            index, by_raw = item.sorted_raw()
            i = bisect_left(index, prefix)
            if start is not None:
                i = max(i, bisect_right(index, start))
            while i < len(index) and index[i].startswith(prefix):
                if item.at(by_raw[index[i]], block) is not ABSENT:
                    found.append(index[i])
                    if count is not None and len(found) >= count:
                        return found
                i += 1
        return found
