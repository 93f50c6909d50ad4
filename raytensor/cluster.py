"""Ray start-up and shutdown, what roles ask of the cluster, and refusals that say asked, free and the fix.

In: the `cluster` section of the configuration; `Need`s, one per role. Out: a connected Ray driver; reservations that
hold, or a `ClusterError`.
Waits for: Ray, and for actors and placement groups, each with a time-out.
Knows nothing of miners, validators or the chain.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from raytensor.config import Cluster
from raytensor.errors import ClusterError, DemandError, cause_of
from raytensor.types import Need

RESOURCES = ("CPU", "GPU")
PROGRESS_S = 3.0  # of waiting, between two looks at what is missing
REMIND_S = 60.0  # until the same line is said again
_HELD: deque[socket.socket] = deque(maxlen=256)  # of `reserve_port`; older ones are in use, or given up
CONNECT_S = 10.0  # to open a connection to a cluster's address
SHARED_TEMP = (
    "two Ray nodes of one machine share a folder for temporary files, and each deletes what the other uses; start each "
    "node with a --temp-dir of its own, or submit the job without --working-dir"
)
# Part of an error's text at the start of Ray -> the fix.
START_FIXES = {
    "AF_UNIX": "set RAY_TMPDIR to a short path, as RAY_TMPDIR=/tmp: Ray's sockets are in folders below it",
    "authentication": "export RAY_AUTH_MODE=token and the cluster's own RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH)",
    "Permission denied": "set RAY_TMPDIR to a folder that this user can write",
    "No space left": "free disk space, or set RAY_TMPDIR to a disk that has some",
    "getcwd": SHARED_TEMP,
}


def address_of(cfg: Cluster) -> str | None:
    """The cluster that will be joined; None: a local Ray is started."""
    address = cfg.address or os.environ.get("RAY_ADDRESS")
    # "auto": the cluster that a job was submitted to, not another one that also runs on this machine.
    return os.environ.get("RAY_ADDRESS", address) if address == "auto" else address


def local_resources(cfg: Cluster) -> dict[str, float]:
    """CPUs and GPUs that a local Ray will offer."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = list(Path("/dev").glob("nvidia[0-9]*"))
    gpus = len(present if chosen is None else [part for part in chosen.split(",") if part])
    gpus = gpus if cfg.num_gpus is None else cfg.num_gpus
    return {"CPU": float(cfg.num_cpus or max(2, os.cpu_count() or 1)), "GPU": float(gpus)}


