"""The actors of miners, as other processes call them. host.py and shard.py do their work.

In: calls by handle. Out: what the host or the rank behind the actor returns. A process that receives a handle imports
the actor's class. These classes are light, so that only an actor's own process imports torch and transformers.
Waits for and bounds: those of the host.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from raytensor.cluster import reserve_port
from raytensor.config import MinersJob
from raytensor.data.text import Text
from raytensor.miners.placement import Member
from raytensor.types import Failure, Response, Submission, Task

if TYPE_CHECKING:
    from raytensor.miners.submission_export import Original
    from raytensor.training.pulse import Report

# Options of a host actor. Ray never restarts it: the supervisor makes a new one from the newest checkpoint. Questions
# from outside the run have a concurrency group of their own, and so have prompts, which are computed in one batch.
LANES: dict[str, Any] = {"max_restarts": 0, "concurrency_groups": {"serving": 2, "generating": 1, "beside": 1}}

Address = tuple[str, int]  # of the first rank, where all ranks meet


@dataclass(frozen=True)
class Trained:
    """One round of a host's training.

    losses  by hotkey, of the miners that trained, nats per token.
    wall_s  seconds that it took.
    files   digests of new files by hotkey (see `Miner.export`).
    failures  by hotkey: why a miner did not train; the miners beside it did.
    """

    round: int
    losses: dict[str, float]
    wall_s: float
    files: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A prompt to continue.

    name         unique among the requests of a host; the streams give one.
    prompt_id    the caller's.
    tokens       int32 [N], N >= 1: the prompt, and what was made of the continuation before.
    num_made     tokens of these that were made before, by a host that was lost.
    max_tokens   largest number of new tokens, with those made before.
    temperature  0 always selects the likeliest token.
    seed         of the sampling, with `prompt_id`.
    end          the token that ends the text.
    """

    name: str
    prompt_id: str
    hotkey: str
    tokens: np.ndarray
    num_made: int
    max_tokens: int
    temperature: float
    seed: int
    end: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class NewTokens:
    """What a request got in one call. done: nothing more comes. error: why it ended early."""

    tokens: tuple[int, ...] = ()
    done: bool = False
    error: str = ""


class HostActor:
    """A `MinerHost`, whose methods these are; with `address` the first rank of a sharded miner.

    Arguments and errors are those of `MinerHost`. Ready when the constructor returns.
    """

    def __init__(
        self,
        cfg: MinersJob,
        members: Sequence[Member],
        text: Text,
        folder: Path | None = None,
        resume_round: int | None = None,
        address: Address | None = None,
    ) -> None:
        self._host = _work().open_host(cfg, members, text, folder, resume_round, address)

    def ready(self) -> int:
        return self._host.ready()

    def report(self) -> "Report | None":
        return self._host.report()

    def restore_warnings(self) -> list[str]:
        return self._host.restore_warnings()

    def train(
        self, round: int, committed: Mapping[str, str] | None = None, originals: Mapping[str, "Original"] | None = None
    ) -> Trained:
        return self._host.train(round, committed, originals)

    def answer(self, task: Task, observed: Any = None) -> Response | Submission | Failure:
        return self._host.answer(task, observed)

    def serve(self, task: Task) -> Response | Submission | Failure:
        return self._host.serve(task)

    def generate(self, joins: Sequence[GenerationRequest], leaves: Sequence[str]) -> dict[str, NewTokens]:
        return self._host.generate(joins, leaves)

    def heldout_losses(self) -> dict[str, float | None]:
        return self._host.heldout_losses()

    def checkpoint(self, round: int) -> None:
        self._host.checkpoint(round)


class ShardActor:
    """Another rank of a sharded miner: a `Shard`, whose arguments and methods these are."""

    def __init__(self, *given: Any) -> None:
        self._shard = _work().Shard(*given)

    def ready(self) -> int:
        return self._shard.ready()

    def report(self) -> "Report":
        return self._shard.report()

    def follow(self) -> None:
        self._shard.follow()


def _work() -> ModuleType:
    from raytensor.miners import shard  # imports torch, in the actor's own process only

    return shard


def rendezvous_address() -> Address:
    """A reserved address of this node; called where the first rank will run."""
    return ray.util.get_node_ip_address(), reserve_port()
