"""summary.json: the outcome of a run in one object, for programs.

In: the `History` of a run and what the caller knows beyond it. Out: plain containers that are valid JSON.
Knows nothing of Ray, torch or the chain; versions are read from the installed packages.
"""

import dataclasses
import math
import os
import platform
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from raytensor import __version__
from raytensor.telemetry.history import PARTS, History
from raytensor.telemetry.unpaid import why_nothing_was_paid, why_unpaid

PACKAGES = ("raytensor", "ray", "torch", "transformers", "tokenizers", "datasets", "numpy", "substrate-interface")
# Parts of a run folder: how the names of their files and folders begin, and the setting that bounds them.
DISK_PARTS = {
    "checkpoints": (("checkpoints",), "miners.checkpoint_every"),
    "evidence": (("evidence",), "validators.evidence_segments"),
    "chain": (("chain", "journal", "leases"), "rounds"),
}
REPORTS = ("report.html", "summary.json", "neurons.csv", "rounds.csv", "mechanism.csv")  # not counted: made at the end


def build_summary(
    history: History,
    *,
    name: str | None = None,
    heldout: Mapping[str, float | None] | None = None,
    machine: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    disk_bytes: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The summary of a run, finished or not.

    name        of the run; that of its events when not given.
    heldout     {miner hotkey: held-out loss, nats per token}: measured at the end, on the same held-out texts for all.
    machine, versions   of the run; those of this process when not given.
    disk_bytes  {part of the run folder: bytes}, see `disk_use`.

    Keys: name, rounds (played), rounds_planned, netuid, seed, wall_s, stopped (why; null while running or killed),
    chain {endpoint, spec_version, tempo, last_block, epochs}, extrinsics {submitted, included, failed}, fees_rao {call:
    rao of TAO, of the chain writer}, setup_rao {what: rao of TAO, see `NetworkUp`}, unpaid (why no miner earned
    anything; "" when one did), neurons [the fields of `history.Row`, heldout_loss, and unpaid: why a miner earned
    nothing], responses, failures {reason: number}, time_s {part: seconds}, time_share {part: of the rounds' wall time},
    disk_bytes, machine, versions. A number that is unknown or not finite is null.

    `loss` is what the validators' scores say (`history.Row.loss`), `heldout_loss` what was measured at the end.
    """
    reasons = why_unpaid(history)
    neurons = []
    for row in history.rows():
        measured = (heldout or {}).get(row.hotkey)
        measured = float(measured) if measured is not None and math.isfinite(measured) else None
        neurons.append(dataclasses.asdict(row) | {"heldout_loss": measured, "unpaid": reasons.get(row.hotkey, "")})
    failures: Counter[str] = Counter()
    for event in history.rounds:
        failures.update({str(reason): int(count) for reason, count in event.failures.items()})
    chain = {"endpoint": history.endpoint, "spec_version": history.spec_version, "tempo": history.tempo}
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
        "chain": chain | {"last_block": history.block, "epochs": len(history.epochs)},
        "extrinsics": history.counts(),
        "fees_rao": dict(history.fees_rao),
        "setup_rao": dict(history.setup_rao),
        "unpaid": why_nothing_was_paid(history),
        "neurons": neurons,
        "responses": sum(event.scored for event in history.rounds),
        "failures": dict(failures),
        "time_s": {part: round(seconds, 3) for part, seconds in times.items()},
        "time_share": {part: round(times[part] / in_rounds, 4) if in_rounds > 0 else None for part in PARTS},
        "disk_bytes": dict(disk_bytes or {}),
        "machine": dict(machine if machine is not None else this_machine()),
        "versions": dict(versions if versions is not None else this_versions()),
    }


def disk_use(folder: Path) -> dict[str, int]:
    """{part: bytes} of a run folder's files: `DISK_PARTS`, "other", and "total". Without the report's files."""
    used = dict.fromkeys([*DISK_PARTS, "other"], 0)
    for path in folder.rglob("*"):
        top = path.relative_to(folder).parts[0]
        if top in REPORTS or path.is_symlink() or path.is_dir():
            continue
        part = next((name for name, (starts, _) in DISK_PARTS.items() if top.startswith(starts)), "other")
        try:
            used[part] += path.stat().st_size
        except FileNotFoundError:  # a running job has removed it
            continue
    return used | {"total": sum(used.values())}


def disk_sentence(disk_bytes: Mapping[str, int]) -> str:
    """The disk that a run uses, largest part first, each with the setting that bounds it; "" where it is not known."""
    if not disk_bytes.get("total"):
        return ""
    parts = sorted((name for name in DISK_PARTS if disk_bytes.get(name)), key=lambda name: -disk_bytes[name])
    sizes = [f"{name} {_megabytes(disk_bytes[name])} ({DISK_PARTS[name][1]})" for name in parts]
    sizes.append(f"other {_megabytes(disk_bytes.get('other', 0))}")
    return f"{_megabytes(disk_bytes['total'])}: {', '.join(sizes)}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB" if count >= 9.5e6 else f"{count / 1e6:.1f} MB"


def this_machine() -> dict[str, Any]:
    """What this process runs on: system, processor, cores it may use, bytes of memory, names of NVIDIA devices."""
    gpus = Path("/proc/driver/nvidia/gpus").glob("*/information")
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),  # Linux only
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [name for file in sorted(gpus) for name in _fields(file, "Model:")],
    }


def this_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run's numbers depend on, as far as they are installed."""
    found = {"raytensor": __version__, "python": platform.python_version()}  # a checkout need not be installed
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _processor() -> str:
    names = _fields(Path("/proc/cpuinfo"), "model name")
    return names[0] if names else platform.processor() or platform.machine()


def _fields(path: Path, start: str) -> list[str]:
    """The values of the "name: value" lines that begin with `start`; [] for a file that can't be read."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(start)]
