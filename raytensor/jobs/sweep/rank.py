"""One rank of a trial whose model has processes or devices of its own. A plain class; the trial creates the actors.

In: a call per round, to all ranks at the same time. Out: the round's result, from the first rank; it is on file then.
Waits for: the other ranks, at most `cluster.start_timeout_s` for the rendezvous. If a rank dies, the trial fails, and
Tune restarts it from the newest checkpoint.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import torch
import transformers

from raytensor import cluster
from raytensor.config.sweep import SweepConfig
from raytensor.jobs.sweep.store import Lineage, Store
from raytensor.jobs.sweep.trial_data import TrialData, read_text
from raytensor.jobs.sweep.trial_model import TrialModel
from raytensor.training import devices, ranks
from raytensor.training.engine import Engine


class TrialRank:
    """A rank, ready when the constructor returns. meeting: address of the first rank; None for a single rank."""

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
        self._data = TrialData(base, read_text(text))
        self._store = Store(folder, keep_all=keep_all)
        cfg = self._data.settings_of(lineage)
        torch.set_num_threads(cfg.cluster.torch_threads)
        device, limit_s = devices.name_for(cfg.profile.gpus_per_rank), cfg.cluster.start_timeout_s
        if meeting:
            self._ranks = ranks.join(rank, cfg.profile.ranks, meeting, device, timeout_s=limit_s)
        else:
            self._ranks = ranks.alone(device)
        self._model = TrialModel(self._data, self._store, self._engine)

    def ready(self) -> int:
        """The process id. Answers when the constructors of all ranks have returned."""
        return os.getpid()

    def advance(self, lineage: Lineage, round: int) -> dict[str, Any]:
        """The result of one round; all ranks must be called together."""
        # One rank decides whether the result is on file: another might look a moment later.
        known = self._ranks.broadcast(self._store.results(lineage).get(round))
        if known is not None:
            return known
        started = time.perf_counter()
        cfg = self._model.advance_to(lineage, round - 1)
        loss = self._model.engine.train_steps(self._data.batches(cfg, round))
        self._model.trained(round)
        answers = self._model.engine.log_probs(self._data.heldout_tokens, self._data.heldout_lengths)
        result = self._data.result(round, loss, answers, time.perf_counter() - started) | self._model.setbacks()
        self._model.engine.save(self._store.checkpoint(lineage, round))
        if self._ranks.first:
            self._store.add(lineage, result)
            self._store.prune(lineage)
        return result

    def _engine(self, cfg: SweepConfig) -> Engine:
        return self._data.engine(cfg, self._ranks)


def meeting_point() -> tuple[str, int]:
    """A reserved address of this node; call it where the first rank will run."""
    return ray.util.get_node_ip_address(), cluster.reserve_port()
