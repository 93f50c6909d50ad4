"""What every incentive mechanism offers, and how one is found by its dotted path.

A mechanism is pure: equal arguments give equal results, in any process, in any order. It makes questions with sealed
answers, turns one response into one `Score` or `Failure`, and turns moving averages into weights. It knows nothing of
Ray, of the chain, or of who else was asked.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raytensor.config import RunConfig
from raytensor.data.text import Text
from raytensor.errors import ConfigError
from raytensor.types import Failure, Response, Score, Task


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the validator keeps back of a task: targets int32 [B], the token that follows each context."""

    task_id: str
    targets: np.ndarray


class Mechanism(Protocol):
    """One subnet's rules. Made as `cls(cfg.mechanism, log_unigram, vocab_size, seed=..., deadline_s=...)`."""

    def tasks(
        self, round: int, netuid: int, validator: str, hotkeys: Sequence[str], text: Text
    ) -> list[tuple[Task, Sealed]]:
        """One question of `validator` to each of `hotkeys`, with what is kept back. Task ids are unique in a run."""

    def score(self, task: Task, sealed: Sealed, response: Response) -> Score | Failure:
        """The worth of one response; `Failure` with MALFORMED when it breaks the task's bounds. Never raises for it."""

    def weights(self, losses: Mapping[str, float], presence: Mapping[str, float]) -> dict[str, float]:
        """Weights by hotkey, >= 0, that sum to 1; empty when nobody deserves any.

        losses    moving average of each hotkey's loss, nats per token.
        presence  moving share of questions that each answered, 0 to 1.
        """


def load(cfg: RunConfig, log_unigram: np.ndarray, vocab_size: int) -> Mechanism:
    """The mechanism that `cfg.mechanism.path` names. Raises `ConfigError` when there is no such class."""
    module, _, name = cfg.mechanism.path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"mechanism.path={cfg.mechanism.path!r}: {error}") from error
    if not isinstance(found, type):
        raise ConfigError(f"mechanism.path={cfg.mechanism.path!r}: must be the dotted path of a class, as package.module.Class")
    return found(cfg.mechanism, log_unigram, vocab_size, seed=cfg.seed, deadline_s=cfg.validators.deadline_s)
