"""The epoch's phases over shards: each holds some of the miners, whatever runs it (a loop, threads, other machines).

In: a part of the weights and bonds, and the `Electorate`, which is the same for each shard. Out, phase by phase: sums
over validators, and columns over the shard's miners. `fast.run_phases` drives them. Sums are exact integers, so the
split never shows in the result. Pure: knows nothing of threads or of Ray.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raytensor.consensus.kernels import dense, sparse


@dataclass(frozen=True, slots=True, eq=False)
class Electorate:
    """The validators' side of an epoch. Vectors over the validators of the layout (all n uids for sparse rows).

    bound         uint64: a weight counts if its miner registered before this block; 0 without a permit.
    active_stake, voting   int64 bits of I32F32: stake, and stake as the median counts it.
    absent_votes  the voting stake of validators outside the layout, who have no weights.
    keep          uint16: 65535 for those who have a permit from now on, else 0.
    kappa         I32F32 bits. last_tempo: bonds to miners registered from this block on are dropped.
    rates         int64 [9]: Yuma 3, liquid alpha, alpha of the moving average, mode and penalty of the weights for
                  bonds, and liquid alpha's low, high, slope and value at difference 0.
    """

    bound: np.ndarray
    active_stake: np.ndarray
    voting: np.ndarray
    absent_votes: int
    keep: np.ndarray
    kappa: int
    last_tempo: np.uint64
    rates: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class DenseShard:
    """Miners lo..hi of a matrix [miners, validators]; the arrays may hold more than these."""

    lo: int
    hi: int
    weights: np.ndarray
    held: np.ndarray
    zeros: np.ndarray
    registered: np.ndarray
    own: np.ndarray
    electorate: Electorate

    def cut(self) -> DenseShard:
        """The same shard with arrays of its own miners alone, to send elsewhere."""
        part, size = slice(self.lo, self.hi), self.weights.shape[1]
        zeros = self.zeros[(self.zeros >= self.lo * size) & (self.zeros < self.hi * size)] - self.lo * size
        return DenseShard(
            0,
            self.hi - self.lo,
            self.weights[part],
            self.held[part],
            zeros,
            self.registered[part],
            self.own[part],
            self.electorate,
        )

    def row_sums(self) -> np.ndarray:
        """Sum of each validator's weights that count, over this shard: int64."""
        return dense.row_sums(self.weights, self.lo, self.hi, self.registered, self.electorate.bound, self.own)

    def consensus(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Consensus and rank of each miner and the shard's part of each validator's trust: int64."""
        e = self.electorate
        return dense.consensus(
            self.weights,
            self.lo,
            self.hi,
            self.registered,
            e.bound,
            self.own,
            sums,
            e.voting,
            e.absent_votes,
            e.active_stake,
            e.kappa,
        )

    def bonds(
        self, sums: np.ndarray, agreed: np.ndarray, incentive: np.ndarray, liquid_now: bool, seen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """agreed, incentive: of this shard's miners. Returns earned, stored bonds and positions of stored zeros."""
        e = self.electorate
        return dense.bonds(
            self.weights,
            self.held,
            self.zeros,
            self.lo,
            self.hi,
            self.registered,
            e.bound,
            self.own,
            sums,
            e.active_stake,
            agreed,
            incentive,
            e.last_tempo,
            _rates_now(e, liquid_now),
            e.keep,
        )


@dataclass(frozen=True, slots=True, eq=False)
class SparseShard:
    """Miners lo..hi of stored rows. weights, held: (values, start, row, place), see `kernels.sparse`.

    seen_bonds: per stored bond, whether liquid alpha's cursor sees it; empty where all are seen.
    """

    lo: int
    hi: int
    weights: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    held: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    seen_bonds: np.ndarray
    electorate: Electorate

    def cut(self) -> SparseShard:
        """The same shard with arrays of its own miners alone, to send elsewhere."""

        def cut_columns(values, start, row, place):
            part = slice(start[self.lo], start[self.hi])
            own = start[self.lo : self.hi + 1] - start[self.lo]
            return values[place[part]], own, row[part], np.arange(own[-1])

        assert not len(self.seen_bonds), "rows that don't ascend stay in one process"
        return replace(
            self, lo=0, hi=self.hi - self.lo, weights=cut_columns(*self.weights), held=cut_columns(*self.held)
        )

    def row_sums(self) -> np.ndarray:
        values, start, row, place = self.weights
        return sparse.row_sums(values, start, row, place, len(self.electorate.bound), self.lo, self.hi)

    def consensus(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        e = self.electorate
        return sparse.consensus(*self.weights, self.lo, self.hi, sums, e.voting, e.active_stake, e.kappa)

    def bonds(
        self, sums: np.ndarray, agreed: np.ndarray, incentive: np.ndarray, liquid_now: bool, seen: np.ndarray
    ) -> tuple:
        """Returns earned, and the entries to store: miner (counted from lo), validator, count, place."""
        e = self.electorate
        return sparse.bonds(
            self.weights,
            self.held,
            self.lo,
            self.hi,
            sums,
            e.active_stake,
            agreed,
            incentive,
            _rates_now(e, liquid_now),
            e.keep,
            seen,
            self.seen_bonds,
        )


def _rates_now(electorate: Electorate, liquid_now: bool) -> np.ndarray:
    """Liquid alpha rests in an epoch without any consensus (`compute_bonds_sparse`)."""
    if bool(electorate.rates[1]) == liquid_now:
        return electorate.rates
    rates = electorate.rates.copy()
    rates[1] = liquid_now
    return rates
