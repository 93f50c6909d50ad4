"""What every incentive mechanism offers, what it may declare that it needs, and how one is found by its dotted path.

    tasks(ask, state, text) -> tasks with what is kept back            who is asked what in one round
    score(items)            -> a Score | Failure for each              the evidence; runs in the scorer pool
    reduce(state, evidence) -> state                                   one round's evidence, in a fixed order
    weights(state)          -> {hotkey: weight}

These four are pure: equal arguments give equal results, in any process, in any order. Everything random comes from
`Ask`. The evidence of a round is on disk before it is reduced, so replaying the log gives the same weights to the bit.
A mechanism declares what else it needs on its class (see `Mechanism`); a job reads the declarations with `needs`.
Knows nothing of Ray or of the chain.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from raytensor import config
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.errors import ConfigError, MechanismError, RayTensorError
from raytensor.mechanisms.evidence import Evidence, State
from raytensor.types import Failure, FileCommit, Promises, Response, Score, Submission, Task


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
    commits: Mapping[str, FileCommit] = field(default_factory=dict)
    block: int = 0

    @classmethod
    def at(cls, promises: Promises, netuid: int, validator: str, round: int, hotkeys: tuple[str, ...]) -> Ask:
        """Drawn from a block's hash. Only commitments of earlier blocks count: their authors did not know the hash."""
        before = {hotkey: commit for hotkey, commit in promises.commits.items() if commit.block < promises.block}
        return cls(promises.block_hash, netuid, validator, round, hotkeys, before, promises.block)

    def draw(self, *names: object) -> np.random.Generator:
        """A generator for (seed, netuid, round, names). Name the mechanism; name the validator where each validator
        draws for itself."""
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
    sealed: Any  # `Sealed`, or what else the mechanism's `tasks` returned
    response: Response | Submission


class Mechanism(Protocol):
    """One subnet's rules. Constructed as `cls(cfg, log_unigram, vocab_size, deadline_s=...)`, in the driver and in each
    scorer. A class of your own may subclass this for the defaults, or only offer the same four methods.

    cfg          the `mechanism` section; `cfg.options` holds the settings of a mechanism of your own.
    log_unigram  float32 [vocab_size]: log frequencies of the train part's tokens (`Text.log_unigram`).
    deadline_s   that a miner has for one question.
    """

    # Miners commit to files on the chain, and tasks of kind "file" ask for them; `mechanism.files` overrides it.
    asks_for_files: ClassVar[bool] = False
    # Dotted path of the class that miners of a run are made of; "" for raytensor.miners.miner.Miner.
    miner: ClassVar[str] = ""
    # Behaviours (of raytensor.config.behaviours) that its miners have beside those of all mechanisms.
    behaviours: ClassVar[tuple[str, ...]] = ()
    # Setting with the tokens of its longest sequence, which miners' models must see: "model_eval.seq_len", for example.
    longest_sequence: ClassVar[str] = ""

    @classmethod
    def shared_state(cls, cfg: config.Mechanism, folder: str | None) -> config.Mechanism:
        """Settings by which the mechanism, its scorers and its miners find the state that they share.

        folder  that the job offers for it; None when it has none that miners can see.

        Returns `cfg` where nothing is shared. Raises `ConfigError` when a folder is needed and not known.
        """
        return cfg

    def start(self, seed: int, first_round: int) -> None:
        """Create the shared state if it is not there; called once, before miners and scorers work.

        Raises `DataError` when it is there and `first_round` can't continue it.
        """

    def tasks(self, ask: Ask, state: State, text: Text) -> list[tuple[Task, Any]]:
        """Questions of this round, each with what is kept back of it. Task ids are unique in a run. May be empty."""
        ...

    def score(self, items: Sequence[Item]) -> list[Score | Failure]:
        """What each response showed, in the order of `items`.

        Called with any part of a round's items in any order, in any process: the result for an item never depends on
        the items beside it, to the bit. A `Failure` with MALFORMED when a response breaks the task's bounds; never
        raises for it. Numbers that are needed to compare responses with each other (probabilities of the truth,
        fingerprints) go into the Score; `reduce` compares them.
        """
        ...

    def reduce(self, state: State, evidence: Evidence) -> State:
        """The state after one round. `evidence.results` are sorted by (hotkey, task id); every `Failure` among them is
        the miner's own. Find duplicates here, before rating. A hotkey without a result keeps what it has."""
        ...

    def weights(self, state: State) -> dict[str, float]:
        """Weights by hotkey, >= 0, that sum to 1; empty when no miner deserves any."""
        ...

    def after_round(self, state: State, evidence: Evidence, answers: Mapping[str, Submission]) -> None:
        """Advance the shared state. Called once a round, with the first validator's evidence, before it is reduced.

        state    before this evidence was reduced.
        answers  files and updates by hotkey, of the answers in this evidence.
        """


