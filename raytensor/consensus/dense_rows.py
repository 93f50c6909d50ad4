"""Weights and bonds as one matrix [miners, validators], for networks where nearly every pair is stored.

In: arrays, or `Rows`. Out: `DenseRows`, and back. The fast epoch works on this layout without a conversion; it takes 2
bytes per pair instead of 6. Knows nothing of the meaning of the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from raytensor.consensus.rows import Rows, unsigned
from raytensor.errors import ConfigError

_FIELDS = ("n", "validators", "miners", "values", "zeros")


def _layout() -> Any:
    """The kernels that change the layout of rows."""
    from raytensor.consensus.kernels import layout  # loads the compiler, which takes a second

    return layout


def _checked(rows: DenseRows, name: str) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The fields of `rows` in their dtypes. Raises ConfigError if they don't describe a matrix."""
    across = unsigned(f"{name}.validators", rows.validators, np.uint32)
    down = unsigned(f"{name}.miners", rows.miners, np.uint32)
    for field, uids in (("validators", across), ("miners", down)):
        if np.any(uids[1:] <= uids[:-1]):
            raise ConfigError(f"{name}.{field}: uids must ascend")
        if len(uids) and uids[-1] >= rows.n:
            raise ConfigError(f"{name}.{field}: uid {uids[-1]} in a network of {rows.n}")
    matrix = np.asarray(rows.values)
    if matrix.shape != (len(down), len(across)):
        raise ConfigError(f"{name}.values: shape {matrix.shape}; miners x validators is {(len(down), len(across))}")
    if matrix.dtype != np.uint16:
        matrix = unsigned(f"{name}.values", matrix.ravel(), np.uint16).reshape(matrix.shape)
    zeros = unsigned(f"{name}.zeros", rows.zeros, np.uint64).astype(np.int64)
    if len(zeros):
        if zeros[-1] >= matrix.size or np.any(zeros[1:] <= zeros[:-1]):
            raise ConfigError(f"{name}.zeros: positions must ascend and be below {matrix.size}")
        if np.any(matrix.reshape(-1)[zeros]):
            raise ConfigError(f"{name}.zeros: names a value that is not 0")
    return int(rows.n), across, down, np.require(matrix, np.uint16, ["C", "W"]), zeros


@dataclass(frozen=True, slots=True, eq=False)
class DenseRows:
    """The rows of V validators over M miners, in a network of n uids; every other row is empty.

    validators  uint32 [V], miners uint32 [M]: ascending uids.
    values      uint16 [M, V]. A value above 0 is an entry.
    zeros       int64: ascending flat positions (m * V + v) of entries whose value is 0; any other 0 is not an entry.

    Raises ConfigError for arrays that don't describe a matrix.
    """

    n: int
    validators: np.ndarray
    miners: np.ndarray
    values: np.ndarray
    zeros: np.ndarray

    ascending = True

    def __post_init__(self) -> None:
        for name, value in zip(_FIELDS, _checked(self, "rows"), strict=True):
            object.__setattr__(self, name, value)

    @classmethod
    def trusted(cls, n: int, *arrays: np.ndarray) -> DenseRows:
        """DenseRows from arrays (validators, miners, values, zeros) that are already checked."""
        rows = object.__new__(cls)
        for name, value in zip(_FIELDS, (n, *arrays), strict=True):
            object.__setattr__(rows, name, value)
        return rows

    @classmethod
    def checked(
        cls, n: int, validators: Any, miners: Any, values: Any, zeros: Any = (), name: str = "rows"
    ) -> DenseRows:
        """DenseRows from arrays or lists. Raises ConfigError, with `name`, if they don't describe a matrix."""
        return cls.trusted(*_checked(cls.trusted(n, validators, miners, values, zeros), name))

    @classmethod
    def from_rows(cls, rows: Rows, validators: np.ndarray, miners: np.ndarray) -> DenseRows:
        """The same entries as a matrix, without their order. `validators` and `miners` must cover every entry."""
        values, zeros = _layout().to_dense(rows.indptr, rows.uids, rows.values, validators, miners, rows.ascending)
        return cls.trusted(rows.n, validators, miners, values, zeros)

    def to_rows(self) -> Rows:
        """The same entries as `Rows`."""
        return Rows.trusted(*_layout().to_sparse(self.n, self.validators, self.miners, self.values, self.zeros))

    def like(self, values: np.ndarray, zeros: np.ndarray) -> DenseRows:
        """Another matrix over the same uids."""
        return DenseRows.trusted(self.n, self.validators, self.miners, values, zeros)

    def covers(self, other: DenseRows) -> bool:
        """Whether both matrices are over the same uids."""
        pairs = ((self.validators, other.validators), (self.miners, other.miners))
        return all(mine is its or np.array_equal(mine, its) for mine, its in pairs)

    def to_lists(self) -> list[list[tuple[int, int]]]:
        return self.to_rows().to_lists()

    def row(self, uid: int) -> list[tuple[int, int]]:
        return self.to_rows().row(uid)

    def replace_row(self, uid: int, row: Iterable[tuple[int, int]], *, name: str = "rows") -> Rows:
        return self.to_rows().replace_row(uid, row, name=name)

    def without_column(self, uid: int) -> Rows:
        return self.to_rows().without_column(uid)
