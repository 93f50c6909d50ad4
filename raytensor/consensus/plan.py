"""One epoch for the kernels: prepares the columns, splits the miners into shards, runs the phases over the shards.

In: `EpochInput`. Out: shards for any number of workers and, from their results, `EpochOutput`. `Plan.run` takes a
mapper, which runs the shards in a loop, in threads or in actors. Knows nothing of the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from raytensor.consensus import pallet_math as pm
from raytensor.consensus.dense_rows import DenseRows
from raytensor.consensus.epoch_io import PAID, EpochInput, EpochOutput, RawColumns
from raytensor.consensus.fixed import ONE, div, from_int, u16_proportion_to_fixed
from raytensor.consensus.kernels import column, layout, sparse, stake
from raytensor.consensus.reference import bonds_alpha
from raytensor.consensus.rows import Rows
from raytensor.consensus.sharded import DenseShard, Electorate, SparseShard

# Share of stored pairs from which the dense kernels are faster; the sparse ones cost more per stored pair.
DENSE_FROM = 0.12
_ALL_SEEN = np.zeros(0, np.bool_)
_NOT_STORED = np.zeros(0, np.int64)

# (shards, name of a phase, its arguments for each shard) -> results, in the order of the shards
Mapper = Callable[[Sequence, str, Sequence[tuple]], list]


def in_turn(shards: Sequence, phase: str, arguments: Sequence[tuple]) -> list:
    """A mapper that runs one shard after the other."""
    return [getattr(shard, phase)(*args) for shard, args in zip(shards, arguments, strict=True)]


def matrices(inputs: EpochInput) -> tuple[DenseRows, DenseRows] | None:
    """Weights and bonds as matrices over the same uids, or None if stored rows are the faster layout."""
    weights, bonds = inputs.weights, inputs.bonds
    if isinstance(weights, DenseRows) and isinstance(bonds, DenseRows) and weights.covers(bonds):
        return weights, bonds
    weights, bonds = _as_rows(weights), _as_rows(bonds)
    # the cursor of liquid alpha needs the stored order, which a matrix does not keep
    ordered = (weights.ascending and bonds.ascending) or not (inputs.yuma3 and inputs.liquid_alpha)
    used_rows, used_columns = np.zeros(inputs.n, np.bool_), np.zeros(inputs.n, np.bool_)
    for rows in (weights, bonds):
        layout.occupied(rows.indptr, rows.uids, used_rows, used_columns)
    validators, miners = (np.flatnonzero(used).astype(np.uint32) for used in (used_rows, used_columns))
    stored = max(len(weights.uids), len(bonds.uids))
    if not ordered or stored < DENSE_FROM * len(validators) * len(miners):
        return None
    return DenseRows.from_rows(weights, validators, miners), DenseRows.from_rows(bonds, validators, miners)


def _as_rows(rows: Rows | DenseRows) -> Rows:
    return rows.to_rows() if isinstance(rows, DenseRows) else rows


def clock(inputs: EpochInput) -> np.ndarray:
    """uint64 [block, activity_cutoff, stake_threshold, last_tempo, emission]: the scalars that may need 64 bits."""
    cutoff = inputs.bond_cutoff_block
    scalars = [inputs.block, inputs.activity_cutoff, inputs.stake_threshold, cutoff, inputs.emission]
    return np.array(scalars, np.uint64)


def numbers(inputs: EpochInput) -> tuple[np.ndarray, np.ndarray]:
    """int64 [owner or -1, max_validators, kappa] and `Electorate.rates`."""
    owner = -1 if inputs.owner_uid is None else inputs.owner_uid
    switches = (inputs.yuma3, inputs.yuma3 and inputs.liquid_alpha)
    liquid = (inputs.alpha_low, inputs.alpha_high, inputs.alpha_sigmoid_steepness)
    rates = (inputs.bonds_penalty, bonds_alpha(inputs), *liquid)
    return _numbers(owner, inputs.max_validators, inputs.kappa, *switches, *rates)


def stored_consensus(inputs: EpochInput) -> np.ndarray:
    """int64 [n] I32F32 bits of the previous epoch's consensus, if liquid alpha compares with it, else [0]."""
    if not (inputs.yuma3 and inputs.liquid_alpha and inputs.judges_by_previous):
        return _NOT_STORED
    counts = inputs.previous_consensus.astype(np.int64)
    return counts * 65537 + (counts == 65535)  # as `arithmetic.from_u16`


