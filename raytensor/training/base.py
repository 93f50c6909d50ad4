"""The part that all engines share: the loop over batches, the loop over questions, checkpoints by parameter names.

In and out: as `Engine`. An engine adds how a gradient is computed and applied (`_backward`, `_apply`), how the module
is called without a gradient (`_serve`), and how one whole parameter is read and written (`_read`, `_write`).
"""

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from raytensor.training import checkpoint, devices, saving
from raytensor.training.causal import Causal
from raytensor.training.ranks import Ranks
from raytensor.training.recipe import Recipe

# Rows of one forward pass. Fixed, so that the bits of an answer do not depend on the other questions of a call.
CHUNK = 128
MAX_LOGITS = 2**26  # numbers of one forward pass over whole sequences


def loss_rows(seq_len: int, vocab_size: int) -> int:
    """Sequences of one forward pass for their losses."""
    return max(1, min(CHUNK, MAX_LOGITS // (seq_len * vocab_size)))


@dataclass(frozen=True)
class Health:
    """gradient_norm   of the last step, before it was clipped; NaN before the first.
    skipped         steps that were left out, since their gradient was not finite; skipped_in_row: up to the last step.
    poisoned        a step with such a gradient was applied: the engine could not leave it out.
    """

    gradient_norm: float = math.nan
    skipped: int = 0
    skipped_in_row: int = 0
    poisoned: bool = False


class BaseEngine:
    """See `Engine`. `model`: a causal language model of transformers, the same on all ranks."""

    strategy: str

    def __init__(self, model: nn.Module, recipe: Recipe, ranks: Ranks, *, same_rows: bool = False) -> None:
        self.model: Any = model
        self.recipe = recipe
        self.ranks = ranks
        self._rows = ranks.with_all_rows() if same_rows else ranks  # whose share of the rows this rank computes
        self.steps = 0
        self.health = Health()
        self._causal = Causal(model, recipe.document_end, recipe.z_loss)
        self._compiles = recipe.compile if recipe.compile is not None else devices.is_gpu(ranks.device)
        if recipe.activation_checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        # Shapes of whole parameters: after wrapping, a parameter may hold only a part.
        self._shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}

    def train_steps(self, batches: Iterable[np.ndarray], *, own_rows: bool = False) -> float:
        self.model.train()
        losses: list[Tensor] = []
        for batch in batches:
            rows = np.asarray(batch if own_rows else self._rows.mine(batch), np.int64)
            mine = torch.from_numpy(rows).to(self.ranks.device, non_blocking=True)
            if len(mine) % self.recipe.accumulate:
                parts = f"accumulate={self.recipe.accumulate} equal parts"
                raise ValueError(f"{len(mine)} rows per rank can't be split into {parts}")
            parts = mine.chunk(self.recipe.accumulate)
            total = [self._backward(part, last=i == len(parts) - 1).detach() for i, part in enumerate(parts)]
            self.steps += 1
            self._note(*self._apply(self.recipe.rate(self.steps)))
            losses.append(torch.stack(total).mean())
        if not losses:
            return float("nan")
        return float(np.mean(self._rows.mean(torch.stack(losses)).tolist()))

    def _note(self, gradient_norm: float, applied: bool) -> None:
        """Count a step. `applied`: its gradient was used."""
        before, finite = self.health, math.isfinite(gradient_norm)
        in_row = 0 if finite else before.skipped_in_row + 1
        poisoned = before.poisoned or (applied and not finite)
        self.health = Health(gradient_norm, before.skipped + (not applied), in_row, poisoned)

    def log_probs(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        self.model.eval()
        ranks, rows = self._rows, len(tokens)
        padded = -(-rows // ranks.size) * ranks.size - rows  # every rank runs as many forward passes as the others
        tokens = ranks.mine(np.pad(tokens.astype(np.int64), ((0, padded), (0, 0)), mode="edge"))
        last = ranks.mine(np.pad(lengths.astype(np.int64) - 1, (0, padded), mode="edge"))
        parts = []
        with torch.no_grad():
            for start in range(0, len(tokens), CHUNK):
                chunk = slice(start, start + CHUNK)
                contexts = torch.from_numpy(tokens[chunk]).to(ranks.device)
                parts.append(self._serve(contexts, torch.from_numpy(last[chunk]).to(ranks.device)))
            mine = torch.cat(parts)
            if ranks.size == 1:
                return mine.cpu().numpy()
            every = [torch.empty_like(mine) for _ in range(ranks.size)]
            dist.all_gather(every, mine)
            return torch.cat(every)[:rows].cpu().numpy()

    def sequence_losses(self, rows: np.ndarray) -> np.ndarray:
        self.model.eval()
        ranks, count = self._rows, len(rows)
        padded = -(-count // ranks.size) * ranks.size - count
        mine = ranks.mine(np.pad(rows.astype(np.int64), ((0, padded), (0, 0)), mode="edge"))
        size = loss_rows(rows.shape[1] - 1, self.model.config.get_text_config().vocab_size)
        with torch.no_grad():
            chunks = (torch.from_numpy(mine[at : at + size]).to(ranks.device) for at in range(0, len(mine), size))
            found = torch.cat([self._row_losses(chunk) for chunk in chunks])
            if ranks.size == 1:
                return found.double().cpu().numpy()
            every = [torch.empty_like(found) for _ in range(ranks.size)]
            dist.all_gather(every, found)
            return torch.cat(every)[:count].double().cpu().numpy()

    def snapshot(self, position: Mapping[str, Any] | None = None) -> saving.Snapshot:
        about = (self.steps, self.strategy, self.recipe.optimizer, position or {}, self.health.skipped)
        return saving.snapshot(self.ranks, self._shapes, self._read, checkpoint.Origin(*about))

    def save(self, folder: Path | str, position: Mapping[str, Any] | None = None) -> None:
        saving.write(folder, self.snapshot(position), self.ranks)

    def load(self, folder: Path | str) -> dict[str, Any]:
        found = checkpoint.read(folder, self._shapes, self.ranks, self.recipe.optimizer)
        with torch.no_grad():
            for name in self._shapes:
                self._write(name, found[name], found.steps - found.skipped)
        found.restore_random(self.ranks)
        self.steps, self.health = found.steps, Health(skipped=found.skipped)
        return found.position

    def weights(self) -> dict[str, Tensor]:
        found = {}
        for name in self._shapes:
            values = self._read(name)
            if self.ranks.first:  # the others keep nothing
                found[name] = values["param"]
        return found

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Products in bfloat16 over float32 weights, for engines that do not cast the weights themselves."""
        if self.recipe.precision == "bf16":
            return torch.autocast(self.ranks.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def _backward(self, tokens: Tensor, *, last: bool) -> Tensor:
        """The loss of one part of a rank's rows; adds its gradient. `last`: it is the last part of the step."""
        raise NotImplementedError

    def _apply(self, rate: float) -> tuple[float, bool]:
        """Clip the gradient, take the optimizer step at this learning rate, and reset the gradient. A step whose
        gradient is not finite is left out. Returns the norm of the gradient, and whether the step was taken."""
        raise NotImplementedError

    def _serve(self, tokens: Tensor, last: Tensor) -> Tensor:
        """`Causal.forward` with `last`, without a gradient."""
        raise NotImplementedError

    def _row_losses(self, tokens: Tensor) -> Tensor:
        """`Causal.forward` with `by_row`, without a gradient."""
        raise NotImplementedError

    def _read(self, name: str) -> dict[str, Tensor]:
        """One parameter ("param") and its moments, if any: whole, float32, on the CPU. All ranks call it."""
        raise NotImplementedError

    def _write(self, name: str, values: dict[str, Tensor], steps: int) -> None:
        """Restore one parameter and its moments after `steps` steps that were taken. All ranks call it."""
        raise NotImplementedError
