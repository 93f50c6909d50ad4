"""A scorer: turns answered questions into scores. Plain classes; the pool makes actors of `ScorerActor`.

In: answered questions of any subnet whose mechanism it was made with. Out: one `Score` each, or one `Failure`:
MALFORMED when the answer breaks the task's bounds, MECHANISM when the mechanism's own code failed.
Holds no state between calls, so any scorer of a pool gives the same result. A mechanism that can't be loaded fails the
items of its own subnet only. Knows nothing of Ray.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raytensor import config
from raytensor.errors import RayTensorError, cause_of
from raytensor.mechanisms import base
from raytensor.mechanisms.guard import Guard
from raytensor.pool import ForkedWorker
from raytensor.types import Failure, Reason, Response, Score, Submission, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MechanismSpec:
    """What a mechanism is constructed from. log_unigram float32 [vocab_size] is `Text.log_unigram`."""

    mechanism: config.Mechanism
    log_unigram: np.ndarray
    vocab_size: int
    deadline_s: float = 60.0

    def load(self) -> Guard:
        """The mechanism behind its checks. Raises `ConfigError` or `MechanismError` when it can't be loaded."""
        cfg = self.mechanism
        return Guard(base.load(cfg, self.log_unigram, self.vocab_size, deadline_s=self.deadline_s), cfg.path)


Answered = tuple[str, Task, Any, Response | Submission]  # name of the spec, question, what was kept back, answer


class Scorer:
    """specs: by name, one for each subnet. Mechanisms, and the models in them, are loaded here, once."""

    def __init__(self, specs: Mapping[str, MechanismSpec]) -> None:
        self._mechanisms: dict[str, Guard] = {}
        self._broken: dict[str, str] = {}
        for name, spec in specs.items():
            try:
                self._mechanisms[name] = spec.load()
            except RayTensorError as error:  # the other subnets are scored
                log.error("the mechanism of %r can't be loaded: %s", name, error)
                self._broken[name] = f"{spec.mechanism.path} can't be loaded: {cause_of(error)}"

    def score_each(self, answers: Sequence[Answered]) -> Iterator[Score | Failure]:
        """One result after another, so that those before an answer that ends the process are kept."""
        for answer in answers:
            yield from self.score_all([answer])

    def score_all(self, answers: Sequence[Answered]) -> list[Score | Failure]:
        """A result for each answer; all of them are of one subnet."""
        names = {name for name, *_ in answers}
        assert len(names) == 1, names
        (name,) = names
        if why := self._broken.get(name):
            return [Failure(task.task_id, task.hotkey, Reason.MECHANISM, why) for _, task, _, _ in answers]
        return self._mechanisms[name].score([base.Item(task, sealed, answer) for _, task, sealed, answer in answers])


class ScorerActor:
    """The pool's actor.

    isolate  work in a forked child (see pool/forked_worker.py), each call at most `limit_s`, one answer after another;
             not for mechanisms that use a GPU, which get all answers of a call at once.
    """

    def __init__(self, specs: Mapping[str, MechanismSpec], isolate: bool, limit_s: float) -> None:
        self._scorer = Scorer(specs)
        self._isolated = ForkedWorker(self._scorer, limit_s) if isolate else None

    def ready(self) -> int:
        """The process id; returns once the constructor is through."""
        return os.getpid()

    def score_all(self, answers: Sequence[Answered]) -> list[Score | Failure]:
        """See `Scorer.score_all`."""
        if self._isolated is not None:
            return self._isolated.each("score_each", answers)
        return self._scorer.score_all(answers)
