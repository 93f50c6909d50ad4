"""Loss of a model before and after a parameter delta, which is applied in place and undone exactly.

In: a model, a flat float32 vector of its parameters, deltas, token sequences. Out: losses.
The delta is undone from remembered values, so a judgement costs two forward passes and no reload.
Knows nothing of where a delta comes from.
"""

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from raytensor.training.causal import Causal

ROWS = 128  # of one forward pass: fixed, so that a loss never depends on what is measured beside it
WORST = 100.0  # nats per token, the loss of a model whose answers are not finite


class DeltaEvaluator:
    """model: of transformers, on one device. Its parameters become views of one vector, in the order of their names."""

    def __init__(self, model: nn.Module, device: str = "cpu") -> None:
        self._causal = Causal(model.to(device)).eval()
        named = sorted((name, p) for name, p in model.named_parameters() if p.requires_grad)
        self._flat = torch.cat([p.detach().float().reshape(-1) for _, p in named])
        start = 0
        for _, parameter in named:
            parameter.data = self._flat[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self._flat)

    def set(self, vector: np.ndarray) -> None:
        """Set all parameters: float32 [size]."""
        assert vector.shape == (self.size,)
        self._flat.copy_(torch.from_numpy(np.ascontiguousarray(vector, np.float32)))

    @contextlib.contextmanager
    def subtracted(self, places: np.ndarray, values: np.ndarray) -> Iterator[None]:
        """The model with `values` subtracted at `places`, both [n], within the block; restored to the bit after it."""
        at = torch.from_numpy(places).to(self._flat.device)
        before = self._flat[at]
        self._flat[at] = before - torch.from_numpy(values).to(self._flat.device)
        try:
            yield
        finally:
            self._flat[at] = before

    @torch.inference_mode()
    def loss(self, tokens: np.ndarray) -> float:
        """Mean loss of int [B, T + 1] in nats per token; at most `WORST`, and `WORST` where it is not finite."""
        total = 0.0
        for start in range(0, len(tokens), ROWS):
            rows = torch.from_numpy(tokens[start : start + ROWS].astype(np.int64)).to(self._flat.device)
            total += float(self._causal(rows)) * len(rows)
        mean = total / len(tokens)
        return min(mean, WORST) if math.isfinite(mean) else WORST
