"""An engine owns a model and its optimizer: it trains, predicts, saves and loads. One interface, several engines.

In: batches of token ids, contexts. Out: training losses, next-token log-probabilities, checkpoint folders.
The engines are the rows of `config.optimizers.ENGINES`: plain torch on one device; DDP and FSDP2 of torch and ZeRO of
DeepSpeed over ranks. With more than one rank, all ranks call the same methods with the same arguments in the same
order. Each rank computes an equal share of the rows, and each gets the whole result.

Everything is a pure function of the model's initial state and of the batches: no dropout, no hidden random state, and a
prediction depends on its own rows only. The engines give the same numbers up to the order of float32 sums.
Knows nothing of hotkeys, rounds, text or Ray.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from raytensor.config.optimizers import ENGINES
from raytensor.training.base import CHUNK, Health
from raytensor.training.ranks import Ranks, alone
from raytensor.training.recipe import Recipe
from raytensor.training.saving import Snapshot
from raytensor.training.torch_engine import TorchEngine
from raytensor.training.zero import ZeroEngine

__all__ = ["CHUNK", "Engine", "Health", "PlainEngine", "TrainEngine", "make"]


class Engine(Protocol):
    """What all engines do."""

    @property
    def steps(self) -> int:
        """Optimizer steps taken so far."""
        ...

    def train_steps(self, batches: Iterable[np.ndarray]) -> float:
        """One optimizer step per batch, integers [B, T + 1]. Returns the mean loss in nats per token.

        A step whose gradient is not finite is left out and counted, see `health`.

        Raises `ValueError` when B is no multiple of ranks times `recipe.accumulate`.
        """
        ...

    def log_probs(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """float32 [B, V]: log-probabilities of the token after each context (tokens int32 [B, T], padded on the right;
        lengths int32 [B])."""
        ...

    def save(self, folder: Path | str, position: Mapping[str, Any] | None = None) -> None:
        """Write the whole state to a path or an object-store URL, where it appears at once, and the caller's `position`
        (JSON) with it."""
        ...

    def load(self, folder: Path | str) -> dict[str, Any]:
        """Restore a saved state, bit for bit. Returns its `position`.

        Raises `DamagedCheckpoint` when it is missing or damaged, `DataError` when it is of another model; the engine's
        state is then unchanged.
        """
        ...

    def weights(self) -> dict[str, Tensor]:
        """The trained parameters by the model's names, whole, float32, on the CPU. Empty on all ranks but the first."""
        ...


class TrainEngine(Engine, Protocol):
    """What the engines of one model do besides."""

    @property
    def health(self) -> Health:
        """Whether the gradients of the steps so far were finite."""
        ...

    def train_steps(self, batches: Iterable[np.ndarray], *, own_rows: bool = False) -> float:
        """See `Engine.train_steps`. own_rows: the batches hold this rank's rows only."""
        ...

    def snapshot(self, position: Mapping[str, Any] | None = None) -> Snapshot:
        """What `save` writes, in host memory, for a `saving.Saver`."""
        ...

    def sequence_losses(self, rows: np.ndarray) -> np.ndarray:
        """float64 [B]: mean loss in nats per token of each sequence of integers [B, T + 1]."""
        ...


def make(strategy: str, model: nn.Module, recipe: Recipe, ranks: Ranks | None = None) -> TrainEngine:
    """The engine of a strategy, a name of `ENGINES`. `model` must be equal on all ranks.

    Raises `ValueError` for an unknown strategy, `ConfigError` when DeepSpeed is needed and can't be imported.
    """
    ranks = ranks or alone()
    if strategy not in ENGINES:
        raise ValueError(f"engine {strategy!r}: must be one of {', '.join(ENGINES)}")
    if strategy.startswith("zero"):
        return ZeroEngine(model, recipe, ranks, stage=int(strategy[-1]))
    return TorchEngine(model, recipe, ranks, strategy=strategy)


class PlainEngine(TorchEngine):
    """One process, one device. Arguments as those of `Recipe`."""

    def __init__(self, model: nn.Module, lr: float, *, device: str = "cpu", **recipe: Any) -> None:
        super().__init__(model, Recipe(lr=lr, **recipe), alone(device))
