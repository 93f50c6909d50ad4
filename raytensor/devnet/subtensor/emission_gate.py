"""The block's TAO by subnet: shares of demand, the gate that cuts subnets below a bar, subnets without emission.

In: moving prices (I96F32 bits), burned shares of miners (U96F32 bits), the bar's rank, quantile and the gate's exponent
(U64F64 bits). Out: shares that sum to at most 1, and the bar, as U64F64 bits (value x 2^64), truncated.
Source: coinbase/subnet_emissions.rs; the logarithm of substrate-fixed's transcendental.rs. Knows nothing of storage.
"""

from __future__ import annotations

from collections.abc import Mapping

from raytensor.consensus import fixed

ONE32, ONE64 = 1 << 32, 1 << 64
LOG2_E32 = 12_102_203 << 9  # log2(e) as the crate's I9F23 constant holds it
BAR_INTERVAL_BLOCKS = 360

Shares = dict[int, int]


def _normalized(shares: Mapping[int, int]) -> Shares:
    """Each share over their sum; zeros if the sum is 0."""
    total = sum(shares.values())
    return {netuid: (share << 64) // total if total else 0 for netuid, share in shares.items()}


def demand_shares(prices32: Mapping[int, int], burned32: Mapping[int, int]) -> Shares:
    """Shares of the moving prices, each less the part of the miners' incentive that the subnet burned."""
    by_price = _normalized({netuid: price << 32 for netuid, price in prices32.items()})
    kept = {
        netuid: (share * (ONE64 - (min(burned32.get(netuid, 0), ONE32) << 32))) >> 64
        for netuid, share in by_price.items()
    }
    return _normalized(kept) if any(kept.values()) else by_price


def gate_bar(shares: Mapping[int, int], rank: int, quantile: int) -> int:
    """The share that passes half: the `rank`-th largest or the smallest positive; without a rank, by demand.

    Without a rank it is the share at which the running sum from the largest down reaches `quantile`. 0 for no shares.
    """
    positive = sorted((share for share in shares.values() if share > 0), reverse=True)
    if not positive:
        return 0
    if rank:
        return positive[min(rank, len(positive)) - 1]
    running = 0
    for share in positive:
        running += share
        if running >= quantile:
            return share
    return positive[-1]


def ln32(x: int) -> int | None:
    """Natural logarithm of I32F32 bits as the crate computes it; None for x <= 0."""
    if x <= 0:
        return None
    inverted = x < ONE32
    if inverted:
        x = ONE32 * ONE32 // x
        if x > fixed.MAX:
            return None
    result = 0
    while x >= 2 * ONE32:
        result += 1
        x = (x >> 1) + (x & 1)
    if x == ONE32:
        result <<= 32
    else:
        for _ in range(32):
            x = (x * x) >> 32
            result <<= 1
            if x >= 2 * ONE32:
                result |= 1
                x = (x >> 1) + (x & 1)
    return fixed.div(-result if inverted else result, LOG2_E32)


def gated(shares: Mapping[int, int], bar: int, exponent: int) -> Shares:
    """share / (1 + (bar / share)^exponent), over their sum. Without a bar, or if all fall to 0, the shares as given."""
    if bar <= 0:
        return dict(shares)
    h = fixed.saturate(exponent >> 32)
    products = {}
    for netuid, share in shares.items():
        ratio32 = fixed.saturate(((bar << 64) // share) >> 32) if share else 0
        logarithm = ln32(ratio32)
        power = fixed.exp(fixed.mul(h, 0 if logarithm is None else logarithm))
        power64 = (fixed.MAX if power is None else max(power, 0)) << 32
        products[netuid] = (share * (ONE64 * ONE64 // (ONE64 + power64))) >> 64
    return _normalized(products) if any(products.values()) else dict(shares)


def without(shares: Mapping[int, int], disabled: set[int]) -> Shares:
    """Disabled subnets get 0, the others their part of what is left; the shares as given if none is disabled."""
    if not disabled:
        return dict(shares)
    return _normalized({netuid: 0 if netuid in disabled else share for netuid, share in shares.items()})
