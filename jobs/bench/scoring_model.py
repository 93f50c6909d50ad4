"""The work of the scoring benchmark: the loss of a reference model on the sequences of one submission.

An item is int32 [rows, length + 1]: the sequences of one submission. Its score is the mean cross-entropy of the tokens
after the first, in nats. All forwards have one shape, so that a score has the same bits whatever is packed into a call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

DIE, HANG = "die", "hang"


@dataclass(frozen=True)
class Work:
    """Sizes. `parts` forwards make an item, each of `rows` sequences of `length` tokens."""

    hidden: int = 256
    layers: int = 4
    heads: int = 4
    vocab_size: int = 1024
    rows: int = 4
    length: int = 128
    parts: int = 1
    device: str = "cpu"

    def item(self, number: int) -> np.ndarray:
        draw = np.random.default_rng([7, number])
        return draw.integers(0, self.vocab_size, (self.rows * self.parts, self.length + 1), dtype=np.int32)


class Reference:
    """The reference model."""

    def __init__(self, work: Work) -> None:
        import torch

        from raytensor.config import MinerProfile
        from raytensor.miners.model import spec
        from raytensor.training import models

        if work.device == "cpu":
            torch.set_num_threads(1)
        self.torch, self.work = torch, work
        profile = MinerProfile(hidden=work.hidden, layers=work.layers, heads=work.heads)
        model = models.build(spec(profile, work.vocab_size, work.length, seed=0)).eval()
        self.num_parameters = models.num_parameters(model)
        self.model = model.to(work.device, torch.bfloat16 if work.device == "cuda" else torch.float32)

    def forward(self, rows: np.ndarray) -> list[float]:
        """The loss of each sequence, in one forward."""
        torch = self.torch
        with torch.inference_mode():
            tokens = torch.from_numpy(rows.astype(np.int64)).to(self.work.device, non_blocking=True)
            logits = self.model(input_ids=tokens[:, :-1]).logits
            losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
            return losses.view(len(rows), -1).float().mean(1).double().tolist()

    def score(self, item: np.ndarray) -> float:
        """An item in forwards of the fixed shape."""
        rows = self.work.rows
        losses = [loss for start in range(0, len(item), rows) for loss in self.forward(item[start : start + rows])]
        return sum(losses) / len(losses)

    def score_each(self, payloads: list[tuple[Any]]) -> Iterator[float]:
        """A packed call of the pool: one item per payload, or one of the words DIE and HANG."""
        for (item,) in payloads:
            if isinstance(item, str) and item == DIE:
                os._exit(11)
            if isinstance(item, str) and item == HANG:
                time.sleep(3600)
            yield self.score(item)


class Scorer:
    """The actor of the pool. isolate: score in a forked child (CPU only)."""

    def __init__(self, work: Work, isolate: bool, limit_s: float) -> None:
        from raytensor.pool import ForkedWorker

        self._reference = Reference(work)
        self._reference.score(work.item(0))  # warm
        self._worker = ForkedWorker(self._reference, limit_s) if isolate else None

    def score_all(self, payloads: list[tuple[Any]]) -> list[float]:
        if self._worker is not None:
            return self._worker.each("score_each", payloads)
        return list(self._reference.score_each(payloads))

    def pids(self) -> list[int]:
        """Process ids of this actor and of its forked child."""
        child = self._worker.child if self._worker is not None else None
        return [os.getpid()] + ([child] if child is not None else [])

    def tight(self, items: list[np.ndarray]) -> tuple[float, list[float], int]:
        """The bare forward in a loop, data in memory: seconds, scores, number of parameters."""
        started = time.perf_counter()
        scores = [self._reference.score(item) for item in items]
        return time.perf_counter() - started, scores, self._reference.num_parameters

    def serial(self, items: list[np.ndarray]) -> tuple[float, list[float]]:
        """The usual loop of a validator: one miner after the other, one sequence per forward. Seconds and scores."""
        started = time.perf_counter()
        scores = []
        for item in items:
            losses = [self._reference.forward(item[row : row + 1])[0] for row in range(len(item))]
            scores.append(sum(losses) / len(losses))
        return time.perf_counter() - started, scores
