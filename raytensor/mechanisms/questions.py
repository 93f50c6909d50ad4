"""The questions of one round of the query mechanism: which miners, in which groups, about which texts. Pure.

In: an `Ask`, the `query` section, held-out tokens. Out: hotkeys in groups; contexts and what follows them.

Questions are private: all miners of a group get the same windows of held-out text, each cut at different places, so
that one miner's answer does not fit another's question. Only the first `shared_rows` rows are the same for all of a
group. The targets never leave the validator.
"""

import math
from dataclasses import dataclass

import numpy as np

from raytensor import config
from raytensor.data import assign
from raytensor.mechanisms import learned_router
from raytensor.mechanisms.base import Ask
from raytensor.mechanisms.evidence import State


@dataclass(frozen=True)
class Group:
    """Miners that are asked together. name: "" when answers are not compared; features: () without a router."""

    number: int
    name: str
    hotkeys: tuple[str, ...]
    features: tuple[float, ...] = ()


def groups(ask: Ask, rule: config.Query, state: State, tokens: np.ndarray) -> list[Group]:
    """The groups of one round: all miners, or a sample; every miner is sampled once before any is sampled again."""
    hotkeys = _asked(ask, rule, rule.sample // 2 if rule.gate else rule.sample)
    features: tuple[float, ...] = ()
    if rule.gate:  # the router needs the question before it can choose miners
        contexts, lengths, _ = question(ask, rule, tokens, 0, "")
        features = learned_router.features(contexts, lengths, rule.gate_features)
        others = [hotkey for hotkey in ask.hotkeys if hotkey not in set(hotkeys)]
        hotkeys += learned_router.best(state, others, features, rule.sample - len(hotkeys))
    size = rule.group_size or max(1, len(hotkeys))
    made = []
    for number, first in enumerate(range(0, len(hotkeys), size)):
        name = f"{ask.netuid}/{ask.round}/{ask.validator}/{number}" if rule.shared_rows else ""
        made.append(Group(number, name, tuple(hotkeys[first : first + size]), features))
    return made


def question(
    ask: Ask, rule: config.Query, tokens: np.ndarray, group: int, hotkey: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(contexts int32 [B, T], lengths int32 [B], targets int32 [B] or [B, horizon]) of one miner of a group."""
    number = 0 if rule.gate else group  # with a router all miners of a round get the text that it chose by
    windows, own = ask.draw("query", "windows", ask.validator, number), ask.draw("query", "cuts", ask.validator, hotkey)
    span = rule.context + rule.horizon + int(rule.prune)
    starts = windows.integers(0, len(tokens) - span + 1, rule.rows)
    shared = rule.shared_rows
    sizes = ((windows, shared), (own, rule.rows - shared))
    cuts = np.concatenate([draw.integers(rule.shortest, rule.context + 1, n, dtype=np.int32) for draw, n in sizes])
    holes = None
    if rule.prune:
        # Strictly inside the context: removing an end token would only shorten it.
        lowest = np.maximum(1, cuts - (rule.prune_within or rule.context))
        parts = ((windows, slice(shared)), (own, slice(shared, None)))
        holes = np.concatenate([draw.integers(lowest[rows], cuts[rows]) for draw, rows in parts])
    contexts, targets = assign.cut_windows(tokens, starts, cuts, rule.context, horizon=rule.horizon, holes=holes)
    return contexts, cuts, targets


def _asked(ask: Ask, rule: config.Query, sample: int) -> list[str]:
    n = len(ask.hotkeys)
    if not 0 < sample < n:
        if not rule.group_size:
            return list(ask.hotkeys)
        return [ask.hotkeys[i] for i in ask.draw("query", "groups", ask.validator).permutation(n)]
    rounds = math.ceil(n / sample)
    sweep, place = divmod(ask.round, rounds)
    order = assign.generator(ask.seed, ask.netuid, "query", "sweep", ask.validator, sweep).permutation(n)
    return [ask.hotkeys[i] for i in order[place * sample : (place + 1) * sample]]
