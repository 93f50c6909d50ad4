"""Storage items: what pallets declare, and the dict-like things they read and write.

In: declarations (`StorageValue`, `StorageMap`) and writes of plain Python values. Out: values now or at an older
block, raw keys and SCALE values. A stored value is never changed in place, always replaced: the undo log and the
history keep references to old ones. Nothing is encoded until a client or the disk asks.
Knows nothing of blocks; the log and their ends are the store's (store.py).

History: for a key, `(block, value before that block)` in block order. The value at block h is what stood there
before the first change after h, or the current one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raytensor.devnet.hashing import HASHERS, twox_128
from raytensor.devnet.scale import ScaleError

if TYPE_CHECKING:
    from raytensor.devnet.store import Store

ABSENT = type("Absent", (), {"__repr__": lambda self: "ABSENT", "__slots__": ()})()


@dataclass(frozen=True, eq=False)
class StorageValue:
    """One value. `default`: what an absent value reads as (the type's zero when not given); `optional`: None."""

    type: str
    default: Any = ABSENT
    optional: bool = False
    keys: tuple = ()


@dataclass(frozen=True, eq=False)
class StorageMap:
    """A map over one or more keys: `keys` = [(hasher, type), ...]. A numpy default makes restored values arrays."""

    keys: Any
    type: str
    default: Any = ABSENT
    optional: bool = False


class Item:
    """What values and maps share: the dictionary, the log, the history, raw keys."""

    def __init__(self, store: Store, pallet: str, name: str, decl: StorageValue | StorageMap) -> None:
        self.pallet, self.name, self.decl = pallet, name, decl
        self.prefix = twox_128(pallet.encode()) + twox_128(name.encode())
        self.codec = store.codecs(decl.type)
        self.default = None if decl.optional else self.codec.zero if decl.default is ABSENT else decl.default
        self.key_parts = [(*HASHERS[hasher], store.codecs(type_)) for hasher, type_ in decl.keys]
        self.single = len(self.key_parts) == 1
        self.current: dict[Any, Any] = {}
        self.history: dict[Any, list[tuple[int, Any]]] = {}
        self._log = store.log
        self._check = store.check
        # Raw key index: built at the first listing, then kept up with the keys that appear.
        self._index: list[bytes] | None = None
        self._by_raw: dict[bytes, Any] = {}
        self._unindexed: list[Any] = []

    def _write(self, key: Any, value: Any) -> None:
        if self._check:
            self.raw_key(key), self.codec.encode(value)
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
        """Set or remove without a log entry: rollback, and loading from disk."""
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
        """The key behind raw bytes; ScaleError when they are no key of this item."""
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
        """The stored value after `block` (None: now), or ABSENT."""
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
            self._unindexed = list(self.current.keys() | self.history.keys())
            self._index = []
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
        if hasattr(self.default, "dtype"):
            # The shape too: no row at all is still a table with its columns.
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
    """A live StorageMap: dict-like. Reading an absent key gives the default (None for optional maps).

    A key is the bare value for one key, a tuple for several. `keys(*prefix)`, `items(*prefix)` iterate in ascending
    key order, as a snapshot, and yield what is left of the key after the prefix: the bare value when one part is
    left, else a tuple.
    """

    def __init__(self, store: Store, pallet: str, name: str, decl: StorageMap) -> None:
        super().__init__(store, pallet, name, decl)
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
        """The stored value, or `fallback` when there is none (the declared default plays no part)."""
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
        """Remove every entry under the prefix (all without one). Returns how many."""
        one_left = len(prefix) + 1 == len(self.key_parts)
        doomed = [k if not prefix else (*prefix, k) if one_left else (*prefix, *k) for k in self.keys(*prefix)]
        for key in doomed:
            self._delete(key)
        return len(doomed)

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
