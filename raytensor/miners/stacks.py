"""The stacks of a host: its miners of one architecture share one `StackedEngine`.

In: miners' profiles. Out: an engine for each miner that can be stacked. Learning rates, steps and batches may differ.
Whether a miner is stacked depends on its own profile only, so that its bits do not depend on the number of hosts.
Knows nothing of rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raytensor.config import MinerProfile, RunConfig
from raytensor.data import assign
from raytensor.miners.model import spec
from raytensor.miners.placement import architecture
from raytensor.training import models
from raytensor.training.recipe import Recipe
from raytensor.training.stacked import StackedEngine, StackedMember


def stacks(cfg: RunConfig, device: str) -> bool:
    """Whether miners are stacked on this device: `miners.stacked`, or on CPUs when it is null."""
    return device == "cpu" if cfg.miners.stacked is None else cfg.miners.stacked


def make_members(
    cfg: RunConfig, members: Sequence[tuple[str, MinerProfile]], vocab_size: int, device: str
) -> Mapping[str, StackedMember]:
    """Engines of the stackable miners by hotkey. Each has the initial model that it would have alone."""
    groups: dict[tuple[int, int, int], list[tuple[str, MinerProfile]]] = {}
    for hotkey, profile in members:
        shape = architecture(profile)
        if shape is not None:
            groups.setdefault(shape, []).append((hotkey, profile))
    found: dict[str, StackedMember] = {}
    for group in groups.values():
        built = (
            models.build(spec(profile, vocab_size, cfg.miners.seq_len, assign.seed_of(cfg.seed, "model", hotkey)))
            for hotkey, profile in group
        )
        stack = StackedEngine(built, [Recipe(lr=profile.lr) for _, profile in group], device=device)
        found.update(zip((hotkey for hotkey, _ in group), stack.members, strict=True))
    return found
