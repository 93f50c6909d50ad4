"""Converts named parameters of a model to one flat float32 vector, in the order of the names, and back.

In: named arrays, or a vector. Out: the other of the two. Pure numpy. Knows nothing of torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Layout:
    """The sorted names of a model's tensors, and the shape of each."""

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
        """Number of values of all tensors."""
        return sum(self.sizes)

    @property
    def starts(self) -> np.ndarray:
        """int64 [tensors]: index of the first value of each tensor in the vector."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    def flatten(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The vector, float32 [size]. The names and shapes of the arrays must be those of the layout."""
        assert tuple(tuple(arrays[name].shape) for name in self.names) == self.shapes, "arrays of another model"
        return np.concatenate([np.asarray(arrays[name], np.float32).ravel() for name in self.names])

    def unflatten(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """{name: array}: views of a vector, float32 [size]."""
        assert vector.shape == (self.size,)
        cuts = np.split(vector, self.starts[1:])
        return {name: cut.reshape(shape) for name, cut, shape in zip(self.names, cuts, self.shapes)}
