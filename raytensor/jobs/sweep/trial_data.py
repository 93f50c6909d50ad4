"""A trial's settings, its training batches and its held-out questions: equal in every process that works on it.

In: the sweep's overrides and text, a lineage. Out: configurations, batches, held-out losses. Pure.
All trials of a sweep read the same text in the same order (as far as their batch sizes allow) and start from the same
seed, so that they differ only in what the search varies.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raytensor.config.sweep import SweepConfig
from raytensor.data import assign
from raytensor.data import text as texts
from raytensor.data.text import Text
from raytensor.errors import DataError
from raytensor.jobs.sweep.space import compose
from raytensor.jobs.sweep.store import Lineage
from raytensor.mechanisms.losses import token_losses
from raytensor.miners.model import make_engine, spec, top_tokens
from raytensor.training.engine import Engine
from raytensor.training.models import ModelSpec
from raytensor.training.ranks import Ranks

NAME = "trial"  # in place of a miner's hotkey, where one seeds a draw


class TrialData:
    """Batches and questions of a sweep's trials.

    base  the sweep's overrides; a trial's overrides follow them.

    heldout_tokens, heldout_lengths  the contexts of the held-out questions: int32 [B, T] and [B].
    """

    def __init__(self, base: Sequence[str], text: Text) -> None:
        self._base = list(base)
        self.text = text
        cfg = self.settings(())
        rule, tokens = cfg.mechanism.query, text.heldout
        draw = assign.generator(cfg.seed, "sweep exam")
        starts = draw.integers(0, len(tokens) - rule.context, cfg.miners.heldout_rows)
        self.heldout_lengths = draw.integers(rule.shortest, rule.context + 1, len(starts), dtype=np.int32)
        self.heldout_tokens, self._targets = assign.cut_windows(tokens, starts, self.heldout_lengths, rule.context)
        self._top_k = min(rule.top_k, text.vocab_size)

    def settings(self, overrides: Sequence[str]) -> SweepConfig:
        """The configuration of a trial. Raises `ConfigError` for settings that can't work."""
        return compose((*self._base, *overrides))

    def settings_of(self, lineage: Lineage) -> SweepConfig:
        """The configuration after a lineage's last change."""
        return self.settings(lineage[-1][1])

    def batches(self, cfg: SweepConfig, round: int) -> np.ndarray:
        """Token ids of one round of training: [steps, batch_size, seq_len + 1]."""
        profile, window = cfg.profile, cfg.miners.seq_len + 1
        rows, tokens = profile.steps * profile.batch_size, len(self.text.train)
        starts = assign.training_starts(cfg.seed, round, NAME, rows, window, tokens)
        return self.text.train[starts[:, None] + np.arange(window)].reshape(profile.steps, profile.batch_size, window)

    def model_spec(self, cfg: SweepConfig) -> ModelSpec:
        """The initial model of a trial."""
        return spec(cfg.profile, self.text.vocab_size, cfg.miners.seq_len, assign.seed_of(cfg.seed, "model", NAME))

    def engine(self, cfg: SweepConfig, group: Ranks) -> Engine:
        """A new engine of a trial on one rank of `group`."""
        seed = assign.seed_of(cfg.seed, "model", NAME)
        return make_engine(cfg.profile, self.text.vocab_size, cfg.miners.seq_len, seed, group)

    def result(self, round: int, train_losses: float, log_probs: np.ndarray, wall_s: float) -> dict[str, Any]:
        """A round's result. `log_probs`: float32 [B, V] of the held-out questions. A loss is None if not finite."""
        heldout = float(token_losses(*top_tokens(log_probs, self._top_k), self._targets, self.text.vocab_size).mean())
        losses = {"train_loss": _finite(train_losses), "heldout_loss": _finite(heldout)}
        return {"round": round, **losses, "wall_s": float(f"{wall_s:.4g}")}


def read_text(path: Path) -> Text:
    """The sweep's text. Raises `DataError` when this node does not see the file."""
    found = texts.load(path)
    if found is None:
        raise DataError(f"{path} does not exist on this node; set paths.runs to a folder that all nodes see")
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
