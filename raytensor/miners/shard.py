"""One rank of a miner that is spread over several processes. Plain classes; the fleet makes actors of them.

In: the commands of the first rank. Out: this rank's part of the work. The first rank is a `MinerHost` of one miner whose
engine is a `Lead`: each call goes to the other ranks over the group's own sockets first, then all work on it together.
So there is one place that orders training, questions and checkpoints, however many callers there are.

Waits for: all ranks when they start, at most `cluster.start_timeout_s`; then for the next command, as long as the first
rank lives. An answer waits for the training step that is under way, and the next step for the answers before it.
A rank that dies breaks the group: the others' next collective raises, and the fleet replaces all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from raytensor.config import MinerProfile, RunConfig
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.errors import RayTensorError
from raytensor.miners.host import MinerHost
from raytensor.miners.model import make_engine
from raytensor.training import ranks
from raytensor.training.engine import Engine
from raytensor.training.ranks import Ranks

Meeting = tuple[str, int]  # address of the first rank, where all meet


class Lead:
    """The engine of the first rank, in front of all of them: an `Engine` for whoever holds it."""

    def __init__(self, engine: Engine, group: Ranks) -> None:
        self._engine = engine
        self._group = group

    @property
    def steps(self) -> int:
        return self._engine.steps

    def train_steps(self, batches: Iterable[np.ndarray]) -> float:
        return self._together("train_steps", list(batches))

    def log_probs(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return self._together("log_probs", tokens, lengths)

    def save(self, folder: Path, position: Mapping[str, Any] | None = None) -> None:
        self._together("save", folder, position)

    def load(self, folder: Path) -> dict[str, Any]:
        return self._together("load", folder)

    def weights(self) -> dict[str, torch.Tensor]:
        return self._together("weights")

    def _together(self, method: str, *args: Any) -> Any:
        self._group.broadcast((method, args))
        return getattr(self._engine, method)(*args)


class FirstRank(MinerHost):
    """The rank that answers for the miner. Arguments as those of `MinerHost`, with one member."""

    def __init__(
        self,
        cfg: RunConfig,
        members: list[tuple[str, MinerProfile]],
        text: Text,
        folder: Path | None,
        resume_round: int | None,
        meeting: Meeting,
    ) -> None:
        ((hotkey, profile),) = members
        lead = Lead(*_engine(cfg, hotkey, profile, text, 0, meeting))
        super().__init__(cfg, members, text, folder, resume_round, engines={hotkey: lead})


class Shard:
    """Another rank; ready when the constructor returns, which is when all ranks are."""

    def __init__(
        self, cfg: RunConfig, hotkey: str, profile: MinerProfile, text: Text, rank: int, meeting: Meeting
    ) -> None:
        self._engine, self._group = _engine(cfg, hotkey, profile, text, rank, meeting)

    def ready(self) -> int:
        """The process id; answers once the constructor is through."""
        return os.getpid()

    def follow(self) -> None:
        """Work with the first rank until it is gone; never returns otherwise."""
        while True:
            method, args = self._group.broadcast(None)
            try:
                getattr(self._engine, method)(*args)
            except (RayTensorError, ValueError):
                pass  # a refusal, the same on all ranks: the first one tells it


def meeting_point() -> Meeting:
    """An address of this node that is free; to be called where the first rank will be."""
    import ray

    return ray.util.get_node_ip_address(), ranks.free_port()


def _engine(
    cfg: RunConfig, hotkey: str, profile: MinerProfile, text: Text, rank: int, meeting: Meeting
) -> tuple[Engine, Ranks]:
    torch.set_num_threads(cfg.cluster.torch_threads)
    transformers.logging.set_verbosity_error()
    group = ranks.join(
        rank, profile.ranks, meeting, "cuda" if profile.gpus_per_rank else "cpu", timeout_s=cfg.cluster.start_timeout_s
    )
    seed = assign.seed_of(cfg.seed, "model", hotkey)
    return make_engine(profile, text.vocab_size, cfg.miners.seq_len, seed, group), group
