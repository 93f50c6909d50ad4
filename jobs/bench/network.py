"""Benchmark of the first network: one whole `raytensor run`, as a user starts it, watched from outside.

Prints rounds/s, responses scored/s, the share of the rounds' wall time spent training, asking, scoring, on the chain
and idle, memory by process (proportional set size, the peak of each), and what the run must show: wall time, memory,
time to the first line, failed extrinsics, and the rank correlation between held-out loss and incentive.

    python jobs/bench/network.py [overrides of raytensor run ...]
    ray job submit --working-dir . -- python jobs/bench/network.py cluster=laptop
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))


def descendants(root: int) -> dict[int, str]:
    """Process ids below `root`, itself included, with a name each."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        pid = int(entry.name)
        parents[pid] = int(stat.rpartition(")")[2].split()[1])
        names[pid] = name_of(command) or stat[stat.index("(") + 1 : stat.rindex(")")]
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return {pid: names[pid] for pid in found if pid in names}
        found |= more


def name_of(command: str) -> str:
    """A short name for a command line; Ray's workers carry their actor's class in theirs."""
    if command.startswith("ray::"):
        return command.split()[0].partition(".")[0]
    if "raytensor.devnet" in command:
        return "embedded chain"
    for part in (
        "gcs_server",
        "raylet",
        "log_monitor",
        "monitor.py",
        "dashboard/agent",
        "runtime_env/agent",
        "dashboard",
    ):
        if part in command:
            return f"ray {part}"
    return "driver" if "raytensor" in command or "jobs/" in command else command.split(" ")[0].rpartition("/")[2]


def pss_mib(pid: int) -> float:
    """Proportional set size in MiB: shared pages are divided among the processes that share them."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def spearman(a: list[float], b: list[float]) -> float:
    """Rank correlation; equal values share the mean of their ranks."""
    import numpy as np

    def ranks(values: list[float]) -> np.ndarray:
        array = np.asarray(values)
        return np.array([(array < v).sum() + ((array == v).sum() - 1) / 2 for v in array])

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def main(overrides: list[str]) -> int:
    runs = tempfile.mkdtemp(prefix="raytensor-bench-")
    command = [sys.executable, "-m", "raytensor", "run", "name=bench", f"paths.runs={runs}", *overrides]
    print("+", " ".join(["raytensor", *command[3:]]), flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=runs, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    first_line_s, output = None, b""
    peak: dict[str, float] = defaultdict(float)
    peak_total = 0.0
    while True:
        chunk = process.stdout.read()
        if chunk:
            output += chunk
            if first_line_s is None and b"\n" in output:
                first_line_s = time.monotonic() - started
        now: dict[str, float] = defaultdict(float)
        for pid, name in descendants(process.pid).items():
            now[name] += pss_mib(pid)
        for name, mib in now.items():
            peak[name] = max(peak[name], mib)
        peak_total = max(peak_total, sum(now.values()))
        if process.poll() is not None:
            break
        time.sleep(0.1 if first_line_s is None else 1.0)
    wall_s = time.monotonic() - started
    output += process.stdout.read() or b""
    if process.returncode:
        print(output.decode(errors="replace"))
        return process.returncode

    summary = json.loads((Path(runs) / "bench" / "summary.json").read_text())
    rounds_s = sum(summary["time_s"].values())
    honest = [n for n in summary["neurons"] if n["behaviour"] == "honest" and n["heldout_loss"] is not None]
    rho = spearman([-n["heldout_loss"] for n in honest], [n["incentive"] for n in honest])
    print(f"\n{'process':<24} {'peak MiB':>9}")
    for name, mib in sorted(peak.items(), key=lambda item: -item[1]):
        print(f"{name:<24} {mib:9.0f}")
    print(f"{'all together':<24} {peak_total:9.0f}\n")
    print(
        f"{'share of the rounds':<24} "
        + "  ".join(f"{part} {share:.0%}" for part, share in summary["time_share"].items())
    )
    goals = [
        ("rounds_per_s", summary["rounds"] / rounds_s, "1/s", None),
        ("responses_scored_per_s", summary["responses"] / rounds_s, "1/s", None),
        *[(f"share_{part}", share, "of the rounds' wall time", None) for part, share in summary["time_share"].items()],
        ("wall", wall_s, "s", ("<", 180.0)),
        ("memory", peak_total, "MiB", ("<", 6 * 1024.0)),
        ("first_line", first_line_s, "s", ("<", 2.0)),
        ("failed_extrinsics", summary["extrinsics"]["failed"], "", ("<", 1)),
        ("spearman_loss_incentive", rho, "", (">", 0.9 - 1e-12)),
    ]
    rows = []
    for name, value, unit, goal in goals:
        ok = None if goal is None else (value < goal[1] if goal[0] == "<" else value > goal[1])
        rows.append(
            {
                "name": name,
                "value": value,
                "unit": unit,
                "goal": None if goal is None else f"{goal[0]} {goal[1]:g}",
                "ok": ok,
            }
        )
        shown = "" if goal is None else rows[-1]["goal"]
        verdict = "" if ok is None else "ok" if ok else "MISSED"
        print(f"{name:<26} {value:10.3f} {unit:<26} {shown:<8} {verdict}")
    machine = summary["machine"]
    print(json.dumps({"bench": "network", "machine": machine, "goals": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
