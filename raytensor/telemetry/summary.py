"""summary.json: the outcome of a run in one object, for programs.

In: the `History` of a run and what the caller knows beyond it. Out: plain containers that are valid JSON.
Knows nothing of Ray, torch or the chain; versions are read from the installed packages.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from raytensor.telemetry.history import PARTS, History

PACKAGES = ("raytensor", "ray", "torch", "transformers", "tokenizers", "datasets", "numpy", "substrate-interface")


def build_summary(
    history: History,
    *,
    name: str | None = None,
    heldout: Mapping[str, float] | None = None,
    machine: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The summary of a run, finished or not.

    name      of the run; the one of its events when not given.
    heldout   {miner hotkey: held-out loss, nats per token} measured at the end; without it `heldout_loss` is the
              newest moving average of the losses that the validators saw, on held-out text as well.
    machine, versions   of the run; those of this process when not given.

    Keys: name, rounds (played), rounds_planned, netuid, seed, wall_s, stopped (why; null while running or killed),
    chain {endpoint, spec_version, tempo, last_block, epochs}, extrinsics {submitted, included, failed},
    neurons [{uid, hotkey, name, role, behaviour, standing (in the mechanism's word, as "king"; "" for none), heldout_loss,
    score, weight, incentive, dividends, emission_rao}],
    responses, failures {reason: number}, time_s {part: seconds}, time_share {part: of the rounds' wall time},
    machine, versions. A number that is unknown or not finite is null.
    """
    rows = history.rows()
    neurons = []
    for row in rows:
        loss = heldout.get(row.hotkey, row.loss) if heldout is not None else row.loss
        neurons.append(
            {
                "uid": row.uid,
                "hotkey": row.hotkey,
                "name": row.name,
                "role": row.role,
                "behaviour": row.behaviour,
                "standing": row.standing,
                "heldout_loss": _finite(loss),
                "score": _finite(row.score),
                "weight": _finite(row.weight),
                "incentive": _finite(row.incentive),
                "dividends": _finite(row.dividends),
                "emission_rao": row.emission_rao,
            }
        )
    failures: dict[str, int] = {}
    for event in history.rounds:
        for reason, count in event.failures.items():
            failures[str(reason)] = failures.get(str(reason), 0) + int(count)
    times = history.time_s()
    in_rounds = math.fsum(event.wall_s for event in history.rounds)
    return {
        "name": name or history.name,
        "rounds": len(history.rounds),
        "rounds_planned": history.rounds_planned,
        "netuid": history.netuid,
        "seed": history.seed,
        "wall_s": round(history.wall_s, 3),
        "stopped": history.stopped,
        "chain": {
            "endpoint": history.endpoint,
            "spec_version": history.spec_version,
            "tempo": history.tempo,
            "last_block": history.block,
            "epochs": len(history.epochs),
        },
        "extrinsics": history.counts(),
        "neurons": neurons,
        "responses": sum(event.scored for event in history.rounds),
        "failures": failures,
        "time_s": {part: round(seconds, 3) for part, seconds in times.items()},
        "time_share": {part: round(times[part] / in_rounds, 4) if in_rounds > 0 else None for part in PARTS},
        "machine": dict(machine if machine is not None else this_machine()),
        "versions": dict(versions if versions is not None else this_versions()),
    }


def this_machine() -> dict[str, Any]:
    """What this process runs on: system, processor, cores it may use, bytes of memory, names of NVIDIA devices."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpus(),
    }


def this_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run's numbers depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "raytensor" not in found:  # run from a checkout that is not installed
        from raytensor import __version__

        found["raytensor"] = __version__
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    names = []
    for info in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in info.read_text().splitlines():
            if line.startswith("Model:"):
                names.append(line.partition(":")[2].strip())
    return names


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
