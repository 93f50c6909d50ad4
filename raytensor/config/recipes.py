"""How a model is trained: one schema, for the model of `raytensor train` and for the profiles of miners.

As groups.py. `training.recipe.Recipe` takes the fields of equal names.
"""

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass

from raytensor.config.checks import Section, setting
from raytensor.config.optimizers import ENGINES, OPTIMIZERS

PRECISIONS = ("fp32", "bf16")
SCHEDULES = ("constant", "linear", "cosine", "wsd")


@dataclass
class Recipe(Section):
    # {optimizers}
    optimizer: str = setting("adamw", choices=tuple(OPTIMIZERS))
    # Learning rate after the warm-up.
    lr: float = 3e-3
    # Optimizer steps of linear warm-up.
    warmup_steps: int = setting(10, least=0)
    # constant | linear or cosine (down to min_lr_share of lr at the last step) | wsd (warm-up, stable, decay: constant
    # but for decay_share of the steps at the end, where it falls linearly)
    schedule: str = setting("constant", choices=SCHEDULES)
    # Share of lr at which a schedule ends.
    min_lr_share: float = setting(0.1, least=0, most=1)
    # schedule=wsd: share of the steps in which the rate falls.
    decay_share: float = setting(0.2, above=0, most=1)
    # Weight decay of matrices.
    weight_decay: float = setting(0.1, least=0)
    # AdamW: decay rates of the means of gradients and of their squares.
    betas: list[float] = setting(make=lambda: [0.9, 0.95], least=0, below=1)
    # Largest norm of a step's gradient.
    clip: float = 1.0
    # Weight of the squared logarithm of the softmax's denominator in the loss, which keeps logits from growing; 1e-4 is
    # usual, 0 leaves it out. Reported losses are without it.
    z_loss: float = setting(0.0, least=0)
    # How the model is trained and sharded over ranks: {engines}
    engine: str = setting("plain", choices=tuple(ENGINES))
    # Processes that train together, each a rank; those of a miner also serve the model, in their own placement group.
    ranks: int = 1
    # engine=hsdp: ranks over which one copy of the model is cut; null: those of a node.
    shard_ranks: int | None = None
    # CPUs that each rank reserves.
    cpus_per_rank: float = 0.5
    # GPUs that each rank reserves: 1, or 0 to train on CPUs.
    gpus_per_rank: int = setting(0, least=0)
    # fp32 | bf16 (for GPUs; slower than fp32 on most CPUs)
    precision: str = setting("fp32", choices=PRECISIONS)
    # Sequences per step, over all ranks.
    batch_size: int = 8
    # Forward and backward passes per optimizer step on each rank; batch_size must divide by ranks * accumulate.
    accumulate: int = 1
    # Recompute activations in the backward pass instead of keeping them: less memory, a third more compute.
    activation_checkpointing: bool = False
    # Above 0: freeze the weights and train low-rank adapters of this rank (needs raytensor[lora]).
    lora_rank: int = setting(0, least=0)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if len(self.betas) != 2:
            yield "betas", "must be two numbers"
        engine, optimizer = ENGINES[self.engine], OPTIMIZERS[self.optimizer]
        parallel = [name for name, row in ENGINES.items() if row.parallel]
        simple = [name for name, row in OPTIMIZERS.items() if not row.whole_matrices and not row.least_torch]
        instead = f"optimizer={' or '.join(simple)}"
        if optimizer.whole_matrices and engine.cuts:
            whole = ", ".join(name for name in parallel if not ENGINES[name].cuts)
            why = f"works on whole matrices, which engine={self.engine} shards; use engine={whole}, or {instead}"
            yield "optimizer", why
        torch, least = importlib.metadata.version("torch"), optimizer.least_torch
        if least and tuple(int(part) for part in torch.split(".")[:2]) < least:
            why = f"needs torch {least[0]}.{least[1]}, {torch} is installed; use {instead}, or a newer torch"
            yield "optimizer", why
        if not engine.parallel and self.ranks > 1:
            several = f"{', '.join(parallel[:-1])} or {parallel[-1]}"
            yield "ranks", f"engine={self.engine} is one process; use engine={several}"
        if self.gpus_per_rank > 1:
            yield "gpus_per_rank", "must be 0 or 1: a rank has one device; more GPUs are more ranks"
        if self.shard_ranks and self.ranks % self.shard_ranks:
            yield "shard_ranks", f"must divide ranks ({self.ranks})"
        if engine.same_rows and self.lora_rank:
            yield "lora_rank", f"must be 0 with engine={self.engine}"
        parts = (1 if engine.same_rows else self.ranks) * self.accumulate
        if self.batch_size % parts:
            near = -(-self.batch_size // parts) * parts
            why = f"must divide by ranks * accumulate ({self.ranks} * {self.accumulate}); use {near}, for example"
            yield "batch_size", why
