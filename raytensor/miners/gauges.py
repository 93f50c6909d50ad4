"""What miners tell Ray's metrics: training losses, questions, how long answers took.

In: numbers as they come up. Out: the miners' metrics of `telemetry.metrics`. The lane says how a question came: run (asked
inside a run) or wire (over HTTP).
"""

from __future__ import annotations

from raytensor.telemetry.metrics import Meters
from raytensor.types import Failure, Response


class Gauges:
    """Of one process and one lane."""

    def __init__(self, lane: str) -> None:
        self._lane, self._meters = lane, Meters()

    def trained(self, losses: list[float], tokens: int, wall_s: float) -> None:
        """A round of training is over."""
        if losses:
            self._meters.set("raytensor_train_loss", sum(losses) / len(losses))
            self._meters.set("raytensor_train_tokens_per_s", tokens / max(wall_s, 1e-9))

    def answered(self, answer: Response | Failure, elapsed_s: float) -> None:
        """A question left, this way or that."""
        outcome = answer.reason.value if isinstance(answer, Failure) else "answered"
        self._meters.count("raytensor_answers_total", lane=self._lane, outcome=outcome)
        self._meters.observe("raytensor_answer_latency_s", elapsed_s, lane=self._lane)
