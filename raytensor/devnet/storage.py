"""Storage items: the declarations of pallets, and the dict-like objects that pallets read and write.

In: declarations (`StorageValue`, `StorageMap`) and writes of plain Python values. Out: current values or those at an
older block, raw keys and SCALE values. A stored value is never changed in place, only replaced: the undo log and the
history hold references to old values. Values are encoded only when a client or the disk reads them.
Knows nothing of blocks: the store (store.py) owns the undo log and closes blocks.

History of a key: `(block, value before that block)` in block order. The value at block h is the recorded value of the
first change after h, or the current one if there is none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raytensor.devnet.hashing import HASHERS, twox_128
from raytensor.devnet.scale import Codecs, ScaleError

ABSENT = type("Absent", (), {"__repr__": lambda self: "ABSENT", "__slots__": ()})()


@dataclass(frozen=True, eq=False)
class StorageValue:
    """One value. `default`: read when nothing is stored (the type's zero if omitted); with `optional`, None is read."""

    type: str
    default: Any = ABSENT
    optional: bool = False
    keys: tuple = ()


@dataclass(frozen=True, eq=False)
class StorageMap:
    """A map over one or more keys: `keys` = [(hasher, type), ...]. With a numpy default, decoded values are arrays."""

    keys: Any
    type: str
    default: Any = ABSENT
    optional: bool = False


@dataclass
class UndoLog:
    """The undo log that all items of a store share. `entries`: (item, key, value before) since the last block.

    check  encode every write at once, so that a wrong value fails where it is written.
    """

    codecs: Codecs
    check: bool = False
    entries: list[tuple[Item, Any, Any]] = field(default_factory=list)


class Item:
    """The part that values and maps share: the dictionary, the undo log, the history, raw keys."""

    def __init__(self, undo: UndoLog, pallet: str, name: str, decl: StorageValue | StorageMap) -> None:
        self.pallet, self.name, self.decl = pallet, name, decl
        self.prefix = twox_128(pallet.encode()) + twox_128(name.encode())
        self.codec = undo.codecs(decl.type)
        self.default = None if decl.optional else self.codec.zero if decl.default is ABSENT else decl.default
        self.key_parts = [(*HASHERS[hasher], undo.codecs(type_)) for hasher, type_ in decl.keys]
        self.single = len(self.key_parts) == 1
        self.current: dict[Any, Any] = {}
        self.history: dict[Any, list[tuple[int, Any]]] = {}
        self._log = undo.entries
        self._check = undo.check
        # Raw key index: built at the first listing, then kept up with the keys that appear.
        self._index: list[bytes] | None = None
        self._by_raw: dict[bytes, Any] = {}
        self._unindexed: list[Any] = []

    def _write(self, key: Any, value: Any) -> None:
        if self._check:
            self.raw_key(key)
            self.codec.encode(value)
        old = self.current.get(key, ABSENT)
        self._log.append((self, key, old))
        self.current[key] = value
        if old is ABSENT:
            self._appeared(key)

    def _delete(self, key: Any) -> None:
        old = self.current.pop(key, ABSENT)
        if old is not ABSENT:
            self._log.append((self, key, old))
            self._vanished(key)

    def restore(self, key: Any, value: Any) -> None:
        """Set or remove a value without a log entry; for rollback and for loading from disk."""
        if value is ABSENT:
            if self.current.pop(key, ABSENT) is not ABSENT:
                self._vanished(key)
        else:
            if key not in self.current:
                self._appeared(key)
            self.current[key] = value

    def _appeared(self, key: Any) -> None:
        if self._index is not None:
            self._unindexed.append(key)

    def _vanished(self, key: Any) -> None:
        pass

    def raw_key(self, key: Any) -> bytes:
        parts = (key,) if self.single else key
        if len(parts) != len(self.key_parts):
            raise ScaleError(f"{self.pallet}.{self.name} takes {len(self.key_parts)} keys, not {len(parts)}")
        out = self.prefix
        for (_, hasher, codec), part in zip(self.key_parts, parts):
            encoded = codec.encode(part)
            out += hasher(encoded) + encoded
        return out

    def typed_key(self, raw: bytes) -> Any:
        """The key that raw bytes encode. Raises `ScaleError` if they are no key of this item."""
        pos, parts = len(self.prefix), []
        for size, hasher, codec in self.key_parts:
            start = pos + size
            part, pos = codec.dec(raw, start)
            if hasher(raw[start:pos]) != raw[start - size : start]:
                raise ScaleError("the key's hash does not fit the key")
            parts.append(part)
        if pos != len(raw):
            raise ScaleError("bytes left over after the key")
        return parts[0] if self.single else tuple(parts)

    def at(self, key: Any, block: int | None) -> Any:
        """The stored value after `block` (None: the current one), or ABSENT."""
        if block is not None:
            versions = self.history.get(key)
            if versions:
                i = bisect_right(versions, block, key=lambda version: version[0])
                if i < len(versions):
                    return versions[i][1]
        return self.current.get(key, ABSENT)

    def sorted_raw(self) -> tuple[list[bytes], dict[bytes, Any]]:
        """All raw keys that exist or existed within the history, sorted, and their typed keys."""
        if self._index is None:
            self._unindexed, self._index = list(self.current.keys() | self.history.keys()), []
        if self._unindexed:
            for key in self._unindexed:
                raw = self.raw_key(key)
                if raw not in self._by_raw:
                    self._by_raw[raw] = key
                    self._index.append(raw)
            self._unindexed = []
            self._index.sort()
        return self._index, self._by_raw

    def decode_value(self, data: bytes) -> Any:
        value = self.codec.decode(data)
        if isinstance(self.default, np.ndarray):
            # Reshaped, so that a table without rows keeps its columns.
            value = np.array(value, self.default.dtype).reshape(len(value), *self.default.shape[1:])
            value.setflags(write=False)
        return value


class Value(Item):
    """A live StorageValue: `get()`, `set(value)`, `kill()`, `exists()`."""

    def get(self) -> Any:
        return self.current.get((), self.default)

    def set(self, value: Any) -> None:
        self._write((), value)

    def kill(self) -> None:
        self._delete(())

    def exists(self) -> bool:
        return () in self.current


class Map(Item):
    """A live StorageMap: dict-like. An absent key reads as the default (None for optional maps).

    A key is the bare value for one key part, a tuple for several. `keys(*prefix)` and `items(*prefix)` iterate over a
    snapshot in ascending key order and yield the rest of the key after the prefix: the bare value if one part is left,
    else a tuple.
    """

    def __init__(self, undo: UndoLog, pallet: str, name: str, decl: StorageValue | StorageMap) -> None:
        super().__init__(undo, pallet, name, decl)
        self._by_first: dict[Any, set] = {}

    def __getitem__(self, key: Any) -> Any:
        return self.current.get(key, self.default)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._write(key, value)

    def __delitem__(self, key: Any) -> None:
        self._delete(key)

    def __contains__(self, key: Any) -> bool:
        return key in self.current

    def __len__(self) -> int:
        return len(self.current)

    def get(self, key: Any, fallback: Any = None) -> Any:
        """The stored value, or `fallback` if there is none (not the declared default)."""
        return self.current.get(key, fallback)

    def keys(self, *prefix: Any) -> Iterator[Any]:
        if not prefix:
            return iter(sorted(self.current))
        depth, width = len(prefix), len(self.key_parts)
        full = [key for key in self._by_first.get(prefix[0], ()) if key[:depth] == prefix]
        full.sort()
        return iter([key[depth] for key in full] if depth + 1 == width else [key[depth:] for key in full])

    def items(self, *prefix: Any) -> Iterator[tuple[Any, Any]]:
        current = self.current
        if not prefix:
            return iter([(key, current[key]) for key in sorted(current)])
        one_left = len(prefix) + 1 == len(self.key_parts)
        return iter([(k, current[(*prefix, k) if one_left else (*prefix, *k)]) for k in self.keys(*prefix)])

    def clear(self, *prefix: Any) -> int:
        """Remove every entry under the prefix (without one: all). Returns their number."""
        one_left = len(prefix) + 1 == len(self.key_parts)
        removed = [k if not prefix else (*prefix, k) if one_left else (*prefix, *k) for k in self.keys(*prefix)]
        for key in removed:
            self._delete(key)
        return len(removed)

    def _appeared(self, key: Any) -> None:
        super()._appeared(key)
        if not self.single:
            self._by_first.setdefault(key[0], set()).add(key)

    def _vanished(self, key: Any) -> None:
        if not self.single:
            group = self._by_first[key[0]]
            group.discard(key)
            if not group:
                del self._by_first[key[0]]
