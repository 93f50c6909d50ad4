"""The processes of a sharded miner: a placement group with the first rank, which is the miner's host, and the other
ranks.

In: a profile with ranks. Out: actors that have joined each other, or are joining. Waits for: room in the cluster, at
most `cluster.start_timeout_s`; not for the ranks. Knows nothing of rounds and questions.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raytensor.cluster import release, reserve
from raytensor.config import MinersJob
from raytensor.errors import cause_of
from raytensor.miners.actors import LANES, HostActor, ShardActor, rendezvous_address
from raytensor.miners.placement import Member
from raytensor.training.pulse import Report, hang

log = logging.getLogger(__name__)

REPORT_S = 10.0


@dataclass
class Group:
    """first: the host's actor. exits: ObjectRefs, each ready once one of the `others` has ended."""

    placement: PlacementGroup
    first: Any
    others: list[Any]
    exits: list[Any]

    def ready(self) -> list[Any]:
        """ObjectRefs of the other ranks' process ids."""
        return [actor.ready.options(concurrency_group="beside").remote() for actor in self.others]

    def failure(self) -> str | None:
        """Why the group is broken; None when no other rank is known to have ended."""
        gone, _ = ray.wait(self.exits, timeout=0) if self.exits else ([], [])
        if not gone:
            return None
        try:
            ray.get(gone[0], timeout=5)
        except (RayActorError, RayTaskError, GetTimeoutError) as error:
            return f"a rank is gone: {cause_of(error)}"
        return "a rank ended by itself"

    def hang(self) -> str:
        """Which rank hangs, and where. Logs the stacks of all ranks. Waits for their reports, at most `REPORT_S`."""
        actors = [self.first, *self.others]
        refs = [actor.report.options(concurrency_group="beside").remote() for actor in actors]
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=REPORT_S)
        reports: list[Report | None] = []
        for rank, ref in enumerate(refs):
            try:
                reports.append(ray.get(ref, timeout=5) if ref in ready else None)
            except (RayActorError, RayTaskError, GetTimeoutError) as error:
                return f"rank {rank} is gone: {cause_of(error)}"
            if found := reports[-1]:
                log.warning("rank %d is in %s for %.0f s:\n%s", rank, found.what, found.seconds, found.stack)
        return hang(reports)

    def end(self) -> None:
        """End all processes at once and release the placement group."""
        for actor in (self.first, *self.others):
            ray.kill(actor)
        release(self.placement)


def start(cfg: MinersJob, name: str, member: Member, text: Any, folder: Path | None, resume_round: int | None) -> Group:
    """A new group of the miner `member`. `text`: its ObjectRef. Raises `ClusterError` when there is no room in time."""
    hotkey, profile = member
    bundle = {"CPU": profile.cpus_per_rank} | ({"GPU": float(profile.gpus_per_rank)} if profile.gpus_per_rank else {})
    placement = reserve(f"{name} ({hotkey[:8]})", [bundle] * profile.ranks, timeout_s=cfg.cluster.start_timeout_s)

    def at(rank: int) -> dict[str, Any]:
        where = PlacementGroupSchedulingStrategy(placement, placement_group_bundle_index=rank)
        return {"num_cpus": profile.cpus_per_rank, "num_gpus": profile.gpus_per_rank, "scheduling_strategy": where}

    nothing: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0}
    address: Any = ray.remote(rendezvous_address).options(**at(0) | nothing).remote()
    first = ray.remote(**LANES)(HostActor).options(**at(0)).remote(cfg, [member], text, folder, resume_round, address)
    # `follow` does not return, so `ready` has a concurrency group of its own.
    options: dict[str, Any] = {"max_restarts": 0, "concurrency_groups": {"beside": 1}}
    shard: Any = ray.remote(**options)(ShardActor)
    ranks = range(1, profile.ranks)
    others = [shard.options(**at(rank)).remote(cfg, member, text, rank, address) for rank in ranks]
    return Group(placement, first, others, [actor.follow.remote() for actor in others])
