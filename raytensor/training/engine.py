"""An engine owns a model and its optimizer: it trains, predicts, saves and loads. One small interface, several makes.

In: batches of token ids, contexts. Out: training losses, next-token log-probabilities, checkpoint folders.
Makes (`STRATEGIES`): plain torch on one device; ddp and fsdp2 of torch, zero1, zero2 and zero3 of DeepSpeed over ranks.
With more than one rank, all ranks call the same methods with the same arguments in the same order; each works on its
equal share of the rows, and each gets the whole result.

Knows nothing of hotkeys, rounds, text or Ray. Everything is a pure function of the model's initial state and of the
batches it was given: no dropout, no hidden random state, and a prediction depends on its own rows only. The strategies
give the same numbers up to the order of float32 sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from raytensor.training.base import CHUNK
from raytensor.training.ranks import Ranks, alone
from raytensor.training.recipe import Recipe
from raytensor.training.torch_engine import TorchEngine

__all__ = ["CHUNK", "STRATEGIES", "Engine", "PlainEngine", "make"]

STRATEGIES = ("plain", "ddp", "fsdp2", "zero1", "zero2", "zero3")


class Engine(Protocol):
    steps: int  # optimizer steps taken so far

    def train_steps(self, batches: Iterable[np.ndarray]) -> float:
        """One optimizer step per batch, integers [B, T + 1]; returns the mean loss in nats per token.

        Raises `ValueError` when B is no multiple of ranks times `recipe.accumulate`.
        """

    def log_probs(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """float32 [B, V]: log-probabilities of the token after each context (int32 [B, T], right-padded)."""

    def save(self, folder: Path, position: Mapping[str, Any] | None = None) -> None:
        """Write the whole state to `folder`, at once or not at all; `position` (JSON) is kept for the caller."""

    def load(self, folder: Path) -> dict[str, Any]:
        """Take over a saved state, bit for bit, and return its `position`.

        Raises `DamagedCheckpoint` with the reason when it is missing or damaged, `DataError` when it is of another model;
        the state is then unchanged.
        """

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained parameters, whole, float32, by the model's names: on the first rank, empty on the others."""


def make(strategy: str, model: nn.Module, recipe: Recipe, ranks: Ranks | None = None) -> Engine:
    """The engine of a strategy. `model` must be the same on all ranks. Raises `ValueError` for an unknown strategy."""
    ranks = ranks or alone()
    if strategy not in STRATEGIES:
        raise ValueError(f"engine {strategy!r}: must be one of {', '.join(STRATEGIES)}")
    if strategy.startswith("zero"):
        from raytensor.training.zero import ZeroEngine  # DeepSpeed takes seconds to import

        return ZeroEngine(model, recipe, ranks, stage=int(strategy[-1]))
    return TorchEngine(model, recipe, ranks, strategy=strategy)


class PlainEngine(TorchEngine):
    """One process, one device: what a small miner has. Arguments as those of `Recipe`."""

    def __init__(self, model: nn.Module, lr: float, *, device: str = "cpu", **recipe: Any) -> None:
        super().__init__(model, Recipe(lr=lr, **recipe), alone(device))
