"""A scorer: turns answered questions into scores. A plain class; the pool makes actors of it.

In: answered questions of any subnet whose rules it was made with. Out: one `Score` each, or one `Failure` when the
answer breaks the task's bounds. Holds no state between calls, so that any scorer of a pool gives the same result.
A mechanism that can't be loaded fails its own subnet's items only. Knows nothing of Ray.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raytensor import config
from raytensor.mechanisms import base
from raytensor.pool import ForkedWorker
from raytensor.types import Failure, Reason, Response, Score, Submission, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MechanismSpec:
    """What a mechanism is made from. log_unigram float32 [vocab_size] is `Text.log_unigram`."""

    mechanism: config.Mechanism
    log_unigram: np.ndarray
    vocab_size: int
    deadline_s: float = 60.0

    def load(self) -> base.Mechanism:
        """Raises `ConfigError` when there is no such mechanism."""
        return base.load(self.mechanism, self.log_unigram, self.vocab_size, deadline_s=self.deadline_s)


Answered = tuple[str, Task, Any, Response | Submission]  # name of the rules, question, what was kept back, answer


class Scorer:
    """rules by name (one name per subnet). Mechanisms, and the models in them, are loaded here, once."""

    def __init__(self, rules: Mapping[str, MechanismSpec]) -> None:
        self._mechanisms: dict[str, base.Mechanism] = {}
        self._broken: dict[str, str] = {}
        for name, one in rules.items():
            try:
                self._mechanisms[name] = one.load()
            except Exception as error:  # a subnet's own code must not stop the scorer of the others
                log.exception("the mechanism of %r can't be loaded", name)
                self._broken[name] = f"{one.mechanism.path} can't be loaded: {type(error).__name__}: {error}"

    def score_each(self, answers: Sequence[Answered]) -> Iterator[Score | Failure]:
        """The same one after the other: whatever one of them does to this process, those before it are known."""
        for answer in answers:
            try:
                yield from self.score_all([answer])
            except MemoryError:
                raise
            except Exception as error:  # the mechanism's edge: as if the answer had been alone
                _, task, _, _ = answer
                yield Failure(task.task_id, task.hotkey, Reason.ERROR, f"{type(error).__name__}: {error}")

    def score_all(self, answers: Sequence[Answered]) -> list[Score | Failure]:
        """What each answer showed; all of them are of one subnet."""
        names = {name for name, *_ in answers}
        assert len(names) == 1, names
        (name,) = names
        if name in self._broken:
            return [Failure(task.task_id, task.hotkey, Reason.ERROR, self._broken[name]) for _, task, _, _ in answers]
        return self._mechanisms[name].score([base.Item(task, sealed, answer) for _, task, sealed, answer in answers])


class ScorerActor:
    """The pool's actor.

    isolate  work in a forked child (see pool/forked_worker.py), each call at most `limit_s`, one answer after the other; not
             for rules that use a GPU, which get all answers of a call at once.
    """

    def __init__(self, rules: Mapping[str, MechanismSpec], isolate: bool, limit_s: float) -> None:
        self._scorer = Scorer(rules)
        self._isolated = ForkedWorker(self._scorer, limit_s) if isolate else None

    def ready(self) -> int:
        """The process id; answers once the constructor is through."""
        return os.getpid()

    def score_all(self, payloads: Sequence[tuple[Answered]]) -> list[Score | Failure]:
        """See `Scorer.score_all`; each payload holds one answer."""
        answers = [answer for (answer,) in payloads]
        if self._isolated is not None:
            return self._isolated.each("score_each", answers)
        return self._scorer.score_all(answers)
