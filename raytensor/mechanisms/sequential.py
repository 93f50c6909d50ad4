"""Is a challenger better than the king? A paired test that stops as soon as it is clear. Pure.

In: per-sequence losses of both on the same sequences. Out: sums that grow from round to round, and a verdict.
Wald's sequential probability ratio test of "better by the margin" against "better by twice the margin" on the mean of the
differences d = king - challenger (nats per token): with s^2 the variance of d,

    llr = margin / s^2 * (sum d - 1.5 * margin * n);   crowned at ln((1 - beta) / alpha), turned down at ln(beta / (1 - alpha)).

The chance of a wrong crown is at most alpha however often one looks (Wald 1945; Ville's inequality): a challenger that is
as good as the king, or a copy of it, is further away still. Sequences of 25,000 at once, as a bootstrap needs them, are
not called for. d's variance is estimated from what was seen, which is why nothing is decided on less than 64 sequences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from raytensor import config

MIN_SEQUENCES = 64
OPEN, CROWNED, TURNED_DOWN = "open", "crowned", "turned down"


class Duel(NamedTuple):
    """Sums over the sequences of one duel; counts are floats, as state holds them."""

    n: float = 0.0
    total: float = 0.0  # of d
    squares: float = 0.0  # of d^2
    won: float = 0.0  # sequences with d > dead_zone
    lost: float = 0.0  # sequences with d < -dead_zone

    def after(self, king: Sequence[float], challenger: Sequence[float], dead_zone: float) -> Duel:
        """The sums with more sequences: losses of both on each, nats per token."""
        d = [k - c for k, c in zip(king, challenger, strict=True)]
        return Duel(
            self.n + len(d),
            self.total + math.fsum(d),
            self.squares + math.fsum(x * x for x in d),
            self.won + sum(x > dead_zone for x in d),
            self.lost + sum(x < -dead_zone for x in d),
        )

    @property
    def gap(self) -> float:
        """Mean of d: nats per token by which the challenger is better."""
        return self.total / self.n if self.n else 0.0


def log_ratio(duel: Duel, rule: config.ModelEval) -> float:
    """The log-likelihood ratio of twice the margin against the margin; 0 before the first sequence."""
    if not duel.n:
        return 0.0
    variance = max(duel.squares / duel.n - duel.gap**2, 0.0) * duel.n / max(1.0, duel.n - 1.0)
    off = duel.total - 1.5 * rule.margin * duel.n
    if variance < 1e-18:  # the same difference on every sequence: there is nothing left to wait for
        return math.copysign(math.inf, off)
    return rule.margin / variance * off


def verdict(duel: Duel, rule: config.ModelEval) -> str:
    """OPEN, CROWNED or TURNED_DOWN. A crown also needs `win_rate` of the sequences outside the dead zone."""
    if duel.n < min(MIN_SEQUENCES, rule.max_sequences):
        return OPEN
    ratio = log_ratio(duel, rule)
    if ratio <= math.log(rule.beta / (1.0 - rule.alpha)):
        return TURNED_DOWN
    wins = duel.won >= rule.win_rate * (duel.won + duel.lost)
    if ratio >= math.log((1.0 - rule.beta) / rule.alpha) and wins:
        return CROWNED
    return TURNED_DOWN if duel.n >= rule.max_sequences else OPEN


def fixed_size(deviation: float, rule: config.ModelEval) -> float:
    """Sequences that a test of fixed size with the same errors needs: ((z_alpha + z_beta) * s / margin)^2."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf
    return ((z(1.0 - rule.alpha) + z(1.0 - rule.beta)) * deviation / rule.margin) ** 2
