"""Two real rank actors, joined over gloo once and reused: what the tests of sharded engines share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from raytensor import cluster
from raytensor.training import engine, models, ranks
from raytensor.training.models import ModelSpec
from raytensor.training.recipe import Recipe

V = 64
SPEC = ModelSpec(hidden=32, layers=2, heads=2, vocab_size=V, seq_len=16)
RECIPE = Recipe(accumulate=2, schedule="cosine", total_steps=12, warmup_steps=3)
TOKENS = np.random.default_rng(3).integers(0, V, (7, 12)).astype(np.int32)  # 7: not a multiple of 2
LENGTHS = np.arange(5, 12).astype(np.int32)


def batches(seed: int, steps: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, V, (steps, 8, 17)).astype(np.uint16)


class RankActor:
    """One rank. Engines stay by name between calls."""

    def __init__(self, rank: int, size: int, address: tuple[str, int]) -> None:
        torch.set_num_threads(1)
        self.ranks = ranks.join(rank, size, address) if size > 1 else ranks.alone()
        self.engines: dict[str, engine.Engine] = {}

    def make(self, strategy: str, spec: ModelSpec = SPEC, recipe: Recipe = RECIPE) -> None:
        self.engines[strategy] = engine.make(strategy, models.build(spec), recipe, self.ranks)

    def train(self, strategy: str, seed: int, steps: int) -> list[float]:
        return [self.engines[strategy].train_steps([batch]) for batch in batches(seed, steps)]

    def health(self, strategy: str) -> engine.Health:
        return self.engines[strategy].health

    def log_probs(self, strategy: str) -> np.ndarray:
        return self.engines[strategy].log_probs(TOKENS, LENGTHS)

    def save(self, strategy: str, folder: Path) -> None:
        self.engines[strategy].save(folder, {"at": strategy})

    def load(self, strategy: str, folder: Path) -> dict:
        return self.engines[strategy].load(folder)

    def weights(self, strategy: str) -> dict[str, torch.Tensor]:
        return self.engines[strategy].weights()

    def pid(self) -> int:
        return os.getpid()


class Pair:
    """Calls the same method on all ranks and gives the first one's answer; the others must agree where they answer."""

    def __init__(self, ray, size: int = 2) -> None:
        self._ray = ray
        address = ("127.0.0.1", cluster.reserve_port())
        factory = ray.remote(RankActor).options(num_cpus=0.2)
        self.actors = [factory.remote(rank, size, address) for rank in range(size)]

    def __getattr__(self, method: str):
        def call(*args):
            found = self._ray.get([getattr(actor, method).remote(*args) for actor in self.actors], timeout=120)
            if method in ("train", "log_probs"):
                for other in found[1:]:
                    np.testing.assert_array_equal(found[0], other)
            return found[0]

        return call

    def close(self) -> None:
        for actor in self.actors:
            self._ray.kill(actor)
