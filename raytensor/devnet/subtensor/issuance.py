"""Emission of a block, and the registration prices of neurons and subnets. Integers in rao.

In: issuance and prices in rao, blocks. Out: rao. Knows nothing of storage.
"""

from __future__ import annotations

from functools import lru_cache

TOTAL_SUPPLY_RAO = 21_000_000 * 10**9
FULL_EMISSION_RAO = 10**9  # a block, before the first halving
ONE32 = 1 << 32


def block_emission_rao(issuance_rao: int) -> int:
    """Emission of one block at this issuance: 1 TAO, halved each time half of the remaining supply is issued.

    TAO and each subnet's alpha use the same curve. `2**-floor(log2(1 / (1 - issuance/supply)))` with 32
    fractional bits (pallet_subtensor, coinbase/block_emission.rs); 0 when the supply is exhausted.
    """
    if issuance_rao >= TOTAL_SUPPLY_RAO:
        return 0
    left = ONE32 - (issuance_rao << 32) // TOTAL_SUPPLY_RAO
    if left <= 0:
        return 0
    ratio = (ONE32 * ONE32) // left
    return FULL_EMISSION_RAO >> (ratio.bit_length() - 33)


def _pow32(base: int, exponent: int) -> int:
    result, factor = ONE32, base
    while exponent:
        if exponent & 1:
            result = (result * factor) >> 32
        factor = (factor * factor) >> 32
        exponent >>= 1
    return result


@lru_cache(maxsize=256)
def decay_factor32(half_life_blocks: int) -> int:
    """Factor of one block (32 fractional bits) whose `half_life_blocks`-th power is at most one half."""
    assert half_life_blocks > 0
    low, high = 0, ONE32
    while low < high:
        middle = (low + high + 1) >> 1
        if _pow32(middle, half_life_blocks) > ONE32 >> 1:
            high = middle - 1
        else:
            low = middle
    return low


def clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def decayed_burn_rao(burn_rao: int, half_life_blocks: int, min_rao: int, max_rao: int) -> int:
    """Price of a registration one block later. A half-life of 0 keeps the price."""
    if half_life_blocks:
        burn_rao = (burn_rao * decay_factor32(half_life_blocks)) >> 32
    return clamp(burn_rao, min_rao, max_rao)


def bumped_burn_rao(burn_rao: int, multiplier64: int, min_rao: int, max_rao: int) -> int:
    """Price after one registration; `multiplier64` is U64F64 bits (BurnIncreaseMult, 1.26 by default)."""
    return clamp((burn_rao * multiplier64) >> 64, min_rao, max_rao)


def lock_cost_rao(last_lock_rao: int, min_rao: int, blocks_since: int, interval_blocks: int, multiplier: int) -> int:
    """Cost of a new subnet: the last cost times `multiplier`, less the last cost every `interval_blocks`.

    multiplier is 1 until the first subnet is registered and 2 afterwards (subnets/subnet.rs, get_network_lock_cost).
    """
    cost = last_lock_rao * multiplier - last_lock_rao * blocks_since // max(1, interval_blocks)
    return max(cost, min_rao)
