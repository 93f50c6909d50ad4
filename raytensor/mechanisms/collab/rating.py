"""Rates miners by their updates over time: evidence of a round -> standing -> weights. Pure.

A round measures how much each update lowers the loss on random text (`gain`) and on the text that was assigned to its
miner (`own_gain`), as shares of the loss before. From these, after copies are removed:

    bma     moving average of +1 (own > random: it trained on its text) or -1                          [Templar, 0.95]
    mu, sigma   OpenSkill (Plackett-Luce) of the order of the round's gains                            [Templar]
    gain    moving average of the gain on random text, as a multiple of the round's mean (`relative`)
    edge    moving average of own_gain - gain, of copies too: over several rounds it separates authors from copiers
    trust   multiplier in [0, 1]: falls with every offence, recovers slowly

Weights are in proportion to `max(0, gain) * max(0, bma) * trust`, plus a bonus in proportion to `max(0, mu - 3 sigma) *
max(0, bma) * trust`: the best by rating is paid up to twice what its gain alone is worth (Templar pays 2:1 by place),
one without a rating nothing on top. All factors are at least 0: two negatives never make a positive.
Source: Gauntlet as run by Templar (one-covenant/templar, validator.run); the share by gain and the order (copies first)
are ours. A clip at mu - 3 sigma alone pays nothing for half of the work and everything for a lucky rank; a copier that
ties with its victim in every round takes two thirds of the victim's rating otherwise.
"""

import math
from collections.abc import Mapping

from openskill.models import PlackettLuce

BETA, TAU = 7.0, 0.1  # Templar's settings of OpenSkill
BMA_DECAY = 0.95
BMA_LEAST, BMA_GRACE = 0.10, 10  # a lower average earns nothing after so many rounds
EDGE_EMA = 0.2
FORGIVE = 0.2  # share of the lost trust that a clean round restores
COPY_GRACE = 3.0  # rounds in a row in which an update is like another's before it counts as a copy
OFFENCES = {"missing": 0.75, "invalid": 0.5, "copy": 0.5, "repeated": 0.5}
_MODEL = PlackettLuce(beta=BETA, tau=TAU)
START = {"mu": float(_MODEL.mu), "sigma": float(_MODEL.sigma), "bma": 0.0, "gain": 0.0, "edge": 0.0, "copied": 0.0}
START |= {"trust": 1.0, "rounds": 0.0}


def rate(ratings: Mapping[str, tuple[float, float]], gains: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """(mu, sigma) of each hotkey of `gains` after a round; a miner alone is not rated."""
    hotkeys = sorted(gains)
    if len(hotkeys) < 2:
        return {hotkey: ratings[hotkey] for hotkey in hotkeys}
    teams = [[_MODEL.rating(mu=ratings[hotkey][0], sigma=ratings[hotkey][1])] for hotkey in hotkeys]
    rated = _MODEL.rate(teams, scores=[gains[hotkey] for hotkey in hotkeys])
    return {hotkey: (float(team[0].mu), float(team[0].sigma)) for hotkey, team in zip(hotkeys, rated)}


def relative(gains: Mapping[str, float]) -> dict[str, float]:
    """Each gain as a multiple of the mean of the positive ones, at least -1; all 0 while none is positive.

    Gains fall by a factor of fifty while a model learns. Without this, one early round would outweigh all later ones,
    and a miner that joins later would be paid a fraction for the same work.
    """
    good = [gain for gain in gains.values() if gain > 0]
    if not good:
        return dict.fromkeys(gains, 0.0)
    mean = math.fsum(good) / len(good)
    return {hotkey: max(-1.0, gain / mean) for hotkey, gain in gains.items()}


def edge(values: Mapping[str, float], gain: float, own_gain: float) -> float:
    """The moving average of own_gain - gain with this round in it."""
    newest = own_gain - gain
    return newest if not values["rounds"] else (1.0 - EDGE_EMA) * values["edge"] + EDGE_EMA * newest


def judged(
    values: Mapping[str, float], own_beats_random: bool, worth: float, rating: tuple[float, float], gain_ema: float
) -> dict[str, float]:
    """A miner's standing after a clean round. worth: its relative gain."""
    sign = 1.0 if own_beats_random else -1.0
    old = values["gain"] if values["rounds"] else worth
    bma = BMA_DECAY * values["bma"] + (1.0 - BMA_DECAY) * sign
    trust = values["trust"] + FORGIVE * (1.0 - values["trust"])
    new = {"mu": rating[0], "sigma": rating[1], "bma": bma, "gain": (1.0 - gain_ema) * old + gain_ema * worth}
    return new | {"copied": 0.0, "trust": trust, "rounds": values["rounds"] + 1.0}


def undecided(values: Mapping[str, float]) -> dict[str, float]:
    """A miner's standing after a round in which its update is similar to another's and the author is not known yet:
    without commitments one round separates author and copier by chance only."""
    return dict(values) | {"copied": values["copied"] + 1.0}


def offended(values: Mapping[str, float], offence: str, gain_ema: float) -> dict[str, float]:
    """A miner's standing after an offence. Its rating does not change, so that an offence never raises it."""
    bma, trust = BMA_DECAY * values["bma"] - (1.0 - BMA_DECAY), values["trust"] * OFFENCES[offence]
    copied = values["copied"] + (1.0 if offence == "copy" else 0.0)
    new = {"bma": bma, "gain": (1.0 - gain_ema) * values["gain"], "copied": copied, "trust": trust}
    return dict(values) | new | {"rounds": values["rounds"] + 1.0}


def standing(values: Mapping[str, float]) -> tuple[float, float]:
    """(rating, value), both at least 0."""
    if values["rounds"] >= BMA_GRACE and values["bma"] < BMA_LEAST:
        return 0.0, 0.0
    factor = max(0.0, values["bma"]) * values["trust"]
    return max(0.0, values["mu"] - 3.0 * values["sigma"]) * factor, max(0.0, values["gain"]) * factor


def bonus(ratings: Mapping[str, float]) -> dict[str, float]:
    """Each rating (at least 0) as a share of the best; all 0 while none is above 0.

    By rating, not by rank: among equals the rank is random, and a small change must not cost a miner much.
    """
    best = max(ratings.values(), default=0.0)
    return {hotkey: value / best if best > 0 else 0.0 for hotkey, value in ratings.items()}
