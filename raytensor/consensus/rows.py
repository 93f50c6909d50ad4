"""Weights and bonds as the chain stores them: a list of (uid, u16) per uid, in stored order, zeros included.

In: lists, dictionaries or arrays. Out: `Rows`, a checked compressed sparse row (CSR) matrix.
Knows nothing of the meaning of the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raytensor.errors import ConfigError


def unsigned(name: str, values: object, dtype: type, length: int | None = None) -> np.ndarray:
    """`values` as a contiguous vector of an unsigned dtype. Raises ConfigError, with `name`, if one does not fit."""
    array = np.asarray(values)
    if array.dtype.kind == "f" and not isinstance(values, np.ndarray):
        array = np.array(values, dtype=object)  # integers of 2^63 and more must not become floats
    if array.ndim != 1:
        raise ConfigError(f"{name}: {array.ndim} dimensions; give a one-dimensional list of integers")
    if length is not None and len(array) != length:
        raise ConfigError(f"{name}: {len(array)} values; this network has {length}")
    if array.dtype == dtype:
        # a read-only array would compile the kernels again
        return np.ascontiguousarray(array) if array.flags.writeable else array.copy()
    limit = np.iinfo(dtype).max
    if array.dtype.kind in "iu":
        if len(array) and (array.min() < 0 or array.max() > limit):
            bad = int(array.min()) if array.min() < 0 else int(array.max())
            raise ConfigError(f"{name}: {bad} is outside 0..{limit}")
    elif len(array):
        for value in array.tolist():
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name}: {value!r} is not an integer")
            if not 0 <= value <= limit:
                raise ConfigError(f"{name}: {value} is outside 0..{limit}")
    return np.ascontiguousarray(array, dtype=dtype)


def _checked(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """The fields of `rows` in their dtypes. Raises ConfigError if they don't describe a matrix."""
    pointers = unsigned(f"{name}.indptr", rows.indptr, np.uint64).astype(np.int64)
    columns = unsigned(f"{name}.uids", rows.uids, np.uint32)
    entries = unsigned(f"{name}.values", rows.values, np.uint16)
    if len(pointers) == 0 or pointers[0] != 0 or np.any(np.diff(pointers) < 0):
        raise ConfigError(f"{name}.indptr: must start at 0 and must not decrease")
    if pointers[-1] != len(columns) or len(columns) != len(entries):
        found = f"indptr ends at {pointers[-1]}, uids has {len(columns)} and values {len(entries)} entries"
        raise ConfigError(f"{name}: {found}; the three must be equal")
    n = len(pointers) - 1
    if len(columns) and int(columns.max()) >= n:
        raise ConfigError(f"{name}.uids: uid {int(columns.max())} in a network of {n}")
    flat = np.repeat(np.arange(n, dtype=np.int64) * n, np.diff(pointers)) + columns
    ascending = bool(np.all(flat[1:] > flat[:-1]))
    if not ascending:
        ordered = np.sort(flat)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(twice):
            # the chain refuses such weights (DuplicateUids)
            raise ConfigError(f"{name}.uids: row {twice[0] // n} names uid {twice[0] % n} twice")
    return pointers, columns, entries, ascending


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """n rows of (uid, value) entries in CSR form. Raises ConfigError for arrays that don't describe a matrix.

    indptr     int64 [n + 1]: row i is the slice indptr[i]:indptr[i + 1] of `uids` and `values`.
    uids       uint32 [entries]: the column of each entry, below n, at most once per row. The chain's uids are u16;
               uint32 is an extension for larger networks.
    values     uint16 [entries]. A stored zero is an entry; a missing uid is not.
    ascending  whether the uids of each row ascend, as they do unless a validator submitted another order. Computed.
    """

    indptr: np.ndarray
    uids: np.ndarray
    values: np.ndarray
    ascending: bool = True  # a given value is ignored

    def __post_init__(self) -> None:
        for name, value in zip(("indptr", "uids", "values", "ascending"), _checked(self, "rows"), strict=True):
            object.__setattr__(self, name, value)

    @property
    def n(self) -> int:
        return len(self.indptr) - 1

    @classmethod
    def trusted(cls, indptr: np.ndarray, uids: np.ndarray, values: np.ndarray, ascending: bool = True) -> Rows:
        """Rows from arrays that are already checked."""
        rows = object.__new__(cls)
        for name, value in zip(("indptr", "uids", "values", "ascending"), (indptr, uids, values, ascending)):
            object.__setattr__(rows, name, value)
        return rows

    @classmethod
    def checked(cls, indptr: Any, uids: Any, values: Any, *, name: str = "rows") -> Rows:
        """Rows from three arrays or lists. Raises ConfigError, with `name`, if they don't describe a matrix."""
        return cls.trusted(*_checked(cls.trusted(indptr, uids, values), name))

    @classmethod
    def from_lists(cls, rows: Sequence[Iterable[tuple[int, int]]], *, name: str = "rows") -> Rows:
        """Rows from one list of (uid, value) per uid. Raises ConfigError, with `name`."""
        listed = [[tuple(entry) for entry in row] for row in rows]
        indptr = np.zeros(len(listed) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in listed], out=indptr[1:])
        flat = [entry for row in listed for entry in row]
        if any(len(entry) != 2 for entry in flat):
            raise ConfigError(f"{name}: an entry is not a pair of (uid, value)")
        return cls.checked(indptr, [u for u, _ in flat], [v for _, v in flat], name=name)

    @classmethod
    def from_dict(cls, n: int, rows: Mapping[int, Iterable[tuple[int, int]]], *, name: str = "rows") -> Rows:
        """Rows from {uid: [(uid, value), ...]}; the row of any other uid is empty. Raises ConfigError, with `name`."""
        for uid in rows:
            if not 0 <= uid < n:
                raise ConfigError(f"{name}: row of uid {uid} in a network of {n}")
        return cls.from_lists([rows.get(uid, ()) for uid in range(n)], name=name)

    @classmethod
    def empty(cls, n: int) -> Rows:
        return cls.trusted(np.zeros(n + 1, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.uint16))

    def row(self, uid: int) -> list[tuple[int, int]]:
        """One row as a list of (uid, value)."""
        part = slice(self.indptr[uid], self.indptr[uid + 1])
        return list(zip(self.uids[part].tolist(), self.values[part].tolist(), strict=True))

    def to_lists(self) -> list[list[tuple[int, int]]]:
        """All rows as lists of (uid, value)."""
        return [self.row(uid) for uid in range(self.n)]

    def replace_row(self, uid: int, row: Iterable[tuple[int, int]], *, name: str = "rows") -> Rows:
        """A copy with one row replaced. Raises ConfigError, with `name`."""
        rows = self.to_lists()
        rows[uid] = list(row)
        return Rows.from_lists(rows, name=name)

    def without_column(self, uid: int) -> Rows:
        """A copy without the entries of one column, as `do_reset_bonds` (run_epoch.rs) does with the stored bonds."""
        keep = self.uids != uid
        kept = np.concatenate([[0], np.cumsum(keep)])
        return Rows.trusted(kept[self.indptr], self.uids[keep], self.values[keep], self.ascending)

    def same_as(self, other: Rows) -> bool:
        """Whether both hold the same entries in the same order."""
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in ("indptr", "uids", "values"))
