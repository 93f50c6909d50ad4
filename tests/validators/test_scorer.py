"""Scorers in a real pool: the same scores and weights for any number of actors and any order of arrival."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from raytensor import config
from raytensor.data.text import Text, unigram
from raytensor.mechanisms import base
from raytensor.mechanisms.evidence import State, gather
from raytensor.types import Failure, Reason, Response, Score
from raytensor.validators.scoreboard import ScoreBoard
from raytensor.validators.scorer import MechanismSpec, Scorer
from raytensor.validators.scorer_service import ScorerService, make_pool

V = 50
HOTKEYS = [f"m{i}" for i in range(5)]
CFG = config.Mechanism(query=config.Query(rows=16, context=12, shortest=4, top_k=10))


@pytest.fixture(scope="module")
def text():
    draw = np.random.default_rng(0)
    train, heldout = (draw.zipf(1.5, n).clip(1, V).astype(np.uint16) - 1 for n in (4_000, 1_000))
    return Text(train, heldout, np.array([0, 4_000]), np.array([0, 1_000]), unigram(train, V), V, 1.0)


def items(text):
    """Answers that lean on the truth, each miner as much as its number says; the last one's are broken."""
    mechanism = base.load(CFG, text.log_unigram, V)
    for round in range(4):
        for number, (task, sealed) in enumerate(
            mechanism.tasks(base.Ask(0, 1, "v", round, tuple(HOTKEYS)), State(), text)
        ):
            ids = np.stack([np.r_[target, (target + 1 + np.arange(9)) % V] for target in sealed.targets]).astype(
                np.int32
            )
            probs = np.full(ids.shape, 0.05, np.float32)
            probs[:, 0] = 0.1 + 0.1 * number if number < 4 else np.nan
            yield task, sealed, Response(task.task_id, task.hotkey, ids, probs)


def collected(session, number: int) -> dict[str, Score | Failure]:
    results, end = {}, time.monotonic() + 120.0
    while len(results) < number:
        assert time.monotonic() < end, f"{len(results)} of {number} results"
        results.update([found] if (found := session.result(1.0)) else [])
    return results


def weights(results: dict[str, Score | Failure], text) -> dict[str, float]:
    board = ScoreBoard(1, "v", base.load(CFG, text.log_unigram, V), CFG.path)
    for round in range(4):
        mine = {task_id: result for task_id, result in results.items() if task_id.startswith(f"1/{round}/")}
        board.update(gather(1, "v", round, mine, answered=mine))
    return board.weights()


def test_weights_do_not_depend_on_the_pool(ray_session, text):
    """Equal to the bit for 1, 2 and 4 actors, for any order of arrival and however answers are packed."""
    work = list(items(text))
    rules = MechanismSpec(CFG, text.log_unigram, V)
    alone = Scorer({"s": rules})
    expected = {task.task_id: alone.score_all([("s", task, sealed, response)])[0] for task, sealed, response in work}
    found_weights = weights(expected, text)
    assert list(found_weights) == ["m0", "m1", "m2", "m3"]
    assert sorted(found_weights.values()) == list(found_weights.values()) and found_weights["m3"] > 0
    assert {result.reason for result in expected.values() if isinstance(result, Failure)} == {Reason.MALFORMED}
    for size, seed, pack in ((1, 0, 1), (2, 1, 3), (4, 2, 16)):
        cfg = config.Validators(num_scorers=size, cpus_per_scorer=0.2, pack_items=pack)
        with ScorerService(lambda: make_pool({"s": rules}, cfg), cfg, threaded=size > 1) as scorers:  # noqa: B023
            session = scorers.session("s")
            for i in np.random.default_rng(seed).permutation(len(work)):
                session.submit(*work[i])
            results = collected(session, len(work))
        assert results == expected and weights(results, text) == found_weights


def test_rules_that_do_not_load_fail_their_own_items_only(text):
    rules = MechanismSpec(CFG, text.log_unigram, V)
    broken = dataclasses.replace(rules, mechanism=config.Mechanism(path="nobody.has.This"))
    scorer = Scorer({"good": rules, "bad": broken})
    task, sealed, response = next(items(text))
    (failed,) = scorer.score_all([("bad", task, sealed, response)])
    assert failed.reason is Reason.MECHANISM and "nobody.has.This can't be loaded" in failed.detail
    assert isinstance(scorer.score_all([("good", task, sealed, response)])[0], Score)


@pytest.mark.parametrize("threaded", [True, False])
def test_results_of_a_closed_session_reach_no_later_one(ray_session, text, threaded):
    """A round that is played again gives its tasks the same ids; results of the first try belong to nobody."""
    cfg = config.Validators(num_scorers=1, cpus_per_scorer=0.2, pack_items=1)
    spec = MechanismSpec(CFG, text.log_unigram, V)
    task, sealed, right = next(items(text))
    wrong = dataclasses.replace(right, probs=np.full_like(right.probs, np.nan))
    with ScorerService(lambda: make_pool({"s": spec}, cfg), cfg, threaded=threaded) as scorers:
        first = scorers.session("s")
        first.submit(task, sealed, wrong)
        first.close()
        second = scorers.session("s")
        second.submit(task, sealed, right)
        (result,) = collected(second, 1).values()
        assert isinstance(result, Score), "the answer of the first session is malformed"
        assert first.result(0.0) is None and second.result(0.0) is None


def test_scorers_that_fail_in_an_unexpected_way_are_made_again_and_blame_nobody(text):
    """An error that nobody foresaw in the pool's own work; before, the thread ended and no answer was scored again."""
    made = []

    def new_pool():
        pool = make_pool({"n": MechanismSpec(CFG, text.log_unigram, V, 10.0)}, config.Scoring(num_scorers=1))
        if not made:
            pool.poll = broken  # the first pool only
        made.append(pool)
        return pool

    def broken(timeout_s):
        if len(made[0]):
            raise KeyError("an item that nobody knows")
        return []

    asked = list(items(text))[:2]
    with ScorerService(new_pool, config.Scoring(num_scorers=1)) as service:
        first = service.session("n")
        first.submit(*asked[0])
        found = collected(first, 1)
        assert [(one.reason, "KeyError" in one.detail) for one in found.values()] == [(Reason.CRASHED, True)]
        second = service.session("n")
        second.submit(*asked[1])
        assert [type(one) for one in collected(second, 1).values()] == [Score]
    assert len(made) == 2
