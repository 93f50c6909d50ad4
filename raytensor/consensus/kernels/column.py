"""One miner's column: the consensus of its weights, and its bonds.

In: vectors over validators (any order, any subset), int64 bits of I32F32 unless said otherwise; bonds as stored, u16.
Out: scalars, and vectors written in place. Loops write one or two vectors each, so that they compile to vector
instructions. Knows nothing of how the matrices are stored.
"""

import numpy as np

from raytensor.consensus.kernels.arithmetic import ONE, blend, from_u16, inverse, mul, ratio, share, to_u16
from raytensor.consensus.kernels.jit import part
from raytensor.consensus.kernels.liquid import liquid_alphas

# modes of the weights that bonds see, by bonds_penalty: 0, 1 and between (`interpolate_sparse`)
RAW, CLIPPED, BLENDED = 0, 1, 2


@part
def median(score, stake, m, total, kappa):
    """The weighted median of m scores of positive stake: the smallest score v with stake(score > v) < kappa.

    total: the sum of stake. Equals the pallet's pivot search. kappa 0: the largest score, because no stake is below 0.
    The search alternates between bisection and interpolation by stake and moves its bounds to existing scores, so it
    takes about log2(m) rounds.
    """
    if m == 0:
        return np.int64(0)
    low, high = score[0], score[0]
    for i in range(m):
        low = min(low, score[i])
        high = max(high, score[i])
    if low == high or kappa == 0:
        return high
    if total < kappa:
        return low
    # the stake above `low` is not below kappa, the stake above `high` is
    low -= 1
    above_low, above_high = total, np.int64(0)
    # interpolation costs a division, which is worth it for long rounds
    guessing = m >= 128
    while True:
        middle = (low + high) >> 1
        if guessing:
            guess = np.int64((high - low) * ((above_low - kappa) / (above_low - above_high)))
            middle = min(low + guess, high - 1)
        guessing = m >= 128 and not guessing
        above = np.int64(0)
        below, over = low, high
        for i in range(m):
            s = score[i]
            larger = s > middle
            above += stake[i] if larger else 0
            below = max(below, low if larger else s)
            over = min(over, s if larger else high)
        if above < kappa:
            high, above_high = below, above
        elif over == high:
            return high
        else:
            low, above_low = over - 1, above


@part
def median32(score, stake, m, total, kappa):
    """`median` for scores and stakes of 32 bits, in vectors of twice the width. m > 0; each stake is below 1.

    A score of 1 (2^32) is given as 2^32 - 1, which is no share of u16 weights: the order stays, and 1 is returned. The
    first guesses assume scores around their mean; wrong ones cost rounds, not the result.
    """
    low, high = score[0], score[0]
    score_sum = np.int64(0)
    for i in range(m):
        low = min(low, score[i])
        high = max(high, score[i])
        score_sum += score[i]
    if low == high or kappa == 0:
        return _whole(np.int64(high))
    if total < kappa:
        return _whole(np.int64(low))
    # the stake above `bottom` is not below kappa, the stake above `top` is; a pivot is at least the lowest score, so
    # that the stake above it is below 1
    bottom, top = np.int64(low) - 1, np.int64(high)
    above_bottom, above_top = np.int64(total), np.int64(0)
    middle = score_sum // m
    spread = (top - bottom) * 0.42 / total
    round_ = 0
    while True:
        pivot = np.uint32(min(max(middle, bottom, np.int64(low)), top - 1))
        above = np.uint32(0)
        below, over = np.uint32(low), np.uint32(high)
        for i in range(m):
            s = score[i]
            larger = s > pivot
            above = np.uint32(above + (stake[i] if larger else np.uint32(0)))
            below = max(below, np.uint32(low) if larger else s)
            over = min(over, s if larger else np.uint32(high))
        stake_above = np.int64(above)
        if stake_above < kappa:
            top, above_top = np.int64(below), stake_above
            if below == low:
                return _whole(top)
        elif np.int64(over) == top:
            return _whole(top)
        else:
            bottom, above_bottom = np.int64(over) - 1, stake_above
        round_ += 1
        if round_ == 1:
            # the density of a normal distribution at its mean, and a step beyond
            middle = np.int64(pivot) + np.int64((stake_above - kappa) * spread * 1.25)
        elif round_ % 2 == 0:
            share_ = (above_bottom - kappa) / (above_bottom - above_top)
            middle = bottom + np.int64((top - bottom) * share_)
        else:
            middle = (bottom + top) >> 1


