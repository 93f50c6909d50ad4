"""One miner's bonds in few passes, for the common case of the dense layout: the passes of `column`, joined.

The common case: the miner registered before every validator's last weights, and bonds see raw or clipped weights.
Fewer passes over vectors than in `column`, which stays for all other cases; both give the same bits. In: row j of the
matrices, and vectors over validators. Out: vectors written in place. The weight at position `own` (or -1)
is not counted.
"""

import numpy as np

from raytensor.consensus.kernels.arithmetic import ONE, from_u16, inverse, mul, ratio, share, to_u16
from raytensor.consensus.kernels.jit import part


@part
def yuma1(
    weights, held, j, factor, cap, kept, alpha, own, incentive, keep, ema, earned, stored, row, active_stake, work
):
    """Bonds of Yuma 1 and 2 as `column.yuma1` and `column.store`. cap: the largest weight that bonds see.

    kept: whether the miner's bonds count. Returns how many bonds are stored as 0.
    """
    size = factor.size
    weight_sum, bond_sum = np.int64(0), np.int64(0)
    for i in range(size):
        weight = mul(min(share(weights[j, i], factor[i]), cap), active_stake[i])
        ema[i] = weight
        weight_sum += weight
        bond_sum += held[j, i]
    if own >= 0:
        weight_sum -= ema[own]
        ema[own] = 0
    by_weight = inverse(weight_sum)
    by_bond = 1.0 / min(bond_sum, np.int64(1 << 31)) if kept and bond_sum > 0 else 0.0
    ema_sum = np.int64(0)
    for i in range(size):
        value = mul(alpha, ratio(ema[i], weight_sum, by_weight)) + mul(ONE - alpha, share(held[j, i], by_bond))
        ema[i] = value
        ema_sum += value
    by_ema = inverse(ema_sum)
    largest = np.int64(0)
    for i in range(size):
        value = ratio(ema[i], ema_sum, by_ema)
        work[i] = value
        earned[i] += mul(incentive, value)
        largest = max(largest, value)
    by_largest = inverse(largest)
    zeros = 0
    for i in range(size):
        count = to_u16(ratio(work[i], largest, by_largest)) & keep[i]
        stored[row, i] = count
        zeros += (count == 0) & (ema[i] > 0) & (keep[i] != 0)
    return zeros


@part
def yuma3(weights, held, j, factor, cap, kept, alpha, own, incentive, keep, ema, earned, stored, row):
    """Bonds of Yuma 3 as `column.yuma3`, `column.earn` and `column.store`. Arguments and result as `yuma1`."""
    size = factor.size
    old = ONE - alpha if kept else 0
    ema_sum = np.int64(0)
    for i in range(size):
        value = mul(alpha, min(share(weights[j, i], factor[i]), cap)) + mul(old, from_u16(np.int64(held[j, i])))
        ema[i] = value
        ema_sum += value
    if own >= 0:
        ema_sum -= ema[own]
        ema[own] = mul(old, from_u16(np.int64(held[j, own])))
        ema_sum += ema[own]
    by_ema = inverse(ema_sum) if incentive > 0 else 0.0
    zeros = 0
    for i in range(size):
        value = ema[i]
        earned[i] += mul(incentive, ratio(value, ema_sum, by_ema))
        count = to_u16(value) & keep[i]
        stored[row, i] = count
        zeros += (count == 0) & (value > 0) & (keep[i] != 0)
    return zeros
