"""`raytensor train` as a job of a two-node cluster, one node killed in the middle: the job continues on the other."""

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
# A dead node is noticed in seconds; Ray's own defaults take half a minute.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "3",
    # Of the group of two that Ray Train tries once more, while the node that died still counts; else a minute.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",
}


@pytest.fixture
def nodes(tmp_path):
    """A head and one more node of one CPU each: (dashboard's address, environment, the second node's process)."""
    token = "7" * 64
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = environment() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PATH": path} | HEALTH
    port, dashboard, agent = free_port(), free_port(), free_port()
    common = ["--block", "--num-cpus", "1", "--node-ip-address", "127.0.0.1"]
    head = [
        RAY,
        "start",
        "--head",
        *common,
        "--port",
        str(port),
        "--dashboard-port",
        str(dashboard),
        "--dashboard-agent-listen-port",
        str(agent),
    ]
    processes = []

    def start(command: list[str], name: str) -> subprocess.Popen:
        with (tmp_path / f"{name}.log").open("wb") as log:
            processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True))
        return processes[-1]

    try:
        first = start(head, "head")
        for where, path in ((dashboard, "/api/version"), (agent, "/api/local_raylet_healthz")):
            wait_until_served(f"http://127.0.0.1:{where}{path}", token, first, tmp_path / "head.log")
        second_agent = free_port()  # one after the other: side by side they take each other's ports
        second = start(
            [
                RAY,
                "start",
                "--address",
                f"127.0.0.1:{port}",
                *common,
                "--dashboard-agent-listen-port",
                str(second_agent),
            ],
            "second",
        )
        wait_until_served(
            f"http://127.0.0.1:{second_agent}/api/local_raylet_healthz", token, second, tmp_path / "second.log"
        )
        yield f"http://127.0.0.1:{dashboard}", env, second
    finally:
        for process in reversed(processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:  # a head that drains waits for half a minute, for nobody
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_node_dies_and_the_training_goes_on(nodes, tmp_path):
    address, env, second = nodes
    steps = 120
    # Without --working-dir, from the checkout that both nodes see: two nodes of one machine share the folder of Ray's
    # copy, and one node deletes it while the other still imports from it.
    command = [
        RAY,
        "job",
        "submit",
        "--address",
        address,
        "--",
        "python",
        str(ROOT / "jobs" / "train.py"),
        "cluster=laptop",
        "name=job",
    ]
    command += [
        f"paths.runs={tmp_path}/runs",
        f"paths.cache={os.environ['TEXT_CACHE']}",
        "data.tokenizer=bytes",
        "data.max_documents=300",
    ]
    command += [
        "training.engine=ddp",
        "training.ranks=2",
        "training.min_ranks=1",
        "training.cpus_per_rank=0.8",
        f"training.steps={steps}",
    ]
    command += [
        "training.seq_len=32",
        "training.batch_size=4",
        "training.checkpoint_every=10",
        "training.log_every=10",
        "training.heldout_rows=16",
    ]
    log = (tmp_path / "job.log").open("w")
    job = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log, text=True)
    progress = tmp_path / "runs" / "job" / "training.jsonl"

    def lines() -> list[dict]:
        return [json.loads(line) for line in progress.read_text().splitlines()] if progress.exists() else []

    end = time.monotonic() + 300
    while not any(line.get("step", 0) >= 30 for line in lines()):
        assert job.poll() is None and time.monotonic() < end, (tmp_path / "job.log").read_text()
        time.sleep(0.1)
    assert [line["ranks"] for line in lines() if "pids" in line] == [2]  # one on each node: neither has room for two
    os.killpg(second.pid, signal.SIGKILL)
    # The command's own tail of the log may have gone with the node: the run folder says how it went.
    summary_file, end = tmp_path / "runs" / "job" / "summary.json", time.monotonic() + 400
    while not summary_file.exists():
        assert time.monotonic() < end, (tmp_path / "job.log").read_text()
        time.sleep(0.5)
    try:
        job.wait(timeout=120)
    except subprocess.TimeoutExpired:
        job.terminate()
    starts = [line for line in lines() if "pids" in line]
    assert starts[0]["ranks"] == 2 and starts[-1]["ranks"] == 1, (tmp_path / "job.log").read_text()
    steps_seen = [line["step"] for line in lines() if "step" in line]
    again = (
        steps_seen[[i for i in range(1, len(steps_seen)) if steps_seen[i] <= steps_seen[i - 1]][0]]
        if sorted(set(steps_seen)) != steps_seen
        else None
    )
    assert steps_seen[-1] == steps and (again is None or again > 10)  # from a checkpoint, not from the start
    summary = json.loads(summary_file.read_text())
    assert summary["stopped"] == "finished" and summary["steps"] == steps
