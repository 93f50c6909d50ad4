"""AdamW (Loshchilov and Hutter 2019) for the rows of a stack, each with its own recipe and number of steps.

In: parameters, gradients and moments [C, P]. Out: the parameters and moments after one step, in place.
Two implementations of the same formulas, equal up to rounding: one model after another through torch's fused kernel,
which reads everything once (for a CPU, whose cache holds one model), or all together (for a GPU, where C small kernels
would take longer to launch than to run).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from raytensor.training.recipe import Recipe

EPS = 1e-8  # torch's default
State = tuple[Tensor, Tensor, Tensor]  # parameters [C, P], gradients [C, P], first and second moments [2, C, P]


def step(state: State, recipes: Sequence[Recipe], counts: Sequence[int], num_decayed: int, *, together: bool) -> None:
    """One step of each model. Gradients are clipped in place.

    counts       number of each model's step, from 1.
    num_decayed  how many numbers at the start of a row weight decay applies to.
    together     all models in each kernel, else one after another.
    """
    rows, grads, _ = state
    norms = torch.linalg.vector_norm(grads, dim=1)
    clips = torch.tensor([recipe.clip for recipe in recipes], device=rows.device)
    grads.mul_((clips / (norms + 1e-6)).clamp_(max=1.0)[:, None])  # as torch's clip_grad_norm_
    (_together if together else _one_by_one)(state, recipes, counts, num_decayed)


def _one_by_one(state: State, recipes: Sequence[Recipe], counts: Sequence[int], num_decayed: int) -> None:
    rows, grads, moments = state
    for place, (recipe, count) in enumerate(zip(recipes, counts, strict=True)):
        for part, decay in ((slice(0, num_decayed), recipe.weight_decay), (slice(num_decayed, None), 0.0)):
            of = (place, part)
            mine = ([rows[of]], [grads[of]], [moments[0][of]], [moments[1][of]])
            before = [torch.tensor(count - 1.0, device=rows.device)]  # the kernel counts this step itself
            settings: dict[str, Any] = {"lr": recipe.rate(count), "weight_decay": decay, "eps": EPS}
            settings |= {"beta1": recipe.betas[0], "beta2": recipe.betas[1], "amsgrad": False, "maximize": False}
            adamw(*mine, [], before, fused=True, **settings)


def _together(state: State, recipes: Sequence[Recipe], counts: Sequence[int], num_decayed: int) -> None:
    rows, grads, (first, second) = state
    settings = [
        (r.rate(n), r.weight_decay, *r.betas, 1.0 - r.betas[0] ** n, (1.0 - r.betas[1] ** n) ** 0.5)
        for r, n in zip(recipes, counts, strict=True)
    ]
    columns = torch.tensor(settings, dtype=torch.float32, device=rows.device).T[..., None]
    rate, decay, beta1, beta2, correct1, correct2 = columns
    first.lerp_(grads, 1.0 - beta1)
    second.mul_(beta2).addcmul_(grads * (1.0 - beta2), grads)
    rows[:, :num_decayed].mul_(1.0 - rate * decay)
    rows.addcmul_(first / (second.sqrt().div_(correct2).add_(EPS)), -rate / correct1)
