"""The baseline of the consensus benchmark: an exact epoch over dense matrices in plain numpy.

In: `EpochInput` with `DenseRows` of which every validator is permitted and active, with weights that all count (so no
masks). Out: raw incentive and dividends (I32F32 bits) and the bonds to store. Works on blocks of miners, so that its
temporaries stay in the cache. Written only to be measured against; the library never uses it.
"""

from __future__ import annotations

import numpy as np

from raytensor.consensus import EpochInput
from raytensor.consensus.fixed import ONE, from_int
from raytensor.consensus.pallet_math import div
from raytensor.consensus.reference import bonds_alpha

U = np.uint64
SHIFT, UNIT = U(32), U(ONE)
BLOCK = 1 << 18  # pairs in a block


def mul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """floor(a * b / 2^32); 1 * 1 overflows to 0 and is put back."""
    return ((a * b) >> SHIFT) + (a & b & UNIT)


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """floor(a * 2^32 / b) for a <= b <= 2^33, 0 where b is 0: 64-bit integer division, in two halves for large a."""
    b = np.maximum(b, U(1))
    high, rest = np.divmod(a << U(30), b)
    return (high << U(2)) + ((rest << U(2)) // b)


def numpy_epoch(inputs: EpochInput) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(incentive [miners], dividends [validators], bonds u16 [miners, validators])."""
    weights, held = inputs.weights.values, inputs.bonds.values
    stake = inputs.stake[inputs.weights.validators]
    share = np.array([(int(s) << 32) // int(stake.sum()) for s in stake], dtype=U)
    active = divide(share, share.sum(keepdims=True))
    votes = divide(active, active.sum(keepdims=True))
    kappa = U((inputs.kappa << 32) // 65535)
    sums = weights.sum(axis=0, dtype=U)
    rows = max(1, BLOCK // weights.shape[1])
    parts = [slice(k, k + rows) for k in range(0, len(weights), rows)]

    agreed, ranks = np.zeros(len(weights), U), np.zeros(len(weights), U)
    for part in parts:
        w = (weights[part].astype(U) << SHIFT) // sums
        order = np.argsort(w, axis=1)
        sorted_w = np.take_along_axis(w, order, axis=1)
        total = np.cumsum(votes[order], axis=1)
        above = total[:, -1:] - total  # the stake of what stands behind; ties are decided by the last of them
        agreed[part] = sorted_w[np.arange(len(w)), np.argmax(above < kappa, axis=1)]
        ranks[part] = mul(active, np.minimum(w, agreed[part, None])).sum(axis=1)
    incentive = divide(ranks, ranks.sum(keepdims=True))

    alpha = U(bonds_alpha(inputs))
    earned, stored = np.zeros(len(stake), U), np.empty_like(held)
    for part in parts:
        w = (weights[part].astype(U) << SHIFT) // sums
        w = np.minimum(w, agreed[part, None])
        b = held[part].astype(U)
        if inputs.yuma3:
            b = b * U(65537) + (b == U(65535))
            if inputs.liquid_alpha:
                rate = liquid_alpha(inputs, w, b, agreed[part, None])
                ema = np.minimum(mul(UNIT - rate, b) + mul(rate, w), UNIT)
                ema[weights[part] == 0] = 0
            else:
                ema = mul(alpha, w) + mul(UNIT - alpha, b)
            stored[part] = (ema * U(65535)) >> SHIFT
            ema = divide(ema, ema.sum(axis=1, keepdims=True))
        else:
            b = (b << SHIFT) // np.maximum(b.sum(axis=1, keepdims=True), U(1))
            delta = mul(w, active)
            delta = divide(delta, delta.sum(axis=1, keepdims=True))
            ema = mul(alpha, delta) + mul(UNIT - alpha, b)
            ema = divide(ema, ema.sum(axis=1, keepdims=True))
            stored[part] = (divide(ema, ema.max(axis=1, keepdims=True)) * U(65535)) >> SHIFT
        earned += mul(ema, incentive[part, None]).sum(axis=0)
    if inputs.yuma3:
        earned = mul(earned, active)
    return incentive, divide(earned, earned.sum(keepdims=True)), stored


def liquid_alpha(inputs: EpochInput, w: np.ndarray, b: np.ndarray, agreed: np.ndarray) -> np.ndarray:
    """The rate of each pair, for steepness from 0 to 2000 (exponents from -10 to 10)."""
    assert 0 <= inputs.alpha_sigmoid_steepness <= 2000
    low, high = (U((value << 32) // 65535) for value in (inputs.alpha_low, inputs.alpha_high))
    slope = -div(from_int(inputs.alpha_sigmoid_steepness), from_int(-100))
    difference = np.where(w >= b, np.maximum(w, agreed) - agreed, b - w * (w < b))
    negative = difference > UNIT >> U(1)
    distance = np.where(negative, difference - (UNIT >> U(1)), (UNIT >> U(1)) - difference)
    # -slope * (difference - 1/2): floored, so away from 0 where it is negative
    whole, rest = divmod(slope, ONE)
    low_part = U(rest) * distance + np.where(negative, U(ONE - 1), U(0))
    operand = U(whole) * distance + (low_part >> SHIFT)
    term, series = operand.copy(), operand + UNIT
    mask = UNIT - U(1)
    for i in range(2, 32):
        term = (
            (term >> SHIFT) * operand
            + (term & mask) * (operand >> SHIFT)
            + (((term & mask) * (operand & mask)) >> SHIFT)
        ) // U(i)
        series += term
    series[(operand == UNIT) & ~negative] = U(11_674_931_200)
    exponential = np.where(negative, reciprocal(series), series)
    return low + mul(reciprocal(UNIT + exponential), np.broadcast_to(high - low, series.shape))


def reciprocal(x: np.ndarray) -> np.ndarray:
    """floor(2^64 / x) for x > 1, through the largest u64: exact but where x divides 2^64."""
    top = U(2**64 - 1)
    return top // x + ((top % x) == x - U(1))
