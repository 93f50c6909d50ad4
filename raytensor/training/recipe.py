"""How a model is trained, whatever the engine: optimizer, learning rate, weight decay, clipping, precision. Pure.

In: numbers. Out: the learning rate of a step, torch's optimizers. Every engine takes both from here, so that a loss
curve does not depend on the engine. Knows nothing of devices, ranks or data.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from raytensor.config.optimizers import MOMENTS, Moments


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    optimizer                 a row of `config.optimizers.OPTIMIZERS`. muon (Jordan et al. 2024; in torch since 2.9)
                              orthogonalises the steps of the hidden layers' matrices and uses AdamW for the rest. Its
                              steps are scaled to AdamW's: one `lr` fits both (Liu et al. 2025, arXiv 2502.16982).
    lr                        learning rate after `warmup_steps` optimizer steps.
    schedule                  constant; linear or cosine: falls to `min_lr_share` of `lr` at step `total_steps`; wsd:
                              constant, and linear in the last `decay_share` of the steps (Hu et al. 2024, arXiv
                              2404.06395).
    weight_decay              of matrices; vectors (norms, biases) are not decayed.
    clip                      largest norm of a step's gradient.
    z_loss                    weight of the mean of log(Z)^2 in the loss, Z the softmax's denominator (Chowdhery et al.
                              2022, PaLM, arXiv 2204.02311).
    accumulate                forward and backward passes per optimizer step on each rank.
    precision                 fp32, or bf16: products in bfloat16, master weights and moments in float32.
    activation_checkpointing  keep only the layers' inputs and compute the rest again in the backward pass.
    document_end              id that ends a document, to train each document by itself, see `Causal`; None: sequences
                              are trained as they are.
    shard_ranks               engine hsdp: ranks over which one copy of the model is cut; None: those of a node.
    compile                   torch.compile; None: on a GPU only (on a CPU it costs a minute and gains nothing).
    """

    optimizer: str = "adamw"
    lr: float = 3e-3
    warmup_steps: int = 10
    schedule: str = "constant"
    total_steps: int = 0
    min_lr_share: float = 0.1
    decay_share: float = 0.2
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = 0.9
    clip: float = 1.0
    z_loss: float = 0.0
    accumulate: int = 1
    precision: str = "fp32"
    activation_checkpointing: bool = False
    compile: bool | None = None
    shard_ranks: int | None = None
    document_end: int | None = None

    @classmethod
    def of(cls, settings: Any, **more: Any) -> Recipe:
        """The recipe of a settings dataclass (`Training`, `MinerProfile`): its fields of equal names, and `more`."""
        names = {item.name for item in fields(cls)} & {item.name for item in fields(settings)}
        found = {name: value for name in names if (value := getattr(settings, name)) is not None}
        if "betas" in found:
            found["betas"] = tuple(found["betas"])
        return cls(**(found | more))

    def rate(self, step: int) -> float:
        """Learning rate of optimizer step `step`, counted from 1: linear warm-up, then the schedule."""
        if step <= self.warmup_steps:
            return self.lr * step / self.warmup_steps
        if self.schedule == "constant":
            return self.lr
        assert self.schedule in ("linear", "cosine", "wsd") and self.total_steps > 0, self
        first = self.warmup_steps
        if self.schedule == "wsd":
            first = max(first, self.total_steps - round(self.decay_share * self.total_steps))
        done = min(1.0, max(0.0, (step - first) / max(1, self.total_steps - first)))
        left = 0.5 * (1.0 + math.cos(math.pi * done)) if self.schedule == "cosine" else 1.0 - done
        return self.lr * (self.min_lr_share + (1.0 - self.min_lr_share) * left)

    def groups(self, parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
        """Parameter groups of torch: matrices are decayed; the gains of norms and the biases are not."""
        trained = [p for p in parameters if p.requires_grad]
        matrices, vectors = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def optimizers(self, parameters: Mapping[str, nn.Parameter], hidden: Collection[str] = ()) -> list[Optimizer]:
        """torch's own optimizers over `groups`. AdamW is fused in every engine, so that all round alike.

        hidden  names of the parameters of the repeated layers; needed where the optimizer reads whole matrices.
        """
        rest, found = parameters, []
        if self.optimizer == "muon":
            matrices = {name: p for name, p in parameters.items() if name in hidden and p.ndim == 2}
            rest = {name: p for name, p in parameters.items() if name not in matrices}
            settings = {"weight_decay": self.weight_decay, "adjust_lr_fn": "match_rms_adamw"}
            found = [torch.optim.Muon(matrices.values(), lr=self.lr, **settings)] if matrices else []
        groups = self.groups(rest.values())
        if self.optimizer == "sgd":  # the fused one does not take parameters that are cut over ranks
            return [torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum)]
        return [*found, *([torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, fused=True)] if groups else [])]


def moments_of(optimizer: Optimizer) -> Moments:
    """What an optimizer keeps of each parameter."""
    return MOMENTS[type(optimizer).__name__]
