"""A host: several small miners in one process. A plain class; the fleet makes actors of it.

In: rounds to train, tasks. Out: responses, held-out losses, checkpoints of the miners that it was given.
Waits for: nothing. Calls run one after another, in the order in which they came.
Knows nothing of the other hosts, and which miners share it makes no difference to what a miner does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from raytensor.config import MinerProfile, RunConfig
from raytensor.data.text import Text
from raytensor.miners import checkpoints
from raytensor.miners.miner import Miner, exam
from raytensor.types import Failure, Reason, Response, Task


@dataclass(frozen=True)
class Trained:
    """What a host did in one round: training losses by hotkey (of those that trained) in nats/token, and its seconds."""

    round: int
    losses: dict[str, float]
    wall_s: float


class MinerHost:
    """Hosts the miners `members`; ready when the constructor returns.

    members        (hotkey, profile) of each.
    folder         where checkpoints go; None writes none.
    resume_round   round whose checkpoint each miner goes on from; None starts with new models.
    """

    def __init__(
        self,
        cfg: RunConfig,
        members: Sequence[tuple[str, MinerProfile]],
        text: Text,
        folder: Path | None = None,
        resume_round: int | None = None,
    ) -> None:
        torch.set_num_threads(cfg.cluster.torch_threads)
        transformers.logging.set_verbosity_error()
        device = "cuda" if cfg.miners.gpus_per_host > 0 else "cpu"
        self._folder = folder
        self._exam = exam(cfg, text)
        self._miners = {hotkey: Miner(hotkey, profile, cfg, text, device=device) for hotkey, profile in members}
        if resume_round is not None:
            assert folder is not None
            for hotkey, miner in self._miners.items():
                miner.restore(checkpoints.path_of(folder, resume_round, hotkey))

    def ready(self) -> int:
        """The process id; answers once the constructor is through."""
        return os.getpid()

    def train(self, round: int) -> Trained:
        """Train all miners for one round."""
        started = time.perf_counter()
        losses = {hotkey: miner.train(round) for hotkey, miner in self._miners.items()}
        return Trained(round, {hotkey: loss for hotkey, loss in losses.items() if loss is not None}, time.perf_counter() - started)

    def answer(self, task: Task, observed: Response | None = None) -> Response | Failure:
        """One miner's answer; a `Failure` with SILENT when it gives none."""
        response = self._miners[task.hotkey].answer(task, observed)
        return response or Failure(task.task_id, task.hotkey, Reason.SILENT, "the miner gave no answer")

    def heldout_losses(self) -> dict[str, float | None]:
        """Held-out loss of each miner in nats per token; None for one that gives no answers of its own."""
        return {hotkey: miner.heldout_loss(self._exam) for hotkey, miner in self._miners.items()}

    def checkpoint(self, round: int) -> None:
        """Write a checkpoint of every miner."""
        assert self._folder is not None
        for hotkey, miner in self._miners.items():
            miner.checkpoint(checkpoints.path_of(self._folder, round, hotkey))
            checkpoints.mark(self._folder, round, hotkey)
