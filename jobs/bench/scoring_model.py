"""What the scoring benchmark scores with: texts of one miner each, valued by a reference model's loss.

An item is int32 [rows, length + 1]: sequences of one submission; its score is the mean cross-entropy of the tokens after
the first, in nats. Forwards have one fixed shape, whatever is packed into a call: an item's score has the same bits in
every company.
"""

from __future__ import annotations

import asyncio
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
    """The model, loaded once."""

    def __init__(self, work: Work) -> None:
        import torch

        from raytensor.config import MinerProfile
        from raytensor.miners.model import build, num_parameters

        if work.device == "cpu":
            torch.set_num_threads(1)
        self.torch, self.work = torch, work
        profile = MinerProfile(hidden=work.hidden, layers=work.layers, heads=work.heads)
        model = build(profile, work.vocab_size, work.length, seed=0).eval()
        self.num_parameters = num_parameters(model)
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

    def score_each(self, payloads: list[tuple[Any]], *data: np.ndarray) -> Iterator[float]:
        """A packed call of the pool: the items in the payloads, or beside them when they were fetched."""
        for number, (item,) in enumerate(payloads):
            if isinstance(item, str) and item == DIE:
                os._exit(11)
            if isinstance(item, str) and item == HANG:
                time.sleep(3600)
            yield self.score(data[number] if data else item)


class Scorer:
    """The pool's actor. isolate: work in a forked child, which a crash costs milliseconds (CPU only)."""

    def __init__(self, work: Work, isolate: bool, limit_s: float) -> None:
        from raytensor.pool import Isolated

        self._reference = Reference(work)
        self._reference.score(work.item(0))  # warm
        self._isolated = Isolated(self._reference, limit_s) if isolate else None

    def score_all(self, payloads: list[tuple[Any]], *data: np.ndarray) -> list[float]:
        if self._isolated is not None:
            return self._isolated.each("score_each", payloads, *data)
        return list(self._reference.score_each(payloads, *data))

    def pids(self) -> list[int]:
        """This process, and the child that it works in."""
        child = self._isolated.child if self._isolated is not None else None
        return [os.getpid()] + ([child] if child is not None else [])

    def tight(self, items: list[np.ndarray]) -> tuple[float, list[float], int]:
        """The bare forward in a loop with the data in memory: seconds, scores, the model's parameters."""
        started = time.perf_counter()
        scores = [self._reference.score(item) for item in items]
        return time.perf_counter() - started, scores, self._reference.num_parameters

    def serial(self, items: list[np.ndarray], fetch_s: float) -> tuple[float, list[float]]:
        """As the field does it: one miner after the other, its fetch awaited, one sequence a forward."""
        started = time.perf_counter()
        scores = []
        for item in items:
            time.sleep(fetch_s)
            losses = [self._reference.forward(item[row : row + 1])[0] for row in range(len(item))]
            scores.append(sum(losses) / len(losses))
        return time.perf_counter() - started, scores


class Store:
    """Where submissions lie: each takes `fetch_s` to come."""

    def __init__(self, work: Work, fetch_s: float) -> None:
        self._work, self._fetch_s = work, fetch_s

    async def fetch(self, number: int) -> tuple[None, np.ndarray]:
        await asyncio.sleep(self._fetch_s)
        return None, self._work.item(number)
