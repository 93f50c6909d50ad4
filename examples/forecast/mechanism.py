"""Delayed scoring: a forecast is evidence now, its verdict comes with the truth, some rounds later.

The truth of a round is a series that is driven by the hash of the block that seeds the round: nobody knows it before.
`score` can't judge a forecast yet, so it writes it into the evidence, beside what is observed now; `reduce` compares
the forecasts of earlier rounds, which the state holds, with what is observed. A replay gives the same verdicts.
"""

import math

from raytensor.mechanisms.base import Mechanism, malformed, scored
from raytensor.mechanisms.constraints import constrain
from raytensor.mechanisms.evidence import State, number, numbers
from raytensor.payload import Fields, Json, Schema, Text
from raytensor.types import Score

HORIZON = 3  # rounds that a forecast looks ahead
KEPT = 16  # observations that miners are shown
PULL, NOISE = 0.8, 1.0  # x <- PULL * x + NOISE * normal


class Forecast(Mechanism):
    schemas = {
        "forecast": Schema(
            question=Fields(series=Json(2000), unit=Text(20)),
            answer=Fields(forecast=Json(2000)),  # {"values": [x, ...], "why": text}
        )
    }

    def __init__(self, cfg, log_unigram, vocab_size, *, deadline_s=60.0):
        self.cfg, self.deadline_s = cfg, deadline_s

    def tasks(self, ask, state, text):
        history = numbers(state.common, "history", (0.0,))
        now = PULL * history[-1] + NOISE * float(ask.draw("weather").normal())
        series = {"round": ask.round, "observed": [*history, now][-KEPT:], "horizon": HORIZON}
        payload = {"series": series, "unit": "degrees"}
        return [(ask.question(one, "forecast", payload, self.deadline_s), now) for one in ask.hotkeys]

    def score(self, items):
        return [self._score(*item) for item in items]

    def _score(self, task, now, answer):
        found = answer.payload["forecast"]
        values = found.get("values") if isinstance(found, dict) else None
        numeric = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        if not numeric or len(values) != HORIZON or max(map(abs, values)) > 1e6:
            return malformed(task, f"forecast: needs {HORIZON} numbers under 'values'")
        return scored(task, {"forecast": tuple(map(float, values)), "observed": now})

    def reduce(self, state, evidence):
        miners, common = dict(state.miners), dict(state.common)
        if not evidence.scores:
            return State(evidence.round, miners, common)
        observed = number(evidence.scores[0].values, "observed")
        common["history"] = (*numbers(state.common, "history", (0.0,)), observed)[-KEPT:]
        for result in evidence.results:
            old = miners.get(result.hotkey, {})
            said = numbers(old, "said", ())  # round, value, round, value, ...
            pairs = list(zip(said[::2], said[1::2], strict=True))
            errors = [abs(value - observed) for about, value in pairs if about == evidence.round]
            pairs = [pair for pair in pairs if pair[0] > evidence.round]
            if isinstance(result, Score):
                pairs += enumerate(numbers(result.values, "forecast"), start=evidence.round + 1)
            new = {**old, "said": tuple(float(part) for pair in pairs for part in pair)}
            if errors or "error" in old:
                # Without a forecast of this round: as wrong as a value three deviations away.
                error = sum(errors) / len(errors) if errors else 3.0 * NOISE
                new["error"] = 0.8 * number(old, "error", error) + 0.2 * error
            miners[result.hotkey] = new
        return State(evidence.round, miners, common)

    def weights(self, state):
        errors = state.floats("error")
        return constrain({hotkey: math.exp(-2.0 * error) for hotkey, error in errors.items()}, self.cfg)
