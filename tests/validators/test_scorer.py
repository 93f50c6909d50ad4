"""Scorers in a real pool: the same scores and weights for any number of actors and any order of arrival."""

from __future__ import annotations

import numpy as np
import pytest

from raytensor import config
from raytensor.data.text import Text, unigram
from raytensor.mechanisms import base
from raytensor.mechanisms.evidence import State, gather
from raytensor.pool import Pool
from raytensor.types import Failure, Reason, Response, Score
from raytensor.validators.scoreboard import ScoreBoard
from raytensor.validators.scorer import Scorer

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
        for number, (task, sealed) in enumerate(mechanism.tasks(base.Ask(0, 1, "v", round, tuple(HOTKEYS)), State(), text)):
            ids = np.stack([np.r_[target, (target + 1 + np.arange(9)) % V] for target in sealed.targets]).astype(np.int32)
            probs = np.full(ids.shape, 0.05, np.float32)
            probs[:, 0] = 0.1 + 0.1 * number if number < 4 else np.nan
            yield task, sealed, Response(task.task_id, task.hotkey, ids, probs)


def weights(results: dict[str, Score | Failure], text) -> dict[str, float]:
    board = ScoreBoard(1, "v", base.load(CFG, text.log_unigram, V), CFG.path)
    for round in range(4):
        mine = {task_id: result for task_id, result in results.items() if task_id.startswith(f"1/{round}/")}
        board.update(gather(1, "v", round, mine, answered=mine))
    return board.weights()


def test_weights_do_not_depend_on_the_pool(ray_session, text):
    work = list(items(text))
    alone = Scorer(CFG, text.log_unigram, V)
    expected = {task.task_id: alone.score(task, sealed, response) for task, sealed, response in work}
    found_weights = weights(expected, text)
    assert list(found_weights) == ["m0", "m1", "m2", "m3"]
    assert sorted(found_weights.values()) == list(found_weights.values()) and found_weights["m3"] > 0
    assert {result.reason for result in expected.values() if isinstance(result, Failure)} == {Reason.MALFORMED}
    factory = lambda: ray_session.remote(Scorer).options(num_cpus=0.2).remote(CFG, text.log_unigram, V)  # noqa: E731
    for size, seed in ((1, 0), (3, 1)):
        pool = Pool(factory, "score", size)
        for i in np.random.default_rng(seed).permutation(len(work)):
            task, sealed, response = work[i]
            pool.submit(task.task_id, task, sealed, response, hotkey=task.hotkey)
        results = dict(pool.drain(120.0))
        pool.close()
        assert results == expected and weights(results, text) == found_weights