@lru_cache(maxsize=1024)
def _numbers(owner, max_validators, kappa, yuma3, liquid, penalty, alpha, alpha_low, alpha_high, steepness):
    ratio = u16_proportion_to_fixed(penalty)
    mode = column.RAW if ratio == 0 else column.CLIPPED if ratio == ONE else column.BLENDED
    low, high = u16_proportion_to_fixed(alpha_low), u16_proportion_to_fixed(alpha_high)
    resting = pm.alpha_sigmoid(0, 0, 0, low, high, from_int(steepness)) if liquid else 0
    slope = div(from_int(steepness), from_int(-100))
    rates = np.array([yuma3, liquid, alpha, mode, ratio, low, high, slope, resting], np.int64)
    return np.array([owner, max_validators, u16_proportion_to_fixed(kappa)], np.int64), rates


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """The parts as one matrix: without a copy if they are parts of one array, as the shards of a process are."""
    whole = parts[0].base
    if whole is not None and all(part.base is whole for part in parts) and len(whole) == sum(map(len, parts)):
        return whole
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One epoch: dense (weights and bonds are `DenseRows` over the same uids) or sparse (both are `Rows`)."""

    inputs: EpochInput
    dense: bool
    weights: DenseRows | Rows
    bonds: DenseRows | Rows
    active: np.ndarray
    new_permit: np.ndarray
    stake: np.ndarray
    active_stake: np.ndarray
    electorate: Electorate

    @classmethod
    def of(cls, inputs: EpochInput, dense: tuple[DenseRows, DenseRows] | None) -> Plan:
        """dense: the result of `matrices`."""
        times = clock(inputs)
        (owner, max_validators, kappa), rates = numbers(inputs)
        commit = inputs.commit_block if inputs.commit_reveal else inputs.commit_block[:0]
        columns = (inputs.last_update, commit, inputs.stake, inputs.stake_frac, inputs.validator_permit)
        active, new_permit, share, active_share, bound = stake.prepare(times, owner, max_validators, *columns)
        weights, bonds = dense or (_as_rows(inputs.weights), _as_rows(inputs.bonds))
        voting = stake.normalised(active_share)
        keep = new_permit.astype(np.uint16) * np.uint16(65535)
        vectors = {"bound": bound, "active_stake": active_share, "voting": voting, "keep": keep}
        if dense:
            vectors = {name: vector[dense[0].validators] for name, vector in vectors.items()}
        absent = int(voting.sum()) - int(vectors["voting"].sum())
        voters = Electorate(**vectors, absent_votes=absent, kappa=int(kappa), last_tempo=times[3], rates=rates)
        return cls(inputs, bool(dense), weights, bonds, active, new_permit, share, active_share, voters)

    @property
    def has_cursor_effects(self) -> bool:
        """Whether the order inside rows matters: liquid alpha over unordered rows (see `kernels.sparse`)."""
        return bool(self.electorate.rates[1]) and not (self.weights.ascending and self.bonds.ascending)

    def shards(self, count: int) -> list[DenseShard] | list[SparseShard]:
        """The miners in `count` parts of about the same work."""
        owner = -1 if self.inputs.owner_uid is None else self.inputs.owner_uid
        e = self.electorate
        if self.dense:
            w, b = self._dense_rows()
            own = layout.own_position(w.miners, w.validators, owner)
            registered = self.inputs.block_at_registration[w.miners]
            edges = [len(w.miners) * k // count for k in range(count + 1)]
            arrays = (w.values, b.values, w.zeros, registered, own)
            stored = np.empty(w.values.shape, np.uint16)
            return [DenseShard(lo, hi, *arrays, stored[lo:hi], e) for lo, hi in zip(edges, edges[1:])]
        registered, (w, b) = self.inputs.block_at_registration, self._stored_rows()
        weights = (w.values, *sparse.by_miner(w.indptr, w.uids, registered, e.bound, owner))
        since = np.full(b.n, e.last_tempo)
        bonds = (b.values, *sparse.by_miner(b.indptr, b.uids, registered, since, sparse.EVERY))
        seen = sparse.seen_entries(b.indptr, b.uids, bonds[1], bonds[3]) if self.has_cursor_effects else _ALL_SEEN
        work = weights[1] + bonds[1]
        targets = [int(work[-1]) * k // count for k in range(1, count)]
        edges = [0, *np.searchsorted(work, targets).tolist(), w.n]
        return [SparseShard(lo, hi, weights, bonds, seen, e) for lo, hi in zip(edges, edges[1:])]

    def run(self, shards: Sequence, mapper: Mapper) -> EpochOutput:
        """Run all phases over the shards, which cover the miners in order."""
        sums = np.sum(mapper(shards, "row_sums", [()] * len(shards)), axis=0)
        parts = mapper(shards, "consensus", [(sums,)] * len(shards))
        agreed = np.concatenate([part[0] for part in parts])
        incentive = stake.normalised(np.concatenate([part[1] for part in parts]))
        trust = np.sum([part[2] for part in parts], axis=0)

        e = self.electorate
        stored = stored_consensus(self.inputs)
        liquid_now = bool(e.rates[1]) and bool((stored if stored.size else agreed).any())
        judged = agreed
        if stored.size:
            judged = stored[self._dense_rows()[0].miners] if self.dense else stored
        seen = _ALL_SEEN
        if liquid_now and self.has_cursor_effects:
            (w, _), (_, start, row, place) = self._stored_rows(), shards[0].weights
            seen = sparse.seen_weights(w.indptr, w.uids, w.values, start, row, place, sums, agreed, e.rates[3])
        edges = np.cumsum([0, *(len(part[0]) for part in parts)]).tolist()
        slices = [slice(lo, hi) for lo, hi in zip(edges, edges[1:])]
        common = [(sums, agreed[s], judged[s], incentive[s], liquid_now, seen) for s in slices]
        ends = mapper(shards, "bonds", common)
        earned = np.sum([end[0] for end in ends], axis=0)
        if e.rates[0]:
            earned = stake.products(earned, e.active_stake)
        bonds = self._stored_bonds(ends, edges, liquid_now)
        return self._output(agreed, trust, incentive, stake.normalised(earned), bonds)

    def _stored_bonds(self, ends: list[tuple], edges: list[int], liquid_now: bool) -> Rows | DenseRows:
        if self.dense:
            values = _joined([end[1] for end in ends])
            size = values.shape[1]
            zeros = np.concatenate([end[2] + lo * size for end, lo in zip(ends, edges)])
            stored = self._dense_rows()[1].like(values, zeros)
            return stored if isinstance(self.inputs.bonds, DenseRows) else stored.to_rows()
        miner = np.concatenate([end[1] + lo for end, lo in zip(ends, edges)])
        others = [np.concatenate([end[k] for end in ends]) for k in (2, 3, 4)]
        weights, _ = self._stored_rows()
        # liquid alpha keeps the order of the weights, except for blended weights, which the chain sorts
        by_place = liquid_now and not weights.ascending and int(self.electorate.rates[3]) != column.BLENDED
        rows = sparse.to_rows(self.inputs.n, miner, *others, len(weights.uids), by_place)
        return Rows.trusted(*rows, ascending=not by_place)

    def _output(
        self, agreed: np.ndarray, trust: np.ndarray, incentive: np.ndarray, earned: np.ndarray, bonds: Rows | DenseRows
    ) -> EpochOutput:
        """earned: the dividends."""
        if self.dense:
            w, _ = self._dense_rows()
            agreed, incentive = (self._spread(values, w.miners) for values in (agreed, incentive))
            trust, earned = (self._spread(values, w.validators) for values in (trust, earned))
        raw = (self.stake, self.active_stake, agreed, trust, incentive, earned)
        columns, rao = stake.finish(np.uint64(self.inputs.emission), *raw)
        flags = {"validator_permit": self.new_permit, "active": self.active}
        return EpochOutput(*columns, **flags, **dict(zip(PAID, rao, strict=True)), bonds=bonds, raw=RawColumns(*raw))

    def _dense_rows(self) -> tuple[DenseRows, DenseRows]:
        assert isinstance(self.weights, DenseRows) and isinstance(self.bonds, DenseRows)
        return self.weights, self.bonds

    def _stored_rows(self) -> tuple[Rows, Rows]:
        assert isinstance(self.weights, Rows) and isinstance(self.bonds, Rows)
        return self.weights, self.bonds

    def _spread(self, values: np.ndarray, uids: np.ndarray) -> np.ndarray:
        result = np.zeros(self.inputs.n, np.int64)
        result[uids] = values
        return result
