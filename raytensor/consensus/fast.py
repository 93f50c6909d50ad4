"""The fast epoch: the same bits as the reference, from compiled kernels on one or more cores.

In: `EpochInput`. Out: `EpochOutput`. Chooses the dense or the sparse kernels, splits the miners into shards, runs the
phases and puts the columns together. What lies outside the kernels' exact range (a bonds_moving_average above 10^6,
which the chain's setter refuses too) goes to the reference. Knows nothing of Ray: `run_phases` takes any mapper.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from . import pallet_math as pm
from .dense_rows import DenseRows
from .epoch_io import NO_COMMIT, EpochInput, EpochOutput, RawColumns
from .fixed import ONE, div, from_int, u16_proportion_to_fixed
from .kernels import column, layout, sparse, stake
from .reference import bonds_alpha, epoch_reference
from .rows import Rows
from .sharded import DenseShard, Electorate, SparseShard

# Below this share of stored pairs the sparse kernels are quicker; they cost a few times more for each stored pair.
DENSE_FROM = 0.3
# A thread is worth its start only above this many pairs.
PAIRS_PER_THREAD = 65_536
_ALL_SEEN = np.zeros(0, np.bool_)

# (shards, name of a phase, its arguments for each shard) -> results, in the order of the shards
Mapper = Callable[[Sequence, str, Sequence[tuple]], list[tuple]]


def epoch_fast(inputs: EpochInput, *, threads: int | None = None) -> EpochOutput:
    """One epoch. threads: cores to use; None takes those of this process where the network is large enough."""
    if inputs.bonds_moving_average > 10**6:
        return epoch_reference(inputs)
    plan = Plan.of(inputs)
    limit = len(os.sched_getaffinity(0)) if threads is None and hasattr(os, "sched_getaffinity") else threads or 1
    num_shards = max(1, min(limit, plan.num_pairs // PAIRS_PER_THREAD)) if threads is None else max(1, threads)
    if num_shards == 1:
        return plan.run(plan.shards(1), in_turn)
    with ThreadPoolExecutor(num_shards) as pool:
        return plan.run(plan.shards(num_shards), lambda *phase: in_threads(pool, *phase))


def in_turn(shards: Sequence, phase: str, arguments: Sequence[tuple]) -> list:
    """A mapper: one shard after the other."""
    return [getattr(shard, phase)(*args) for shard, args in zip(shards, arguments, strict=True)]


def in_threads(pool: ThreadPoolExecutor, shards: Sequence, phase: str, arguments: Sequence[tuple]) -> list:
    """A mapper: each shard in a thread. The kernels release the interpreter."""
    futures = [pool.submit(getattr(shard, phase), *args) for shard, args in zip(shards, arguments, strict=True)]
    return [future.result() for future in futures]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One epoch, laid out for the kernels: dense (weights and bonds are matrices over the same uids) or sparse."""

    inputs: EpochInput
    dense: bool
    weights: DenseRows | Rows
    bonds: DenseRows | Rows
    active: np.ndarray
    new_permit: np.ndarray
    stake: np.ndarray
    active_stake: np.ndarray
    bound: np.ndarray
    electorate: Electorate

    @classmethod
    def of(cls, inputs: EpochInput) -> Plan:
        clock = np.array([inputs.block, inputs.activity_cutoff, inputs.stake_threshold], np.uint64)
        active, new_permit, share, active_share, bound = stake.prepare(
            clock,
            -1 if inputs.owner_uid is None else inputs.owner_uid,
            inputs.max_validators,
            inputs.last_update,
            inputs.commit_block if inputs.commit_reveal else inputs.commit_block[:0],
            inputs.stake,
            inputs.stake_frac,
            inputs.validator_permit,
        )
        weights, bonds, is_dense = _layout(inputs)
        last_tempo = inputs.last_mechanism_step_block + 1
        if inputs.last_mechanism_step_block == 0:
            last_tempo = max(inputs.block - inputs.tempo, 0)
        keep = new_permit.astype(np.uint16) * np.uint16(65535)
        voting = stake.normalised(active_share)
        vectors = {"bound": bound, "active_stake": active_share, "voting": voting, "keep": keep}
        if is_dense:
            vectors = {name: vector[weights.validators] for name, vector in vectors.items()}
        voters = Electorate(
            **vectors,
            absent_votes=int(voting.sum()) - int(vectors["voting"].sum()),
            kappa=u16_proportion_to_fixed(inputs.kappa),
            last_tempo=np.uint64(min(last_tempo, NO_COMMIT)),
            rates=rates(inputs),
        )
        return cls(inputs, is_dense, weights, bonds, active, new_permit, share, active_share, bound, voters)

    @property
    def num_pairs(self) -> int:
        return self.weights.values.size + self.bonds.values.size // 2

    def shards(self, count: int) -> list[DenseShard] | list[SparseShard]:
        """The miners in `count` parts of about the same work."""
        owner = -1 if self.inputs.owner_uid is None else self.inputs.owner_uid
        if self.dense:
            miners, validators = self.weights.miners, self.weights.validators
            own = layout.own_position(miners, validators, owner)
            registered = self.inputs.block_at_registration[miners]
            edges = np.linspace(0, len(miners), count + 1).astype(int).tolist()
            arrays = (self.weights.values, self.bonds.values, self.weights.zeros, registered, own)
            return [DenseShard(lo, hi, *arrays, self.electorate) for lo, hi in zip(edges, edges[1:])]
        registered, w, b = self.inputs.block_at_registration, self.weights, self.bonds
        weights = (w.values, *sparse.by_miner(w.indptr, w.uids, registered, self.bound, owner))
        since = np.full(b.n, self.electorate.last_tempo)
        held = (b.values, *sparse.by_miner(b.indptr, b.uids, registered, since, sparse.EVERY))
        seen = _ALL_SEEN
        if self.electorate.rates[1]:
            seen = sparse.seen_entries(b.indptr, b.uids, held[1], held[3])
        stored = weights[1] + held[1]
        edges = np.searchsorted(stored, np.linspace(0, stored[-1], count + 1)[1:-1]).tolist()
        edges = [0, *edges, w.n]
        return [SparseShard(lo, hi, weights, held, seen, self.electorate) for lo, hi in zip(edges, edges[1:])]

    def run(self, shards: Sequence, mapper: Mapper) -> EpochOutput:
        """All phases over the shards, which cover the miners in order."""
        sums = sum(mapper(shards, "row_sums", [()] * len(shards)))
        parts = mapper(shards, "consensus", [(sums,)] * len(shards))
        agreed = np.concatenate([part[0] for part in parts])
        incentive = stake.normalised(np.concatenate([part[1] for part in parts]))
        trust = sum(part[2] for part in parts)

        e = self.electorate
        liquid_now = bool(e.rates[1]) and bool(agreed.any())
        seen = _ALL_SEEN
        if liquid_now and not self.dense:
            w, (_, start, row, place) = self.weights, shards[0].weights
            seen = sparse.seen_weights(w.indptr, w.uids, w.values, start, row, place, sums, agreed, e.rates[3])
        edges = np.cumsum([0, *(len(part[0]) for part in parts)]).tolist()
        slices = [slice(lo, hi) for lo, hi in zip(edges, edges[1:])]
        ends = mapper(shards, "bonds", [(sums, agreed[s], incentive[s], liquid_now, seen) for s in slices])
        earned = sum(end[0] for end in ends)
        if e.rates[0]:
            earned = stake.products(earned, e.active_stake)
        bonds = self._stored_bonds(ends, edges, liquid_now)
        return self._output(agreed, trust, incentive, stake.normalised(earned), bonds)

    def _stored_bonds(self, ends: list[tuple], edges: list[int], liquid_now: bool) -> Rows | DenseRows:
        if self.dense:
            values = ends[0][1] if len(ends) == 1 else np.concatenate([end[1] for end in ends])
            size = values.shape[1]
            zeros = np.concatenate([end[2] + lo * size for end, lo in zip(ends, edges)])
            stored = self.bonds.like(values, zeros)
            return stored if isinstance(self.inputs.bonds, DenseRows) else stored.to_rows()
        miner = np.concatenate([end[1] + lo for end, lo in zip(ends, edges)])
        others = [np.concatenate([end[k] for end in ends]) for k in (2, 3, 4)]
        # liquid alpha keeps the weights' order, but for blended weights, which the chain sorts
        by_place = liquid_now and not self.weights.ascending and int(self.electorate.rates[3]) != column.BLENDED
        rows = sparse.to_rows(self.inputs.n, miner, *others, len(self.weights.uids), by_place)
        return Rows(*rows, ascending=not by_place)

    def _output(
        self, agreed: np.ndarray, trust: np.ndarray, incentive: np.ndarray, dividends: np.ndarray, bonds: Rows | DenseRows
    ) -> EpochOutput:
        if self.dense:
            agreed, incentive = self._spread(agreed, self.weights.miners), self._spread(incentive, self.weights.miners)
            trust, dividends = (self._spread(column_, self.weights.validators) for column_ in (trust, dividends))
        raw = RawColumns(self.stake, self.active_stake, agreed, trust, incentive, dividends)
        columns, rao = stake.finish(
            np.uint64(self.inputs.emission), self.stake, self.active_stake, agreed, trust, incentive, dividends
        )
        return EpochOutput(
            *columns,
            validator_permit=self.new_permit,
            active=self.active,
            server_emission=rao[0],
            validator_emission=rao[1],
            emission=rao[2],
            bonds=bonds,
            raw=raw,
        )

    def _spread(self, values: np.ndarray, uids: np.ndarray) -> np.ndarray:
        result = np.zeros(self.inputs.n, np.int64)
        result[uids] = values
        return result


