"""The same network as a job of a Ray cluster with token authentication, by the commands of the README."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from test_run import ROOT, SMALL, environment

# Below the ports that the kernel gives to whoever asks for any, above those of Ray's workers; each worker of the tests
# begins elsewhere. So nobody takes one between the look and its use.
_ports = itertools.cycle(range(21_000, 32_000))
_ports = itertools.islice(_ports, os.getpid() * 97 % 11_000, None)


def free_port() -> int:
    for port in _ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError


@pytest.fixture
def head(tmp_path):
    """A `ray start --head` on ports of its own: (address of its dashboard, environment of its clients)."""
    token = "7" * 64
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # `python` of the job is this one
    env = environment() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PATH": path}
    ray, dashboard, agent = str(Path(sys.executable).parent / "ray"), free_port(), free_port()
    command = [
        ray,
        "start",
        "--head",
        "--block",
        "--num-cpus",
        "4",
        "--node-ip-address",
        "127.0.0.1",
        "--port",
        str(free_port()),
    ]
    command += ["--dashboard-port", str(dashboard), "--dashboard-agent-listen-port", str(agent)]
    with (tmp_path / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        for port, path in ((dashboard, "/api/version"), (agent, "/api/local_raylet_healthz")):
            wait_until_served(f"http://127.0.0.1:{port}{path}", token, process, tmp_path / "head.log")
        yield address, env
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def wait_until_served(url: str, token: str, process: subprocess.Popen, log: Path, timeout_s: float = 240) -> None:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    end = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            assert process.poll() is None and time.monotonic() < end, f"{url}: {error}\n{log.read_text()}"
            time.sleep(0.3)


def test_the_network_as_a_submitted_job(head, tmp_path):
    address, env = head
    checkout = tmp_path / "checkout"
    for part in ("raytensor", "conf", "jobs"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        str(Path(sys.executable).parent / "ray"),
        "job",
        "submit",
        "--address",
        address,
        "--working-dir",
        ".",
        "--",
    ]
    command += [
        "python",
        "jobs/run.py",
        "cluster=laptop",
        "name=job",
        f"paths.runs={tmp_path}/runs",
        f"paths.cache={os.environ['TEXT_CACHE']}",
    ]
    command += [part for part in SMALL if not part.startswith(("rounds=", "cluster."))]
    done = subprocess.run([*command, "rounds=2"], cwd=checkout, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "joined the Ray cluster" in done.stdout and "succeeded" in done.stdout + done.stderr
    summary = json.loads((tmp_path / "runs" / "job" / "summary.json").read_text())
    assert summary["rounds"] == 2 and summary["extrinsics"]["failed"] == 0

    # Without the token the cluster lets nobody submit.
    stranger = {key: value for key, value in env.items() if key != "RAY_AUTH_TOKEN"} | {"RAY_AUTH_TOKEN": "8" * 64}
    refused = subprocess.run(
        [*command, "rounds=2"], cwd=checkout, env=stranger, capture_output=True, text=True, timeout=240
    )
    assert refused.returncode != 0 and not (tmp_path / "runs" / "job-2").exists()
