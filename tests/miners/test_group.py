"""A sharded miner in a fleet: it learns and answers as one process does, whichever of its ranks is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from raytensor import config
from raytensor.config import MinerProfile
from raytensor.data.text import Text, unigram
from raytensor.errors import ClusterError
from raytensor.miners.fleet import Fleet
from raytensor.miners.miner import Miner
from raytensor.types import Failure, Response, Task

V = 50
CLOSE = 1e-5  # nats, between one rank and two: float32 sums in another order
SMALL = MinerProfile(hidden=32, layers=1, heads=2, steps=3, batch_size=4)
SHARDED = replace(SMALL, engine="ddp", ranks=2, cpus_per_rank=0.2)


def configuration(*profiles: MinerProfile, **cluster) -> config.RunConfig:
    miners = config.Miners(
        num_miners=len(profiles),
        profiles=list(profiles),
        seq_len=16,
        warmup_rounds=1,
        heldout_rows=32,
        cpus_per_host=0.2,
    )
    return config.RunConfig(miners=miners, cluster=config.Cluster(start_timeout_s=240.0, **cluster))


@pytest.fixture(scope="module")
def text():
    draw = np.random.default_rng(0)
    train, heldout = draw.integers(0, V, 4_000).astype(np.uint16), draw.integers(0, V, 1_000).astype(np.uint16)
    return Text(train, heldout, np.array([0, 4_000]), np.array([0, 1_000]), unigram(train, V), V, 1.0)


def questions(cfg, text, round: int):
    draw = np.random.default_rng(round)
    tokens, lengths = draw.integers(0, V, (8, 12)).astype(np.int32), draw.integers(4, 13, 8).astype(np.int32)
    return [
        Task(f"{round}/m{i}", round, 1, "v", f"m{i}", tokens, lengths, 10, 60.0) for i in range(cfg.miners.num_miners)
    ]


def collect(fleet: Fleet, tasks) -> dict[str, Response]:
    answers = list(fleet.ask(tasks))
    assert Counter(answer.item_id if isinstance(answer, Failure) else answer.task_id for answer in answers) == Counter(
        task.task_id for task in tasks
    )
    assert not [answer for answer in answers if isinstance(answer, Failure)]
    return {answer.hotkey: answer for answer in answers}


def gone(pid: int, within_s: float = 120.0) -> bool:
    end = time.monotonic() + within_s
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.1)
    return not os.path.exists(f"/proc/{pid}")


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def test_kill_9_of_any_rank(ray_session, text, tmp_path):
    """Killed between rounds and in training: back from the checkpoint, on the curve of an undisturbed miner."""
    torch.set_num_threads(1)
    cfg = configuration(SMALL, SHARDED)
    free = ray.available_resources()["CPU"]
    undisturbed = Miner("m1", replace(SHARDED, engine="plain", ranks=1), cfg, text)
    curve = {round: undisturbed.train(round) for round in (1, 2, 3)}
    fleet = Fleet(cfg, ["m0", "m1"], text, num_hosts=1, folder=tmp_path)
    try:
        pids = fleet.wait_ready(240.0)
        assert (
            pids.keys() == {"miner host 0", "sharded miner 1", "sharded miner 1, rank 1"}
            and len(set(pids.values())) == 3
        )
        fleet.train(1)
        collect(fleet, questions(cfg, text, 1))
        assert fleet.train_losses["m1"] == pytest.approx(curve[1], abs=CLOSE)
        assert fleet.checkpoint(1)
        fleet.train(2)
        before = collect(fleet, questions(cfg, text, 2))
        loss = fleet.train_losses["m1"]
        assert loss == pytest.approx(curve[2], abs=CLOSE)

        # The second rank, while nothing is under way: from the checkpoint of round 1, through round 2, bit for bit.
        memory = resident_mib(pids["sharded miner 1"])
        os.kill(pids["sharded miner 1, rank 1"], signal.SIGKILL)
        assert gone(pids["sharded miner 1, rank 1"])
        group = fleet.host_of["m1"].group
        while group.failure() is None:  # until Ray has noticed, too
            time.sleep(0.05)
        fleet.train_losses.clear()
        after = collect(fleet, questions(cfg, text, 2))
        assert fleet.train_losses["m1"] == loss
        for hotkey in ("m0", "m1"):
            np.testing.assert_array_equal(after[hotkey].ids, before[hotkey].ids)
            np.testing.assert_array_equal(after[hotkey].probs, before[hotkey].probs)
        (told,) = fleet.incidents()
        assert "sharded miner 1 is replaced and continues from the checkpoint of round 1: a rank is gone" in told
        old, pids = pids, fleet.wait_ready(240.0)
        assert gone(old["sharded miner 1"]) and pids["miner host 0"] == old["miner host 0"]
        assert resident_mib(pids["sharded miner 1"]) < memory + 100

        # The first rank, in the middle of a round.
        fleet.train(3)
        os.kill(pids["sharded miner 1"], signal.SIGKILL)
        answers = collect(fleet, questions(cfg, text, 3))
        assert "sharded miner 1 is replaced" in fleet.incidents()[0]
        old, pids = pids, fleet.wait_ready(240.0)
        assert gone(old["sharded miner 1, rank 1"]) and fleet.train_losses["m1"] == pytest.approx(curve[3], abs=CLOSE)
        groups = [entry for entry in ray.util.placement_group_table().values() if entry["state"] == "CREATED"]
        assert len(groups) == 1 and len(groups[0]["bundles"]) == 2
        alone = undisturbed.answer(questions(cfg, text, 3)[1])
        np.testing.assert_allclose(answers["m1"].probs, alone.probs, atol=CLOSE)
    finally:
        fleet.close()
    assert all(gone(pid) for pid in pids.values())
    end = time.monotonic() + 120
    while ray.available_resources()["CPU"] < free - 1e-6 and time.monotonic() < end:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] >= free - 1e-6  # more when actors of an earlier test were still ending


def test_questions_are_answered_between_training_steps(ray_session, text):
    """An answer from outside waits for one step, not for the round, and the training does not notice."""
    cfg = configuration(replace(SHARDED, steps=150))
    fleet = Fleet(cfg, ["m0"], text, num_hosts=0)
    try:
        fleet.wait_ready(240.0)
        (task,) = questions(cfg, text, 1)
        host = fleet.hosts[0]
        fleet.train(1)
        served = [host.actor.serve.options(concurrency_group="serving").remote(task) for _ in range(3)]
        ready, _ = ray.wait([host.busy, *served], num_returns=3, timeout=240)
        assert set(ready) == set(served)
        assert all(isinstance(answer, Response) for answer in ray.get(served, timeout=60))
        collect(fleet, [task])
        torch.set_num_threads(1)
        alone = Miner("m0", replace(SHARDED, engine="plain", ranks=1, steps=150), cfg, text)
        assert fleet.train_losses["m0"] == pytest.approx(alone.train(1), abs=1e-4)
    finally:
        fleet.close()


def test_more_than_there_is_is_refused_before_an_actor_starts(ray_session, text):
    cfg = configuration(replace(SHARDED, ranks=4, batch_size=4, cpus_per_rank=50.0))
    cfg.cluster.start_timeout_s = 2.0
    with pytest.raises(ClusterError, match=r"sharded miner 0 \(m0\): no room for .*50.0.* CPU .* free of 4"):
        Fleet(cfg, ["m0"], text, num_hosts=0)


def test_gpus_that_are_not_there_are_refused_with_the_bill(ray_session):
    from raytensor import cluster
    from raytensor.config.train import TrainConfig, Training
    from raytensor.jobs import train
    from raytensor.jobs.run.plan import needs

    run = needs(configuration(replace(SHARDED, engine="zero3", ranks=8, batch_size=8, gpus_per_rank=1)), {"CPU": 4.0})
    rows = r" \(0 free\)\n  sharded miner 8 x 0.2 CPU \+ 1 GPU\n +\d.* GiB of GPU memory each: .*\n(.*\n)*"
    with pytest.raises(ClusterError, match=rf"ask for 8 GPUs and the cluster has 0{rows}  fix: .*gpus_per_rank"):
        cluster.check(run)
    job = train.needs(TrainConfig(training=Training(engine="fsdp2", ranks=4, gpus_per_rank=1)))
    with pytest.raises(ClusterError, match="ask for 4 GPUs and the cluster has 0"):
        cluster.check(job)


def _sleep_in_the_next_step(actor) -> None:
    def sleeps_for_ever(*_args, **_more):
        threading.Event().wait()

    actor._shard._engine._backward = sleeps_for_ever


def test_a_rank_that_sleeps_for_ever_is_named_with_its_stack_and_the_group_replaced(ray_session, text, tmp_path):
    cfg = configuration(SHARDED)
    fleet = Fleet(cfg, ["m0"], text, num_hosts=0, folder=tmp_path)
    try:
        pids = fleet.wait_ready(240.0)
        fleet.train(1)
        fleet.wait_trained()
        loss = fleet.train_losses.pop("m0")
        (asleep,) = fleet.hosts[0].group.others
        ray.get(asleep.__ray_call__.options(concurrency_group="beside").remote(_sleep_in_the_next_step), timeout=60)
        cfg.miners.train_timeout_s = 5.0
        fleet.train(2)
        cfg.miners.train_timeout_s = 300.0
        fleet.wait_trained()
        told = next(line for line in fleet.incidents() if "replaced" in line)
        assert "sharded miner 0 is replaced" in told and "hung: rank 1 of 2 is in train_steps for" in told
        assert "sleeps_for_ever (test_group.py:" in told
        assert not set(pids.values()) & set(fleet.wait_ready(240.0).values())
        fleet.wait_trained()
        assert np.isfinite(fleet.train_losses["m0"]) and fleet.train_losses["m0"] != loss
    finally:
        fleet.close()
