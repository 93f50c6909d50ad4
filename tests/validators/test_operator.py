"""Subnets side by side: when weights are due, what a fault costs, and a thread that is stuck."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from raytensor.supervised import UNEXPECTED
from raytensor.types import Weights
from raytensor.validators.operator import Operator, Pace, SubnetLoop
from raytensor.validators.round import RoundResult

LIMIT_S = 120.0


@dataclass
class At:
    """A subnet's clock that the test turns."""

    block: int = 0
    tempo: int = 30
    next_epoch: int = 30
    metagraph: Any = None
    commits: Any = None
    trouble: str = ""


class Graph:
    block = 7


class Rounds:
    """A validator whose rounds are what the test says: "good", "bad", or an event to wait for."""

    def __init__(self, script):
        self.script, self.closed = script, False

    def play(self, metagraph, interrupted, commits):
        step = next(self.script)
        if step == "bad":
            raise ValueError("bad round")
        if isinstance(step, threading.Event):
            assert step.wait(LIMIT_S)
        return RoundResult(1, 0, metagraph.block, 2, 2, 2, 2, 0.1)

    def weights(self, block):
        return [Weights(1, "v", {"m": 1.0}, made_at_block=block)]

    def close(self):
        self.closed = True


class Played(NamedTuple):
    """A subnet's thread, its clock, the validators that it opened, its rounds and its faults."""

    subnet: SubnetLoop
    clock: At
    opened: list
    rounds: list
    faults: list


def until(seen):
    end = time.monotonic() + LIMIT_S
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def play():
    made = []

    def start(script, **pace):
        steps, clock, opened = iter(script), At(metagraph=Graph()), []

        def make():
            opened.append(Rounds(steps))
            return opened[-1]

        rounds, faults = [], []
        subnet = SubnetLoop(
            1,
            make,
            Pace(**({"margin_blocks": 5, "backoff_s": 0.01, "rounds": 10**6} | pace)),
            lambda: clock,
            on_round=rounds.append,
            on_fault=lambda netuid, cause, rest_s: faults.append((cause, rest_s)),
        )
        made.append(subnet)
        subnet.start()
        return Played(subnet, clock, opened, rounds, faults)

    yield start
    for subnet in made:
        subnet.stop()


def test_weights_are_due_once_an_epoch_a_margin_before_it(play):
    subnet, clock, _, rounds, faults = play(["good"] * 100, rounds=1)
    handed, at = [], []
    operator = Operator([subnet], lambda netuid: clock, lambda due: (handed.extend(due), at.append(clock.block)))
    until(lambda: subnet.row.state == "done")
    operator.tick()
    assert len(handed) == 1, "those of the last round of all are handed in at once"
    for clock.block in range(20, 45):
        clock.next_epoch = 30 if clock.block < 30 else 60
        operator.tick()
    assert [one.values for one in handed] == [{"m": 1.0}] * 2 and at[1:] == [25] and operator.done
    for clock.block in range(45, 60):
        operator.tick()
    assert len(handed) == 3 and at[2:] == [55]


def test_nothing_is_handed_in_before_the_margin_while_rounds_are_to_come(play):
    subnet, clock, _, rounds, faults = play(["good"] * 10)
    until(lambda: len(rounds) == 1)
    assert [bool(subnet.due(At(block=block))) for block in (0, 10, 24, 25, 26)] == [False, False, False, True, False]


def test_a_clock_that_is_set_back_lengthens_no_rest(play, monkeypatch):
    real, back_s = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() - back_s[0])
    subnet, clock, opened, rounds, faults = play(["bad", "good"], backoff_s=0.5, backoff_most_s=0.5)
    until(lambda: faults)
    back_s[0] = 7200.0
    until(lambda: rounds)