def rates(inputs: EpochInput) -> np.ndarray:
    """`Electorate.rates` of an input."""
    penalty = u16_proportion_to_fixed(inputs.bonds_penalty)
    mode = column.RAW if penalty == 0 else column.CLIPPED if penalty == ONE else column.BLENDED
    low, high = u16_proportion_to_fixed(inputs.alpha_low), u16_proportion_to_fixed(inputs.alpha_high)
    steepness = from_int(inputs.alpha_sigmoid_steepness)
    liquid = inputs.yuma3 and inputs.liquid_alpha
    resting = pm.alpha_sigmoid(0, 0, 0, low, high, steepness) if liquid else 0
    slope = div(steepness, from_int(-100))
    return np.array([inputs.yuma3, liquid, bonds_alpha(inputs), mode, penalty, low, high, slope, resting], np.int64)


def _layout(inputs: EpochInput) -> tuple[DenseRows | Rows, DenseRows | Rows, bool]:
    """(weights, bonds, dense): both as matrices over the same uids, or both as rows."""
    weights, bonds = inputs.weights, inputs.bonds
    if isinstance(weights, DenseRows) and isinstance(bonds, DenseRows) and weights.covers(bonds):
        return weights, bonds, True
    weights = weights.to_rows() if isinstance(weights, DenseRows) else weights
    bonds = bonds.to_rows() if isinstance(bonds, DenseRows) else bonds
    # the cursor of liquid alpha needs the stored order, which a matrix doesn't keep
    ordered = (weights.ascending and bonds.ascending) or not (inputs.yuma3 and inputs.liquid_alpha)
    used_rows, used_columns = np.zeros(inputs.n, np.bool_), np.zeros(inputs.n, np.bool_)
    for rows in (weights, bonds):
        layout.occupied(rows.indptr, rows.uids, used_rows, used_columns)
    validators, miners = (np.flatnonzero(used).astype(np.uint32) for used in (used_rows, used_columns))
    stored = max(len(weights.uids), len(bonds.uids))
    if not ordered or stored < DENSE_FROM * len(validators) * len(miners):
        return weights, bonds, False
    return (
        DenseRows.from_rows(weights, validators, miners),
        DenseRows.from_rows(bonds, validators, miners),
        True,
    )
