"""The query mechanism: exact scores, refused answers, private questions, weights in the order of losses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raytensor import config
from raytensor.data.text import Text, unigram
from raytensor.errors import ConfigError
from raytensor.mechanisms import base
from raytensor.mechanisms.coalition import effective_parameters
from raytensor.mechanisms.evidence import Evidence, State, advance
from raytensor.mechanisms.losses import MAX_LOSS, token_losses
from raytensor.mechanisms.query import QueryMechanism
from raytensor.types import Failure, Reason, Response, Score, Task

V = 40
RULE = config.Mechanism(query=config.Query(rows=12, context=10, shortest=3, top_k=6))


@pytest.fixture(scope="module")
def text():
    draw = np.random.default_rng(0)
    train, heldout = (draw.zipf(1.4, n).clip(1, V).astype(np.uint16) - 1 for n in (20_000, 3_000))
    ends = np.array([0, 3_000], dtype=np.int64)
    return Text(train, heldout, np.array([0, 20_000]), ends, unigram(train, V), V, 1.0)


@pytest.fixture(scope="module")
def mechanism(text):
    return QueryMechanism(RULE, text.log_unigram, V, deadline_s=9.0)


def ask(round: int, validator: str, *hotkeys: str) -> base.Ask:
    return base.Ask(3, 1, validator, round, hotkeys)


def state(mechanism: QueryMechanism, losses: dict[str, float]) -> State:
    """After one round in which each miner had that loss."""
    scores = tuple(Score(hotkey, 0, 1, "v", hotkey, {"loss": loss}) for hotkey, loss in losses.items())
    return advance(mechanism, State(), Evidence(1, "v", 0, scores))


def answer(task: Task, ids, probs) -> Response:
    return Response(task.task_id, task.hotkey, np.asarray(ids, dtype=np.int32), np.asarray(probs, dtype=np.float32))


def scalar_loss(ids, probs, target, vocab_size):
    """The loss of one row, written out by the definition: named tokens have their probability, the rest share."""
    given = dict(zip(ids.tolist(), map(float, probs), strict=True))
    distribution = [
        given.get(token, max(0.0, 1.0 - sum(given.values())) / (vocab_size - len(given))) for token in range(vocab_size)
    ]
    return min(MAX_LOSS, -math.log(max(distribution[target], 1e-300)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, V))
def test_losses_equal_the_definition(seed, rows, k):
    draw = np.random.default_rng(seed)
    ids = np.stack([draw.permutation(V)[:k] for _ in range(rows)]).astype(np.int32)
    probs = (draw.dirichlet(np.ones(k), rows) * draw.uniform(0.1, 1.0, (rows, 1))).astype(np.float32)
    probs[draw.random(probs.shape) < 0.1] = 0.0
    targets = draw.integers(0, V, rows).astype(np.int32)
    if k == V:  # nothing is unnamed, so there is nothing to divide by
        expected = [
            min(MAX_LOSS, -math.log(max(float(p[list(i).index(t)]), 1e-300)))
            for i, p, t in zip(ids, probs, targets, strict=True)
        ]
    else:
        expected = [scalar_loss(i, p, t, V) for i, p, t in zip(ids, probs, targets, strict=True)]
    np.testing.assert_allclose(token_losses(ids, probs, targets, V), expected, rtol=1e-9)


def test_losses_by_hand():
    ids = np.array([[5, 7], [5, 7], [5, 7]], dtype=np.int32)
    probs = np.array([[0.5, 0.25]] * 3, dtype=np.float32)
    found = token_losses(ids, probs, np.array([5, 7, 9]), 12)
    np.testing.assert_allclose(found, [math.log(2), math.log(4), -math.log(0.25 / 10)])
    assert token_losses(ids, np.array([[0.5, 0.5]] * 3, np.float32), np.array([5, 7, 9]), 12)[2] == MAX_LOSS


def test_questions_hide_their_end_and_are_each_miners_own(mechanism, text):
    made = mechanism.tasks(ask(4, "v", "a", "b"), State(), text)
    assert [task.hotkey for task, _ in made] == ["a", "b"] and len({task.task_id for task, _ in made}) == 2
    heldout = text.heldout.tolist()
    for task, sealed in made:
        assert (
            task.tokens.shape == (12, 10)
            and task.top_k == 6
            and task.deadline_s == 9.0
            and sealed.task_id == task.task_id
        )
        assert task.lengths.min() >= 3 and task.lengths.max() <= 10
        for row, length, target in zip(task.tokens.tolist(), task.lengths, sealed.targets, strict=True):
            assert not any(row[length:])
            wanted = [*row[:length], int(target)]
            assert any(heldout[i : i + length + 1] == wanted for i in range(len(heldout) - length))
    (task_a, _), (task_b, _) = made
    shortest = np.minimum(task_a.lengths, task_b.lengths)
    same = [task_a.tokens[i, :n].tolist() == task_b.tokens[i, :n].tolist() for i, n in enumerate(shortest)]
    assert all(same)  # the same windows ...
    assert (task_a.lengths != task_b.lengths).mean() > 0.5  # ... cut elsewhere


def test_questions_are_pure(mechanism, text):
    again = QueryMechanism(RULE, text.log_unigram, V, deadline_s=9.0)
    for (one, seal), (other, other_seal) in zip(
        mechanism.tasks(ask(1, "v", "a"), State(), text),
        again.tasks(ask(1, "v", "b", "a"), State(), text)[1:],
        strict=True,
    ):
        assert np.array_equal(one.tokens, other.tokens) and np.array_equal(seal.targets, other_seal.targets)
    changed = [mechanism.tasks(ask(2, "v", "a"), State(), text), mechanism.tasks(ask(1, "w", "a"), State(), text)]
    assert all(not np.array_equal(found[0][0].tokens, one.tokens) for found in changed)


def test_a_score_is_the_loss_corrected_by_the_table(mechanism, text):
    task, sealed = mechanism.tasks(ask(1, "v", "a"), State(), text)[0]
    draw = np.random.default_rng(1)
    ids = np.stack([draw.permutation(V)[:6] for _ in range(12)])
    probs = draw.dirichlet(np.ones(6), 12) * 0.9
    response = answer(task, ids, probs)
    score = mechanism.score([base.Item(task, sealed, response)])[0]
    frequency = np.exp(text.log_unigram.astype(np.float64))
    entropy = -sum(p * math.log(p) for p in frequency)
    raw = [scalar_loss(i, p, t, V) for i, p, t in zip(response.ids, response.probs, sealed.targets, strict=True)]
    luck = [-math.log(frequency[t]) for t in sealed.targets]
    assert isinstance(score, Score) and (score.hotkey, score.validator, score.round, score.netuid) == ("a", "v", 1, 1)
    assert score.values["loss"] == pytest.approx(np.mean(raw) - np.mean(luck) + entropy, rel=1e-9)


def test_the_table_as_an_answer_scores_its_entropy_every_time_and_earns_nothing(text):
    mechanism = QueryMechanism(config.Mechanism(query=replace(RULE.query, top_k=V)), text.log_unigram, V)
    table = np.exp(text.log_unigram.astype(np.float64)).astype(np.float32)
    for number in range(5):
        task, sealed = mechanism.tasks(ask(number, "v", "a"), State(), text)[0]
        score = mechanism.score([base.Item(task, sealed, answer(task, [range(V)] * 12, [table] * 12))])[0]
        assert score.values["loss"] == pytest.approx(mechanism.table_loss, abs=1e-5)
    assert mechanism.weights(state(mechanism, {"a": mechanism.table_loss, "b": mechanism.table_loss + 1})) == {}


BREAKS = {
    "task_id": lambda r: replace(r, task_id="another"),
    "hotkey": lambda r: replace(r, hotkey="another"),
    "no array": lambda r: replace(r, ids=r.ids.tolist()),
    "ids dtype": lambda r: replace(r, ids=r.ids.astype(np.int64)),
    "probs dtype": lambda r: replace(r, probs=r.probs.astype(np.float64)),
    "object dtype": lambda r: replace(r, probs=r.probs.astype(object)),
    "rows": lambda r: replace(r, ids=r.ids[:-1], probs=r.probs[:-1]),
    "shapes differ": lambda r: replace(r, probs=r.probs[:, :-1]),
    "no tokens": lambda r: replace(r, ids=r.ids[:, :0], probs=r.probs[:, :0]),
    "one dimension": lambda r: replace(r, ids=r.ids[:, 0], probs=r.probs[:, 0]),
    "too many": lambda r: replace(
        r, ids=np.tile(np.arange(7, dtype=np.int32), (12, 1)), probs=np.full((12, 7), 0.1, np.float32)
    ),
    "id below": lambda r: replace(r, ids=np.where(r.ids == 0, -1, r.ids).astype(np.int32)),
    "id above": lambda r: replace(r, ids=np.where(r.ids == 0, V, r.ids).astype(np.int32)),
    "twice": lambda r: replace(r, ids=np.where(r.ids == 0, 1, r.ids).astype(np.int32)),
    "nan": lambda r: replace(r, probs=np.where(r.ids == 0, np.nan, r.probs).astype(np.float32)),
    "infinite": lambda r: replace(r, probs=np.where(r.ids == 0, np.inf, r.probs).astype(np.float32)),
    "negative": lambda r: replace(r, probs=np.where(r.ids == 0, -0.01, r.probs).astype(np.float32)),
    "sum": lambda r: replace(r, probs=(r.probs * 1.3).astype(np.float32)),
}


@pytest.mark.parametrize("name", BREAKS)
def test_an_answer_out_of_bounds_is_a_failure(mechanism, text, name):
    task, sealed = mechanism.tasks(ask(1, "v", "a"), State(), text)[0]
    good = answer(task, [range(6)] * 12, [[0.15] * 6] * 12)
    assert isinstance(mechanism.score([base.Item(task, sealed, good)])[0], Score)
    result = mechanism.score([base.Item(task, sealed, BREAKS[name](good))])[0]
    assert isinstance(result, Failure) and result.reason is Reason.MALFORMED and result.detail
    assert (result.item_id, result.hotkey) == (task.task_id, "a")


def test_effective_parameters_are_classic():
    # By hand: N(1.69) = 8.8e13 * 1.69 ** (-1 / 0.076); one percent less loss is 6.8 % more pay at power 0.5.
    assert effective_parameters(1.69, 1.69, 1.0) == pytest.approx(8.8e13 * 1.69 ** (-1 / 0.076), rel=1e-12)
    assert effective_parameters(1.0, 1.69, 0.5) == effective_parameters(1.69, 1.69, 0.5)
    assert effective_parameters(2.97, 1.69, 0.5) / effective_parameters(3.0, 1.69, 0.5) == pytest.approx(
        1.0684, abs=1e-4
    )


def test_weights_follow_losses_and_presence(mechanism):
    table = mechanism.table_loss
    losses = {"best": table * 0.8, "good": table * 0.9, "poor": table * 0.99, "table": table, "worse": table + 2}
    weights = mechanism.weights(state(mechanism, losses))
    assert sum(weights.values()) == pytest.approx(1.0, abs=1e-12)
    assert weights["best"] > weights["good"] > weights["poor"] > weights["table"] == weights["worse"] == 0.0
    value = {
        h: effective_parameters(loss, 1.69, 0.5) - effective_parameters(table, 1.69, 0.5) for h, loss in losses.items()
    }
    assert weights["best"] / weights["good"] == pytest.approx(value["best"] / value["good"], rel=1e-12)
    silent = Evidence(1, "v", 1, (Failure("t", "best", Reason.SILENT),))
    later = mechanism.weights(advance(mechanism, state(mechanism, losses), silent))
    assert later["best"] / later["good"] == pytest.approx(0.9 * value["best"] / value["good"], rel=1e-12)
    assert mechanism.weights(State()) == {}


class Always:
    """A mechanism of a user's own."""

    def __init__(self, cfg, log_unigram, vocab_size, *, deadline_s):
        self.made_with = (cfg.options, vocab_size, deadline_s)


def test_a_users_own_mechanism_is_found_by_its_path(text):
    cfg = config.Mechanism(path=f"{__name__}.Always", options={"depth": 3})
    assert base.load(cfg, text.log_unigram, V, deadline_s=7.0).made_with == ({"depth": 3}, V, 7.0)
    assert isinstance(base.load(config.Mechanism(), text.log_unigram, V), QueryMechanism)


@pytest.mark.parametrize(
    "path",
    [
        "QueryMechanism",
        "no.such.Module",
        "raytensor.mechanisms.query.Nothing",
        "raytensor.mechanisms.query.effective_parameters",
    ],
)
def test_a_wrong_path_is_refused(text, path):
    with pytest.raises(ConfigError, match="mechanism.path="):
        base.load(config.Mechanism(path=path), text.log_unigram, V)
