"""The score board: averages by the definition, by hotkey, and a file that comes back bit for bit."""

from __future__ import annotations

import json

import pytest

from raytensor.errors import DataError
from raytensor.types import Score
from raytensor.validators.scoreboard import ScoreBoard


def board() -> ScoreBoard:
    return ScoreBoard(1, "v", ema=0.35, miss=0.1)


def score(hotkey: str, loss: float, round: int = 1) -> Score:
    return Score(f"1/{round}/v/{hotkey}", round, 1, "v", hotkey, loss, 10)


def test_the_first_loss_starts_the_average_and_later_ones_move_it():
    found = board()
    for number, loss in enumerate([6.0, 5.0, 4.5]):
        found.update([score("a", loss, number)], silent=[])
    assert found.losses() == {"a": 0.65 * (0.65 * 6.0 + 0.35 * 5.0) + 0.35 * 4.5}
    assert found.presence() == {"a": pytest.approx(1.0)}


def test_silence_decays_presence_and_leaves_the_loss():
    found = board()
    found.update([score("a", 5.0)], silent=["never"])
    for _ in range(44):
        found.update([], silent=["a", "never"])
    assert found.losses() == {"a": 5.0}
    assert found.presence()["a"] == pytest.approx(0.9**44) and found.presence()["a"] < 0.01
    assert "never" not in found.presence()
    found.update([score("a", 5.0)], silent=[])
    assert found.presence()["a"] == pytest.approx(0.9**45 + 0.1)


def test_who_was_not_asked_keeps_everything():
    found = board()
    found.update([score("a", 5.0), score("b", 4.0)], silent=[])
    found.update([score("a", 6.0)], silent=[])
    assert found.losses()["b"] == 4.0 and found.presence()["b"] == 1.0


def test_the_order_of_arrival_makes_no_difference():
    scores = [score("a", 5.0, number) for number in range(4)] + [score("b", 4.0)]
    one, other = board(), board()
    one.update(scores, silent=["c"])
    other.update(reversed(scores), silent=["c"])
    assert one.losses() == other.losses() and one.presence() == other.presence()


def test_a_hotkey_that_left_is_forgotten():
    found = board()
    found.update([score("a", 5.0), score("b", 4.0)], silent=[])
    found.forget("a")
    found.forget("unknown")
    assert found.losses() == {"b": 4.0} and set(found.presence()) == {"b"}


def test_saved_and_restored_bit_for_bit(tmp_path):
    found = board()
    for number in range(7):
        found.update([score("a", 5.0 + 1 / 3**number, number)], silent=["b"])
    path = tmp_path / "deep" / "board.json"
    found.save(path, saved_at=100.0)
    again = board()
    assert again.restore(path, now=150.0, max_age_s=60.0)
    assert again.losses() == found.losses() and again.presence() == found.presence()
    assert [file.name for file in path.parent.iterdir()] == ["board.json"]


def test_state_that_is_too_old_or_missing_is_not_taken(tmp_path):
    path = tmp_path / "board.json"
    assert not board().restore(path, now=0.0)
    found = board()
    found.update([score("a", 5.0)], silent=[])
    found.save(path, saved_at=100.0)
    again = board()
    assert not again.restore(path, now=161.0, max_age_s=60.0)
    assert again.losses() == {}


@pytest.mark.parametrize("change", ["cut", "other validator", "other netuid", "no losses", "text loss"])
def test_damaged_or_foreign_state_is_refused(tmp_path, change):
    path = tmp_path / "board.json"
    found = board()
    found.update([score("a", 5.0)], silent=[])
    found.save(path, saved_at=1.0)
    if change == "cut":
        path.write_text(path.read_text()[:-10])
    else:
        edits = {"other validator": {"validator": "w"}, "other netuid": {"netuid": 2}, "no losses": {"losses": None}, "text loss": {"losses": {"a": "x"}}}
        path.write_text(json.dumps(json.loads(path.read_text()) | edits[change]))
    with pytest.raises(DataError, match="board.json"):
        board().restore(path, now=2.0)
