"""Engines of DeepSpeed: ZeRO stages 1 (moments cut over ranks), 2 (gradients as well), 3 (parameters as well).

In and out: as `Engine` says. The optimizer is torch's own, so that nothing of DeepSpeed is compiled; DeepSpeed
cuts it. In bf16 the weights are bfloat16 with float32 masters, where plain torch casts at each product.

The model is built whole on every rank before it is cut (`zero.Init` loses the initial weights that transformers gives):
the host needs ranks x parameters x 4 bytes for a moment.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from raytensor.training.base import BaseEngine
from raytensor.training.causal import layers
from raytensor.training.ranks import Ranks
from raytensor.training.recipe import ADAMW, Recipe, state_keys


class ZeroEngine(BaseEngine):
    """`stage`: 1, 2 or 3. Needs a joined process group, also for one rank."""

    def __init__(self, model: nn.Module, recipe: Recipe, ranks: Ranks, *, stage: int) -> None:
        super().__init__(model, recipe, ranks)
        self.strategy, self._stage = f"zero{stage}", stage
        deepspeed = _deepspeed(ranks)
        if self._compiles:
            for layer in layers(model):
                layer.compile()
        config = {
            "train_micro_batch_size_per_gpu": 1,  # only used for DeepSpeed's own log
            "gradient_accumulation_steps": recipe.accumulate,
            "gradient_clipping": recipe.clip,
            "zero_optimization": {"stage": stage, "overlap_comm": ranks.device.type == "cuda"},
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": recipe.precision == "bf16"},
            "data_types": {"grad_accum_dtype": "fp32"},
        }
        assert recipe.optimizer != "muon", "muon needs whole matrices"
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        (optimizer,) = recipe.optimizers(self._parameters)
        self._keys = state_keys(optimizer)
        self._engine, *_ = deepspeed.initialize(
            model=self._causal,
            optimizer=optimizer,
            model_parameters=list(self._parameters.values()),
            config=config,
            dist_init_required=False,
        )

    def _backward(self, tokens: torch.Tensor, *, last: bool) -> torch.Tensor:
        self._engine.set_gradient_accumulation_boundary(last)
        loss = self._engine(tokens)
        self._engine.backward(loss)  # divides by gradient_accumulation_steps
        return loss

    def _apply(self, rate: float) -> None:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        self._engine.step()

    def _serve(self, tokens: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        return self._engine(tokens, last)

    def _read(self, name: str) -> dict[str, torch.Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        parameter = self._parameters[name]
        values = {"param": safe_get_full_fp32_param(parameter)}
        if self._states():
            self._link_states()
            values |= {key: safe_get_full_optimizer_state(parameter, key) for key in self._keys}
        return {key: value.view(self._shapes[name]).float().cpu() for key, value in values.items()}

    def _write(self, name: str, values: dict[str, torch.Tensor], steps: int) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        parameter = self._parameters[name]
        self._make_states(steps, fresh=not all(key in values for key in self._keys))
        safe_set_full_fp32_param(parameter, values["param"].to(self.ranks.device))
        for key in self._keys:
            if key in values:
                safe_set_full_optimizer_state(parameter, values[key].to(self.ranks.device), key)
        self._set_working_copy(parameter, values["param"])

    def _set_working_copy(self, parameter: nn.Parameter, value: torch.Tensor) -> None:
        """The weights that the forward reads; the optimizer's masters are tensors of their own."""
        value = value.to(self.ranks.device, parameter.dtype)
        if parameter.data.shape == value.shape:  # stage 3 keeps small parameters gathered, beside their part
            parameter.data.copy_(value)
        if self._stage < 3:
            return
        part = parameter.ds_tensor
        start = part.numel() * self.ranks.rank
        padded = nn.functional.pad(value.flatten(), (0, part.numel() * self.ranks.size - value.numel()))
        part.data.copy_(padded[start : start + part.numel()])

    def _states(self) -> dict[Any, dict[str, Any]]:
        return self._engine.optimizer.optimizer.state

    def _make_states(self, steps: int, *, fresh: bool) -> None:
        """An optimizer makes its state in its first step; a checkpoint needs them before it, or must take them away."""
        states = self._states()
        if fresh:
            states.clear()
            return
        for flat in self._flat_masters():
            if not states.get(flat):
                states[flat] = {key: torch.zeros_like(flat) for key in self._keys}
            if self._keys is ADAMW:
                states[flat]["step"] = torch.tensor(float(steps), device=self.ranks.device)
        self._link_states()

    def _flat_masters(self) -> list[torch.Tensor]:
        """This rank's part of the float32 weights: one flat tensor per group, under another name in each optimizer."""
        names = ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition")
        return next(getattr(self._engine.optimizer, name) for name in names if hasattr(self._engine.optimizer, name))

    def _link_states(self) -> None:
        """Show each parameter its part of the moments. DeepSpeed 0.19 does so once, after the first step of its first
        group of parameters, when the other groups have no moments yet."""
        if self._stage < 3:
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()


def _deepspeed(ranks: Ranks) -> Any:
    """DeepSpeed, kept from compiling anything."""
    if ranks.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Two imports that fail when DeepSpeed is the one to cause them.
    import deepspeed
    import torch._dynamo  # noqa: F401
    import transformers  # noqa: F401
    from deepspeed.ops import __compatible_ops__

    # Where a compiler is at hand, init_distributed would compile a shared-memory all-reduce for minutes.
    __compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.logger.setLevel("WARNING")
    deepspeed.init_distributed(dist_backend="gloo" if ranks.device.type == "cpu" else "nccl", verbose=False)
    return deepspeed
