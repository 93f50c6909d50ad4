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
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from raytensor.config import Cluster
from raytensor.errors import ClusterError, DemandError, cause_of
from raytensor.types import Need, size_of

RESOURCES = ("CPU", "GPU")
COUNTED = (*RESOURCES, "memory")
OVERCOMMIT = "; or cluster.overcommit=true to start anyway"
PROGRESS_S = 3.0  # of waiting, between two looks at what is missing
REMIND_S = 60.0  # until the same line is said again
_HELD: deque[socket.socket] = deque(maxlen=256)  # of `reserve_port`; older ones are in use, or given up
# Memory of GPUs in GiB by the start of Ray's `accelerator_type`; of a type with several sizes the largest.
GPU_GIB = {
    "H100": 80,
    "H200": 141,
    "H20": 96,
    "B200": 180,
    "A100-40G": 40,
    "A100": 80,
    "A10G": 24,
    "A10": 24,
    "L40S": 48,
    "L40": 48,
    "L4": 24,
    "T4": 16,
    "V100": 32,
    "RTX-PRO-6000": 96,
}
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
    """CPUs, GPUs, and bytes of memory that a local Ray will offer."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = list(Path("/dev").glob("nvidia[0-9]*"))
    gpus = len(present if chosen is None else [part for part in chosen.split(",") if part])
    gpus = gpus if cfg.num_gpus is None else cfg.num_gpus
    return {"CPU": float(cfg.num_cpus or max(2, os.cpu_count() or 1)), "GPU": float(gpus), "memory": _host_memory()}


def _host_memory() -> float:
    """Bytes of this machine's memory, or of the container's limit."""
    found = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(float(Path(path).read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            pass
    return min(found)


def _gpu_memory(cfg: Cluster, nodes: Sequence[Mapping[str, float]], *, local: bool) -> float | None:
    """Bytes of the largest GPU; None where it is unknown."""
    if cfg.gpu_memory_gib is not None:
        return cfg.gpu_memory_gib * 2**30
    prefix = "accelerator_type:"
    types = [name.removeprefix(prefix) for node in nodes for name in node if name.startswith(prefix)]
    known = [gib for of in types for name, gib in GPU_GIB.items() if of.startswith(name)]
    if not known and local and any(node.get("GPU") for node in nodes):
        command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.split()
            known = [float(mib) / 1024 for mib in found]
        except (OSError, subprocess.SubprocessError, ValueError):
            return None
    return max(known) * 2**30 if known else None


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
    """CPUs, GPUs and bytes of memory of all roles together."""
    needs = list(needs)
    return {resource: sum(need.count * need.of(resource) for need in needs) for resource in COUNTED}


def check(
    needs: Iterable[Need],
    resources: Mapping[str, float] | None = None,
    cfg: Cluster = Cluster(),
    *,
    local: bool = False,
) -> None:
    """Refuse what the cluster could never hold, before anything starts.

    resources  what there is, as `local_resources` gives it; None: asks the connected cluster, its nodes too.
    local      whether the cluster is this machine.

    Raises `DemandError` that says asked, what there is, what is free, and the settings to change.
    """
    needs = [need for need in needs if need.count]
    joined = resources is None
    total = ray.cluster_resources() if resources is None else resources
    free = ray.available_resources() if joined else total
    nodes = [_with_object_store(node["Resources"]) for node in ray.nodes() if node["Alive"]] if joined else [total]
    total = dict(total) | {"memory": sum(node["memory"] for node in nodes)} if joined else total
    if not cfg.overcommit:
        _check_gpu_memory(needs, _gpu_memory(cfg, nodes, local=local or cfg.address is None))
    if cfg.autoscaled:
        return
    counted = [resource for resource in COUNTED if resource != "memory" or (not cfg.overcommit and resource in total)]
    for resource in counted:
        asked, there = totals(needs)[resource], total.get(resource, 0.0)
        if asked > there + 1e-9:
            what = f"the settings ask for {_amount(asked, resource)} and the cluster has {_there(there, resource)}"
            _refuse(what, needs, resource, free)
    for need in needs:
        for resource in counted:
            largest = max((node.get(resource, 0.0) for node in nodes), default=0.0)
            each = need.of(resource)
            if each > largest + 1e-9:
                there = _there(largest, resource)
                what = f"{need.role} ask for {_amount(each, resource)} each and the largest node has {there}"
                _refuse(what, [need], resource, free)
        asks = [resource for resource in counted if need.of(resource)]
        room = [int(min(node.get(of, 0.0) / need.of(of) + 1e-9 for of in asks)) for node in nodes] if asks else []
        if asks and sum(room) < need.count:
            what = f"{need.count} {need.role} of {need.each} each are asked for and the nodes hold {sum(room)}"
            tight = "memory" if "memory" in asks else "GPU" if need.gpus else "CPU"
            _refuse(what, [need], tight, free)


def _with_object_store(resources: Mapping[str, float]) -> dict[str, float]:
    """A node's resources with all its memory: Ray sets a part aside for objects, which take it when there are some."""
    return dict(resources) | {"memory": resources.get("memory", 0.0) + resources.get("object_store_memory", 0.0)}


def _check_gpu_memory(needs: Iterable[Need], there: float | None) -> None:
    """Refuse processes that don't fit their part of a GPU; there: bytes of one GPU, None where it is unknown."""
    for need in needs:
        asked, share = need.of("gpu_memory"), min(1.0, need.gpus)
        if there is not None and asked > there * share:
            what = f"{need.role} need {size_of(asked)} of GPU memory each and have {size_of(there * share)}"
            raise DemandError(f"{what}\n{bill([need])}\n  fix: {need.lower}{OVERCOMMIT}")


def _amount(number: float, resource: str) -> str:
    return f"{size_of(number)} of memory" if resource == "memory" else f"{number:g} {resource}s"


def _there(number: float, resource: str) -> str:
    return size_of(number) if resource == "memory" else f"{number:g}"


def _refuse(what: str, needs: list[Need], resource: str, free: Mapping[str, float]) -> None:
    largest = max(needs, key=lambda need: need.count * need.of(resource))
    lower = largest.settings or f"the number of {largest.role}"
    fix = f"lower {lower}; or take a larger cluster"
    if resource == "memory":
        fix = f"{largest.lower or fix}{OVERCOMMIT}"
    else:
        what += f" ({free.get(resource, 0.0):g} free)"
    raise DemandError(f"{what}\n{bill(needs)}\n  fix: {fix}")


def bill(needs: Iterable[Need]) -> str:
    """The resources per role as lines of text, with the estimated memory where it is known."""
    lines = []
    for need in needs:
        lines.append(f"  {need.role:<12} {need.count} x {need.each}")
        lines += [f"  {'':<12} {line}" for line in str(need.memory).split("; ")] if need.memory else []
    return "\n".join(lines)


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