@dataclass(frozen=True)
class Needs:
    """What a mechanism declares, read from its class before anything starts. See `Mechanism`."""

    asks_for_files: bool = False
    miner: str = ""
    behaviours: tuple[str, ...] = ()
    longest_sequence: str = ""


def needs(cfg: config.Mechanism) -> Needs:
    """The declarations of the mechanism that `cfg.path` names. Imports its module; raises `ConfigError` if it can't."""
    found = load_class(cfg.path)
    default = Needs()
    names = [field.name for field in dataclasses.fields(Needs)]
    declared: dict[str, Any] = {name: getattr(found, name, getattr(default, name)) for name in names}
    if cfg.files is not None:
        declared["asks_for_files"] = cfg.files
    return Needs(**declared)


def with_shared_state(cfg: config.Mechanism, folder: str | None) -> config.Mechanism:
    """`cfg` with the place of the shared state; see `Mechanism.shared_state`."""
    place = getattr(load_class(cfg.path), "shared_state", None)
    return place(cfg, folder) if place is not None else cfg


def load(cfg: config.Mechanism, log_unigram: np.ndarray, vocab_size: int, *, deadline_s: float = 60.0) -> Mechanism:
    """The mechanism that `cfg.path` names.

    Raises `ConfigError` when there is no such class, `MechanismError` when its constructor raises.
    """
    found = load_class(cfg.path)
    try:
        return found(cfg, log_unigram, vocab_size, deadline_s=deadline_s)
    except RayTensorError:
        raise
    except Exception as error:  # the edge of the mechanism's code
        raise MechanismError(fault_of(error, cfg.path, "could not be constructed")) from error


def load_class(path: str, key: str = "mechanism.path") -> type[Any]:
    """The class of a dotted path; packages in the current folder are found, too. key: of the setting, for messages.

    Raises `ConfigError` when there is no such class, or its module raises when it is imported.
    """
    module, _, name = path.rpartition(".")
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:  # the `raytensor` script has its own folder there instead
        sys.path.append(folder)
    try:
        found = getattr(importlib.import_module(module), name) if module else None
    except ImportError as error:
        fix = f"install the package, or start from the folder that holds it (now {folder})"
        raise ConfigError(f"{key}={path!r}: {error}\n  fix: {fix}") from error
    except AttributeError as error:
        raise ConfigError(f"{key}={path!r}: {error}") from error
    except Exception as error:  # the edge of the mechanism's code
        raise ConfigError(f"{key}={path!r}: {fault_of(error, path, 'could not be imported')}") from error
    if not isinstance(found, type):
        raise ConfigError(f"{key}={path!r}: must be the dotted path of a class, as package.module.Class")
    return found


def fault_of(error: BaseException, path: str, what: str) -> str:
    """One line: what the mechanism `path` did, the error, and where its code raised it.

    The place is the innermost frame in the file of the mechanism's class, else the innermost frame.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}, line {error.lineno}"
    elif frames:
        module = sys.modules.get(path.rpartition(".")[0])
        own = getattr(module, "__file__", None)
        frame = next((frame for frame in reversed(frames) if frame.filename == own), frames[-1])
        where = f"{frame.filename}, line {frame.lineno}, in {frame.name}"
    else:
        where = "no traceback"
    text = " ".join(str(error).split())
    return f"{path} {what}: {type(error).__name__}{': ' * bool(text)}{text} ({where})"
