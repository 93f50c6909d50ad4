"""The phases of an epoch over shards: each shard holds some of the miners.

In: a part of the weights and bonds, and the `Electorate`, which all shards share. Out, per phase: sums over validators,
and columns over the shard's miners. `plan.Plan.run` calls the phases. Sums are exact integers, so the result does not
depend on the split. Pure: knows nothing of threads or of Ray.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raytensor.consensus.kernels import dense, sparse


@dataclass(frozen=True, slots=True, eq=False)
class Electorate:
    """The validators' side of an epoch. Vectors over the validators of the layout (all n uids for sparse rows).

    bound         uint64: a weight counts if its miner registered before this block; 0 without a permit.
    active_stake, voting   int64 bits of I32F32: active stake, and the stake that the median uses.
    absent_votes  the voting stake of validators outside the layout, which have no weights.
    keep          uint16: 65535 for validators with a permit for the next epoch, else 0.
    kappa         I32F32 bits. last_tempo: bonds to miners registered at this block or later are dropped.
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
    """Miners lo..hi of matrices [miners, validators]. held: bonds; the arrays may hold more miners than these.

    stored: u16 [hi - lo, validators], written by `bonds`; a part of an array that the shards of a process share.
    """

    lo: int
    hi: int
    weights: np.ndarray
    held: np.ndarray
    zeros: np.ndarray
    registered: np.ndarray
    own: np.ndarray
    stored: np.ndarray
    electorate: Electorate

    def cut(self) -> DenseShard:
        """A copy with the arrays of its own miners only, to send to an actor."""
        part, size = slice(self.lo, self.hi), self.weights.shape[1]
        zeros = self.zeros[(self.zeros >= self.lo * size) & (self.zeros < self.hi * size)] - self.lo * size
        arrays = (self.weights[part], self.held[part], zeros, self.registered[part], self.own[part])
        arrays += (np.empty(self.stored.shape, np.uint16),)
        return DenseShard(0, self.hi - self.lo, *arrays, self.electorate)

    def row_sums(self) -> np.ndarray:
        """Sum of each validator's counted weights over this shard: int64."""
        return dense.row_sums(self.weights, self.lo, self.hi, self.registered, self.electorate.bound, self.own)

    def consensus(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Consensus and rank of each miner, and the shard's part of each validator's trust: int64."""
        e = self.electorate
        common = (self.weights, self.lo, self.hi, self.registered, e.bound, self.own, sums)
        return dense.consensus(*common, e.voting, e.absent_votes, e.active_stake, e.kappa)

    def bonds(
        self,
        sums: np.ndarray,
        agreed: np.ndarray,
        judged: np.ndarray,
        incentive: np.ndarray,
        liquid_now: bool,
        seen: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """agreed, judged, incentive: of this shard's miners; judged is the consensus that liquid alpha compares with.

        Returns earnings, stored bonds and positions of stored zeros.
        """
        e = self.electorate
        miners = (self.weights, self.held, self.zeros, self.lo, self.hi, self.registered, e.bound, self.own)
        rates = _rates_now(e, liquid_now)
        validators = (e.last_tempo, rates, e.keep, self.stored)
        earned, zeros = dense.bonds(*miners, sums, e.active_stake, agreed, judged, incentive, *validators)
        return earned, self.stored, zeros


@dataclass(frozen=True, slots=True, eq=False)
class SparseShard:
    """Miners lo..hi of stored rows. weights, held (bonds): (values, start, row, place), see `kernels.sparse`.

    seen_bonds: per stored bond, whether the cursor of liquid alpha sees it; empty if it sees all.
    """

    lo: int
    hi: int
    weights: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    held: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    seen_bonds: np.ndarray
    electorate: Electorate

    def cut(self) -> SparseShard:
        """A copy with the arrays of its own miners only, to send to an actor."""

        def cut_columns(values, start, row, place):
            part = slice(start[self.lo], start[self.hi])
            own = start[self.lo : self.hi + 1] - start[self.lo]
            return values[place[part]], own, row[part], np.arange(own[-1])

        assert not len(self.seen_bonds), "rows that are not ascending stay in one process"
        weights, held = cut_columns(*self.weights), cut_columns(*self.held)
        return replace(self, lo=0, hi=self.hi - self.lo, weights=weights, held=held)

    def row_sums(self) -> np.ndarray:
        values, start, row, place = self.weights
        return sparse.row_sums(values, start, row, place, len(self.electorate.bound), self.lo, self.hi)

    def consensus(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        e = self.electorate
        return sparse.consensus(*self.weights, self.lo, self.hi, sums, e.voting, e.active_stake, e.kappa)

    def bonds(
        self,
        sums: np.ndarray,
        agreed: np.ndarray,
        judged: np.ndarray,
        incentive: np.ndarray,
        liquid_now: bool,
        seen: np.ndarray,
    ) -> tuple:
        """Returns earnings, and the entries to store: miner (from lo), validator, value, place."""
        e = self.electorate
        common = (self.weights, self.held, self.lo, self.hi, sums, e.active_stake, agreed, judged, incentive)
        return sparse.bonds(*common, _rates_now(e, liquid_now), e.keep, seen, self.seen_bonds)


def _rates_now(electorate: Electorate, liquid_now: bool) -> np.ndarray:
    """The rates, with liquid alpha off in an epoch without consensus (`compute_bonds_sparse`)."""
    if bool(electorate.rates[1]) == liquid_now:
        return electorate.rates
    rates = electorate.rates.copy()
    rates[1] = liquid_now
    return rates
