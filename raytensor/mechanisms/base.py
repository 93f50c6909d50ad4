"""The interface of incentive mechanisms, the needs that a mechanism declares, and the loader of a dotted path.

    tasks(ask, state, text) -> [(Task, private part)]     the questions of one round
    score(items)            -> [Score | Failure]          the evidence, one per item; runs in the scorer pool
    reduce(state, evidence) -> state                      adds the evidence of one round, in a fixed order
    weights(state)          -> {hotkey: weight}

These four are pure: equal arguments give equal results, in any process and in any order. All randomness comes from
`Ask`. The evidence of a round is on disk before it is reduced, so a replay of the log gives the same weights to the
bit. A mechanism declares further needs as class attributes (see `Mechanism`); jobs read them with `needs`.
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
from raytensor.config.subnets import search_working_folder
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.errors import ConfigError, MechanismError, RayTensorError
from raytensor.mechanisms.evidence import Evidence, State
from raytensor.payload import Payload, Schemas
from raytensor.types import Failure, FileCommit, Promises, Reason, Response, Score, Submission, Task, Value

RESERVED_KINDS = frozenset({"token", "phrase", "completion", "file"})


@dataclass(frozen=True, slots=True)
class Ask:
    """One round of one validator on one subnet, and the source of all randomness in it.

    seed     seed of the run, or a block hash that was unknown when the miners committed.
    hotkeys  miners that can be asked, in a fixed order.
    commits  {hotkey: commitment}, of commitments made before the block of the seed.
    block    number of the block of the seed; 0 without a chain.
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
        """The round that is seeded by a block hash. Only commitments of earlier blocks count: they precede the hash."""
        before = {hotkey: commit for hotkey, commit in promises.commits.items() if commit.block < promises.block}
        return cls(promises.block_hash, netuid, validator, round, hotkeys, before, promises.block)

    def draw(self, *names: object) -> np.random.Generator:
        """A generator for (seed, netuid, round, names). `names`: the mechanism, and the validator where each validator
        draws independently."""
        return assign.generator(self.seed, self.netuid, self.round, *names)

    def task(self, hotkey: str, tokens: np.ndarray, lengths: np.ndarray, *more: Any, digest: str = "") -> Task:
        """The question of this round to one miner. more: the fields of `Task` from `top_k` to `horizon`.

        The digest of a file is part of the task id.
        """
        task_id = f"{self.netuid}/{self.round}/{self.validator}/{hotkey}" + (f"/{digest}" if digest else "")
        return Task(task_id, self.round, self.netuid, self.validator, hotkey, tokens, lengths, *more, digest=digest)

    def question(self, hotkey: str, kind: str, payload: Payload, deadline_s: float, name: str = "") -> Task:
        """The question of this round to one miner, of a kind of `Mechanism.schemas`.

        name  tells several questions to one miner in a round apart.
        """
        task_id = f"{self.netuid}/{self.round}/{self.validator}/{hotkey}" + (f"/{name}" if name else "")
        who, none = (self.round, self.netuid, self.validator, hotkey), np.zeros((0, 0), np.int32)
        return Task(task_id, *who, none, none.ravel(), 1, deadline_s, kind=kind, payload=payload)


@dataclass(frozen=True, slots=True)
class Sealed:
    """The private part of a task: it stays with the validator.

    targets          int32 [B] or [B, horizon]: the tokens that follow each context.
    group            name of the group of tasks whose responses are compared; "" for none.
    bytes_per_token  mean bytes per token of the text that the targets come from.
    features         features of the question, for a router; () without one.
    """

    task_id: str
    targets: np.ndarray
    group: str = ""
    bytes_per_token: float = 1.0
    features: tuple[float, ...] = ()


class Item(NamedTuple):
    """One answered question, the input of `Mechanism.score`."""

    task: Task
    sealed: Any  # the private part that `Mechanism.tasks` returned with the task, for example a `Sealed`
    response: Response | Submission


class Mechanism(Protocol):
    """The rules of one subnet. The job and each scorer construct `cls(cfg, log_unigram, vocab_size, deadline_s=...)`.

    A custom mechanism subclasses this for the defaults, or only implements the four methods of the module docstring.

    cfg          the `mechanism` section; `cfg.options` holds the settings of a custom mechanism.
    log_unigram  float32 [vocab_size]: log frequencies of the tokens of the train part (`Text.log_unigram`).
    deadline_s   seconds that a miner has for one question.
    """

    # Miners commit to files on the chain, and tasks of kind "file" request them; `mechanism.files` overrides it.
    asks_for_files: ClassVar[bool] = False
    # Dotted path of the miner class of a run; "" for raytensor.miners.miner.Miner.
    miner: ClassVar[str] = ""
    # Dotted path of the raytensor.miners.responder.Responder of its miners; `mechanism.responder` overrides it.
    responder: ClassVar[str] = ""
    # Behaviours (of raytensor.config.behaviours) of its miners beside those of all mechanisms.
    behaviours: ClassVar[tuple[str, ...]] = ()
    # Name of the setting with the length of its longest sequence in tokens, for example "model_eval.seq_len".
    longest_sequence: ClassVar[str] = ""
    # The kinds of questions that carry a payload: what each holds, and what its answer holds.
    schemas: ClassVar[Schemas] = {}
    # Version of the rules, the version key of its weights; `mechanism.version_key` overrides it. A subnet whose
    # WeightsVersionKey is newer refuses them. 0: the subnet's own, whatever it is.
    version_key: ClassVar[int] = 0

    @classmethod
    def shared_state(cls, cfg: config.Mechanism, folder: str | None) -> config.Mechanism:
        """`cfg` with the location of the state that the mechanism, its scorers and its miners share.

        folder  offered by the job; None when the job has no folder that miners can read.

        Returns `cfg` unchanged where nothing is shared. Raises `ConfigError` when a folder is needed and unknown.
        """
        return cfg

    def start(self, seed: int, first_round: int) -> None:
        """Create the shared state if it does not exist; called once, before miners and scorers start.

        Raises `DataError` when it exists and `first_round` can't continue it.
        """

    def tasks(self, ask: Ask, state: State, text: Text) -> list[tuple[Task, Any]]:
        """The questions of this round, each with its private part. Task ids are unique in a run. May be empty."""
        ...

    def score(self, items: Sequence[Item]) -> list[Score | Failure]:
        """The result of each response, in the order of `items`.

        Called with any subset of a round's items, in any order and any process: the result of an item depends on that
        item only, to the bit. A response that breaks the bounds of its task gives a `Failure` with MALFORMED, never an
        exception. Values for comparing responses with each other (probabilities of the targets, fingerprints) belong in
        the `Score`; `reduce` compares them.
        """
        ...

    def reduce(self, state: State, evidence: Evidence) -> State:
        """The state after one round. `evidence.results` are sorted by (hotkey, task id); each `Failure` among them is
        the miner's fault. Detect duplicates here, before rating. The entry of a hotkey without a result is kept."""
        ...

    def weights(self, state: State) -> dict[str, float]:
        """{hotkey: weight >= 0}, sum 1; empty when no miner earns a weight."""
        ...

    def after_round(self, state: State, evidence: Evidence, answers: Mapping[str, Submission]) -> None:
        """Update the shared state. Called once per round, with the first validator's evidence, before it is reduced.

        state    the state before this evidence.
        answers  {hotkey: file or update} of the answers in this evidence.
        """


