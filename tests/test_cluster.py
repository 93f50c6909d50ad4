"""Cluster: what can't be had is refused with what was asked, what is there and the fix, and nothing is left behind."""

from __future__ import annotations

import pytest

from raytensor import cluster
from raytensor.cluster import Need, check, release, reserve, wait_ready
from raytensor.config import Cluster
from raytensor.errors import ClusterError


class Slow:
    def __init__(self, seconds):
        import time

        time.sleep(seconds)

    def ready(self):
        return True


def test_check_refuses_more_than_the_cluster_has(ray_session):
    check([Need("hosts", 2, 1.0), Need("chain actor", 1, 0.1)])
    with pytest.raises(
        ClusterError, match=r"needs 8.1 CPUs and the cluster has 4\n.*hosts +8 x 1 CPU(.|\n)*fix: fewer actors"
    ):
        check([Need("hosts", 8, 1.0), Need("chain actor", 1, 0.1)])
    with pytest.raises(ClusterError, match="GPUs"):
        check([Need("hosts", 2, 0.5, 64.0)])


def test_reserve_holds_or_says_why_and_leaves_nothing(ray_session):
    group = reserve("miner-a", [{"CPU": 1}, {"CPU": 1}], timeout_s=30)
    assert ray_session.available_resources()["CPU"] <= 2.0
    with pytest.raises(ClusterError, match=r"miner-b: no room for .* within 1 s; CPU .* free of 4"):
        reserve("miner-b", [{"CPU": 4}], timeout_s=1)
    release(group)
    release(reserve("miner-c", [{"CPU": 3}], timeout_s=30))  # nothing of miner-b waits in front


def test_wait_ready_names_who_is_late_and_who_failed(ray_session):
    remote = ray_session.remote(num_cpus=0.1)(Slow)
    with pytest.raises(ClusterError, match="slow-one did not start within 1 s"):
        slow = remote.remote(600)
        wait_ready({"slow-one": slow.ready.remote()}, timeout_s=1)
    ray_session.kill(slow)
    with pytest.raises(ClusterError, match="broken failed to start"):
        wait_ready({"broken": remote.remote("x").ready.remote()}, timeout_s=60)


def test_an_unreachable_cluster_is_refused_with_the_fix(ray_session, monkeypatch):
    # The session is connected already, which Ray refuses: the message must still say what to check.
    with pytest.raises(ClusterError, match=r"at 127\.0\.0\.1:1(.|\n)*fix: check that `ray start --head` runs there"):
        cluster.connect(Cluster(address="127.0.0.1:1"))
