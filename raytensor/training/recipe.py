"""How a model is trained, whatever engine does it: learning rate, weight decay, clipping, precision. Pure.

In: numbers. Out: the rate of a step, the parameter groups of AdamW. Every engine takes both from here, so that a loss
curve does not depend on the engine. Knows nothing of devices, ranks or data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    lr                        learning rate after `warmup_steps` optimizer steps.
    schedule                  constant, or cosine: down to `min_lr_share` of `lr` at step `total_steps`.
    weight_decay              of matrices; vectors (norms, biases) are not decayed.
    clip                      largest norm of a step's gradient.
    accumulate                forwards and backwards per optimizer step on each rank.
    precision                 fp32, or bf16: products in bfloat16, master weights and moments in float32.
    activation_checkpointing  keep only the layers' inputs and compute the rest again in the backward.
    compile                   torch.compile; None: on a GPU only (on a CPU it costs a minute and gains nothing).
    """

    lr: float = 3e-3
    warmup_steps: int = 10
    schedule: str = "constant"
    total_steps: int = 0
    min_lr_share: float = 0.1
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    accumulate: int = 1
    precision: str = "fp32"
    activation_checkpointing: bool = False
    compile: bool | None = None

    def rate(self, step: int) -> float:
        """Learning rate of optimizer step `step`, counted from 1: linear warm-up, then the schedule."""
        if step <= self.warmup_steps:
            return self.lr * step / self.warmup_steps
        if self.schedule == "constant":
            return self.lr
        assert self.schedule == "cosine" and self.total_steps > 0, self
        done = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
        return self.lr * (self.min_lr_share + (1.0 - self.min_lr_share) * 0.5 * (1.0 + math.cos(math.pi * done)))

    def groups(self, parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
        """Parameter groups of AdamW: what multiplies is decayed, the norms' gains and the biases are not."""
        trained = [p for p in parameters if p.requires_grad]
        matrices, vectors = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        """torch's AdamW over `groups`; fused, which every engine gets, so that all round alike."""
        return torch.optim.AdamW(self.groups(parameters), lr=self.lr, betas=self.betas, fused=True)
