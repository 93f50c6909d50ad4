"""Files that miners hand in: downloaded ahead of the scorers, but no more than a bound of bytes lies with them."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import evidencekit
import numpy as np
import pytest

from raytensor.types import Failure, Reason, Score, Submission, Task
from raytensor.validators import round as subnet
from raytensor.validators.round import SubnetValidator

SIZE = 60


class Scorers:
    """A desk that scores one answer each time a result is asked for, oldest first; `stuck`: never."""

    def __init__(self, stuck: bool = False) -> None:
        self.stuck, self.waiting, self.most, self.scored = stuck, deque(), 0, []

    def open(self, name: str) -> None:
        self.waiting.clear()

    def submit(self, name, task, sealed, answer) -> None:
        self.waiting.append(answer.task_id)
        self.most = max(self.most, len(self.waiting))

    def result(self, name, timeout_s):
        if self.stuck or not self.waiting:
            return None
        task_id = self.waiting.popleft()
        self.scored.append(task_id)
        return task_id, Score(task_id, 0, 1, "v", "m", {"loss": 1.0})


class Handing:
    """Hands in a file for each task but every fifth, whose miner is silent; counts what was taken."""

    def __init__(self) -> None:
        self.taken = 0

    def ask(self, tasks, metagraph):
        for n, task in enumerate(tasks):
            self.taken += 1
            if n % 5 == 4:
                yield Failure(task.task_id, task.hotkey, Reason.SILENT)
            else:
                yield Submission(task.task_id, task.hotkey, "d", payload=b"x" * SIZE)


@pytest.fixture
def validator(tmp_path: Path):
    one = SubnetValidator("1", 1, ("v",), evidencekit.RULES, None, tmp_path, score_limit_s=0.3)
    yield one
    one.close()


def questions(number: int) -> dict:
    nothing = np.zeros((0, 0), np.int32), np.zeros(0, np.int32)
    made = [Task(f"t{n}", 0, 1, "v", f"m{n}", *nothing, top_k=1, deadline_s=1.0, kind="file") for n in range(number)]
    return {task.task_id: (task, None) for task in made}


@pytest.mark.parametrize("limit, most", [(10_000, 16), (2 * SIZE, 3), (0, 1)])
def test_the_bound_holds_and_every_question_ends_once(validator, monkeypatch, limit, most):
    monkeypatch.setattr(subnet, "HELD_BYTES", limit)
    desk, asked = Scorers(), questions(20)
    results, answered = validator._ask_and_score(asked, None, Handing(), desk, lambda: False)
    assert results.keys() == asked.keys() and len(answered) == 16 == len(desk.scored)
    assert sum(isinstance(one, Failure) for one in results.values()) == 4
    assert desk.most == most, "an answer more than the bound is taken before results are waited for"


def test_scorers_that_say_nothing_end_the_round(validator, monkeypatch):
    monkeypatch.setattr(subnet, "HELD_BYTES", 2 * SIZE)
    handing = Handing()
    with pytest.raises(TimeoutError, match="the scorers gave no result within 0.3 s; 20 are out"):
        validator._ask_and_score(questions(20), None, handing, Scorers(stuck=True), lambda: False)
    assert handing.taken == 3, "no more is downloaded meanwhile"


def test_a_stop_is_heard_while_results_are_waited_for(validator, monkeypatch):
    monkeypatch.setattr(subnet, "HELD_BYTES", 0)
    results, _ = validator._ask_and_score(questions(20), None, Handing(), Scorers(), lambda: True)
    assert results is None