@part
def _whole(score):
    """The score of 32 bits as I32F32 bits."""
    return score + (score == 0xFFFFFFFF)


@part
def rank(score, active_stake, m, consensus, trust):
    """Adds each validator's clipped weight to its trust; returns the miner's rank."""
    total = np.int64(0)
    for i in range(m):
        clipped = min(score[i], consensus)
        trust[i] += clipped
        total += mul(active_stake[i], clipped)
    return total


@part
def weights_for_bonds(score, m, consensus, mode, penalty):
    """Replace weights by the weights for bonds (`interpolate_sparse`), in place. A clipped weight may be 0."""
    if mode == CLIPPED:
        for i in range(m):
            score[i] = min(score[i], consensus)
    elif mode == BLENDED:
        for i in range(m):
            score[i] = max(0, blend(score[i], min(score[i], consensus), penalty))


@part
def yuma1(weight, active_stake, bond, m, alpha, incentive, ema, work, earned):
    """Bonds of Yuma 1 and 2: the column-normalised moving average of stake-weighted weights.

    Overwrites weight. Writes the average into `ema` (positive: an entry) and its ratio to the column's largest into
    `work`; adds the earnings of each validator from this miner to `earned`.
    """
    weight_sum, bond_sum = np.int64(0), np.int64(0)
    for i in range(m):
        weight[i] = mul(weight[i], active_stake[i])
        weight_sum += weight[i]
        bond_sum += bond[i]
    by_weight = inverse(weight_sum)
    # the chain's sum of bonds saturates just below 2^31, where every share becomes bond / 2^31
    by_bond = 1.0 / min(bond_sum, np.int64(1 << 31)) if bond_sum > 0 else 0.0
    ema_sum = np.int64(0)
    for i in range(m):
        ema[i] = mul(alpha, ratio(weight[i], weight_sum, by_weight)) + mul(ONE - alpha, share(bond[i], by_bond))
        ema_sum += ema[i]
    by_ema = inverse(ema_sum)
    largest = np.int64(0)
    for i in range(m):
        work[i] = ratio(ema[i], ema_sum, by_ema)
        earned[i] += mul(incentive, work[i])
        largest = max(largest, work[i])
    by_largest = inverse(largest)
    for i in range(m):
        work[i] = ratio(work[i], largest, by_largest)


@part
def yuma3(weight, bond, m, alpha, ema):
    """Bonds of Yuma 3: the moving average of the weights at one rate. Returns the column's sum."""
    total = np.int64(0)
    for i in range(m):
        ema[i] = mul(alpha, weight[i]) + mul(ONE - alpha, from_u16(bond[i]))
        total += ema[i]
    return total


@part
def yuma3_liquid(weight, bond, entry, seen_weight, seen_bond, m, consensus, limits, ema, alpha, held, lanes):
    """Bonds of Yuma 3 with liquid alpha: each pair at its own rate, only where a weight is stored.

    entry [m] bool: pairs with a stored weight. seen_weight, seen_bond [m] bool: the entries that the chain's cursor
    sees in unordered rows. limits, lanes: see `liquid_alphas`. alpha, held: work space. Returns the column's sum.
    """
    for i in range(m):
        held[i] = from_u16(bond[i])
    liquid_alphas(weight, held, entry, seen_weight, seen_bond, m, consensus, limits, alpha, lanes)
    total = np.int64(0)
    for i in range(m):
        value = min(ONE, mul(ONE - alpha[i], held[i]) + mul(alpha[i], weight[i]))
        ema[i] = value if entry[i] else 0
        total += ema[i]
    return total


@part
def earn(ema, ema_sum, m, incentive, earned):
    """Adds each validator's share of the bonds times the miner's incentive (Yuma 3)."""
    if incentive == 0:
        return
    by_ema = inverse(ema_sum)
    for i in range(m):
        earned[i] += mul(incentive, ratio(ema[i], ema_sum, by_ema))


@part
def store(value, ema, m, keep, stored):
    """Write bonds as stored (u16); keep [m]: 65535 for new permit holders, else 0. Returns how many are stored as 0."""
    zeros = 0
    for i in range(m):
        count = to_u16(value[i]) & keep[i]
        stored[i] = count
        zeros += (count == 0) & (ema[i] > 0) & (keep[i] != 0)
    return zeros
