"""An epoch split over a Ray cluster: each actor computes some of the miners, the driver adds up the results.

In: `EpochInput` on the driver, a connected Ray. Out: `EpochOutput`, the same bits as on one machine. For networks whose
matrices need more cores than one machine has; a small network is faster on one machine. Between the three phases only
vectors over validators and columns over miners are sent. An actor that dies fails the epoch; an epoch has no side
effects, so the caller can run it again.
"""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError

from raytensor import cluster, config
from raytensor.consensus import EpochInput, EpochOutput, epoch
from raytensor.consensus.plan import Plan, matrices
from raytensor.errors import ClusterError, ConfigError


class ShardActor:
    """One shard and its phases. A plain class: `epoch_on_cluster` applies `ray.remote`."""

    def __init__(self, shard: Any) -> None:
        self.shard = writable(shard)

    def run(self, phase: str, *arguments: Any) -> Any:
        return getattr(self.shard, phase)(*(writable(argument) for argument in arguments))


def writable(value: Any) -> Any:
    """A copy whose arrays are writable. Ray returns read-only ones, for which each kernel would be compiled again."""
    if isinstance(value, np.ndarray):
        return value if value.flags.writeable else value.copy()
    if isinstance(value, tuple):
        return tuple(writable(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: writable(getattr(value, field.name)) for field in fields(value)})
    return value


def connect() -> None:
    """Join or start Ray, where this process is not connected yet."""
    if not ray.is_initialized():
        cluster.connect(config.Cluster())


def epoch_on_cluster(
    inputs: EpochInput, *, num_actors: int | None = None, cpus_per_actor: float = 1.0, timeout_s: float = 600.0
) -> EpochOutput:
    """One epoch on `num_actors` actors (default: one per free CPU), each with a part of the miners.

    timeout_s: limit for each phase. Raises ClusterError with the phase if it takes longer or an actor dies, and
    ConfigError for `num_actors` below 1. Liquid alpha over rows that are not ascending needs whole rows (see
    `kernels.sparse`): the driver computes it alone.
    """
    if num_actors is None:
        num_actors = max(1, int(ray.available_resources().get("CPU", 1.0) / cpus_per_actor))
    if num_actors < 1:
        raise ConfigError(f"num_actors: {num_actors}; use at least 1")
    if inputs.bonds_moving_average > 10**6 or inputs.epoch_kind == "null":
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
            ray.kill(handle)  # pyright: ignore[reportArgumentType]  # ray declares a proxy, kill a handle
