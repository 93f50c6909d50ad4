"""Signed and verified questions per second between two processes, beside other wires with the same payload.

    python jobs/bench/wire.py [--bittensor10-python PATH] [--taowire-python PATH]
                              [--seconds 5] [--rounds 3] [--workers 32]

Each wire runs a server process and a client process on loopback, in turn in each round, so that other load on the
machine affects all alike. Every request is signed anew and verified; every answer is compared with that of the miner.
The table shows medians over the rounds: questions per second, and CPU time of both processes per question, which
depends little on other load. Wires without an interpreter are listed as not run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "wire_peers"
START_TIMEOUT_S = 60.0


@dataclass
class Wire:
    """A wire, how to start it, and what each round measured."""

    name: str
    python: str | None
    script: str
    serve_args: list[str] = field(default_factory=list)
    ask_args: list[str] = field(default_factory=list)
    workers: int | None = None  # None: as many as the others
    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    failed: int = 0
    why: str = ""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (fields 14 and 15 of /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(wire: Wire, payload: str, seconds: float, workers: int) -> None:
    """One round of one wire."""
    assert wire.python is not None
    script = str(PEERS / wire.script)
    server = subprocess.Popen(
        [wire.python, script, "serve", payload, *wire.serve_args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None and server.stdin is not None
        line = server.stdout.readline()
        while line and not line.startswith("{"):
            line = server.stdout.readline()
        if not line:
            raise SystemExit(f"{wire.name}: the server did not start: {' '.join(map(str, server.args))}")
        before = cpu_seconds(server.pid)
        client = subprocess.run(
            [
                wire.python,
                script,
                "ask",
                payload,
                str(json.loads(line)["port"]),
                str(seconds),
                str(workers),
                *wire.ask_args,
            ],
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S + 4 * seconds,
        )
        if client.returncode:
            raise SystemExit(f"{wire.name}: the client failed:\n{client.stderr[-2000:]}")
        result = json.loads(client.stdout.splitlines()[-1])
        done = result["answered"] + result["failed"]
        server_cpu_s = (cpu_seconds(server.pid) - before) * done / (done + 10)  # ten questions warm up
        wire.rates.append(result["answered"] / result["seconds"])
        wire.cpu_ms.append(1000 * (result["cpu_s"] + server_cpu_s) / max(1, result["answered"]))
        wire.failed += result["failed"]
        wire.why = result["why"] or wire.why
    finally:
        server.stdin.close()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bittensor10-python", help="a Python with bittensor 10.5")
    parser.add_argument("--taowire-python", help="a Python with taowire 0.1.0a2")
    parser.add_argument("--seconds", type=float, default=5.0, help="per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=32, help="questions on their way at once")
    args = parser.parse_args()

    goals = []
    for payload in ("small", "run"):
        ours = Wire("raytensor", sys.executable, "raytensor_peer.py")
        ten = args.bittensor10_python
        wires = [
            ours,
            Wire("raytensor, JSON", sys.executable, "raytensor_peer.py", ask_args=["json:btauth"]),
            Wire("raytensor, as axon v10", sys.executable, "raytensor_peer.py", ["axon_v10"], ["json:axon_v10"]),
            Wire("bittensor 10 axon/dendrite", ten, "bittensor10_peer.py"),
            Wire("bittensor 10, one at a time", ten, "bittensor10_peer.py", workers=1),
            Wire("taowire", args.taowire_python, "taowire_peer.py"),
        ]
        running = [wire for wire in wires if wire.python]
        for _ in range(args.rounds):
            for wire in running:
                measure(wire, payload, args.seconds, wire.workers or args.workers)
        rows, width, top_k = {"small": (1, 16, 16), "run": (48, 40, 128)}[payload]
        print(
            f"\n{payload}: {rows} x {width} tokens asked, {rows} x {top_k} answered; {args.workers} at once, "
            f"{args.rounds} rounds of {args.seconds:g} s"
        )
        print(f"{'':30}{'questions/s':>12}{'min':>8}{'max':>8}{'cpu ms each':>13}{'failed':>8}")
        for wire in wires:
            if not wire.python:
                print(f"{wire.name:30}{'not run: no interpreter given':>41}")
                continue
            rate, cpu_ms = statistics.median(wire.rates), statistics.median(wire.cpu_ms)
            print(
                f"{wire.name:30}{rate:12.0f}{min(wire.rates):8.0f}{max(wire.rates):8.0f}"
                f"{cpu_ms:13.2f}{wire.failed:8}  {wire.why}"
            )
        rate, cpu_ms = statistics.median(ours.rates), statistics.median(ours.cpu_ms)
        goals.append(
            {
                "name": f"{payload}: raytensor",
                "value": round(rate),
                "unit": "questions/s",
                "goal": None,
                "ok": ours.failed == 0,
            }
        )
        if payload == "run":
            told = round(statistics.median(wires[1].rates))
            row = {"name": "run: raytensor, JSON", "value": told, "unit": "questions/s", "goal": 1000}
            goals.append({**row, "ok": told >= 1000 and wires[1].failed == 0})
        for label, others in (("the dendrite", wires[3:5]), ("taowire", wires[5:])):
            measured = [wire for wire in others if wire.rates]
            if not measured:
                continue
            best = max(measured, key=lambda wire: statistics.median(wire.rates))
            goal = 5.0 if label == "the dendrite" else None
            times = rate / statistics.median(best.rates)
            goals.append(
                {
                    "name": f"{payload}: times {label}",
                    "value": round(times, 2),
                    "unit": "x",
                    "goal": goal,
                    "ok": goal is None or times >= goal,
                }
            )
            cpu_times = statistics.median(best.cpu_ms) / cpu_ms
            goals.append(
                {
                    "name": f"{payload}: times {label}, by processor time",
                    "value": round(cpu_times, 2),
                    "unit": "x",
                    "goal": None,
                    "ok": True,
                }
            )
    load, python = os.getloadavg()[0], platform.python_version()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, Python {python}"
    print()
    print(json.dumps({"bench": "wire", "machine": machine, "goals": goals}))


if __name__ == "__main__":
    main()
