"""The fast epoch: compiled kernels on one or more cores, with the same bits as the reference.

In: `EpochInput`. Out: `EpochOutput`. Chooses the dense or the sparse kernels and the number of threads. The reference
computes inputs outside the kernels' exact range (a bonds_moving_average above 10^6, which the chain refuses to set).
Knows nothing of Ray.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from raytensor.consensus.dense_rows import DenseRows
from raytensor.consensus.epoch_io import PAID, EpochInput, EpochOutput, RawColumns
from raytensor.consensus.kernels import whole
from raytensor.consensus.kernels.jit import one_compiler
from raytensor.consensus.null_fast import null_fast
from raytensor.consensus.plan import Mapper, Plan, clock, in_turn, matrices, numbers, stored_consensus
from raytensor.consensus.reference import epoch_reference
from raytensor.consensus.rows import Rows
from raytensor.errors import ConfigError

# Pairs per thread from which another thread is faster.
PAIRS_PER_THREAD = 65_536


def epoch_fast(inputs: EpochInput, *, threads: int | None = None) -> EpochOutput:
    """One epoch. threads: cores to use; None takes all of this process if the network is large enough."""
    if inputs.epoch_kind == "null":
        return null_fast(inputs)
    if inputs.bonds_moving_average > 10**6:
        return epoch_reference(inputs)
    layout = matrices(inputs)
    pairs = (layout[0] if layout else inputs.weights).values.size
    if threads is not None and threads < 1:
        raise ConfigError(f"threads: {threads}; use at least 1")
    if threads is None:
        threads = max(1, min(_cores(), pairs // PAIRS_PER_THREAD))
    if threads > 1:
        plan = Plan.of(inputs, layout)
        with ThreadPoolExecutor(threads) as pool:
            return plan.run(plan.shards(threads), _in_threads(pool))
    if layout is None:
        plan = Plan.of(inputs, layout)
        return plan.run(plan.shards(1), in_turn)
    return _in_one_call(inputs, *layout)


def load_kernels() -> None:
    """Load all kernels from disk, or compile them: about one second, or tens of seconds the first time.

    Of processes that start together one compiles; the others wait for it and load the result.
    """
    with one_compiler():
        _call_all_kernels()


def _call_all_kernels() -> None:
    ones, zeros = np.array([1, 1], np.uint64), np.zeros(2, np.uint64)
    scalars: dict[str, Any] = {"block": 1, "tempo": 1, "activity_cutoff": 1, "max_validators": 2, "emission": 1}
    scalars |= {"yuma3": True, "liquid_alpha": True}
    columns = {"last_update": ones, "stake": ones, "block_at_registration": zeros}
    for row in ([(0, 1), (1, 2)], [(1, 2), (0, 1)]):  # ascending, and not
        rows = Rows.from_lists([row, row])
        inputs = EpochInput(**scalars, **columns, validator_permit=np.ones(2, bool), weights=rows, bonds=rows)
        for threads in (1, 2):
            epoch_fast(inputs, threads=threads)


def _in_one_call(inputs: EpochInput, weights: DenseRows, bonds: DenseRows) -> EpochOutput:
    commit = inputs.commit_block if inputs.commit_reveal else inputs.commit_block[:0]
    neurons = (inputs.last_update, inputs.block_at_registration, commit, inputs.stake, inputs.stake_frac)
    stored = np.empty(bonds.values.shape, np.uint16)
    pairs = (weights.validators, weights.miners, weights.values, weights.zeros, bonds.values, stored)
    results = whole.epoch(
        clock(inputs), *numbers(inputs), stored_consensus(inputs), *neurons, inputs.validator_permit, *pairs
    )
    flags, raw, columns, rao, zeros = results
    kept = bonds.like(stored, zeros)
    rows = kept if isinstance(inputs.bonds, DenseRows) else kept.to_rows()
    paid = dict(zip(PAID, rao, strict=True))
    return EpochOutput(*columns, validator_permit=flags[1], active=flags[0], **paid, bonds=rows, raw=RawColumns(*raw))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # Linux only


def _in_threads(pool: ThreadPoolExecutor) -> Mapper:
    """A mapper for `Plan.run`: one thread per shard. The kernels release the interpreter lock."""

    def run(shards: Sequence, phase: str, arguments: Sequence[tuple]) -> list:
        futures = [pool.submit(getattr(shard, phase), *args) for shard, args in zip(shards, arguments, strict=True)]
        return [future.result() for future in futures]

    return run
