"""The Null epoch on numpy arrays, with the same bits as `null_reference`.

In: `EpochInput` of kind "null". Out: `EpochOutput`. Weights are divided in 64-bit words; stake, which has 128 bits, in
Python's integers, one division per staker. Knows nothing of several mechanisms.
"""

from itertools import accumulate

import numpy as np

from raytensor.consensus.dense_rows import DenseRows
from raytensor.consensus.epoch_io import NO_COMMIT, EpochInput, EpochOutput, RawColumns
from raytensor.consensus.kernels import stake as kernels
from raytensor.consensus.null_reference import null_pots, pay

_WIDE = np.uint64(1 << 31)  # from this total on (32,768 full weights), products leave 64 bits
_SHIFT, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def null_fast(inputs: EpochInput) -> EpochOutput:
    """One Null epoch."""
    n = inputs.n
    zeros = np.zeros(n, np.int64)
    times = np.array([inputs.block, inputs.activity_cutoff, inputs.stake_threshold], np.uint64)
    owner = -1 if inputs.owner_uid is None else inputs.owner_uid
    columns = (inputs.last_update, inputs.commit_block[:0], inputs.stake, inputs.stake_frac, inputs.validator_permit)
    active, _, stake, _, _ = kernels.prepare(times, owner, inputs.max_validators, *columns)

    stakers = np.flatnonzero(inputs.stake | inputs.stake_frac)
    pairs = zip(inputs.stake[stakers].tolist(), inputs.stake_frac[stakers].tolist(), strict=True)
    bits = [(whole << 64) + fraction for whole, fraction in pairs]
    winner = int(stakers[bits.index(max(bits))]) if bits else 0
    server_pot, validator_pot = null_pots(inputs, bool(bits))
    shares = _miner_shares(inputs, winner) if n else np.zeros(0, np.uint64)
    server, validator = _pay(shares, server_pot), np.zeros(n, np.uint64)
    dividends = zeros.copy()
    if bits:
        total = sum(bits)
        upto = [prefix * validator_pot // total for prefix in accumulate(bits)]
        validator[stakers] = np.diff(np.array([0, *upto], np.uint64))
        dividends[stakers] = [(share << 32) // total for share in bits]
    incentive = ((shares << _SHIFT) // np.maximum(shares.sum(), np.uint64(1))).astype(np.int64)
    raw = (stake, dividends, zeros, zeros, incentive, dividends)
    stored, _ = kernels.finish(np.uint64(0), *raw)
    return EpochOutput(
        *stored,
        validator_permit=np.arange(n) == winner,
        active=active,
        server_emission=server,
        validator_emission=validator,
        emission=server + validator,
        bonds=inputs.bonds,
        raw=RawColumns(*raw),
    )


def _miner_shares(inputs: EpochInput, winner: int) -> np.ndarray:
    """uint64 [n]: the winner's weights that count, or 1 for each uid if none does."""
    rows = inputs.weights.to_rows() if isinstance(inputs.weights, DenseRows) else inputs.weights
    entries = slice(rows.indptr[winner], rows.indptr[winner + 1])
    uids, values = rows.uids[entries], rows.values[entries]
    registered = inputs.block_at_registration[uids]
    counted = registered < inputs.last_update[winner]
    commit = inputs.commit_block[winner]
    if inputs.commit_reveal and commit != np.uint64(NO_COMMIT):
        counted &= registered <= commit
    if winner != inputs.owner_uid:
        counted &= uids != winner
    shares = np.zeros(inputs.n, np.uint64)
    shares[uids[counted]] = values[counted]
    return shares if shares.any() else np.ones(inputs.n, np.uint64)


def _pay(shares: np.ndarray, pot: int) -> np.ndarray:
    """As `null_reference.pay`: floor(prefix * pot / total), by two 32-bit digits of the pot."""
    prefix = np.cumsum(shares, dtype=np.uint64)
    total = np.maximum(prefix[-1:].sum(), np.uint64(1))
    if total >= _WIDE:
        return np.array(pay(shares.tolist(), pot), np.uint64)
    high, low = np.uint64(pot) >> _SHIFT, np.uint64(pot) & _LOW
    upper = prefix * high
    lower = ((upper % total) << _SHIFT) + prefix * low
    upto = ((upper // total) << _SHIFT) + lower // total
    return np.diff(upto, prepend=np.uint64(0))
