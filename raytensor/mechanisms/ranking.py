"""From a ranking of models to weights: graded shares, and the epsilon win-rate rule of subnet 9. Pure.

In: losses or gaps by hotkey, and blocks of commitments. Out: shares by hotkey. Knows nothing of models.
"""

import math
from collections.abc import Mapping

from raytensor import config
from raytensor.mechanisms.constraints import normalise


def graded(behind: Mapping[str, float], rule: config.ModelEval, *, first: str) -> dict[str, float]:
    """Shares (sum 1) by nats per token behind the king (>= 0), best first; `first` is the king, before its equals.

    The first `top` share 1 - `reserve` on a straight ramp from `ramp` to 1, the next `reserve_top` the rest, each half
    of the one before (one-covenant/templar's weights); each times exp(-behind / quality_nats), so that in a
    short list the last ones are paid by quality, not by place.
    """
    order = sorted(behind, key=lambda hotkey: (behind[hotkey], hotkey != first, hotkey))
    most, rest = order[: rule.top], order[rule.top : rule.top + rule.reserve_top]
    steps = max(1, rule.top - 1)
    slopes = [rule.ramp - (rule.ramp - 1.0) * i / steps for i in range(len(most))]
    halves = [0.5**i for i in range(len(rest))]
    shares = dict(zip(most, ((1.0 - rule.reserve) * slope / math.fsum(slopes) for slope in slopes), strict=True))
    shares |= dict(zip(rest, (rule.reserve * half / math.fsum(halves) for half in halves), strict=True))
    decay = {hotkey: math.exp(-max(0.0, behind[hotkey]) / rule.quality_nats) for hotkey in shares}
    return normalise({hotkey: share * decay[hotkey] for hotkey, share in shares.items()})


def epsilon(age_blocks: float, rule: config.ModelEval) -> float:
    """The advantage of a model that was committed `age_blocks` ago: linear from `epsilon_start` to `epsilon_end`."""
    passed = min(1.0, max(0.0, age_blocks / rule.epsilon_blocks))
    return rule.epsilon_start + (rule.epsilon_end - rule.epsilon_start) * passed


def win_rates(
    losses: Mapping[str, float], blocks: Mapping[str, float], now: float, rule: config.ModelEval
) -> dict[str, float]:
    """Share of the other competitive models that each competitive one beats; the rest are not in it.

    i beats j when its loss is below j's, where the earlier of both has its loss lowered by (1 - epsilon(its age)).
    Competitive is who would beat every earlier model at the last, smallest epsilon. Equal blocks: the first hotkey
    counts as earlier. Source: taoverse, model/competition (`compute_wins`, `LinearDecay`), macrocosm-os/pretraining.
    """
    order = sorted(losses, key=lambda hotkey: (blocks[hotkey], hotkey))
    place = {hotkey: i for i, hotkey in enumerate(order)}

    def beats(i: str, j: str, advantage: float) -> bool:
        mine, other = losses[i], losses[j]
        if place[i] < place[j]:
            mine *= 1.0 - advantage
        else:
            other *= 1.0 - advantage
        return mine < other

    competitive = [i for i in order if all(beats(i, j, rule.epsilon_end) for j in order[: place[i]])]
    found = {}
    for i in competitive:
        others = [j for j in competitive if j != i]
        ages = (now - blocks[min(i, j, key=place.__getitem__)] for j in others)
        won = sum(beats(i, j, epsilon(age, rule)) for j, age in zip(others, ages, strict=True))
        found[i] = won / len(others) if others else 1.0
    return found


def softmax(values: Mapping[str, float], temperature: float) -> dict[str, float]:
    """exp(v / temperature) as shares."""
    if not values:
        return {}
    most = max(values.values())
    return normalise({hotkey: math.exp((value - most) / temperature) for hotkey, value in values.items()})
