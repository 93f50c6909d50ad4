"""Evidence and state: a fixed order of results, no penalty for faults of the validator, and exact JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raytensor import config
from raytensor.mechanisms.constraints import cap, constrain
from raytensor.mechanisms.evidence import (
    Evidence,
    State,
    advance,
    evidence_from_json,
    evidence_to_json,
    gather,
    state_from_json,
    state_to_json,
)
from raytensor.mechanisms.query import QueryMechanism
from raytensor.types import Failure, Reason, Score

V = 16
LOG_UNIGRAM = np.full(V, -np.log(V), np.float32)
EMA, MISS = 0.35, 0.1
floats = st.floats(allow_nan=False, allow_infinity=False)
values = st.dictionaries(
    st.text(max_size=5), st.one_of(floats, st.text(max_size=5), st.lists(floats, max_size=4).map(tuple)), max_size=4
)


@pytest.fixture(scope="module")
def query():
    return QueryMechanism(config.Mechanism(query=config.Query(ema=EMA, miss=MISS)), LOG_UNIGRAM, V)


def score(hotkey: str, loss: float, round: int = 1) -> Score:
    return Score(f"1/{round}/v/{hotkey}", round, 1, "v", hotkey, {"loss": loss})


def silent(hotkey: str, round: int = 1) -> Failure:
    return Failure(f"1/{round}/v/{hotkey}", hotkey, Reason.SILENT)


def evidence(round: int, *results: Score | Failure, gone: tuple[str, ...] = ()) -> Evidence:
    return Evidence(1, "v", round, results, gone=gone)


def test_the_first_loss_starts_the_average_and_later_ones_move_it(query):
    state = State()
    for round, loss in enumerate([6.0, 5.0, 4.5]):
        state = advance(query, state, evidence(round, score("a", loss, round)))
    assert state.floats("loss") == {"a": 0.65 * (0.65 * 6.0 + 0.35 * 5.0) + 0.35 * 4.5}
    assert state.round == 2 and state.floats("presence") == {"a": pytest.approx(1.0)}


def test_silence_decays_presence_and_leaves_the_loss(query):
    state = advance(query, State(), evidence(0, score("a", 5.0), silent("never")))
    for round in range(1, 45):
        state = advance(query, state, evidence(round, silent("a"), silent("never")))
    assert state.floats("loss") == {"a": 5.0}
    assert state.floats("presence")["a"] == pytest.approx(0.9**44) and state.floats("presence")["a"] < 0.01
    assert "never" not in state.miners
    state = advance(query, state, evidence(45, score("a", 5.0)))
    assert state.floats("presence")["a"] == pytest.approx(0.9**45 + 0.1)


def test_who_was_not_asked_keeps_everything_and_who_left_loses_it(query):
    first = advance(query, State(), evidence(0, score("a", 5.0), score("b", 4.0)))
    second = advance(query, first, evidence(1, score("a", 6.0)))
    assert second.miners["b"] == first.miners["b"]
    assert set(advance(query, second, evidence(2, gone=("b", "unknown"))).miners) == {"a"}
    with pytest.raises(AssertionError, match="round 1 after round 1"):
        advance(query, second, evidence(1))


def test_evidence_is_gathered_in_one_order_and_our_faults_are_nobodys():
    found = {"t3": score("a", 1.0), "t1": score("b", 2.0), "t2": silent("c"), "t4": Failure("t4", "d", Reason.TIMEOUT)}
    found |= {"t5": Failure("t5", "e", Reason.MALFORMED), "t6": Failure("t6", "f", Reason.CANCELLED)}
    answered = ["t1", "t3", "t4", "t5"]  # the answer of t4 came; a scorer lost it
    one = gather(1, "v", 1, found, answered=answered, gone=["z", "y"])
    other = gather(1, "v", 1, dict(reversed(found.items())), answered=reversed(answered), gone=["y", "z"])
    assert one == other and one.gone == ("y", "z")
    assert [result.hotkey for result in one.results] == ["a", "b", "c", "e"] and [f.hotkey for f in one.unjudged] == [
        "d",
        "f",
    ]
    assert [s.hotkey for s in one.scores] == ["a", "b"] and [f.hotkey for f in one.failures] == ["c", "e"]


def test_when_nobody_answers_the_validator_is_to_blame():
    found = {"t1": silent("a"), "t2": Failure("t2", "b", Reason.TIMEOUT)}
    nothing = gather(1, "v", 1, found, answered=[])
    assert nothing.results == ()
    assert len(nothing.unjudged) == 2


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=5), values, max_size=4), values)
def test_state_comes_back_from_json_to_the_bit(miners, common):
    state = State(7, miners, common)
    assert state_from_json(json.loads(json.dumps(state_to_json(state), allow_nan=False))) == state


@settings(max_examples=100, deadline=None)
@given(values, st.text(max_size=5))
def test_evidence_comes_back_from_json_to_the_bit(numbers, group):
    made = Evidence(
        3,
        "v",
        9,
        (Score("t", 9, 3, "v", "a", numbers, group), Failure("u", "b", Reason.SILENT, "why")),
        (Failure("w", "c", Reason.ERROR),),
        ("gone",),
    )
    assert evidence_from_json(json.loads(json.dumps(evidence_to_json(made), allow_nan=False))) == made


@pytest.mark.parametrize("number", ["1e999", "NaN", "true", "null", '["a"]'])
def test_json_with_what_is_no_finite_number_is_refused(number):
    with pytest.raises((ValueError, TypeError)):
        state_from_json(json.loads(f'{{"round": 1, "miners": {{"a": {{"loss": {number}}}}}, "common": {{}}}}'))


def test_weights_are_capped_at_the_fixed_point():
    shares = {"a": 0.6, "b": 0.3, "c": 0.08, "d": 0.02, "e": 0.0}
    capped = cap(shares, 0.4)
    # a is at 0.4; the others share 0.6 as 30 : 8 : 2, so b is above as well: then 0.2 as 8 : 2.
    assert capped == pytest.approx({"a": 0.4, "b": 0.4, "c": 0.16, "d": 0.04, "e": 0.0})
    assert cap(shares, 0.7) == shares and cap({}, 0.5) == {}
    assert cap(shares, 0.1) == {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25, "e": 0.0}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.005, 1))
@example(
    [1.0, 1.0, 1.0, 1.0, 1.0, 59.0, 2.2e-308], 0.15625
)  # six at the limit, and a seventh whose share is next to nothing
def test_capped_weights_sum_to_one_and_keep_their_order(numbers, limit):
    constrained = constrain({str(i): number for i, number in enumerate(numbers)}, config.Mechanism(max_weight=limit))
    paid = sum(number > 0 and number / sum(numbers) > 0 for number in numbers)
    if not constrained:
        assert not paid
        return
    assert sum(constrained.values()) == pytest.approx(1.0, abs=1e-9)
    assert max(constrained.values()) <= max(limit, 1 / paid) + 1e-12
    by_value = sorted(constrained, key=lambda hotkey: numbers[int(hotkey)])
    assert all(constrained[low] <= constrained[high] + 1e-12 for low, high in zip(by_value, by_value[1:], strict=False))


def test_miners_without_a_weight_do_not_count_for_the_quantile():
    """As in classic Bittensor: 180 of 200 miners at 0 do not save the lowest two of the 20 that earn."""
    values = {str(i): float(max(i - 179, 0)) for i in range(200)}
    weights = constrain(values, config.Mechanism(exclude_quantile=0.1))
    assert [key for key, value in weights.items() if value > 0] == [str(i) for i in range(182, 200)]
    assert constrain({"a": 0.0, "b": 0.0}, config.Mechanism(exclude_quantile=0.9)) == {}


def test_the_lowest_quantile_gets_nothing():
    weights = constrain({str(i): float(i + 1) for i in range(10)}, config.Mechanism(exclude_quantile=0.1))
    assert weights["0"] == 0.0 and weights["1"] == pytest.approx(2 / 54) and sum(weights.values()) == pytest.approx(1.0)
