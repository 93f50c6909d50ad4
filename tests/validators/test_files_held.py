"""Files that miners submit: asked for ahead of the scorers, but no more than a bound of bytes waits for them."""

from __future__ import annotations

from collections import deque

import evidencekit
import numpy as np
import pytest

from raytensor.mechanisms.base import Ask
from raytensor.mechanisms.evidence import State
from raytensor.types import Failure, Reason, Score, Submission, Task
from raytensor.validators import round as round_module
from raytensor.validators.records import Records
from raytensor.validators.round import Round, RoundParts

SIZE = 60


class Files:
    """A mechanism that asks every miner for a file."""

    def tasks(self, ask, state, text):
        nothing = np.zeros((0, 0), np.int32), np.zeros(0, np.int32)
        return [
            (
                Task(
                    f"{ask.round}/{h}", ask.round, 1, ask.validator, h, *nothing, top_k=1, deadline_s=1.0, kind="file"
                ),
                None,
            )
            for h in ask.hotkeys
        ]

    def reduce(self, state, evidence):
        miners = {score.hotkey: {"loss": 1.0} for score in evidence.scores}
        return State(state.round, miners)

    def weights(self, state):
        return dict.fromkeys(state.miners, 1.0 / max(1, len(state.miners)))


class Scorers:
    """Scores one answer each time a result is waited for, oldest first; `stuck`: never."""

    patience_s = 0.3

    def __init__(self, stuck: bool = False) -> None:
        self.stuck, self.waiting, self.most, self.scored, self.closed = stuck, deque(), 0, [], 0

    def session(self, name: str):
        return self

    def submit(self, task, sealed, answer) -> None:
        self.waiting.append(task)
        self.most = max(self.most, len(self.waiting))

    def result(self, timeout_s):
        if self.stuck or not self.waiting or not timeout_s:
            return None
        task = self.waiting.popleft()
        self.scored.append(task.task_id)
        return task.task_id, Score(task.task_id, task.round, 1, task.validator, task.hotkey, {"loss": 1.0})

    def close(self) -> None:
        self.closed += 1


class Submitting:
    """Submits a file for each task but every fifth, whose miner is silent; counts what was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, tasks, metagraph):
        for n, task in enumerate(tasks):
            self.asked += 1
            if n % 5 == 4:
                yield Failure(task.task_id, task.hotkey, Reason.SILENT)
            else:
                yield Submission(task.task_id, task.hotkey, "d", payload=b"x" * SIZE)


ASK = Ask(0, 1, "v", 0, tuple(f"m{n:02d}" for n in range(20)))


def parts(scorers, transport) -> RoundParts:
    mechanism = evidencekit.guarded(Files())
    return RoundParts("1", mechanism, None, Records.in_memory(1, ("v",), mechanism), transport, scorers)


@pytest.mark.parametrize("limit, most", [(10_000, 16), (2 * SIZE, 3), (0, 1)])
def test_the_bound_holds_and_every_question_ends_once(monkeypatch, limit, most):
    monkeypatch.setattr(round_module, "MAX_WAITING_BYTES", limit)
    scorers = Scorers()
    result = Round(parts(scorers, Submitting())).play([ASK])
    assert (result.asked, result.answered, result.scored, result.failures) == (20, 16, 16, {"silent": 4})
    assert len(scorers.scored) == 16 and scorers.closed == 1
    assert scorers.most == most, "an answer more than the bound is taken before results are waited for"
    assert result.weights == {"v": dict.fromkeys([h for n, h in enumerate(ASK.hotkeys) if n % 5 != 4], 1 / 16)}


def test_scorers_without_results_end_the_round(monkeypatch):
    monkeypatch.setattr(round_module, "MAX_WAITING_BYTES", 2 * SIZE)
    transport, scorers = Submitting(), Scorers(stuck=True)
    with pytest.raises(TimeoutError, match="the scorers gave no result within 0.3 s; 20 are out"):
        Round(parts(scorers, transport)).play([ASK])
    assert transport.asked == 3 and scorers.closed == 1, "no more files are asked for meanwhile"


def test_an_interruption_ends_the_wait_for_results(monkeypatch):
    monkeypatch.setattr(round_module, "MAX_WAITING_BYTES", 0)
    made = parts(Scorers(stuck=True), Submitting())
    assert Round(made).play([ASK], interrupted=lambda: True) is None
    assert made.records.last_round == -1, "nothing of the round is kept"
