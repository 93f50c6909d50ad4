"""A sharded miner's processes: one placement group with the first rank, which is the miner's host, and the other ranks.

In: a profile with ranks. Out: actors that are joined, or being joined. Waits for: room in the cluster, at most
`cluster.start_timeout_s`; not for the ranks. Ending it ends every process in it. Knows nothing of rounds and questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raytensor.cluster import release, reserve
from raytensor.config import MinerProfile, RunConfig
from raytensor.miners.shard import FirstRank, Shard, meeting_point

# A host is never restarted by Ray: the fleet makes a new one from the newest checkpoint. Questions from outside the run
# have a lane of their own.
LANES: dict[str, Any] = {"max_restarts": 0, "concurrency_groups": {"serving": 2}}


@dataclass
class Group:
    """first: the host's actor. following: ObjectRefs that are there once one of the `others` is gone."""

    placement: PlacementGroup
    first: Any
    others: list[Any]
    following: list[Any]

    def ready(self) -> list[Any]:
        """ObjectRefs of the other ranks' process ids."""
        return [actor.ready.options(concurrency_group="beside").remote() for actor in self.others]

    def lost(self) -> str | None:
        """Why the group is broken; None when no other rank is known to be gone."""
        gone, _ = ray.wait(self.following, timeout=0) if self.following else ([], [])
        if not gone:
            return None
        try:
            ray.get(gone[0], timeout=5)
        except (RayActorError, RayTaskError, GetTimeoutError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return f"a rank is gone: {lines[-1] if lines else type(error).__name__}"
        return "a rank ended by itself"

    def end(self) -> None:
        """End all processes at once and give back what was reserved."""
        for actor in (self.first, *self.others):
            ray.kill(actor)
        release(self.placement)


def start(
    cfg: RunConfig,
    name: str,
    member: tuple[str, MinerProfile],
    text: Any,
    folder: Path | None,
    resume_round: int | None,
) -> Group:
    """A new group of the miner `member`; `text` is the ObjectRef. Raises `ClusterError` when there is no room in time."""
    hotkey, profile = member
    bundle = {"CPU": profile.cpus_per_rank} | ({"GPU": float(profile.gpus_per_rank)} if profile.gpus_per_rank else {})
    placement = reserve(f"{name} ({hotkey[:8]})", [bundle] * profile.ranks, timeout_s=cfg.cluster.start_timeout_s)

    def at(rank: int) -> dict[str, Any]:
        where = PlacementGroupSchedulingStrategy(placement, placement_group_bundle_index=rank)
        return {"num_cpus": profile.cpus_per_rank, "num_gpus": profile.gpus_per_rank, "scheduling_strategy": where}

    meeting = ray.remote(meeting_point).options(**at(0) | {"num_cpus": 0, "num_gpus": 0}).remote()
    first = ray.remote(**LANES)(FirstRank).options(**at(0)).remote(cfg, [member], text, folder, resume_round, meeting)
    # `follow` does not return: being ready is told in a lane beside it.
    shard = ray.remote(max_restarts=0, concurrency_groups={"beside": 1})(Shard)
    others = [
        shard.options(**at(rank)).remote(cfg, hotkey, profile, text, rank, meeting) for rank in range(1, profile.ranks)
    ]
    return Group(placement, first, others, [actor.follow.remote() for actor in others])
