"""The memory of a step and of an answer, measured without computing either: torch runs them on tensors without data.

In: a model's specification, a recipe, the shape of a micro-batch. Out: `footprint.Sizes`. Every tensor that torch would
allocate is counted for as long as it lives (`FakeTensorMode`), so that architecture, checkpointing, precision and masks
need no formula of their own. Takes a second or two, and no memory of the model's size. Attention counts as a fused
kernel, as on CPUs and on GPUs that have one for the precision. Knows nothing of ranks.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raytensor.training import base, models
from raytensor.training.causal import Causal, layers
from raytensor.training.footprint import Sizes
from raytensor.training.models import ModelSpec
from raytensor.training.recipe import Recipe


def sizes(
    spec: ModelSpec, recipe: Recipe, rows: int, seq_len: int, *, casts: bool, loss_rows: int | None = None
) -> Sizes:
    """rows       sequences of a micro-batch.
    casts      whether the engine casts the weights to `recipe.precision` (else it casts in each product).
    loss_rows  measure a forward pass for the losses of at most so many sequences; None: for `base.CHUNK` answers.
    """
    model: Any = models.build(spec, meta=True)
    bf16 = recipe.precision == "bf16"
    if bf16 and casts:
        model.to(torch.bfloat16)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        model.tie_weights()
        if recipe.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        causal = Causal(model, recipe.document_end, recipe.z_loss)
        vocabulary = model.get_output_embeddings().weight.shape[0]
        counts = {id(p): p.numel() for p in model.parameters()}
        trained = [p for p in model.parameters() if p.requires_grad]
        inner = [sum(p.numel() for p in layer.parameters()) for layer in layers(model)]

        asked = None if loss_rows is None else min(loss_rows, base.loss_rows(seq_len, vocabulary))

        def step() -> None:
            causal(torch.zeros(rows, seq_len + 1, dtype=torch.int64)).backward()

        def answer() -> None:
            with torch.no_grad():
                if asked is not None:
                    causal(torch.zeros(asked, seq_len + 1, dtype=torch.int64), by_row=True)
                else:
                    last = torch.zeros(base.CHUNK, dtype=torch.int64)
                    causal(torch.zeros(base.CHUNK, seq_len, dtype=torch.int64), last)

        with torch.autocast("cpu", torch.bfloat16, enabled=bf16 and not casts):
            both = _peak(step, model)
            for parameter in trained:
                parameter.grad = None
                parameter.register_post_accumulate_grad_hook(_forget)
            kept, serving = _peak(step, model), _peak(answer, model.eval())
    total = sum(counts.values())
    numbers = (total, sum(p.numel() for p in trained), max(inner), total - sum(inner))
    # Log-probabilities and the two gradients of the loss, float32; more in half precision, but not at one time.
    return Sizes(*numbers, kept, both, min(kept, 12 * rows * seq_len * vocabulary), serving)


def _forget(parameter: Tensor) -> None:
    parameter.grad = None


class _Live(TorchDispatchMode):
    """Counts the bytes of tensors that live, but not those of `known`."""

    def __init__(self, known: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = {t.untyped_storage()._cdata for t in (*known.parameters(), *known.buffers())}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if isinstance(value, Tensor):
                self._note(value.untyped_storage())
        return found

    def _note(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _peak(work: Callable[[], None], model: nn.Module) -> int:
    """Bytes that live at once within `work`, besides the model."""
    with _Live(model) as live:
        work()
    return live.peak
