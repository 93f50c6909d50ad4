"""The shared model of a window in torch, and its loss with and without an update. The only part that needs torch.

In: the folder of the shared model, windows, updates. Out: losses before and after an update; the first model.
The model of a window, and its losses before any update, are computed once.
"""

from typing import Any

import numpy as np

from raytensor.config import Collab
from raytensor.mechanisms.collab.codec import Sparse
from raytensor.mechanisms.collab.mechanism import Window
from raytensor.mechanisms.collab.store import Store
from raytensor.training.delta_evaluator import DeltaEvaluator
from raytensor.training.models import ModelSpec, build


def first_model(rule: Collab, vocab_size: int, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and description of a new `Store`; equal arguments give equal results."""
    described: dict[str, Any] = {"name": rule.model, "hidden": rule.hidden, "layers": rule.layers, "heads": rule.heads}
    described |= {"vocab_size": vocab_size, "seq_len": rule.seq_len, "seed": seed}
    model = build(ModelSpec(**described))
    return {name: p.detach().float().numpy() for name, p in model.named_parameters()}, described


class Judge:
    """Raises `DataError` when there is no shared model in `folder`."""

    def __init__(self, folder: str, device: str = "cpu") -> None:
        self.folder = folder
        self._store = Store(folder)
        self.size = self._store.layout.size
        self._evaluator = DeltaEvaluator(build(ModelSpec(**self._store.model)), device)
        self._window = -1
        self._before: dict[bytes, float] = {}

    def measure(self, sealed: Window, update: Sparse, share: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """(loss before, after `share` of the update) on the miner's text and on random text, nats per token."""
        if sealed.window != self._window:
            self._evaluator.set(self._store.before(sealed.window)[0])
            self._window = sealed.window
            self._before.clear()
        befores = []
        for tokens in (sealed.own, sealed.random):
            key = tokens.tobytes()
            if key not in self._before:
                self._before[key] = self._evaluator.loss(tokens)
            befores.append(self._before[key])
        with self._evaluator.subtracted(update.places, update.values * share):
            own, random = self._evaluator.loss(sealed.own), self._evaluator.loss(sealed.random)
        return (befores[0], own), (befores[1], random)
