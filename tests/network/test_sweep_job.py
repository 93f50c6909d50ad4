"""A sweep as a job of a two-node cluster, by `ray job submit`; one node is killed in the middle, the job goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_job import free_port, wait_until_served
from test_run import ROOT, environment

RAY = str(Path(sys.executable).parent / "ray")
FAST = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
SWEEP = [
    "cluster=laptop",
    "name=job",
    "seed=3",
    "rounds=6",
    "data.tokenizer=bytes",
    "data.max_documents=200",
    "max_concurrent=4",
    "miners.num_hosts=2",
    "miners.cpus_per_host=0.4",
    "miners.heldout_rows=128",
    "profile.hidden=32",
    "profile.layers=1",
    "profile.steps=60",
    "profile.batch_size=4",
    "search=own",
    "+search.space={profile.lr: {loguniform: [1e-4, 2e-2]}}",
    "search.num_trials=8",
    "scheduler.kind=none",
]


def node(env: dict[str, str], log: Path, *args: str) -> subprocess.Popen:
    command = [RAY, "start", "--block", "--num-cpus", "1", "--node-ip-address", "127.0.0.1", *args]
    with log.open("wb") as file:
        return subprocess.Popen(command, env=env, stdout=file, stderr=file, start_new_session=True)


def wait_for(log: Path, words: str, process: subprocess.Popen, timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while words not in log.read_text():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.3)


@pytest.fixture
def two_nodes(tmp_path):
    """(address of the dashboard, environment of clients, process of the second node)."""
    token = "7" * 64
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = environment() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PATH": path} | FAST
    gcs, dashboard, agent = free_port(), free_port(), free_port()
    head = node(
        env,
        tmp_path / "head.log",
        "--head",
        "--port",
        str(gcs),
        "--dashboard-port",
        str(dashboard),
        "--dashboard-agent-listen-port",
        str(agent),
    )
    processes = [head]
    try:
        for port, place in ((dashboard, "/api/version"), (agent, "/api/local_raylet_healthz")):
            wait_until_served(f"http://127.0.0.1:{port}{place}", token, head, tmp_path / "head.log")
        second = node(
            env, tmp_path / "second.log", "--address", f"127.0.0.1:{gcs}"
        )  # one after the other: both look for free ports
        processes.append(second)
        wait_for(tmp_path / "second.log", "Ray runtime started", second)
        yield f"http://127.0.0.1:{dashboard}", env, second
    finally:
        for process in reversed(processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_node_dies_and_the_sweep_goes_on(two_nodes, tmp_path):
    address, env, second = two_nodes
    # The nodes have the package (PYTHONPATH). Two nodes of one machine share Ray's folder for working directories, and
    # the second node to unpack a job's directory deletes the one that the first node uses.
    command = [RAY, "job", "submit", "--address", address, "--", "python", str(ROOT / "jobs" / "sweep.py"), *SWEEP]
    command += [f"paths.runs={tmp_path}/runs", f"paths.cache={os.environ['TEXT_CACHE']}"]
    job = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []
    assert job.stdout is not None
    killed = False
    for line in job.stdout:
        lines.append(line)
        if not killed and sum("held-out" in seen for seen in lines) >= 6:
            os.killpg(second.pid, signal.SIGKILL)
            killed = True
    output = "".join(lines)
    assert job.wait(timeout=60) == 0, output
    assert killed, output
    summary = json.loads((tmp_path / "runs" / "job" / "summary.json").read_text())
    assert len(summary["trials"]) == 8 and all(
        trial["status"] == "finished" and trial["rounds"] == 6 for trial in summary["trials"]
    ), output
