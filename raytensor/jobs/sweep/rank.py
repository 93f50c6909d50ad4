"""One rank of a trial whose model needs processes or devices of its own. A plain class; the trial makes actors of it.

In: "one more round", to all ranks at once. Out: its result, from the first rank; it is on file when it returns.
Waits for: the other ranks, at most `cluster.start_timeout_s` when they meet. A rank that dies breaks the group: the
trial fails, and Tune starts it again, from the newest checkpoint.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from raytensor.config.sweep import SweepConfig
from raytensor.jobs.sweep.store import Lineage, Store
from raytensor.jobs.sweep.trial_data import Lessons, read_text
from raytensor.jobs.sweep.trial_model import Pupil
from raytensor.miners.model import make_engine
from raytensor.training import devices, ranks
from raytensor.training.engine import Engine


class TrialRank:
    """meeting: address of the first rank; None for a rank by itself. Ready when the constructor returns."""

    def __init__(
        self,
        base: Sequence[str],
        text: Path,
        folder: Path,
        lineage: Lineage,
        rank: int,
        meeting: tuple[str, int] | None,
        *,
        keep_all: bool = False,
    ) -> None:
        transformers.logging.set_verbosity_error()
        self._lessons = Lessons(base, read_text(text))
        self._store = Store(folder, keep_all=keep_all)
        cfg = self._lessons.of(lineage)
        torch.set_num_threads(cfg.cluster.torch_threads)
        device = devices.name_for(cfg.profile.gpus_per_rank)
        size = cfg.profile.ranks
        self._ranks = (
            ranks.join(rank, size, meeting, device, timeout_s=cfg.cluster.start_timeout_s)
            if meeting
            else ranks.alone(device)
        )
        self._pupil = Pupil(self._lessons, self._store, self._engine)

    def ready(self) -> int:
        """The process id; answers once the constructor is through, which is when all ranks are."""
        return os.getpid()

    def advance(self, lineage: Lineage, round: int) -> dict[str, Any]:
        """The result of one round; all ranks are asked together."""
        # What is on file is decided by one rank: another might look a moment later.
        known = self._ranks.broadcast(self._store.results(lineage).get(round))
        if known is not None:
            return known
        started = time.perf_counter()
        cfg = self._pupil.bring(lineage, round - 1)
        loss = self._pupil.engine.train_steps(self._lessons.batches(cfg, round))
        self._pupil.round = round
        answers = self._pupil.engine.log_probs(self._lessons.exam_tokens, self._lessons.exam_lengths)
        result = self._lessons.result(round, loss, answers, time.perf_counter() - started) | self._pupil.setbacks()
        self._pupil.engine.save(self._store.checkpoint(lineage, round))
        if self._ranks.first:
            self._store.add(lineage, result)
            self._store.prune(lineage)
        return result

    def _engine(self, cfg: SweepConfig) -> Engine:
        return make_engine(
            cfg.profile, self._lessons.text.vocab_size, cfg.miners.seq_len, self._lessons.seed(cfg), self._ranks
        )


def meeting_point() -> tuple[str, int]:
    """An address that is free on this node; to be called where the first rank will be."""
    import ray

    return ray.util.get_node_ip_address(), ranks.free_port()
