"""A sequential paired test: is a challenger better than the king? Stops as soon as the answer is clear. Pure.

In: per-sequence losses of both on the same sequences. Out: sums that are updated each round, and a verdict.
With d = king - challenger on one sequence (nats per token), two e-values are kept, products of likelihood ratios whose
mean is at most 1 while the hypothesis is true:

    against "better by `margin` at most"            a challenger is crowned when it reaches 1 / alpha;
    against "better by twice the margin, or more"   it is turned down when it reaches 1 / beta.

By Ville's inequality (1939) the chance that a threshold is ever reached wrongly is at most alpha and beta, however
often the test is read. Each is the mean of two: Wald's ratio of the two margins (1945), the fastest at the margin, and
a mixture over all effects with a half-normal prior on the gap in standard deviations (Robbins 1970), which is clear
within few sequences when the gap is wide. Differences are assumed normal with the observed variance, so nothing is
decided on fewer than 64 sequences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

from raytensor import config

MIN_SEQUENCES = 64
PRIOR = 0.5  # standard deviation of the half-normal prior on the gap, in standard deviations of d
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
        won, lost = sum(x > dead_zone for x in d), sum(x < -dead_zone for x in d)
        total, squares = self.total + math.fsum(d), self.squares + math.fsum(x * x for x in d)
        return Duel(self.n + len(d), total, squares, self.won + won, self.lost + lost)

    @property
    def gap(self) -> float:
        """Mean of d: nats per token by which the challenger is better."""
        return self.total / self.n if self.n else 0.0


def for_crown(duel: Duel, rule: config.ModelEval) -> float:
    """ln of the e-value against "better by `margin` at most"; 0 before the first sequence."""
    return _log_e(duel, rule.margin, rule.margin)


def for_turning_down(duel: Duel, rule: config.ModelEval) -> float:
    """ln of the e-value against "better by twice the margin, or more"; 0 before the first sequence."""
    return _log_e(duel._replace(total=-duel.total), -2.0 * rule.margin, rule.margin)


def _log_e(duel: Duel, null: float, step: float) -> float:
    """ln of the mean of both e-values that the mean of d is above `null`, the simple one for null + step."""
    if not duel.n:
        return 0.0
    mean = duel.total / duel.n
    variance = max(duel.squares / duel.n - mean**2, 0.0) * duel.n / max(1.0, duel.n - 1.0)
    if variance < 1e-18:  # the same difference on every sequence: there is nothing left to wait for
        return math.copysign(math.inf, mean - null - step / 2.0)
    simple = step / variance * (duel.total - (null + step / 2.0) * duel.n)
    off, wide = (duel.total - null * duel.n) / math.sqrt(variance), 1.0 + duel.n * PRIOR**2
    x = PRIOR * off / math.sqrt(wide)
    mixed = math.log(2.0) + _log_normal(x) + x * x / 2.0 - 0.5 * math.log(wide)
    most = max(simple, mixed)
    return most + math.log(math.exp(simple - most) + math.exp(mixed - most)) - math.log(2.0)


def _log_normal(x: float) -> float:
    """ln of the standard normal distribution function; its asymptote (Mills' ratio) where it underflows."""
    if x > -20.0:
        return math.log(0.5 * math.erfc(-x / math.sqrt(2.0)))
    return -x * x / 2.0 - math.log(-x * math.sqrt(2.0 * math.pi))


def verdict(duel: Duel, rule: config.ModelEval) -> str:
    """OPEN, CROWNED or TURNED_DOWN. A crown also needs `win_rate` of the sequences outside the dead zone."""
    if duel.n < min(MIN_SEQUENCES, rule.max_sequences):
        return OPEN
    if for_turning_down(duel, rule) >= -math.log(rule.beta):
        return TURNED_DOWN
    if for_crown(duel, rule) >= -math.log(rule.alpha) and duel.won >= rule.win_rate * (duel.won + duel.lost):
        return CROWNED
    return TURNED_DOWN if duel.n >= rule.max_sequences else OPEN


def fixed_size(deviation: float, rule: config.ModelEval) -> float:
    """Sequences that a test of fixed size with the same errors needs: ((z_alpha + z_beta) * s / margin)^2."""
    z = NormalDist().inv_cdf
    return ((z(1.0 - rule.alpha) + z(1.0 - rule.beta)) * deviation / rule.margin) ** 2
