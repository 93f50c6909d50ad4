"""Ray start-up and shutdown, and refusals that say what was asked, what is free and what to change.

In: the `cluster` section of the configuration. Out: a connected Ray driver, and reservations that either hold or raise.
Knows nothing of miners, validators or the chain.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from raytensor.config import Cluster
from raytensor.errors import ClusterError


@dataclass(frozen=True)
class Need:
    """What one role asks of the cluster: `count` bundles of `cpus` and `gpus` each."""

    role: str
    count: int
    cpus: float
    gpus: float = 0.0


def connect(cfg: Cluster) -> bool:
    """Join the cluster that `cfg.address` or RAY_ADDRESS names, else start a local Ray; True when it was started here.

    Raises `ClusterError` when the cluster can't be reached or can't be started.
    """
    # Quiet workers: their output belongs in Ray's log files, and usage statistics are the user's own business.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = cfg.address or os.environ.get("RAY_ADDRESS")
    if address == "auto":  # the cluster that a job was submitted to, not another one that also runs on this machine
        address = os.environ.get("RAY_ADDRESS", address)
    common: dict[str, Any] = {"namespace": "raytensor", "log_to_driver": False, "logging_level": logging.ERROR}
    # Inherited by the workers of a local Ray. A CPU actor that may use all cores makes small models slower, not faster.
    os.environ.setdefault("OMP_NUM_THREADS", str(cfg.torch_threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        if address:
            ray.init(address=address, **common)
            return False
        ray.init(
            address="local",
            num_cpus=cfg.num_cpus or max(2, os.cpu_count() or 1),
            num_gpus=cfg.num_gpus,
            include_dashboard=False,
            **common,
        )
        return True
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = f"at {address}" if address else "on this machine"
        hint = (
            "check that `ray start --head` runs there and that RAY_AUTH_MODE=token is exported on both sides"
            if address
            else "look into /tmp/ray/session_latest/logs, and check the free memory and disk"
        )
        raise ClusterError(f"could not reach a Ray cluster {where}: {_first_line(error)}\n  fix: {hint}") from error


def disconnect() -> None:
    """Leave the cluster; a local one ends with all its processes."""
    if ray.is_initialized():
        ray.shutdown()


# The settings of `raytensor run` that decide what it needs.
RUN_SETTINGS = (
    "miners.num_hosts, miners.cpus_per_host, miners.gpus_per_host, ranks, cpus_per_rank and gpus_per_rank of "
    "miners.profiles, validators.num_scorers, validators.cpus_per_scorer"
)


def check(needs: Iterable[Need], settings: str = RUN_SETTINGS) -> None:
    """Refuse what the cluster could never hold, role by role, before anything starts.

    settings  what to change, by the names of the configuration.
    """
    needs = list(needs)
    total = ray.cluster_resources()
    asked = {"CPU": sum(need.count * need.cpus for need in needs), "GPU": sum(need.count * need.gpus for need in needs)}
    for resource, amount in asked.items():
        there = total.get(resource, 0.0)
        if amount > there + 1e-9:
            raise ClusterError(
                f"the run needs {amount:g} {resource}s and the cluster has {there:g}\n{bill(needs)}\n"
                f"  fix: fewer actors or a smaller share each ({settings}), or a larger cluster"
            )


def bill(needs: Iterable[Need]) -> str:
    """The resources per role as lines of text."""
    return "\n".join(
        f"  {need.role:<12} {need.count} x {need.cpus:g} CPU" + (f" + {need.gpus:g} GPU" if need.gpus else "")
        for need in needs
    )


def reserve(name: str, bundles: list[dict[str, float]], *, strategy: str = "PACK", timeout_s: float) -> PlacementGroup:
    """A placement group that is ready, or a `ClusterError` that says asked, free and total; nothing is left behind then."""
    group = placement_group(bundles, strategy=strategy, name=name)
    try:
        ray.get(group.ready(), timeout=timeout_s)
    except GetTimeoutError as error:
        remove_placement_group(group)
        free, total = ray.available_resources(), ray.cluster_resources()
        shown = {key: f"{free.get(key, 0):g} free of {total.get(key, 0):g}" for key in ("CPU", "GPU")}
        raise ClusterError(
            f"{name}: no room for {bundles} ({strategy}) within {timeout_s:.0f} s; CPU {shown['CPU']}, GPU {shown['GPU']}"
        ) from error
    return group


def release(group: PlacementGroup) -> None:
    """Remove a placement group; the actors in it end."""
    remove_placement_group(group)


def wait_ready(refs: dict[str, Any], *, timeout_s: float) -> None:
    """Wait until named actors answered their first call; says who did not, and what the cluster has free."""
    pending = dict(refs)
    ready, _ = ray.wait(list(pending.values()), num_returns=len(pending), timeout=timeout_s)
    late = [name for name, ref in pending.items() if ref not in ready]
    if late:
        raise ClusterError(
            f"{', '.join(late)} did not start within {timeout_s:.0f} s; free: {ray.available_resources().get('CPU', 0):g} CPUs\n"
            f"  fix: raise cluster.start_timeout_s, or ask for less"
        )
    for name, ref in refs.items():
        try:
            ray.get(ref, timeout=5)
        except ray.exceptions.RayError as error:
            raise ClusterError(f"{name} failed to start: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return re.sub(r"^raytensor\.errors\.\w+: ", "", text.splitlines()[-1].strip()) if text else type(error).__name__
