"""Robust aggregation: many miners' updates -> one step of the shared model.

In: decoded updates by hotkey. Out: their robust mean, and the outer optimizer's step. Pure numpy; sums run in hotkey
order, so that every validator gets the same bits.

Bounds, in this order: each tensor of an update is scaled down to the median norm of that tensor over the updates
(Templar, `outer_step`); no update contributes more than `peer_cap` of the sum of norms; the mean is over all updates,
so that a coordinate that few updates contain moves little.
"""

from collections.abc import Mapping

import numpy as np

from raytensor.mechanisms.collab.codec import Sparse
from raytensor.mechanisms.collab.layout import Layout


def norms(update: Sparse, layout: Layout) -> np.ndarray:
    """float64 [tensors]: the Euclidean norm of each tensor's part."""
    owner = np.searchsorted(layout.starts, update.places, side="right") - 1
    squares = np.bincount(owner, weights=update.values.astype(np.float64) ** 2, minlength=len(layout.names))
    return np.sqrt(squares)


def robust_mean(updates: Mapping[str, Sparse], layout: Layout, peer_cap: float = 1.0) -> np.ndarray:
    """float32 [size]: the mean of the updates with each tensor clipped to its median norm; zero when there is none.

    peer_cap  largest share of one update in the sum of all updates' norms (1: no cap); a larger one is scaled down.
    """
    total = np.zeros(layout.size, np.float64)
    if not updates:
        return total.astype(np.float32)
    hotkeys = sorted(updates)
    table = np.stack([norms(updates[hotkey], layout) for hotkey in hotkeys])  # [updates, tensors]
    median = np.median(table, axis=0)
    scale = np.minimum(1.0, np.divide(median, table, out=np.ones_like(table), where=table > 0))
    whole = np.sqrt(((table * scale) ** 2).sum(axis=1))
    limit = peer_cap * whole.sum()
    scale *= np.minimum(1.0, np.divide(limit, whole, out=np.ones_like(whole), where=whole > 0))[:, None]
    for row, hotkey in enumerate(hotkeys):
        update = updates[hotkey]
        owner = np.searchsorted(layout.starts, update.places, side="right") - 1
        total[update.places] += update.values.astype(np.float64) * scale[row, owner]
    return (total / len(hotkeys)).astype(np.float32)


class Outer:
    """The outer optimizer: SGD with Nesterov momentum over the mean update (DiLoCo, arXiv 2311.08105).

    momentum 0 is plain SGD. 0.9 suits long runs; for fewer than a few hundred rounds 0.5 or 0 is better.
    """

    def __init__(self, lr: float, momentum: float, size: int) -> None:
        self.lr = lr
        self.momentum = momentum
        self.velocity = np.zeros(size, np.float32)

    def step(self, mean: np.ndarray) -> np.ndarray:
        """float32 [size]: what to subtract from the shared model."""
        if self.momentum == 0:
            return (self.lr * mean).astype(np.float32)
        self.velocity = (self.momentum * self.velocity + mean).astype(np.float32)
        return (self.lr * (mean + self.momentum * self.velocity)).astype(np.float32)
