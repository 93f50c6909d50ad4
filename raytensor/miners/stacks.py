"""Which miners of a host share a stack, and the stacks.

In: miners' profiles. Out: an engine for each that can be stacked, all equal in interface; the host drives the stacks.
Miners of one architecture share one, whatever their learning rates, steps and batches. A miner is stacked or not by its
own profile alone, never by who is beside it, so that its bits don't depend on the number of hosts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raytensor.config import MinerProfile, RunConfig
from raytensor.data import assign
from raytensor.miners.model import build
from raytensor.miners.placement import architecture
from raytensor.training.recipe import Recipe
from raytensor.training.stacked import StackedEngine, StackedMember


def stacks(cfg: RunConfig, device: str) -> bool:
    """Whether miners are stacked on this device: as set, else on CPUs."""
    return device == "cpu" if cfg.miners.stacked is None else cfg.miners.stacked


def make_members(
    cfg: RunConfig, members: Sequence[tuple[str, MinerProfile]], vocab_size: int, device: str
) -> Mapping[str, StackedMember]:
    """Engines by hotkey of the miners that can be stacked, with the initial models that each would have alone."""
    groups: dict[tuple[int, int, int], list[tuple[str, MinerProfile]]] = {}
    for hotkey, profile in members:
        shape = architecture(profile)
        if shape is not None:
            groups.setdefault(shape, []).append((hotkey, profile))
    found: dict[str, StackedMember] = {}
    for group in groups.values():
        models = (
            build(profile, vocab_size, cfg.miners.seq_len, assign.seed_of(cfg.seed, "model", hotkey))
            for hotkey, profile in group
        )
        stack = StackedEngine(models, [Recipe(lr=profile.lr) for _, profile in group], device=device)
        found.update(zip((hotkey for hotkey, _ in group), stack.members, strict=True))
    return found
