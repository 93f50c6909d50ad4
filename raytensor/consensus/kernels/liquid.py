"""Liquid alpha: the rate of the moving average of one validator's bond to one miner.

In: weights, bonds and consensus of a column (int64 bits of I32F32). Out: alpha of each pair. The exponential is the
chain's truncated series, term by term (`fixed.exp`), for many pairs at a time.
"""

import numpy as np

from raytensor.consensus.kernels.arithmetic import ONE
from raytensor.consensus.kernels.jit import part

HALF = ONE >> 1
LIMIT = 20 << 32  # exp_safe clamps to this
SMALL = 12 << 32  # up to here a term is below 2^51, so that its quotient by the index is exact in float
E = 11_674_931_200  # the crate's constant: exp(1) is not the series
SHORT = 1 << 27  # below it, a term times an argument of up to `SMALL` fits 63 bits
LANES = 64
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_TOP = np.uint64(63)
_INDEX = 1.0 / np.arange(1, 33, dtype=np.float64)


@part
def exponent(slope, difference):
    """clamp(floor(slope * (difference - 1/2))) of I32F32: |slope| < 2^41, so the product needs two halves."""
    factor = difference - HALF
    negative = (slope < 0) != (factor < 0)
    a, b = np.uint64(abs(slope)), np.uint64(abs(factor))
    low = (a & _LOW) * b
    if negative:
        low += _LOW  # the floor of a negative is away from 0
    product = np.int64((a >> _SHIFT) * b + (low >> _SHIFT))
    product = min(product, LIMIT)
    return -product if negative else product


@part
def _term(term, operand):
    """floor(term * operand / 2^32) for term < 2^58, operand <= 20."""
    high = term >> 32
    low = np.uint64(term) & _LOW
    operand_low = np.uint64(operand) & _LOW
    return high * operand + np.int64(low) * (operand >> 32) + np.int64((low * operand_low) >> _SHIFT)


@part
def _reciprocal(x):
    """floor(2^64 / x) for 2^32 <= x < 2^62."""
    q = np.int64(18446744073709551616.0 / x * (1.0 + 2.0**-50))
    # the remainder modulo 2^64, where 2^64 itself is 0; its top bit is its sign
    remainder = np.uint64(0) - np.uint64(q) * np.uint64(x)
    return q - np.int64(remainder >> _TOP)


@part
def _exp_large(operand):
    """The series for arguments above `SMALL`, whose terms need integer division."""
    result, term = operand + ONE, operand
    for i in range(2, 32):
        term = _term(term, operand) // i
        result += term
    return result


@part
def _exp_block(operand, term, result):
    """The series for `LANES` arguments from 0 to `SMALL` at once. As the terms shrink, products need fewer words."""
    for lane in range(LANES):
        term[lane] = operand[lane]
        result[lane] = operand[lane] + ONE
    i = 2
    left = np.int64(SHORT)
    while i < 32 and left != 0:
        by_index = _INDEX[i - 1]
        bits = left
        left = np.int64(0)
        # (product + 0.5) / i: exact, because the half keeps the quotient away from the next integer, as in `share`
        if bits < SHORT:
            for lane in range(LANES):
                t = np.int64((((term[lane] * operand[lane]) >> 32) + 0.5) * by_index)
                term[lane] = t
                result[lane] += t
                left |= t
        else:
            for lane in range(LANES):
                t = np.int64((_term(term[lane], operand[lane]) + 0.5) * by_index)
                term[lane] = t
                result[lane] += t
                left |= t
        i += 1


@part
def _finish(x, series, low, width):
    """alpha from an exponent x and the series at |x|."""
    if x == ONE:
        series = E
    exponential = _reciprocal(series) if x < 0 else series
    sigmoid = _reciprocal(ONE + exponential)
    # an exponential is never below 2^-29, so the sigmoid is below 1 and the product fits
    return low + np.int64((np.uint64(sigmoid) * np.uint64(width)) >> _SHIFT)


@part
def liquid_alphas(weight, bond, entry, seen_weight, seen_bond, m, consensus, limits, alpha, lanes):
    """alpha [m] for the pairs of `entry`. limits: int64 [low, high, slope, alpha at difference 0].

    lanes: int64 [5, LANES] work space. Works on blocks of `LANES` pairs; a block whose weights all lie from the bond up
    to the consensus has difference 0 everywhere and needs no exponential.
    """
    low, high, slope, resting = limits[0], limits[1], limits[2], limits[3]
    width = high - low
    for begin in range(0, m, LANES):
        count = min(LANES, m - begin)
        most, largest = np.int64(0), np.int64(0)
        for lane in range(LANES):
            lanes[3, lane] = 0
            lanes[4, lane] = 0
        for lane in range(count):
            i = begin + lane
            w = weight[i] if seen_weight[i] else 0
            b = bond[i] if seen_bond[i] else 0
            difference = max(0, w - consensus) if w >= b else b - w
            lanes[4, lane] = difference if entry[i] else 0
            most = max(most, lanes[4, lane])
        if most == 0 or width <= 0:
            for lane in range(count):
                alpha[begin + lane] = resting
            continue
        for lane in range(count):
            x = exponent(slope, lanes[4, lane])
            lanes[3, lane] = x
            largest = max(largest, abs(x))
        for lane in range(LANES):
            lanes[0, lane] = min(abs(lanes[3, lane]), SMALL)
        _exp_block(lanes[0], lanes[1], lanes[2])
        if largest > SMALL:
            for lane in range(count):
                if abs(lanes[3, lane]) > SMALL:
                    lanes[2, lane] = _exp_large(abs(lanes[3, lane]))
        for lane in range(count):
            value = _finish(lanes[3, lane], lanes[2, lane], low, width)
            alpha[begin + lane] = value if lanes[4, lane] > 0 else resting
