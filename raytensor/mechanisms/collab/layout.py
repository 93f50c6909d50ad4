"""A model's parameters as one flat float32 vector, in the order of their names.

In: named arrays. Out: a vector, and back. Pure numpy; knows nothing of torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Layout:
    """names sorted; shapes in that order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Layout:
        names = tuple(sorted(arrays))
        return cls(names, tuple(tuple(arrays[name].shape) for name in names))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """Values in all."""
        return sum(self.sizes)

    @property
    def starts(self) -> np.ndarray:
        """int64: where each tensor begins."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    def flatten(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """float32 [size]. The arrays must be those of this layout."""
        assert tuple(tuple(arrays[name].shape) for name in self.names) == self.shapes, "arrays of another model"
        return np.concatenate([np.asarray(arrays[name], np.float32).ravel() for name in self.names])

    def unflatten(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Views of float32 [size] by name."""
        assert vector.shape == (self.size,)
        cuts = np.split(vector, self.starts[1:])
        return {name: cut.reshape(shape) for name, cut, shape in zip(self.names, cuts, self.shapes)}
