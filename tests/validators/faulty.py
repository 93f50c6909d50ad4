"""Mechanisms with one mistake each; the numbers of their lines are part of what the tests expect."""

from __future__ import annotations

import math
import time

import numpy as np

from raytensor.mechanisms.evidence import State
from raytensor.types import Score, Task


class Right:
    """Asks every miner once a round; an answer is worth its first probability."""

    def __init__(self, cfg, log_unigram, vocab_size, *, deadline_s=60.0):
        self.options = cfg.options

    def tasks(self, ask, state, text):
        tokens, lengths = np.zeros((1, 1), np.int32), np.ones(1, np.int32)
        head = f"{ask.netuid}/{ask.round}/{ask.validator}"
        return [
            (Task(f"{head}/{h}", ask.round, ask.netuid, ask.validator, h, tokens, lengths, 1, 5.0), None)
            for h in ask.hotkeys
        ]

    def value(self, response):
        return float(response.probs[0, 0])

    def score(self, items):
        return [
            Score(task.task_id, task.round, task.netuid, task.validator, task.hotkey, {"value": self.value(response)})
            for task, _, response in items
        ]

    def reduce(self, state, evidence):
        return State(state.round, {**state.miners, **{s.hotkey: dict(s.values) for s in evidence.scores}})

    def weights(self, state):
        total = math.fsum(miner["value"] for miner in state.miners.values())
        return {hotkey: miner["value"] / total for hotkey, miner in sorted(state.miners.items())} if total else {}


class NanScore(Right):
    def value(self, response):
        value = super().value(response)
        return math.nan if value > 0.5 else value

    def score(self, items):
        return super().score(items)  # line 54


class RaisesForOne(Right):
    def value(self, response):
        return 1 / (0.75 - super().value(response))


class Misspelt(Right):
    def score(self, items):
        return [scor(item) for item in items]  # noqa: F821


class ShortScore(Right):
    def score(self, items):
        return []


class BadTasks(Right):
    def tasks(self, ask, state, text):
        return [undefined]  # noqa: F821


class BadReduce(Right):
    def reduce(self, state, evidence):
        return {"no": "state"}


class NanState(Right):
    def reduce(self, state, evidence):
        return State(state.round, {"m0": {"value": math.inf}})


class Negative(Right):
    def weights(self, state):
        return super().weights(state) | {"m1": -0.25}


class Missing(Right):
    def weights(self, state):
        return dict.fromkeys(state.miners)


class NoWeights(Right):
    def weights(self, state):
        pass


class BadConstructor(Right):
    def __init__(self, cfg, log_unigram, vocab_size, *, deadline_s=60.0):
        self.options = cfg.options["missing"]


class Hangs(Right):
    def value(self, response):
        value = super().value(response)
        time.sleep(600 if value > 0.5 else 0)
        return value
