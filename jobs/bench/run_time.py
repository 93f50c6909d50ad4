"""Seconds of `raytensor run` to its first line, its first round and its end, for several checkouts side by side.

    python jobs/bench/run_time.py OLD_CHECKOUT . --repeats 3

The checkouts take turns, so that other load on the machine affects all alike; medians are shown. Each run is the
command as a user types it, without settings, in a new folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIRST_ROUND = re.compile(r"round\s+1\b")
PARTS = ("first line", "first round", "whole run")


def once(checkout: Path) -> tuple[float, float, float]:
    """Seconds to the first line, to the line of the first round, and to the end."""
    env = os.environ | {"PYTHONPATH": str(checkout), "PYTHONUNBUFFERED": "1", "COLUMNS": "120", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "raytensor", "run"]
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        seen: list[float] = []
        for line in process.stdout:
            if not seen or (len(seen) == 1 and FIRST_ROUND.search(line)):
                seen.append(time.monotonic() - began)
        if process.wait() != 0 or len(seen) < 2:
            raise SystemExit(f"{checkout}: the run ended with status {process.returncode}")
        return seen[0], seen[1], time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", type=Path, help="folders that hold the package")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default 3)")
    args = parser.parse_args()
    found: dict[Path, list[tuple[float, float, float]]] = {one.resolve(): [] for one in args.checkouts}
    for number in range(args.repeats):
        for checkout, runs in found.items():
            runs.append(once(checkout))
            print(f"{number + 1}/{args.repeats} {checkout}: " + ", ".join(f"{s:.1f} s" for s in runs[-1]), flush=True)
    result = {}
    for checkout, runs in found.items():
        result[str(checkout)] = {part: statistics.median(times) for part, times in zip(PARTS, zip(*runs), strict=True)}
        print(f"{checkout}: " + ", ".join(f"{part} {s:.2f} s" for part, s in result[str(checkout)].items()))
    print(json.dumps({"machine": f"{platform.machine()}, {os.cpu_count()} cores", "medians_s": result}))


if __name__ == "__main__":
    main()
