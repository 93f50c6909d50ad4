"""The score board: a file that comes back bit for bit, and refuses what is old, foreign or damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from raytensor import config
from raytensor.errors import DataError
from raytensor.mechanisms.evidence import Evidence, State
from raytensor.mechanisms.query import QueryMechanism
from raytensor.types import Failure, Reason, Score
from raytensor.validators.scoreboard import ScoreBoard

V = 16
MECHANISM = QueryMechanism(config.Mechanism(), np.full(V, -np.log(V), np.float32), V)
PATH = config.Mechanism().path


def board() -> ScoreBoard:
    return ScoreBoard(1, "v", MECHANISM, PATH)


def round_of(number: int, loss: float) -> Evidence:
    score = Score(f"1/{number}/v/a", number, 1, "v", "a", {"loss": loss})
    return Evidence(1, "v", number, (score, Failure(f"1/{number}/v/b", "b", Reason.SILENT)))


def test_saved_and_restored_bit_for_bit(tmp_path):
    found = board()
    for number in range(7):
        found.update(round_of(number, 2.0 + 1 / 3**number))
    path = tmp_path / "deep" / "board.json"
    found.save(path, saved_at=100.0)
    again = board()
    assert again.restore(path, now=150.0, max_age_s=60.0)
    assert again.state == found.state and again.state.round == 6 and again.weights() == found.weights() == {"a": 1.0}
    assert [file.name for file in path.parent.iterdir()] == ["board.json"]


def test_state_that_is_too_old_or_missing_is_not_taken(tmp_path):
    path = tmp_path / "board.json"
    assert not board().restore(path, now=0.0)
    found = board()
    found.update(round_of(0, 2.0))
    found.save(path, saved_at=100.0)
    again = board()
    assert not again.restore(path, now=161.0, max_age_s=60.0)
    assert again.state == State()


def test_evidence_of_another_validator_is_not_taken():
    with pytest.raises(AssertionError):
        board().update(Evidence(1, "w", 0, ()))


EDITS = {
    "other validator": {"validator": "w"},
    "other netuid": {"netuid": 2},
    "other mechanism": {"mechanism": "a.B"},
    "older format": {"format": 1},
    "no miners": {"miners": None},
    "flag for a number": {"miners": {"a": {"loss": True}}},
    "no round": {"round": None},
}


@pytest.mark.parametrize("change", ["cut", *EDITS])
def test_damaged_or_foreign_state_is_refused(tmp_path, change):
    path = tmp_path / "board.json"
    found = board()
    found.update(round_of(0, 2.0))
    found.save(path, saved_at=1.0)
    if change == "cut":
        path.write_text(path.read_text()[:-10])
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | EDITS[change]))
    with pytest.raises(DataError, match="board.json"):
        board().restore(path, now=2.0)
