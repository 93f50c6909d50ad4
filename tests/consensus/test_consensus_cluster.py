"""An epoch split over real Ray actors gives the same bits as one process."""

from __future__ import annotations

import pytest
from networks import random_network

from raytensor.consensus import epoch, plan
from raytensor.errors import ClusterError, ConfigError


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_actors_equal_the_reference(ray_session, monkeypatch, differing, layout):
    from raytensor.commands.consensus_cluster import epoch_on_cluster

    monkeypatch.setattr(plan, "DENSE_FROM", 0.0 if layout == "dense" else 2.0)
    ran = 0
    for seed in range(200):
        inputs = random_network(seed)
        expected = epoch(inputs, implementation="reference")
        if inputs.n < 6 or not expected.incentive.any():
            continue
        result = epoch_on_cluster(inputs, num_actors=2, cpus_per_actor=0.1, timeout_s=120)
        assert differing(expected, result) == [], seed
        ran += 1
        if ran == 2:
            break
    assert ran == 2


def test_a_dead_actor_is_an_error_that_says_so(ray_session, monkeypatch):
    from raytensor.commands import consensus_cluster

    class Dying(consensus_cluster.ShardActor):
        def run(self, phase, *arguments):
            import os

            os._exit(1)

    monkeypatch.setattr(consensus_cluster, "ShardActor", Dying)
    with pytest.raises(ClusterError, match="an actor died in phase row_sums"):
        consensus_cluster.epoch_on_cluster(random_network(53), num_actors=2, cpus_per_actor=0.1, timeout_s=120)


def test_no_room_is_an_error_that_says_what_was_waited_for(ray_session):
    from raytensor.commands.consensus_cluster import epoch_on_cluster

    with pytest.raises(ClusterError, match="waited 1 s for 1 actors of 100 CPUs"):
        epoch_on_cluster(random_network(53), num_actors=1, cpus_per_actor=100, timeout_s=1)
    with pytest.raises(ConfigError, match="num_actors"):
        epoch_on_cluster(random_network(53), num_actors=0)
