"""The training engines and the optimizers: one row for each.

In: nothing. Out: `ENGINES` and `OPTIMIZERS`, which the checks, the help texts, the engines and the checkpoints read;
`MOMENTS`, what torch's optimizer classes keep of each parameter. To add an optimizer, add its rows here and construct
it in `training/recipe.py`. Knows nothing of torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """How a model is trained and spread over processes.

    parallel     runs on several ranks.
    cut          what is divided over the ranks: "moments", "gradients", "parameters".
    same_rows    every rank computes all rows of a batch, and not a share of them.
    casts        in bf16 it computes with weights in bfloat16, where others cast in each product.
    """

    help: str
    parallel: bool = True
    cut: tuple[str, ...] = ()
    casts: bool = False
    same_rows: bool = False

    @property
    def cuts(self) -> bool:
        """Whether a rank's optimizer holds a part of each matrix, never a whole one."""
        return bool(self.cut)


_ALL = ("moments", "gradients", "parameters")


ENGINES = {
    "plain": Engine("one process", parallel=False),
    "ddp": Engine("torch's DistributedDataParallel: whole model on every rank"),
    "fsdp2": Engine("torch's FSDP2: parameters, gradients and moments cut over ranks", cut=_ALL, casts=True),
    "hsdp": Engine("FSDP2 within groups of `shard_ranks` ranks, DDP between them", cut=_ALL, casts=True),
    "tp": Engine("torch's tensor parallelism: heads and widths of Llamas cut over ranks", cut=_ALL, same_rows=True),
    "zero1": Engine("DeepSpeed: moments cut over ranks", cut=_ALL[:1], casts=True),
    "zero2": Engine("DeepSpeed: moments and gradients cut", cut=_ALL[:2], casts=True),
    "zero3": Engine("DeepSpeed: moments, gradients and parameters cut", cut=_ALL, casts=True),
}


@dataclass(frozen=True)
class Optimizer:
    """What an optimizer needs.

    whole_matrices  its step reads whole matrices, so engines that cut them can't run it.
    moments         tensors that it keeps of each parameter, at most.
    least_torch     first version of torch that has it.
    stackable       whether `training/stacked_adamw.py` computes it for a stack of models.
    """

    help: str
    whole_matrices: bool = False
    moments: int = 2
    least_torch: tuple[int, int] | None = None
    stackable: bool = False


_MUON = "for the matrices of the layers, AdamW for the rest; engine plain or ddp"
OPTIMIZERS = {
    "adamw": Optimizer("", stackable=True),
    "sgd": Optimizer("momentum 0.9", moments=1),
    "muon": Optimizer(_MUON, whole_matrices=True, least_torch=(2, 9)),
}


@dataclass(frozen=True)
class Moments:
    """State of a torch optimizer class for each parameter, by torch's names; checkpoints store it under these names.

    counts_steps  whether it also keeps the number of its step.
    """

    names: tuple[str, ...]
    counts_steps: bool = False


MOMENTS = {
    "AdamW": Moments(("exp_avg", "exp_avg_sq"), counts_steps=True),
    "SGD": Moments(("momentum_buffer",)),
    "Muon": Moments(("momentum_buffer",)),
}


def help_text(rows: dict[str, Engine] | dict[str, Optimizer]) -> str:
    """All engines or all optimizers, for the setting that names one."""
    return " | ".join(f"{name} ({row.help})" if row.help else name for name, row in rows.items())
