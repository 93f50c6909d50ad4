"""Cluster: what can't be had is refused with what was asked, what is there and the fix, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from raytensor import cluster
from raytensor.cluster import Need, check, release, reserve, wait_ready
from raytensor.config import Cluster
from raytensor.errors import ClusterError, DemandError


class Slow:
    def __init__(self, seconds):
        import time

        time.sleep(seconds)

    def ready(self):
        return True


def test_check_refuses_more_than_the_cluster_has(idle_ray):
    chain = Need("chain actor", 1, 0.1)
    check([Need("hosts", 2, 1.0), chain])
    with pytest.raises(DemandError) as refused:
        check([Need("hosts", 8, 1.0, settings="miners.num_hosts or miners.cpus_per_host"), chain])
    assert str(refused.value) == (
        "the settings ask for 8.1 CPUs and the cluster has 4 (4 free)\n"
        "  hosts        8 x 1 CPU\n  chain actor  1 x 0.1 CPU\n"
        "  fix: lower miners.num_hosts or miners.cpus_per_host; or take a larger cluster"
    )
    with pytest.raises(DemandError, match="ask for 128 GPUs and the cluster has 0"):
        check([Need("hosts", 2, 0.5, 64.0)])


def test_check_counts_what_a_local_ray_will_offer():
    offered = cluster.local_resources(Cluster(num_cpus=2, num_gpus=0))
    assert offered.pop("memory") > 2**28 and offered == {"CPU": 2.0, "GPU": 0.0}
    check([Need("hosts", 2, 1.0)], offered)
    with pytest.raises(DemandError, match="ask for 128 CPUs and the cluster has 2 "):
        check([Need("hosts", 2, 64.0)], offered)


def test_reserve_holds_or_says_why_and_leaves_nothing(idle_ray):
    group = reserve("miner-a", [{"CPU": 1}, {"CPU": 1}], timeout_s=120)
    assert idle_ray.available_resources()["CPU"] <= 2.0
    with pytest.raises(ClusterError, match=r"miner-b: no room for .* within 1 s; CPU .* free of 4"):
        reserve("miner-b", [{"CPU": 4}], timeout_s=1)
    release(group)
    release(reserve("miner-c", [{"CPU": 3}], timeout_s=120))  # nothing of miner-b waits in front


def test_wait_ready_names_who_is_late_and_who_failed(idle_ray, monkeypatch):
    monkeypatch.setattr(cluster, "PROGRESS_S", 0.2)  # about twenty looks, which all find the same
    remote = idle_ray.remote(num_cpus=0.1)(Slow)
    slow, lines = remote.remote(600), []
    need = Need("hosts", 1, 0.1, settings="miners.cpus_per_host")
    with pytest.raises(ClusterError) as refused:
        wait_ready({"slow-one": slow.ready.remote()}, timeout_s=4, need=need, say=lines.append)
    assert str(refused.value) == (
        "slow-one did not start within 4 s, waiting for 0.1 CPU each; free: 3.9 CPUs\n"
        "  fix: lower miners.cpus_per_host, or raise cluster.start_timeout_s"
    )
    assert lines.count("waiting for 0.1 CPU each of slow-one; free: 3.9 CPUs") == 1
    idle_ray.kill(slow)
    with pytest.raises(ClusterError, match="broken failed to start"):
        wait_ready({"broken": remote.remote("x").ready.remote()}, timeout_s=240)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_unreachable_cluster_is_refused_at_once_with_the_fix(address):
    """Ray alone tries for minutes."""
    with pytest.raises(ClusterError) as refused:
        cluster.connect(Cluster(address=address))
    assert str(refused.value) == (
        f"could not reach a Ray cluster at {address}: [Errno 111] Connection refused\n"
        "  fix: check that `ray start --head` runs there and that RAY_AUTH_MODE=token is exported on both sides"
    )


def test_a_temporary_folder_too_long_for_sockets_is_one_line_with_the_fix(tmp_path):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "raytensor", "run", "rounds=1", "name=long", f"paths.runs={tmp_path / 'runs'}"]
    found = subprocess.run(
        command,
        env=clean | {"TMPDIR": str(long), "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert found.returncode == 1 and "Traceback" not in found.stdout + found.stderr
    assert "could not start Ray on this machine" in found.stderr and "set RAY_TMPDIR to a short path" in found.stderr
    assert not list(tmp_path.glob("runs/*")), "the name stays free"
