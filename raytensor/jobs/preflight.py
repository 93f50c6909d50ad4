"""What a job refuses before it starts, and what a dry run prints of the resources.

In: a job's configuration and what its roles need. Out: nothing, or lines of text; a `ConfigError` for what the real
run would refuse.
Waits for: a cluster that is to be joined, at most as long as Ray does.
"""

from collections.abc import Callable, Mapping, Sequence

import ray

from raytensor import cluster
from raytensor.config import Cluster
from raytensor.errors import ClusterError, DemandError, cause_of
from raytensor.telemetry.patience import patience
from raytensor.types import Need

__all__ = ["as_comments", "patience", "resources"]


def resources(cfg: Cluster, needs: Callable[[Mapping[str, float]], Sequence[Need]]) -> list[str]:
    """Lines that say what each role asks for, on which cluster. A cluster that is to be joined is asked what it has.

    needs  what the roles ask of a cluster with these resources.

    Raises `DemandError` when the cluster could never hold it.
    """
    address, found, where = cluster.address_of(cfg), cluster.local_resources(cfg), "a local Ray"
    if address:
        where = f"the cluster at {address}"
        try:
            found, asked = _checked(cfg, address, needs)
        except DemandError:
            raise
        except ClusterError as error:
            lines = cluster.bill(needs(found)).splitlines()
            return [f"resources per role, on {where}, which was not counted ({cause_of(error)}):", *lines]
    else:
        asked = needs(found)
        cluster.check(asked, found, cfg, local=True)
    counted = f"{found.get('CPU', 0.0):g} CPUs" + (f", {found['GPU']:g} GPUs" if found.get("GPU") else "")
    return [f"resources per role, on {where} with {counted}:", *cluster.bill(asked).splitlines()]


def _checked(
    cfg: Cluster, address: str, needs: Callable[[Mapping[str, float]], Sequence[Need]]
) -> tuple[Mapping[str, float], Sequence[Need]]:
    """What a cluster has, and what the roles ask of it. Raises `ClusterError` when it can't be asked, `DemandError`
    when it can't hold them."""
    if ray.is_initialized():
        raise ClusterError("this process is connected to a Ray already")
    if address == "auto":  # whichever cluster Ray finds on this machine
        raise ClusterError("set RAY_ADDRESS to the cluster that is meant; `ray job submit` does")
    with patience(f"asking the cluster at {address}"):
        try:
            cluster.connect(cfg)
            found = dict(ray.cluster_resources())
            asked = needs(found)
            cluster.check(asked, cfg=cfg)
            return found, asked
        finally:
            cluster.disconnect()


def as_comments(lines: Sequence[str]) -> str:
    """Lines as comments below a configuration in YAML."""
    return "".join(f"# {line}\n" for line in lines)