def test_a_fault_rests_longer_each_time_and_takes_the_weights_back(play):
    gate = threading.Event()
    subnet, clock, opened, rounds, faults = play(["good", "bad", "bad", "bad", gate, "good"])
    until(lambda: len(rounds) == 1)
    clock.block, clock.next_epoch = 26, 30  # the margin: weights of the good round would be due
    until(lambda: len(faults) == 3)
    assert subnet.due(clock) == [], "what failed last has no weights"
    assert [cause for cause, _ in faults] == ["ValueError: bad round"] * 3
    assert [rest_s for _, rest_s in faults] == [0.01, 0.02, 0.04]
    assert all(one.closed for one in opened[:3])
    gate.set()
    until(lambda: len(rounds) == 2)
    assert subnet.row.failures == 0 and len(subnet.due(clock)) == 1


def test_a_stuck_thread_is_left_behind(play):
    gate = threading.Event()
    subnet, clock, opened, rounds, faults = play([gate, "good", "good"], round_limit_s=0.2, rounds=1)
    until(lambda: subnet.busy_since is not None)
    time.sleep(0.25)
    subnet.check_stuck()
    until(lambda: subnet.row.state == "done")  # by the thread that took its place
    assert "did not end within 0.2 s" in faults[0][0] and len(opened) == 2 and len(rounds) == 1
    gate.set()
    until(lambda: opened[0].closed)
    assert len(rounds) == 1, "what the stuck round came to counts for nothing"


def test_no_questions_without_a_fresh_metagraph(play):
    subnet, clock, _, rounds, faults = play(["good"] * 10)
    until(lambda: len(rounds) == 1)
    clock.metagraph, clock.block = None, 100
    time.sleep(0.5)
    assert len(rounds) == 1
    clock.metagraph = Graph()
    until(lambda: len(rounds) == 2)


def test_a_subnet_that_can_not_be_read_says_so(play):
    subnet, clock, _, rounds, faults = play(["good"] * 10)
    until(lambda: len(rounds) == 1)
    clock.trouble = "there is no subnet 1"
    until(lambda: faults)
    assert faults[0][0] == "there is no subnet 1" and subnet.row.state == "failed"


def test_a_validator_that_can_not_be_closed_is_no_fault_of_the_thread(play, monkeypatch):
    def full(rounds):
        rounds.closed = True
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Rounds, "close", full)
    subnet, clock, opened, rounds, faults = play(["bad", "good", "good"], rounds=1)
    until(lambda: subnet.row.state == "done")
    assert opened[0].closed and len(faults) == 1 and "subnet-1" not in UNEXPECTED.errors


@pytest.mark.parametrize("raised", [OSError(28, "No space left on device"), ValueError("closed"), RuntimeError("view")])
def test_a_view_that_fails_costs_a_subnet_neither_rounds_nor_weights(raised):
    clock, opened = At(metagraph=Graph()), []

    def broken(*told):
        raise raised

    def make():
        opened.append(Rounds(iter(["good"] * 3)))
        return opened[-1]

    pace = Pace(margin_blocks=5, backoff_s=0.01, rounds=1)
    subnet = SubnetLoop(1, make, pace, lambda: clock, on_round=broken, on_fault=broken)
    subnet.start()
    until(lambda: subnet.row.state == "done")
    subnet.stop()
    assert subnet.row.failures == 0 and len(opened) == 1 and subnet.due(clock)


def test_a_fault_that_can_not_be_told_does_not_end_the_subnet():
    clock, opened, told = At(metagraph=Graph()), [], []

    def broken(*what):
        told.append(what)
        raise ValueError("closed")

    def make():
        opened.append(1)
        if len(opened) < 3:
            raise SystemExit("a library gives up") if len(opened) == 1 else KeyError("make")
        return Rounds(iter(["good"] * 3))

    pace = Pace(margin_blocks=5, backoff_s=0.01, rounds=1)
    subnet = SubnetLoop(1, make, pace, lambda: clock, on_fault=broken)
    subnet.start()
    until(lambda: subnet.row.state == "done")
    subnet.stop()
    assert len(opened) == 3 and [cause for _, cause, _ in told] == [
        "SystemExit: a library gives up",
        "KeyError: 'make'",
    ]
