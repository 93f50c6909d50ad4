"""Engines of plain torch: one device, DistributedDataParallel, or FSDP2 (`fully_shard`).

In and out: as `Engine` says. ddp holds the whole model on every rank and averages gradients; fsdp2 holds a part of every
layer's parameters, gradients and moments, and gathers a layer when it computes with it.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from raytensor.training.base import BaseEngine
from raytensor.training.causal import layers
from raytensor.training.ranks import Ranks, alone
from raytensor.training.recipe import ADAMW, Recipe, state_keys


class TorchEngine(BaseEngine):
    """`strategy`: plain | ddp | fsdp2."""

    def __init__(
        self, model: nn.Module, recipe: Recipe, ranks: Ranks | None = None, *, strategy: str = "plain"
    ) -> None:
        ranks = ranks or alone()
        assert strategy != "plain" or ranks.size == 1, "plain is for one rank"
        super().__init__(model, recipe, ranks)
        self.strategy = strategy
        if strategy == "fsdp2":
            self._shard()
        else:
            self._causal.to(ranks.device)
        self._module: nn.Module = self._causal
        if strategy == "ddp":
            device_ids = [ranks.device] if ranks.device.type == "cuda" else None
            # Without buckets' views a step would hold two gradients.
            self._module = nn.parallel.DistributedDataParallel(
                self._causal, device_ids=device_ids, gradient_as_bucket_view=True
            )
        # The loss is compiled, answers are not: their shapes change with every question.
        self._loss: Any = torch.compile(self._module) if self._compiles and strategy != "fsdp2" else self._module
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        inner = {id(p) for p in layers(model).parameters()} if recipe.optimizer == "muon" else ()
        assert not inner or strategy in ("plain", "ddp"), "muon needs whole matrices"
        hidden = [name for name, p in self._parameters.items() if id(p) in inner]
        self._optimizers = recipe.optimizers(self._parameters, hidden)
        self._optimizer_of = {
            p: made for made in self._optimizers for group in made.param_groups for p in group["params"]
        }

    def _shard(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        options: dict[str, Any] = {"mesh": init_device_mesh(self.ranks.device.type, (self.ranks.size,))}
        if self.recipe.precision == "bf16":
            options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        for layer in layers(self.model):
            if self._compiles:  # by layers: what gathers them stays outside
                layer.compile()
            fully_shard(layer, **options)
        fully_shard(self._causal, **options)
        self._causal.to(self.ranks.device)  # buffers

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self.strategy == "fsdp2" else super()._autocast()

    def _backward(self, tokens: torch.Tensor, *, last: bool) -> torch.Tensor:
        if self.strategy == "fsdp2":
            self._causal.set_requires_gradient_sync(last)
        unsynced = self.strategy == "ddp" and not last
        with self._module.no_sync() if unsynced else contextlib.nullcontext():
            with self._autocast():
                loss = self._loss(tokens)
            (loss / self.recipe.accumulate).backward()
        return loss

    def _apply(self, rate: float) -> None:
        nn.utils.clip_grad_norm_(self._parameters.values(), self.recipe.clip)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _serve(self, tokens: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            found = self._causal(tokens, last)
        if self.strategy == "fsdp2":
            self._causal.reshard()  # a later load must not meet gathered weights
        return found

    def _read(self, name: str) -> dict[str, torch.Tensor]:
        parameter = self._parameters[name]
        optimizer = self._optimizer_of[parameter]
        state = optimizer.state.get(parameter, {})
        values = {"param": parameter.detach(), **{key: state[key] for key in state_keys(optimizer) if key in state}}
        return {key: _whole(value).float().cpu() for key, value in values.items()}

    def _write(self, name: str, values: dict[str, torch.Tensor], steps: int) -> None:
        parameter = self._parameters[name]
        parameter.copy_(_like(values["param"], parameter))
        optimizer = self._optimizer_of[parameter]
        keys = state_keys(optimizer)
        if all(key in values for key in keys):
            optimizer.state[parameter] = {key: _like(values[key], parameter) for key in keys}
            if keys is ADAMW:
                optimizer.state[parameter]["step"] = torch.tensor(float(steps), device=self.ranks.device)
        else:
            optimizer.state.pop(parameter, None)


def _whole(value: torch.Tensor) -> torch.Tensor:
    full = getattr(value, "full_tensor", None)
    return full() if full is not None else value


def _like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A tensor of the checkpoint where and as the parameter is: on its device, cut as it is cut."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor):
        return value.to(parameter.device, parameter.dtype, copy=True)
    # Every rank read the same file: nothing needs to be sent.
    return distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )
