"""A scorer: turns answered questions into scores. A plain class; the pool makes actors of it.

In: answered questions. Out: one `Score` each, or one `Failure` when the answer breaks the task's bounds.
Holds no state between items, so that any scorer of a pool gives the same result. Knows nothing of Ray.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from raytensor import config
from raytensor.mechanisms import base
from raytensor.types import Failure, Response, Score, Submission, Task


class Scorer:
    """log_unigram float32 [vocab_size] is `Text.log_unigram`; the mechanism is the one that the section names."""

    def __init__(self, cfg: config.Mechanism, log_unigram: np.ndarray, vocab_size: int) -> None:
        self._mechanism = base.load(cfg, log_unigram, vocab_size)

    def ready(self) -> int:
        """The process id; answers once the constructor is through."""
        return os.getpid()

    def score(self, task: Task, sealed: Any, response: Response | Submission) -> Score | Failure:
        """What one response showed."""
        return self._mechanism.score([base.Item(task, sealed, response)])[0]
