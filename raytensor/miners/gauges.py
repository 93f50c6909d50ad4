"""What miners tell Ray's metrics: training losses, questions, how long answers took.

In: numbers as they come up. Out: Prometheus series of the node's metrics agent (with the prefix "ray_"). Tags are few and
bounded: a lane (run: asked inside a run, wire: over HTTP) and an outcome, never a hotkey. Without Ray nothing happens.
"""

from __future__ import annotations

import ray

from raytensor.types import Failure, Response

BOUNDS_S = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]


class Gauges:
    """Of one process and one lane."""

    def __init__(self, lane: str) -> None:
        self._on = ray.is_initialized()
        if not self._on:
            return
        from ray.util.metrics import Counter, Gauge, Histogram

        self._lane = {"lane": lane}
        self._loss = Gauge("raytensor_train_loss", "mean training loss of the process's miners, nats per token")
        self._pace = Gauge("raytensor_train_tokens_per_s", "tokens trained per second, over the process's miners")
        self._answers = Counter("raytensor_answers_total", "questions answered or not", tag_keys=("lane", "outcome"))
        self._latency = Histogram(
            "raytensor_answer_latency_s", "seconds from question to answer", boundaries=BOUNDS_S, tag_keys=("lane",)
        )

    def trained(self, losses: list[float], tokens: int, wall_s: float) -> None:
        """A round of training is over."""
        if self._on and losses:
            self._loss.set(sum(losses) / len(losses))
            self._pace.set(tokens / max(wall_s, 1e-9))

    def answered(self, answer: Response | Failure, elapsed_s: float) -> None:
        """A question left, this way or that."""
        if self._on:
            outcome = answer.reason.value if isinstance(answer, Failure) else "answered"
            self._answers.inc(1.0, tags=self._lane | {"outcome": outcome})
            self._latency.observe(elapsed_s, tags=self._lane)
