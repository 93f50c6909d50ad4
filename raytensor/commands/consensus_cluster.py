"""An epoch split over a Ray cluster: each actor holds some of the miners, the driver adds up what they find.

In: `EpochInput` on the driver, a connected Ray. Out: `EpochOutput`, the same bits as on one machine. For networks whose
matrices are too much for one machine's cores; a small one is quicker at home. Between the three phases only vectors
over validators and columns over miners travel. An actor that dies ends the epoch with an error: epochs have no side
effects, so the caller may simply ask again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError

from raytensor.consensus import EpochInput, EpochOutput, epoch
from raytensor.consensus.plan import Plan, matrices
from raytensor.errors import ClusterError, ConfigError


class ShardActor:
    """Holds one shard and runs its phases. Plain: `ray.remote` is applied where it is used."""

    def __init__(self, shard: Any) -> None:
        self.shard = writable(shard)

    def run(self, phase: str, *arguments: Any) -> Any:
        return getattr(self.shard, phase)(*(writable(argument) for argument in arguments))


def writable(value: Any) -> Any:
    """A copy with arrays of its own. Ray hands out read-only ones, for which every kernel would be compiled again."""
    if isinstance(value, np.ndarray):
        return value if value.flags.writeable else value.copy()
    if isinstance(value, tuple):
        return tuple(writable(item) for item in value)
    if is_dataclass(value):
        return replace(value, **{field.name: writable(getattr(value, field.name)) for field in fields(value)})
    return value


def epoch_on_cluster(
    inputs: EpochInput, *, num_actors: int | None = None, cpus_per_actor: float = 1.0, timeout_s: float = 600.0
) -> EpochOutput:
    """One epoch on `num_actors` actors (default: one for each free CPU), each with a part of the miners.

    timeout_s: for each phase. ClusterError says which phase was waited for. Liquid alpha over rows that don't ascend
    needs whole rows (see `kernels.sparse`) and is computed by the driver alone.
    """
    if num_actors is None:
        num_actors = max(1, int(ray.available_resources().get("CPU", 1.0) / cpus_per_actor))
    if num_actors < 1:
        raise ConfigError(f"num_actors: {num_actors}; use at least 1")
    if inputs.bonds_moving_average > 10**6:
        return epoch(inputs)
    plan = Plan.of(inputs, matrices(inputs))
    if plan.has_cursor_effects:
        return epoch(inputs)
    actor = ray.remote(ShardActor).options(num_cpus=cpus_per_actor)
    actors = [actor.remote(shard.cut()) for shard in plan.shards(num_actors)]

    def mapper(shards: Sequence, phase: str, arguments: Sequence[tuple]) -> list:
        pending = [shard.run.remote(phase, *args) for shard, args in zip(shards, arguments, strict=True)]
        try:
            return [writable(result) for result in ray.get(pending, timeout=timeout_s)]
        except GetTimeoutError as error:
            raise ClusterError(
                f"consensus: waited {timeout_s:g} s for {len(pending)} actors of {cpus_per_actor:g} CPUs"
                f" in phase {phase}\n  fix: fewer actors than free CPUs (num_actors), or a longer timeout_s"
            ) from error
        except RayActorError as error:
            raise ClusterError(f"consensus: an actor died in phase {phase}: {error}") from error

    try:
        return plan.run(actors, mapper)
    finally:
        for handle in actors:
            ray.kill(handle)
