"""Before and after the matrix phases: stake and permits, and the stored and paid columns.

In: the chain's columns. Out: normalised stake, permits, active stake; then u16 columns and rao.
O(n), exact for any stake in the range of an I64F64.
"""

import numpy as np

from raytensor.consensus.kernels.arithmetic import inverse, mul, ratio, to_rao, to_u16
from raytensor.consensus.kernels.jit import kernel, part

_ZERO, _UNIT = np.uint64(0), np.uint64(1)
_TOP = np.uint64(63)
_WHOLE = np.uint64(1 << 60)
_NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)  # no live commit


@part
def _share64(high, low, sum_high, sum_low):
    """floor(x * 2^32 / sum) of two 128-bit numbers x <= sum < 2^127, sum > 0: long division, bit by bit."""
    quotient = np.int64(0)
    for _ in range(33):
        quotient <<= 1
        if high > sum_high or (high == sum_high and low >= sum_low):
            high -= sum_high + np.uint64(low < sum_low)
            low -= sum_low
            quotient |= 1
        high = (high << _UNIT) | (low >> _TOP)
        low <<= _UNIT
    return quotient


@part
def _normalised_stake(counted, stake, frac, result):
    """Counted stake divided by its sum, else 0: `inplace_normalize_64`, then the floor to an I32F32."""
    high, low = _ZERO, _ZERO
    for i in range(stake.size):
        if counted[i]:
            low += frac[i]
            high += stake[i] + np.uint64(low < frac[i])
    if high == _ZERO and low == _ZERO:
        return
    # whole rao and a sum below 2^60: the quick division is exact
    quick = low == _ZERO and high < _WHOLE
    total = np.int64(high) if quick else np.int64(0)
    factor = inverse(total)
    for i in range(stake.size):
        if counted[i] and (stake[i] | frac[i]) != _ZERO:
            if quick and frac[i] == _ZERO:
                result[i] = ratio(np.int64(stake[i]), total, factor)
            else:
                result[i] = _share64(stake[i], frac[i], high, low)


@part
def _normalised(values):
    """`inplace_normalize` of values that sum to at most 2^60."""
    total = values.sum()
    factor = inverse(total)
    for i in range(values.size):
        values[i] = ratio(values[i], total, factor)


@part
def _top(stake, k, result):
    """`is_topk_nonzero`: among equals the lower uid loses."""
    holders = np.flatnonzero(stake)
    order = np.argsort(stake[holders], kind="mergesort")
    for position in range(max(0, holders.size - k), holders.size):
        result[holders[order[position]]] = True


@kernel
def prepare(clock, owner, max_validators, last_update, commit, stake, frac, permit):
    """clock: uint64 [block, activity_cutoff, stake_threshold]. owner: uid or -1. commit: uint64 [n], or [0] for none.

    Returns active [n], new permit [n] (bool), stake [n], active stake [n] (I32F32 bits) and bound [n] (uint64): a
    weight counts if its miner registered before that block, so after the validator's last update and, with live
    commits, not after the commit; 0 without a permit.
    """
    n = stake.size
    block, cutoff, threshold = clock[0], clock[1], clock[2]
    active = np.ones(n, np.bool_)
    counted = np.ones(n, np.bool_)
    for i in range(n):
        active[i] = not (block > cutoff and last_update[i] < block - cutoff)
        counted[i] = i == owner or stake[i] >= threshold
    share = np.zeros(n, np.int64)
    _normalised_stake(counted, stake, frac, share)
    in_force = permit.copy()
    new_permit = np.zeros(n, np.bool_)
    _top(share, max_validators, new_permit)
    if owner >= 0:
        in_force[owner] = new_permit[owner] = True
    active_share = np.zeros(n, np.int64)
    for i in range(n):
        if active[i] and in_force[i]:
            active_share[i] = share[i]
    _normalised(active_share)
    bound = np.zeros(n, np.uint64)
    for i in range(n):
        if in_force[i]:
            bound[i] = last_update[i]
            if commit.size > 0 and commit[i] != _NEVER:
                bound[i] = min(bound[i], commit[i] + _UNIT)
    return active, new_permit, share, active_share, bound


@kernel
def normalised(values):
    """A copy divided by its sum, truncated; unchanged where the sum is 0."""
    result = values.copy()
    _normalised(result)
    return result


@kernel
def finish(emission, stake, active_stake, consensus, trust, incentive, dividends):
    """The columns as stored and paid. All int64 [n] of I32F32; emission: uint64 rao.

    Returns u16 [5, n]: incentive, dividends, consensus, validator trust, stake; and rao uint64 [3, n]: server,
    validator, both.
    """
    n = stake.size
    columns = np.empty((5, n), np.uint16)
    rao = np.empty((3, n), np.uint64)
    total = incentive.sum() + dividends.sum()
    factor = inverse(total)
    # without incentive and dividends, stake decides
    fallback = active_stake if active_stake.sum() > 0 else stake
    for i in range(n):
        columns[0, i] = to_u16(incentive[i])
        columns[1, i] = to_u16(dividends[i])
        columns[2, i] = to_u16(consensus[i])
        columns[3, i] = to_u16(trust[i])
        columns[4, i] = to_u16(stake[i])
        if total > 0:
            rao[0, i] = to_rao(ratio(incentive[i], total, factor), emission)
            rao[1, i] = to_rao(ratio(dividends[i], total, factor), emission)
            rao[2, i] = to_rao(ratio(incentive[i] + dividends[i], total, factor), emission)
        else:
            rao[0, i] = _ZERO
            rao[1, i] = rao[2, i] = to_rao(fallback[i], emission)
    return columns, rao


@kernel
def products(values, scale):
    """Element-wise `mul`."""
    result = np.empty(values.size, np.int64)
    for i in range(values.size):
        result[i] = mul(values[i], scale[i])
    return result
