"""What every incentive mechanism offers, and how one is found by its dotted path.

    tasks(ask, state, text) -> questions with what is kept back          who is asked what in one round
    score(items)            -> a Score | Failure for each                the evidence; runs in the scorers' pool
    reduce(state, evidence) -> state                                     one round's evidence, in a fixed order
    weights(state)          -> {hotkey: weight}

A mechanism is pure: equal arguments give equal results, in any process, in any order. Everything random comes from
`Ask`. It knows nothing of Ray, of the chain, or of files. The evidence of a round is on disk before it is reduced, so
that the same weights can be made again from it, to the bit.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from raytensor import config
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.errors import ConfigError
from raytensor.mechanisms.evidence import Evidence, State
from raytensor.types import Commit, Failure, Promises, Response, Score, Submission, Task


@dataclass(frozen=True, slots=True)
class Ask:
    """One round of one validator on one subnet, and the source of everything random in it.

    seed     of the run, or a hash of a chain block that nobody could know when they committed.
    hotkeys  miners that can be asked, in a fixed order.
    commits  by hotkey, what they had committed to before the block that the seed comes from.
    block    of the chain that the seed comes from; 0 without a chain.
    """

    seed: int | str
    netuid: int
    validator: str
    round: int
    hotkeys: tuple[str, ...]
    commits: Mapping[str, Commit] = field(default_factory=dict)
    block: int = 0

    @classmethod
    def at(cls, promises: Promises, netuid: int, validator: str, round: int, hotkeys: tuple[str, ...]) -> Ask:
        """Drawn from a block's hash. Only what was committed to before that block counts: nobody knew the hash then."""
        before = {hotkey: commit for hotkey, commit in promises.commits.items() if commit.block < promises.block}
        return cls(promises.block_hash, netuid, validator, round, hotkeys, before, promises.block)

    def draw(self, *names: object) -> np.random.Generator:
        """A generator of its own for (seed, netuid, round, names). Name the mechanism; name the validator where each
        validator is to draw for itself."""
        return assign.generator(self.seed, self.netuid, self.round, *names)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the validator keeps back of a task.

    targets          int32 [B] or [B, horizon]: the tokens that follow each context.
    group            of tasks whose responses are compared with each other; "" when there is none.
    bytes_per_token  of the text that the targets come from.
    features         of the question, for a gate; () without one.
    """

    task_id: str
    targets: np.ndarray
    group: str = ""
    bytes_per_token: float = 1.0
    features: tuple[float, ...] = ()


class Item(NamedTuple):
    """One answered question, ready to be scored."""

    task: Task
    sealed: Any  # `Sealed`, or what else the mechanism's `tasks` gave
    response: Response | Submission


class Mechanism(Protocol):
    """One subnet's rules. Made as `cls(cfg, log_unigram, vocab_size, deadline_s=...)`, in the driver and in each scorer.

    cfg          the `mechanism` section; `cfg.options` holds the settings of a mechanism of your own.
    log_unigram  float32 [vocab_size]: log frequencies of the train part's tokens (`Text.log_unigram`).
    deadline_s   that a miner has for one question.
    """

    def tasks(self, ask: Ask, state: State, text: Text) -> list[tuple[Task, Any]]:
        """Questions of this round, each with what is kept back of it. Task ids are unique in a run. Nobody need be asked."""

    def score(self, items: Sequence[Item]) -> list[Score | Failure]:
        """What each response showed, in the order of `items`.

        Called with any part of a round's items in any order, in any process: the result for an item never depends on the
        items beside it, to the bit. A `Failure` with MALFORMED when a response breaks the task's bounds; never raises
        for it. Numbers that are needed to compare responses with each other (probabilities of the truth, fingerprints)
        go into the Score; `reduce` compares them.
        """

    def reduce(self, state: State, evidence: Evidence) -> State:
        """The state after one round. `evidence.results` come by (hotkey, task id); every `Failure` among them is the
        miner's own. Duplicates are found here before anything is rated. A hotkey without a result keeps what it has."""

    def weights(self, state: State) -> dict[str, float]:
        """Weights by hotkey, >= 0, that sum to 1; empty when nobody deserves any."""


def load(cfg: config.Mechanism, log_unigram: np.ndarray, vocab_size: int, *, deadline_s: float = 60.0) -> Mechanism:
    """The mechanism that `cfg.path` names. Raises `ConfigError` when there is no such class."""
    module, _, name = cfg.path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"mechanism.path={cfg.path!r}: {error}") from error
    if not isinstance(found, type):
        raise ConfigError(f"mechanism.path={cfg.path!r}: must be the dotted path of a class, as package.module.Class")
    return found(cfg, log_unigram, vocab_size, deadline_s=deadline_s)
