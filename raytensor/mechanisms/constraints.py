"""Constraints on weights that all mechanisms share: exclusion of the lowest, and a largest share. Pure."""

import math
from collections.abc import Mapping

import numpy as np

from raytensor import config


def normalise(values: Mapping[str, float]) -> dict[str, float]:
    """Values >= 0 by hotkey as shares that sum to 1; empty when all are 0."""
    assert all(value >= 0 for value in values.values())
    total = math.fsum(values.values())
    return {hotkey: value / total for hotkey, value in values.items()} if total > 0 else {}


def constrain(values: Mapping[str, float], cfg: config.Mechanism) -> dict[str, float]:
    """Shares of values >= 0: below the `exclude_quantile` of the positive values 0, none above `max_weight`.

    Values of 0 don't count for the quantile, as in classic Bittensor's `process_weights` (opentensor/bittensor,
    utils/weight_utils.py): with many unpaid miners the lowest paid ones still get nothing.
    """
    kept = dict(values)
    paid = [value for value in kept.values() if value > 0]
    if cfg.exclude_quantile > 0 and paid:
        threshold = float(np.quantile(paid, cfg.exclude_quantile))
        kept = {hotkey: value if value >= threshold else 0.0 for hotkey, value in kept.items()}
    return cap(normalise(kept), cfg.max_weight)


def cap(shares: Mapping[str, float], limit: float) -> dict[str, float]:
    """Shares (sum 1) of which none is above `limit`; the excess goes to the others in proportion to their shares.

    With fewer than 1 / limit paid miners the limit can't hold, and each gets the same share. The fixed point of classic
    Bittensor's `normalize_max_weight` (opentensor/bittensor v4.0.1, utils/weight_utils.py), found exactly.
    """
    paid = {hotkey: share for hotkey, share in shares.items() if share > 0}
    if not paid or max(paid.values()) <= limit:
        return dict(shares)
    if len(paid) * limit <= 1.0:
        return {hotkey: 1.0 / len(paid) if hotkey in paid else 0.0 for hotkey in shares}
    # The largest m are at the limit, the rest keep their proportions: the smallest m that leaves no share above it.
    order = sorted(paid, key=lambda hotkey: -paid[hotkey])
    ordered = np.array([paid[hotkey] for hotkey in order])
    rest = np.cumsum(ordered[::-1])[::-1]  # rest[m]: sum of all but the largest m
    # A share of the rest, and not a scale: that of a rest near 0 would be too large for a float.
    capped = next(m for m in range(len(order)) if (1.0 - m * limit) * (ordered[m] / rest[m]) <= limit * (1 + 1e-12))
    at_limit, left = set(order[:capped]), 1.0 - capped * limit
    return {key: limit if key in at_limit else left * (share / float(rest[capped])) for key, share in shares.items()}
