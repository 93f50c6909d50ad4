"""Many small models of one shape in one engine. Each trains and answers as if alone; several are computed at a time.

In: models, a recipe for each; batches and questions by model. Out: losses, log-probabilities, checkpoints by model.
Models may differ in weights, data, recipe (rate, warm-up, schedule, decay, betas, clip), steps taken, steps per call
and checkpoints. They must be equal in architecture (`Shape`). Shapes of batches may differ, but only equal ones are
computed together. Bounds: `width` models are computed at once. On a CPU they run through all steps of a call, so that
their data stays in the cache; a model with fewer steps than the others leaves the group when it is done.

A model's numbers do not depend, to the bit, on the other models, and equal those of `PlainEngine` up to the order of
float32 sums. Knows nothing of hotkeys, rounds, text or Ray.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raytensor.config.optimizers import MOMENTS, OPTIMIZERS
from raytensor.training import checkpoint, devices, saving, stacked_adamw
from raytensor.training.ranks import alone
from raytensor.training.recipe import Recipe
from raytensor.training.stacked_llama import Shape, StackedLlama

# Models that are computed at once. On a CPU, 16 is a little faster than 8 or 32 at 119k parameters, for any batch.
CPU_WIDTH = 16
GPU_WIDTH = 512
KEYS = ("param", *MOMENTS["AdamW"].names)  # rows of a model's state
ROWS = 64  # questions of one forward pass; fixed, so that the bits of an answer do not depend on other questions


class StackedEngine:
    """models    equal in shape and stackable (`stackable`); they are read once and not kept.
    recipes   one per model.
    device    "cpu" or "cuda".
    width     models computed at once, at most; 0: what suits the device.

    Raises `ValueError` for models or recipes that can't be stacked.
    """

    def __init__(
        self, models: Iterable[nn.Module] = (), recipes: Sequence[Recipe] = (), device: str = "cpu", width: int = 0
    ) -> None:
        self._device = torch.device(device)
        self._on_gpu = devices.is_gpu(self._device)
        self.width = width or (GPU_WIDTH if self._on_gpu else CPU_WIDTH)
        self._llama: StackedLlama | None = None  # made for the shape of the first model
        self.recipes: list[Recipe] = []
        self.steps: list[int] = []  # optimizer steps taken so far
        self._state: list[Tensor | None] = []  # [3, P] each: parameters, first and second moments
        self._moments = torch.zeros(2, 0, 0)
        for model, recipe in zip(models, recipes, strict=True):
            self.add(model, recipe)

    def __len__(self) -> int:
        return len(self._state)

    @property
    def llama(self) -> StackedLlama:
        """The arithmetic of the models' shape; there must be a model."""
        assert self._llama is not None, "the stack is empty"
        return self._llama

    @property
    def members(self) -> list[StackedMember]:
        """Each model as an engine of its own."""
        return [StackedMember(self, number) for number in range(len(self))]

    def add(self, model: nn.Module, recipe: Recipe) -> StackedMember:
        """One more model; its number is the next."""
        plain = recipe.accumulate == 1 and recipe.precision == "fp32" and not recipe.activation_checkpointing
        plain = plain and not recipe.z_loss
        if not (plain and OPTIMIZERS[recipe.optimizer].stackable):
            limits = "with adamw in fp32, without accumulation, activation checkpointing or z_loss"
            raise ValueError(f"{recipe}: stacked models train {limits}; use the plain engine")
        shape = Shape.of(model)
        if shape is None or (self._llama is not None and self._llama.shape != shape):
            why = "no plain Llama" if shape is None else "it has another shape"
            raise ValueError(f"model {len(self)} ({type(model).__name__}) can't be stacked: {why}")
        if self._llama is None:
            self._llama = StackedLlama(shape, self._device)
        state = torch.zeros(3, shape.num_parameters, device=self._device)
        weights = dict(model.named_parameters())
        for name, at, size in _places(shape):
            state[0, at : at + size.numel()] = weights[name].detach().flatten()
        self._state.append(state)
        self.recipes.append(recipe)
        self.steps.append(0)
        return StackedMember(self, len(self) - 1)

    def drop(self, number: int) -> None:
        """Remove a model; the others keep their numbers."""
        self._state[number] = None

    def train(self, work: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """One optimizer step per batch, integers [S, B, T + 1] by model. Returns losses in nats, float32 [S]."""
        found: dict[int, np.ndarray] = {number: np.zeros(0, np.float32) for number in work}
        shapes = {number: batches.shape[1:] for number, batches in work.items() if len(batches)}
        for group in self._groups(shapes, lambda number: -len(work[number])):
            found.update(self._train_group(group, [work[number] for number in group]))
        return found

    def log_probs(self, questions: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> dict[int, np.ndarray]:
        """float32 [B, V] by model: log-probabilities after contexts (int32 [B, T], padded on the right; int32 [B])."""
        found: dict[int, np.ndarray] = {}
        shapes = {number: tokens.shape for number, (tokens, _) in questions.items()}
        for group in self._groups(shapes, lambda number: number):
            self._enter(group, moments=False)
            tokens = self._to_device(np.stack([questions[number][0] for number in group]))
            lengths = self._to_device(np.stack([questions[number][1] for number in group]))
            chunks = zip(tokens.split(ROWS, dim=1), lengths.split(ROWS, dim=1), strict=True)
            parts = [self.llama.log_probs(*chunk).cpu() for chunk in chunks]
            found.update(zip(group, torch.cat(parts, dim=1).numpy(), strict=True))
        return found

    def weights(self, number: int) -> dict[str, Tensor]:
        """The parameters of one model by the model's own names, float32, on the CPU."""
        return {name: values["param"] for name, values in self._named(number).items()}

    def save(self, number: int, folder: Path | str, position: Mapping[str, Any] | None = None) -> None:
        """Write one model's state, as a checkpoint of the plain engine."""
        shapes, read = self.llama.shape.parameters(), self._named(number).__getitem__
        origin = checkpoint.Origin(self.steps[number], "plain", "adamw", position or {})
        ranks = alone()
        saving.write(folder, saving.snapshot(ranks, shapes, read, origin), ranks)

    def load(self, number: int, folder: Path | str) -> dict[str, Any]:
        """Restore a state that any engine wrote; returns its position. Raises as `Engine.load`."""
        found = checkpoint.Reader(folder, self.llama.shape.parameters())
        for name, at, size in _places(self.llama.shape):
            values = found[name]
            for row, key in enumerate(KEYS):
                value = values.get(key)
                new = 0.0 if value is None else value.flatten().to(self._device)
                self._of(number)[row, at : at + size.numel()] = new
        self.steps[number] = found.steps
        return found.position

    def _groups(self, shapes: Mapping[int, tuple[int, ...]], order: Any) -> Iterable[list[int]]:
        """Groups of at most `width` models whose work has one shape, sorted by `order`."""
        for shape in sorted(set(shapes.values())):
            equal = [number for number, other in shapes.items() if other == shape]
            numbers = sorted(equal, key=lambda number: (order(number), number))
            for start in range(0, len(numbers), self.width):
                yield numbers[start : start + self.width]

    def _train_group(self, group: list[int], batches: list[np.ndarray]) -> dict[int, np.ndarray]:
        """Train the models of one group, sorted by number of steps, most first."""
        llama = self.llama
        self._enter(group, moments=True)
        losses = []
        for step in range(len(batches[0])):
            active = sum(len(mine) > step for mine in batches)
            losses.append(llama.loss_and_grads(self._to_device(np.stack([mine[step] for mine in batches[:active]]))))
            state = (llama.rows[:active], llama.grads[:active], self._moments[:, :active])
            recipes = [self.recipes[number] for number in group[:active]]
            counts = [self.steps[number] + step + 1 for number in group[:active]]
            stacked_adamw.step(state, recipes, counts, llama.shape.num_decayed, together=self._on_gpu)
        found = {}
        for place, number in enumerate(group):
            own, taken = self._of(number), len(batches[place])
            own[0], own[1:] = llama.rows[place], self._moments[:, place]
            self.steps[number] += taken
            found[number] = torch.stack([loss[place] for loss in losses[:taken]]).cpu().numpy()
        return found

    def _enter(self, group: list[int], *, moments: bool) -> None:
        """Copy the state of models to the rows that are computed."""
        llama = self.llama
        llama.reserve(len(group))
        if self._moments.shape[1] < len(llama.rows):
            self._moments = torch.zeros(2, *llama.rows.shape, device=self._device)
        for place, number in enumerate(group):
            state = self._of(number)
            llama.rows[place] = state[0]
            if moments:
                self._moments[:, place] = state[1:]

    def _of(self, number: int) -> Tensor:
        state = self._state[number]
        assert state is not None, f"model {number} was dropped"
        return state

    def _named(self, number: int) -> dict[str, dict[str, Tensor]]:
        """Parameter and, after the first step, moments by name, on the CPU."""
        state = self._of(number).cpu()
        keys = KEYS if self.steps[number] else KEYS[:1]
        return {
            name: {key: state[row, at : at + size.numel()].view(size).clone() for row, key in enumerate(keys)}
            for name, at, size in _places(self.llama.shape)
        }

    def _to_device(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers.astype(np.int64)).to(self._device)


class StackedMember:
    """One model of a stack as an `Engine`."""

    def __init__(self, stack: StackedEngine, number: int) -> None:
        self.stack = stack
        self.number = number

    @property
    def steps(self) -> int:
        return self.stack.steps[self.number]

    def train_steps(self, batches: Iterable[np.ndarray]) -> float:
        found = list(batches)
        return float(np.mean(self.stack.train({self.number: np.stack(found)})[self.number])) if found else float("nan")

    def log_probs(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return self.stack.log_probs({self.number: (tokens, lengths)})[self.number]

    def save(self, folder: Path | str, position: Mapping[str, Any] | None = None) -> None:
        self.stack.save(self.number, folder, position)

    def load(self, folder: Path | str) -> dict[str, Any]:
        return self.stack.load(self.number, folder)

    def weights(self) -> dict[str, Tensor]:
        return self.stack.weights(self.number)


def stackable(model: nn.Module) -> bool:
    """Whether a model of transformers can be stacked with others of its shape."""
    return Shape.of(model) is not None


def _places(shape: Shape) -> list[tuple[str, int, torch.Size]]:
    """(name, offset in a row, size) of each parameter."""
    found, at = [], 0
    for name, size in shape.parameters().items():
        found.append((name, at, torch.Size(size)))
        at += torch.Size(size).numel()
    return found