def connect(cfg: Cluster) -> bool:
    """Join the cluster that `cfg.address` or RAY_ADDRESS names, else start a local Ray; True when it was started here.

    Signal handlers of this process are the same afterwards; Ray's loggers write where the root logger does.
    Raises `ClusterError` when the cluster can't be reached or started.
    """
    # Quiet workers: their output belongs in Ray's log files, and usage statistics are opt-in.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    common: dict[str, Any] = {"namespace": "raytensor", "log_to_driver": False, "logging_level": logging.ERROR}
    # Inherited by the workers of a local Ray. More threads than CPUs that it booked make a CPU actor slower.
    os.environ.setdefault("OMP_NUM_THREADS", str(cfg.torch_threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    address = address_of(cfg)
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if in_main else {}
    try:
        if address:
            _open_connection(address)
            ray.init(address=address, **common)
        else:
            resources = local_resources(cfg)
            num_cpus, num_gpus = int(resources["CPU"]), cfg.num_gpus
            ray.init(address="local", num_cpus=num_cpus, num_gpus=num_gpus, include_dashboard=False, **common)
    except Exception as error:  # the edge to a foreign start-up: sockets, files, processes, the network
        text = cause_of(error)
        hint = next((fix for part, fix in START_FIXES.items() if part.lower() in str(error).lower()), None)
        if address:
            reach = "check that `ray start --head` runs there and that RAY_AUTH_MODE=token is exported on both sides"
            hint = hint or reach
            raise ClusterError(f"could not reach a Ray cluster at {address}: {text}\n  fix: {hint}") from error
        hint = hint or "look into /tmp/ray/session_latest/logs, and check the free memory and disk"
        raise ClusterError(f"could not start Ray on this machine: {text}\n  fix: {hint}") from error
    finally:
        for number, handler in handlers.items():  # Ray replaces SIGTERM's by one that dumps stacks and exits
            signal.signal(number, handler)
        ray_logger = logging.getLogger("ray")
        ray_logger.handlers.clear()
        ray_logger.propagate = True
    return not address


def _open_connection(address: str) -> None:
    """Raise `OSError` when nothing listens at "host:port" or "ray://host:port": Ray alone tries for five minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


def disconnect() -> None:
    """Leave the cluster; a local one ends with all its processes."""
    if ray.is_initialized():
        ray.shutdown()


def totals(needs: Iterable[Need]) -> dict[str, float]:
    """CPUs and GPUs of all roles together."""
    needs = list(needs)
    return {resource: sum(need.count * need.of(resource) for need in needs) for resource in RESOURCES}


def check(needs: Iterable[Need], resources: Mapping[str, float] | None = None) -> None:
    """Refuse what the cluster could never hold, before anything starts.

    resources  what there is, as `local_resources` gives it; None: asks the connected cluster, its nodes too.

    Raises `DemandError` that says asked, what there is, what is free, and the settings to lower.
    """
    needs = [need for need in needs if need.count]
    joined = resources is None
    total = ray.cluster_resources() if resources is None else resources
    free = ray.available_resources() if joined else total
    for resource, asked in totals(needs).items():
        there = total.get(resource, 0.0)
        if asked > there + 1e-9:
            what = f"the settings ask for {asked:g} {resource}s and the cluster has {there:g}"
            _refuse(what, needs, resource, free.get(resource, 0.0))
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]] if joined else [total]
    for need in needs:
        for resource in RESOURCES:
            largest = max((node.get(resource, 0.0) for node in nodes), default=0.0)
            each = need.of(resource)
            if each > largest + 1e-9:
                what = f"{need.role} ask for {each:g} {resource}s each and the largest node has {largest:g}"
                _refuse(what, [need], resource, free.get(resource, 0.0))


def _refuse(what: str, needs: list[Need], resource: str, free: float) -> None:
    largest = max(needs, key=lambda need: need.count * need.of(resource))
    lower = largest.settings or f"the number of {largest.role}"
    raise DemandError(f"{what} ({free:g} free)\n{bill(needs)}\n  fix: lower {lower}; or take a larger cluster")


def bill(needs: Iterable[Need]) -> str:
    """The resources per role as lines of text."""
    return "\n".join(f"  {need.role:<12} {need.count} x {need.each}" for need in needs)


def reserve(name: str, bundles: list[dict[str, float]], *, strategy: str = "PACK", timeout_s: float) -> PlacementGroup:
    """A placement group that is ready. Raises `ClusterError` that says asked, free and total; nothing is left then."""
    group = placement_group(bundles, strategy=strategy, name=name)
    try:
        ray.get(group.ready(), timeout=timeout_s)
    except GetTimeoutError as error:
        remove_placement_group(group)
        free, total = ray.available_resources(), ray.cluster_resources()
        shown = ", ".join(f"{key} {free.get(key, 0):g} free of {total.get(key, 0):g}" for key in RESOURCES)
        what = f"{name}: no room for {bundles} ({strategy}) within {timeout_s:.0f} s; {shown}"
        fix = "stop other jobs, ask for less, or raise cluster.start_timeout_s"
        raise ClusterError(f"{what}\n  fix: {fix}") from error
    return group


def release(group: PlacementGroup) -> None:
    """Remove a placement group; the actors in it end."""
    remove_placement_group(group)


def wait_ready(
    refs: Mapping[str, Any], *, timeout_s: float, need: Need | None = None, say: Callable[[str], None] | None = None
) -> None:
    """Wait until named actors answered their first call.

    refs  name -> reference of that call.
    need  what one of them asks for, and the settings that decide it.
    say   called with what is waited for and what is free: when that changes, and every `REMIND_S` seconds.

    Raises `ClusterError` that names the actors that are late or failed.
    """
    pending, end, said = dict(refs), time.monotonic() + timeout_s, ("", 0.0)
    while pending:
        left = end - time.monotonic()
        ready, _ = ray.wait(list(pending.values()), num_returns=len(pending), timeout=max(0.0, min(PROGRESS_S, left)))
        pending = {name: ref for name, ref in pending.items() if ref not in ready}
        if not pending:
            break
        free = ray.available_resources()
        shown = ", ".join(f"{free.get(key, 0.0):g} {key}s" for key in RESOURCES if key == "CPU" or (need and need.gpus))
        asked = f" for {need.each} each" if need else ""
        if left <= 0:
            lower = f"lower {need.settings}" if need and need.settings else "ask for less"
            what = f"{', '.join(pending)} did not start within {timeout_s:.0f} s, waiting{asked}; free: {shown}"
            raise ClusterError(f"{what}\n  fix: {lower}, or raise cluster.start_timeout_s")
        line = f"waiting{asked} of {', '.join(pending)}; free: {shown}"
        if say is not None and (line != said[0] or time.monotonic() - said[1] >= REMIND_S):
            said = line, time.monotonic()
            say(line)
    for name, ref in refs.items():
        try:
            ray.get(ref, timeout=5)
        except RayError as error:
            raise ClusterError(f"{name} failed to start: {cause_of(error)}") from error


def reserve_port() -> int:
    """A TCP port for the first rank, which nothing else on this machine is given while this process lives.

    The socket stays bound and never listens. The first rank's store sets SO_REUSEADDR as this does, so it may bind the
    port, in this process or another; the system gives it to nobody who asks for any free port.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("", 0))
    _HELD.append(held)
    return held.getsockname()[1]
