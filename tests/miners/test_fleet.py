"""The fleet on real Ray actors: every question answered exactly once, whatever dies, hangs or copies."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import numpy as np
import pytest

from raytensor import config
from raytensor.config import MinerProfile
from raytensor.data.text import Text, unigram
from raytensor.mechanisms.base import Ask
from raytensor.mechanisms.evidence import State
from raytensor.mechanisms.query import QueryMechanism
from raytensor.miners.fleet import Fleet
from raytensor.miners.host_handle import QUEUE
from raytensor.types import Failure, Reason, Response

V = 50
START_S = 240.0
MINERS = ["honest", "copy", "honest", "silent", "constant", "random"]


def configuration(*behaviours: str, **miners) -> config.RunConfig:
    profiles = [
        MinerProfile(behaviour=behaviour, hidden=32, layers=1, heads=2, steps=2 + i, batch_size=4)
        for i, behaviour in enumerate(behaviours)
    ]
    section = config.Miners(
        num_miners=len(behaviours),
        profiles=profiles,
        seq_len=16,
        warmup_rounds=1,
        heldout_rows=32,
        cpus_per_host=0.2,
        **miners,
    )
    return config.RunConfig(
        miners=section, mechanism=config.Mechanism(query=config.Query(rows=8, context=12, shortest=4, top_k=10))
    )


@pytest.fixture(scope="module")
def text():
    draw = np.random.default_rng(0)
    train, heldout = draw.integers(0, V, 4_000).astype(np.uint16), draw.integers(0, V, 1_000).astype(np.uint16)
    return Text(train, heldout, np.array([0, 4_000]), np.array([0, 1_000]), unigram(train, V), V, 1.0)


@pytest.fixture
def make(ray_session, text):
    """Fleets that are closed when the test ends."""
    made: list[Fleet] = []

    def start(cfg: config.RunConfig, num_hosts: int, **more) -> tuple[Fleet, dict[str, int]]:
        found = Fleet(cfg, hotkeys(cfg), text, num_hosts=num_hosts, **more)
        made.append(found)
        return found, found.wait_ready(START_S)

    yield start
    for found in made:
        found.close()


def hotkeys(cfg: config.RunConfig) -> list[str]:
    return [f"m{i}" for i in range(cfg.miners.num_miners)]


def questions(cfg: config.RunConfig, text: Text, round: int, *, deadline_s: float = 60.0, validators: int = 2):
    mechanism = QueryMechanism(cfg.mechanism, text.log_unigram, V, deadline_s=deadline_s)
    return [
        task
        for v in range(validators)
        for task, _ in mechanism.tasks(Ask(3, 1, f"v{v}", round, tuple(hotkeys(cfg))), State(), text)
    ]


def collect(fleet: Fleet, tasks) -> dict[str, Response | Failure]:
    answers = list(fleet.ask(tasks))
    ids = [answer.item_id if isinstance(answer, Failure) else answer.task_id for answer in answers]
    assert Counter(ids) == Counter(task.task_id for task in tasks)  # each exactly once
    return dict(zip(ids, answers, strict=True))


def same(a: Response, b: Response) -> bool:
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.probs, b.probs)


def play(
    make, cfg, text, num_hosts: int, rounds: int = 2
) -> tuple[dict[str, Response | Failure], dict[str, float | None]]:
    fleet, _ = make(cfg, num_hosts)
    found: dict[str, Response | Failure] = {}
    for round in range(1, rounds + 1):
        fleet.train(round)
        found.update(collect(fleet, questions(cfg, text, round)))
    assert fleet.incidents() == [] and fleet.train_s > 0 and set(fleet.train_losses) == {"m0", "m2"}
    losses = fleet.heldout_losses()
    fleet.close()
    return found, losses


def test_one_and_three_hosts_answer_bit_for_bit_the_same(make, text):
    cfg = configuration(*MINERS)
    (one, one_losses), (three, three_losses) = play(make, cfg, text, 1), play(make, cfg, text, 3)
    assert one.keys() == three.keys() and one_losses == three_losses
    for task_id, answer in one.items():
        if isinstance(answer, Response):
            assert same(answer, three[task_id])
        else:
            assert answer == three[task_id]
    by_miner = {hotkey: [a for a in one.values() if a.hotkey == hotkey] for hotkey in hotkeys(cfg)}
    assert {answer.reason for answer in by_miner["m3"]} == {Reason.SILENT}
    assert all(isinstance(answer, Response) for hotkey in ("m0", "m1", "m2", "m4", "m5") for answer in by_miner[hotkey])
    # The copy of m1 is m2, the nearest honest one before it in the circle is m0.
    for round in (1, 2):
        for validator in ("v0", "v1"):
            assert same(one[f"1/{round}/{validator}/m1"], one[f"1/{round}/{validator}/m0"])
    assert one_losses["m1"] is one_losses["m3"] is None and one_losses["m0"] > 0


def test_a_killed_host_is_replaced_from_its_last_checkpoint(make, text, tmp_path):
    cfg = configuration("honest", "honest")
    fleet, pids = make(cfg, 2, folder=tmp_path)
    fleet.train(1)
    tasks = questions(cfg, text, 1)
    before = collect(fleet, tasks)
    assert fleet.checkpoint(1)
    # Killed before it trains again: nobody's question was in hand, so none fails.
    os.kill(pids["miner host 0"], signal.SIGKILL)
    fleet.train(2)
    after = collect(fleet, tasks)
    victim = next(hotkey for hotkey, host in fleet.host_of.items() if host.number == 0)
    other = "m1" if victim == "m0" else "m0"
    for task in tasks:
        if task.hotkey == victim:  # as it was at the checkpoint, bit for bit: the second round's training died with it
            assert same(after[task.task_id], before[task.task_id])
        else:
            assert task.hotkey == other and not same(after[task.task_id], before[task.task_id])
    (told,) = fleet.incidents()
    assert "miner host 0 is replaced and continues from the checkpoint of round 1" in told
    fleet.train(3)
    assert not any(isinstance(answer, Failure) for answer in collect(fleet, tasks).values())


def test_a_host_that_dies_with_questions_in_hand_fails_those_and_answers_the_rest(make, text):
    cfg = configuration("honest", "honest")
    fleet, pids = make(cfg, 1)
    tasks = questions(cfg, text, 1, validators=20)
    asking = fleet.ask(tasks)
    first = [next(asking) for _ in range(4)]
    os.kill(pids["miner host 0"], signal.SIGKILL)
    rest = list(asking)
    assert len(first) + len(rest) == len(tasks)
    assert {a.item_id if isinstance(a, Failure) else a.task_id for a in [*first, *rest]} == {
        task.task_id for task in tasks
    }
    failed = [answer for answer in rest if isinstance(answer, Failure)]
    assert {answer.reason for answer in failed} <= {Reason.CRASHED} and len(failed) <= 2 * QUEUE
    assert isinstance(rest[-1], Response) and len(fleet.incidents()) == 1


def test_a_host_that_keeps_dying_is_given_up(make, text):
    cfg = configuration("honest", "copy", "honest")
    fleet, pids = make(cfg, 2, max_replacements=0)
    number = next(host.number for hotkey, host in fleet.host_of.items() if hotkey == "m0")
    os.kill(pids[f"miner host {number}"], signal.SIGKILL)
    for round in (1, 2):
        fleet.train(round)
        answers = collect(fleet, questions(cfg, text, round))
        assert {answers[f"1/{round}/v{v}/m0"].reason for v in (0, 1)} == {Reason.CRASHED}
        lost = {hotkey for hotkey, host in fleet.host_of.items() if host.number == number}
        # The copier lost its victim: it has nothing to send, or was lost with it.
        assert {answers[f"1/{round}/v{v}/m1"].reason for v in (0, 1)} == {
            Reason.CRASHED if "m1" in lost else Reason.SILENT
        }
        assert all(isinstance(answers[f"1/{round}/v{v}/m2"], Response) for v in (0, 1))
    assert "is given up" in fleet.incidents()[0]
    assert fleet.heldout_losses()["m0"] is None and fleet.heldout_losses()["m2"] > 0


@pytest.fixture(scope="module")
def two_hosts(ray_session, text):
    """(settings, fleet) of two honest miners on two hosts. A host that a test stops is replaced within that test."""
    cfg = configuration("honest", "honest", train_timeout_s=6.0)
    fleet = Fleet(cfg, hotkeys(cfg), text, num_hosts=2)
    fleet.wait_ready(START_S)
    yield cfg, fleet
    fleet.close()


def test_a_caller_that_stops_listening_disturbs_nobody(two_hosts, text):
    cfg, fleet = two_hosts
    asking = fleet.ask(questions(cfg, text, 1))
    next(asking)
    asking.close()
    answers = collect(fleet, questions(cfg, text, 2))
    assert all(isinstance(answer, Response) for answer in answers.values())


def test_a_hanging_host_holds_nobody_up(two_hosts, text):
    cfg, fleet = two_hosts
    os.kill(fleet.wait_ready(START_S)["miner host 1"], signal.SIGSTOP)
    # The healthy host's answers come first; then the one that the other hung on, and the one behind it.
    tasks = questions(cfg, text, 1, deadline_s=5.0)
    seen = [answer.reason if isinstance(answer, Failure) else None for answer in fleet.ask(tasks)]
    assert seen == [None, None, Reason.TIMEOUT, Reason.CRASHED]
    fleet.train(2)
    assert all(isinstance(answer, Response) for answer in collect(fleet, questions(cfg, text, 1)).values())


def test_a_host_that_hangs_in_training_times_out(two_hosts, text):
    cfg, fleet = two_hosts
    os.kill(fleet.wait_ready(START_S)["miner host 0"], signal.SIGSTOP)
    fleet.train(3)
    answers = collect(fleet, questions(cfg, text, 3))
    failed = {answer.reason for answer in answers.values() if isinstance(answer, Failure)}
    assert failed == {Reason.TIMEOUT} and sum(isinstance(answer, Response) for answer in answers.values()) == 2


def test_a_closed_fleet_leaves_no_process(two_hosts):
    _, fleet = two_hosts
    pids = fleet.wait_ready(START_S)
    fleet.close()
    end = time.monotonic() + 120
    while any(os.path.exists(f"/proc/{pid}") for pid in pids.values()) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids.values())
