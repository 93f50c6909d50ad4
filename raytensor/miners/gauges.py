"""The miners' metrics in Ray: training losses, questions, latency of answers.

In: numbers of one process. Out: the miners' rows of `telemetry.metrics`. The lane says how a question came: "run"
(asked inside a run) or "wire" (over HTTP). Knows nothing of models.
"""

from raytensor.telemetry.metrics import Meters
from raytensor.types import Failure, Response, Submission


class Gauges:
    """Metrics of one process and one lane."""

    def __init__(self, lane: str) -> None:
        self._lane, self._meters = lane, Meters()

    def trained(self, losses: list[float], tokens: int, wall_s: float) -> None:
        """Record a round of training."""
        if losses:
            self._meters.set("raytensor_train_loss", sum(losses) / len(losses))
            self._meters.set("raytensor_train_tokens_per_s", tokens / max(wall_s, 1e-9))

    def answered(self, answer: Response | Submission | Failure, elapsed_s: float) -> None:
        """Record a finished question."""
        self.ended(answer.reason.value if isinstance(answer, Failure) else "answered", elapsed_s)

    def ended(self, outcome: str, elapsed_s: float) -> None:
        """Record a finished question or prompt by its outcome."""
        self._meters.count("raytensor_answers_total", lane=self._lane, outcome=outcome)
        self._meters.observe("raytensor_answer_latency_s", elapsed_s, lane=self._lane)
