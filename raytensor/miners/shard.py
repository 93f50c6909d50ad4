"""One rank of a miner that is spread over several processes. Plain classes; actors.py holds them.

In: the commands of the first rank. Out: this rank's part of the work. The first rank is a `MinerHost` of one miner
whose engine is a `LeadEngine`: each call is broadcast to the other ranks over the group's own sockets, then all ranks
execute it. So one process orders training, questions and checkpoints, however many callers there are.

Waits for: all ranks when they start, at most `cluster.start_timeout_s`; in a collective for the others, at most
`cluster.collective_timeout_s`; then for the next command, as long as the first
rank lives. An answer waits for the training step under way, and the next step for the answers before it.
A rank that dies breaks the group: the next collective of the others raises, and the supervisor replaces all of them.
Knows nothing of rounds.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from raytensor.config import MinersJob
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.errors import RayTensorError
from raytensor.miners.actors import Address
from raytensor.miners.host import MinerHost
from raytensor.miners.model import make_engine
from raytensor.miners.placement import Member
from raytensor.training import devices, ranks
from raytensor.training.engine import Engine
from raytensor.training.pulse import Pulse, Report
from raytensor.training.ranks import Ranks


class LeadEngine:
    """An `Engine` on the first rank whose calls run on all ranks."""

    def __init__(self, engine: Engine, group: Ranks) -> None:
        self._engine, self._group = engine, group
        self.pulse = Pulse()

    @property
    def steps(self) -> int:
        return self._engine.steps

    def train_steps(self, batches: Iterable[np.ndarray]) -> float:
        return self._on_all("train_steps", list(batches))

    def log_probs(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return self._on_all("log_probs", tokens, lengths)

    def save(self, folder: Path | str, position: Mapping[str, Any] | None = None) -> None:
        self._on_all("save", folder, position)

    def load(self, folder: Path | str) -> dict[str, Any]:
        return self._on_all("load", folder)

    def weights(self) -> dict[str, Tensor]:
        return self._on_all("weights")

    def _on_all(self, method: str, *args: Any) -> Any:
        self._group.broadcast((method, args))
        return self.pulse.during(method, getattr(self._engine, method), *args)


class FirstRank(MinerHost):
    """The rank that answers for the miner. Arguments as those of `MinerHost`, with one member."""

    def __init__(
        self, cfg: MinersJob, members: list[Member], text: Text, folder: Path | None, resume: int | None, at: Address
    ) -> None:
        (member,) = members
        lead = LeadEngine(*_engine(cfg, member, text, 0, at))
        self._lead = lead
        super().__init__(cfg, members, text, folder, resume, engines={member[0]: lead})

    def report(self) -> Report | None:
        return self._lead.pulse.report()


class Shard:
    """Another rank. Ready when the constructor returns, which is when all ranks have joined."""

    def __init__(self, cfg: MinersJob, member: Member, text: Text, rank: int, address: Address) -> None:
        self._engine, self._group = _engine(cfg, member, text, rank, address)
        self._pulse = Pulse()

    def ready(self) -> int:
        """The process id."""
        return os.getpid()

    def report(self) -> Report:
        """What this rank is doing; called beside `follow`."""
        return self._pulse.report()

    def follow(self) -> None:
        """Execute the commands of the first rank until it ends; does not return."""
        while True:
            method, args = self._group.broadcast(None)
            try:
                self._pulse.during(method, getattr(self._engine, method), *args)
            except (RayTensorError, ValueError):
                pass  # a refusal, the same on all ranks; the first rank reports it


def open_host(
    cfg: MinersJob,
    members: Sequence[Member],
    text: Text,
    folder: Path | None,
    resume_round: int | None,
    address: Address | None,
) -> MinerHost:
    """A host of whole miners, or with `address` the first rank of one."""
    if address is None:
        return MinerHost(cfg, members, text, folder, resume_round)
    return FirstRank(cfg, list(members), text, folder, resume_round, address)


def _engine(cfg: MinersJob, member: Member, text: Text, rank: int, address: Address) -> tuple[Engine, Ranks]:
    hotkey, profile = member
    torch.set_num_threads(cfg.cluster.torch_threads)
    transformers.logging.set_verbosity_error()
    device, on = devices.name_for(profile.gpus_per_rank), cfg.cluster
    limits = {"timeout_s": on.start_timeout_s, "collective_timeout_s": on.collective_timeout_s}
    group = ranks.join(rank, profile.ranks, address, device, **limits)
    seed = assign.seed_of(cfg.seed, "model", hotkey)
    return make_engine(profile, text.vocab_size, cfg.miners.seq_len, seed, group), group
