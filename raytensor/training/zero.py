"""The engines of DeepSpeed: ZeRO stages 1 (moments cut over ranks), 2 (gradients as well), 3 (parameters as well).

In and out: as `Engine`. The optimizer is torch's own, which DeepSpeed shards, so that no code of DeepSpeed is compiled.
In bf16 the weights are bfloat16 with float32 masters, where plain torch casts at each product.

The model is built whole on every rank before it is cut, because `zero.Init` loses the initial weights of transformers:
the host briefly needs ranks * parameters * 4 bytes.
"""

import os
from typing import Any

import torch
from torch import Tensor, nn

from raytensor.config.optimizers import OPTIMIZERS
from raytensor.errors import ConfigError, cause_of
from raytensor.training import devices
from raytensor.training.base import BaseEngine
from raytensor.training.causal import layers
from raytensor.training.ranks import Ranks
from raytensor.training.recipe import Recipe, moments_of


class ZeroEngine(BaseEngine):
    """`stage`: 1, 2 or 3. Needs a joined process group, also for one rank.

    Raises `ConfigError` when DeepSpeed can't be imported.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, ranks: Ranks, *, stage: int) -> None:
        super().__init__(model, recipe, ranks)
        self.strategy, self._stage = f"zero{stage}", stage
        deepspeed = _deepspeed(ranks, self.strategy)
        self._utils = deepspeed.utils
        if self._compiles:
            for layer in layers(model):
                layer.compile()
        config = {
            "train_micro_batch_size_per_gpu": 1,  # used in the log of DeepSpeed only
            "gradient_accumulation_steps": recipe.accumulate,
            "gradient_clipping": recipe.clip,
            "zero_optimization": {"stage": stage, "overlap_comm": devices.is_gpu(ranks.device)},
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": recipe.precision == "bf16"},
            "data_types": {"grad_accum_dtype": "fp32"},
        }
        assert not OPTIMIZERS[recipe.optimizer].whole_matrices, recipe.optimizer
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        (optimizer,) = recipe.optimizers(self._parameters)
        self._moments = moments_of(optimizer)
        options = {"model_parameters": list(self._parameters.values()), "dist_init_required": False}
        self._engine, *_ = deepspeed.initialize(model=self._causal, optimizer=optimizer, config=config, **options)

    def _backward(self, tokens: Tensor, *, last: bool) -> Tensor:
        self._engine.set_gradient_accumulation_boundary(last)
        loss = self._engine(tokens)
        self._engine.backward(loss)  # divides by gradient_accumulation_steps
        return loss

    def _apply(self, rate: float) -> tuple[float, bool]:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        self._engine.step()  # also where the gradient is not finite: DeepSpeed looks in fp16 only
        norm = self._engine.get_global_grad_norm()
        return float(norm) if norm is not None else 0.0, True  # None: no step was taken yet

    def _row_losses(self, tokens: Tensor) -> Tensor:
        return self._engine(tokens, by_row=True)

    def _serve(self, tokens: Tensor, last: Tensor) -> Tensor:
        return self._engine(tokens, last)

    def _read(self, name: str) -> dict[str, Tensor]:
        utils = self._utils
        parameter = self._parameters[name]
        values = {"param": utils.safe_get_full_fp32_param(parameter)}
        if self._states():
            self._link_states()
            values |= {key: utils.safe_get_full_optimizer_state(parameter, key) for key in self._moments.names}
        whole = {key: value for key, value in values.items() if value is not None}
        assert len(whole) == len(values), f"DeepSpeed has no {sorted(values.keys() - whole.keys())} of {name}"
        return {key: value.view(self._shapes[name]).float().cpu() for key, value in whole.items()}

    def _write(self, name: str, values: dict[str, Tensor], steps: int) -> None:
        utils = self._utils
        parameter = self._parameters[name]
        self._make_states(steps, fresh=not all(key in values for key in self._moments.names))
        utils.safe_set_full_fp32_param(parameter, values["param"].to(self.ranks.device))
        for key in self._moments.names:
            if key in values:
                utils.safe_set_full_optimizer_state(parameter, values[key].to(self.ranks.device), key)
        self._set_working_copy(parameter, values["param"])

    def _set_working_copy(self, parameter: Any, value: Tensor) -> None:
        """Set the weights that the forward pass reads; the optimizer's masters are separate tensors."""
        value = value.to(self.ranks.device, parameter.dtype)
        if parameter.data.shape == value.shape:  # stage 3 keeps small parameters gathered, besides their part
            parameter.data.copy_(value)
        if self._stage < 3:
            return
        part = parameter.ds_tensor  # DeepSpeed adds this attribute
        start = part.numel() * self.ranks.rank
        padded = nn.functional.pad(value.flatten(), (0, part.numel() * self.ranks.size - value.numel()))
        part.data.copy_(padded[start : start + part.numel()])

    def _states(self) -> dict[Any, dict[str, Any]]:
        return self._engine.optimizer.optimizer.state

    def _make_states(self, steps: int, *, fresh: bool) -> None:
        """Create the optimizer's state, which torch makes in the first step only; `fresh`: remove it instead."""
        states = self._states()
        if fresh:
            states.clear()
            return
        for flat in self._flat_masters():
            if not states.get(flat):
                states[flat] = {key: torch.zeros_like(flat) for key in self._moments.names}
            if self._moments.counts_steps:
                states[flat]["step"] = torch.tensor(float(steps), device=self.ranks.device)
        self._link_states()

    def _flat_masters(self) -> list[Tensor]:
        """This rank's part of the float32 weights: one flat tensor per group, named differently in each stage."""
        names = ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition")
        found = vars(self._engine.optimizer)
        return next(found[name] for name in names if name in found)

    def _link_states(self) -> None:
        """Link each parameter to its part of the moments. DeepSpeed 0.19 does so once, after the first step of its
        first parameter group, when the other groups have no moments yet."""
        if self._stage < 3:
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()


def _deepspeed(ranks: Ranks, strategy: str) -> Any:
    """The package DeepSpeed, set so that it compiles nothing. Imported where used: that takes seconds, reads the
    environment set here, and fails where its installation is broken."""
    if not devices.is_gpu(ranks.device):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        # The two imports before it fail when DeepSpeed is the one to cause them.
        import torch._dynamo  # noqa: F401
        import transformers  # noqa: F401

        import deepspeed  # isort: skip
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        fix = "pip install --force-reinstall deepspeed, or take engine=fsdp2, which needs torch only"
        why = f"the package deepspeed can't be imported ({cause_of(error)})"
        raise ConfigError(f"engine={strategy}: {why}; fix: {fix}") from error

    # Where a compiler is installed, init_distributed would compile a shared-memory all-reduce for minutes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.logger.setLevel("WARNING")
    deepspeed.init_distributed(dist_backend="nccl" if devices.is_gpu(ranks.device) else "gloo", verbose=False)
    return deepspeed
