"""Weights and bonds of a network where nearly every pair is stored: one matrix, the miners down, the validators across.

In: arrays, or `Rows`. Out: `DenseRows`, and back. The layout that the fast epoch works on directly: 2 bytes a pair
instead of 6, and no conversion. Knows nothing of what the numbers mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raytensor.errors import ConfigError
from raytensor.consensus.rows import Rows, unsigned


@dataclass(frozen=True, slots=True, eq=False)
class DenseRows:
    """Rows of `validators` over `miners`, of a network of n uids; every other row is empty.

    validators  uint32 [V], miners uint32 [M]: ascending uids.
    values      uint16 [M, V]. A value above 0 is an entry.
    zeros       int64: ascending flat positions (m * V + v) of entries that are 0; a 0 elsewhere is no entry.
    """

    n: int
    validators: np.ndarray
    miners: np.ndarray
    values: np.ndarray
    zeros: np.ndarray

    ascending = True

    @classmethod
    def checked(
        cls, n: int, validators: object, miners: object, values: object, zeros: object = (), *, name: str = "rows"
    ) -> DenseRows:
        """DenseRows from arrays. ConfigError, with the field's name, if they don't describe a matrix."""
        across = unsigned(f"{name}.validators", validators, np.uint32)
        down = unsigned(f"{name}.miners", miners, np.uint32)
        for field, uids in (("validators", across), ("miners", down)):
            if np.any(uids[1:] <= uids[:-1]):
                raise ConfigError(f"{name}.{field}: uids have to ascend")
            if len(uids) and uids[-1] >= n:
                raise ConfigError(f"{name}.{field}: uid {uids[-1]} in a network of {n}")
        matrix = np.asarray(values)
        if matrix.shape != (len(down), len(across)):
            raise ConfigError(f"{name}.values: shape {matrix.shape}; miners x validators is {(len(down), len(across))}")
        if matrix.dtype != np.uint16:
            matrix = unsigned(f"{name}.values", matrix.ravel(), np.uint16).reshape(matrix.shape)
        stored_zeros = unsigned(f"{name}.zeros", zeros, np.uint64).astype(np.int64)
        if len(stored_zeros):
            if stored_zeros[-1] >= matrix.size or np.any(stored_zeros[1:] <= stored_zeros[:-1]):
                raise ConfigError(f"{name}.zeros: positions have to ascend and to be below {matrix.size}")
            if np.any(matrix.reshape(-1)[stored_zeros]):
                raise ConfigError(f"{name}.zeros: names a value that is not 0")
        return cls(n, across, down, np.require(matrix, np.uint16, ["C", "W"]), stored_zeros)

    @classmethod
    def from_rows(cls, rows: Rows, validators: np.ndarray, miners: np.ndarray) -> DenseRows:
        """The same entries as a matrix. Rows have to ascend; validators and miners have to cover every entry."""
        from raytensor.consensus.kernels import layout  # loads the compiler

        values, zeros = layout.to_dense(rows.indptr, rows.uids, rows.values, validators, miners)
        return cls(rows.n, validators, miners, values, zeros)

    def to_rows(self) -> Rows:
        """The same entries as `Rows`."""
        from raytensor.consensus.kernels import layout  # loads the compiler

        return Rows(*layout.to_sparse(self.n, self.validators, self.miners, self.values, self.zeros))

    def like(self, values: np.ndarray, zeros: np.ndarray) -> DenseRows:
        """Another matrix over the same uids."""
        return DenseRows(self.n, self.validators, self.miners, values, zeros)

    def covers(self, other: DenseRows) -> bool:
        """Whether both matrices are over the same uids."""
        return (
            self.validators is other.validators or np.array_equal(self.validators, other.validators)
        ) and (self.miners is other.miners or np.array_equal(self.miners, other.miners))

    def to_lists(self) -> list[list[tuple[int, int]]]:
        return self.to_rows().to_lists()

    def row(self, uid: int) -> list[tuple[int, int]]:
        return self.to_rows().row(uid)

    def replace_row(self, uid: int, row: object, *, name: str = "rows") -> Rows:
        return self.to_rows().replace_row(uid, row, name=name)

    def without_column(self, uid: int) -> Rows:
        return self.to_rows().without_column(uid)
