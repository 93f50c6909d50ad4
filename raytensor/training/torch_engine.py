"""The engines of plain torch: one device, DistributedDataParallel, FSDP2 (`fully_shard`), tensor parallelism.

In and out: as `Engine`. ddp holds the whole model on every rank and averages gradients. fsdp2 holds a part of every
layer's parameters, gradients and moments, and gathers a layer while it computes with it; hsdp does so within groups of
ranks, which hold copies of each other. tp cuts the products of a layer, and gathers no weights.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from raytensor.config.optimizers import ENGINES, OPTIMIZERS
from raytensor.errors import ConfigError
from raytensor.training import devices
from raytensor.training.base import BaseEngine
from raytensor.training.causal import layers
from raytensor.training.ranks import Ranks
from raytensor.training.recipe import Recipe, moments_of


class TorchEngine(BaseEngine):
    """`strategy`: plain | ddp | fsdp2 | hsdp | tp."""

    def __init__(self, model: nn.Module, recipe: Recipe, ranks: Ranks = Ranks(), *, strategy: str = "plain") -> None:
        assert strategy != "plain" or ranks.size == 1, "plain is for one rank"
        super().__init__(model, recipe, ranks, same_rows=ENGINES[strategy].same_rows)
        self.strategy = strategy
        self._like: Callable[[Tensor, Tensor], Tensor] = _like
        self._gathers = strategy in ("fsdp2", "hsdp")
        if self._gathers or strategy == "tp":
            self._shard()
        else:
            self._causal.to(ranks.device)
        self._module: Any = self._causal
        if strategy == "ddp":
            device_ids = [ranks.device] if devices.is_gpu(ranks.device) else None
            # Without views of the buckets a step would hold each gradient twice.
            ddp = nn.parallel.DistributedDataParallel
            self._module = ddp(self._causal, device_ids=device_ids, gradient_as_bucket_view=True)
        # The loss is compiled. Predictions are not: their shapes change with every question.
        self._loss: Any = (
            torch.compile(self._module) if self._compiles and strategy in ("plain", "ddp") else self._module
        )
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        inner = {id(p) for p in layers(model).parameters()}
        assert not (OPTIMIZERS[recipe.optimizer].whole_matrices and ENGINES[strategy].cuts), recipe.optimizer
        hidden = [name for name, p in self._parameters.items() if id(p) in inner]
        # torch's fused steps don't take parameters that are cut together with whole ones.
        whole = [name for name, p in self._parameters.items() if ENGINES[strategy].same_rows and not _is_cut(p)]
        sets = (
            {name: self._parameters[name] for name in self._parameters if (name in whole) == of} for of in (False, True)
        )
        self._optimizers = [made for of in sets if of for made in recipe.optimizers(of, hidden)]
        groups = [(made, group) for made in self._optimizers for group in made.param_groups]
        self._optimizer_of = {p: made for made, group in groups for p in group["params"]}

    def _shard(self) -> None:
        from raytensor.training import (
            fully_sharded,
            tensor_parallel,
        )  # takes a second, which other engines need not spend

        inner = list(layers(self.model))
        for layer in inner if self._compiles else ():  # layer by layer: the gathering stays outside the graph
            layer.compile()
        ranks = self.ranks
        if self.strategy == "tp":
            tensor_parallel.cut(self.model, ranks.device, ranks.size)
            self._like = tensor_parallel.like
            return
        mesh: tuple[int, ...] = (ranks.size,)
        if self.strategy == "hsdp":
            each = self.recipe.shard_ranks or ranks.on_this_node()
            if ranks.size % each:
                fix = f"shard_ranks that divides {ranks.size}"
                raise ConfigError(f"engine=hsdp: {ranks.size} ranks are no multiple of shard_ranks={each}; fix: {fix}")
            mesh = (ranks.size // each, each)
        fully_sharded.shard(self._causal, inner, ranks.device, mesh, bf16=self.recipe.precision == "bf16")
        self._like = fully_sharded.like

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._gathers else super()._autocast()

    def _backward(self, tokens: Tensor, *, last: bool) -> Tensor:
        if self._gathers:
            self._module.set_requires_gradient_sync(last)
        unsynced = self.strategy == "ddp" and not last
        with self._module.no_sync() if unsynced else contextlib.nullcontext():
            with self._autocast():
                loss = self._loss(tokens)
            (loss / self.recipe.accumulate).backward()
        return loss

    def _apply(self, rate: float) -> tuple[float, bool]:
        norm = self._clip()
        finite = math.isfinite(norm)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            if finite:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm, finite

    def _clip(self) -> float:
        """Clip the gradient. Returns its norm before; waits for the device."""
        parameters = list(self._parameters.values())
        if self.strategy != "tp":
            return float(_whole(nn.utils.clip_grad_norm_(parameters, self.recipe.clip)))
        kinds = [[p for p in parameters if _is_cut(p) == cut and p.grad is not None] for cut in (False, True)]
        norms = [
            _whole(nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None])) for kind in kinds if kind
        ]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        for kind in kinds:
            nn.utils.clip_grads_with_norm_(kind, self.recipe.clip, norm)
        return float(norm)

    def _row_losses(self, tokens: Tensor) -> Tensor:
        with self._autocast():
            found = self._causal(tokens, by_row=True)
        if self._gathers:
            self._module.reshard()
        return found

    def _serve(self, tokens: Tensor, last: Tensor) -> Tensor:
        with self._autocast():
            found = self._causal(tokens, last)
        if self._gathers:
            self._module.reshard()  # a later load must not find gathered weights
        return found

    def _read(self, name: str) -> dict[str, Tensor]:
        parameter = self._parameters[name]
        optimizer = self._optimizer_of[parameter]
        state = optimizer.state.get(parameter, {})
        kept = {key: state[key] for key in moments_of(optimizer).names if key in state}
        values = {"param": parameter.detach(), **kept}
        return {key: _whole(value).float().cpu() for key, value in values.items()}

    def _write(self, name: str, values: dict[str, Tensor], steps: int) -> None:
        parameter = self._parameters[name]
        parameter.copy_(self._like(values["param"], parameter))
        optimizer = self._optimizer_of[parameter]
        moments = moments_of(optimizer)
        if all(key in values for key in moments.names):
            optimizer.state[parameter] = {key: self._like(values[key], parameter) for key in moments.names}
            if moments.counts_steps:
                optimizer.state[parameter]["step"] = torch.tensor(float(steps), device=self.ranks.device)
        else:
            optimizer.state.pop(parameter, None)


def _is_cut(value: Tensor) -> bool:
    return hasattr(value, "full_tensor")  # torch's DTensor, whose import takes a second


def _whole(value: Tensor) -> Tensor:
    full = getattr(value, "full_tensor", None)
    return full() if full is not None else value


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A tensor of a checkpoint on the device of the parameter."""
    return value.to(parameter.device, parameter.dtype, copy=True)