def malformed(task: Task, why: str) -> Failure:
    """The result of a response that breaks the bounds of its task."""
    return Failure(task.task_id, task.hotkey, Reason.MALFORMED, why)


def scored(task: Task, values: Mapping[str, Value], group: str = "") -> Score:
    """The `Score` of a response to `task`."""
    return Score(task.task_id, task.round, task.netuid, task.validator, task.hotkey, values, group)


@dataclass(frozen=True)
class Needs:
    """The declarations of a mechanism, read from its class before a job starts. See `Mechanism`."""

    asks_for_files: bool = False
    miner: str = ""
    responder: str = ""
    behaviours: tuple[str, ...] = ()
    longest_sequence: str = ""
    version_key: int = 0
    schemas: Schemas = field(default_factory=dict)


def needs(cfg: config.Mechanism) -> Needs:
    """The declarations of the mechanism that `cfg.path` names. Raises `ConfigError` if it can't be imported."""
    found = load_class(cfg.path)
    default = Needs()
    names = [field.name for field in dataclasses.fields(Needs)]
    declared: dict[str, Any] = {name: getattr(found, name, getattr(default, name)) for name in names}
    if cfg.files is not None:
        declared["asks_for_files"] = cfg.files
    if cfg.responder is not None:
        declared["responder"] = cfg.responder
    if cfg.version_key is not None:
        declared["version_key"] = cfg.version_key
    key = declared["version_key"]
    if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < 2**64:
        raise ConfigError(f"{cfg.path}.version_key = {key!r}: write a whole number from 0 to 2^64 - 1")
    if taken := sorted(RESERVED_KINDS & declared["schemas"].keys()):
        raise ConfigError(f"{cfg.path}.schemas: the kind {taken[0]!r} has a form of its own; choose another name")
    return Needs(**declared)


def with_shared_state(cfg: config.Mechanism, folder: str | None) -> config.Mechanism:
    """`cfg` with the location of the shared state; see `Mechanism.shared_state`."""
    method = getattr(load_class(cfg.path), "shared_state", None)
    return method(cfg, folder) if method is not None else cfg


def load(cfg: config.Mechanism, log_unigram: np.ndarray, vocab_size: int, *, deadline_s: float = 60.0) -> Mechanism:
    """Construct the mechanism that `cfg.path` names.

    Raises `ConfigError` when the class does not exist, `MechanismError` when its constructor raises.
    """
    found = load_class(cfg.path)
    try:
        return found(cfg, log_unigram, vocab_size, deadline_s=deadline_s)
    except RayTensorError:
        raise
    except Exception as error:  # the edge of the mechanism's code
        raise MechanismError(fault_of(error, cfg.path, "could not be constructed")) from error


def load_class(path: str, key: str = "mechanism.path") -> type[Any]:
    """The class of a dotted path, also from packages in the current folder. key: name of the setting, for messages.

    Raises `ConfigError` when the class does not exist, or when the import of its module raises.
    """
    module, _, name = path.rpartition(".")
    search_working_folder()
    try:
        found = getattr(importlib.import_module(module), name) if module else None
    except ImportError as error:
        fix = f"install the package, or start from the folder that holds it (now {os.getcwd()})"
        raise ConfigError(f"{key}={path!r}: {error}\n  fix: {fix}") from error
    except AttributeError as error:
        raise ConfigError(f"{key}={path!r}: {error}") from error
    except Exception as error:  # the edge of the mechanism's code
        raise ConfigError(f"{key}={path!r}: {fault_of(error, path, 'could not be imported')}") from error
    if not isinstance(found, type):
        raise ConfigError(f"{key}={path!r}: must be the dotted path of a class, as package.module.Class")
    return found


def fault_of(error: BaseException, path: str, what: str) -> str:
    """One line for a fault of the mechanism `path`: what happened, the error, and the code line that raised it.

    The line is that of the innermost frame in the file of the mechanism's class, else of the innermost frame.
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
