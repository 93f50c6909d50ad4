"""A scorer: turns (task, sealed, response) into a score. A plain class; the pool makes actors of it.

In: one answered question. Out: one `Score`, or one `Failure` when the answer breaks the task's bounds.
Holds no state between items, so that any scorer of a pool gives the same result. Knows nothing of Ray.
"""

from __future__ import annotations

import os

import numpy as np

from raytensor.config import RunConfig
from raytensor.mechanisms import base
from raytensor.types import Failure, Response, Score, Task


class Scorer:
    """log_unigram float32 [vocab_size] is `Text.log_unigram`; the mechanism is the one that the configuration names."""

    def __init__(self, cfg: RunConfig, log_unigram: np.ndarray, vocab_size: int) -> None:
        self._mechanism = base.load(cfg, log_unigram, vocab_size)

    def ready(self) -> int:
        """The process id; answers once the constructor is through."""
        return os.getpid()

    def score(self, task: Task, sealed: base.Sealed, response: Response) -> Score | Failure:
        """The worth of one response."""
        return self._mechanism.score(task, sealed, response)
