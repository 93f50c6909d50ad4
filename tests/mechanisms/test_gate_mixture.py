"""The gate learns who answers what; the mixture is the network's one answer; losses can be counted per byte."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raytensor import config
from raytensor.data.text import Text, unigram
from raytensor.mechanisms import learned_router as gate
from raytensor.mechanisms.base import Ask, Item
from raytensor.mechanisms.coalition import effective_parameters
from raytensor.mechanisms.evidence import State, advance, gather
from raytensor.mechanisms.losses import distributions, token_losses
from raytensor.mechanisms.mixture import likeliest, mix
from raytensor.mechanisms.query import QueryMechanism
from raytensor.types import Response, Score

V = 20


def two_languages() -> Text:
    """Text of long stretches that are either all small tokens or all large ones."""
    draw = np.random.default_rng(0)
    stretches = [draw.integers(0, 10, 400) + 10 * (i % 2) for i in range(40)]
    tokens = np.concatenate(stretches).astype(np.uint16)
    ends = np.array([0, len(tokens)])
    return Text(tokens, tokens, ends, ends, unigram(tokens, V), V, 4.0)


def answer(task, tokens) -> Response:
    """Knows one language: its ten tokens share 0.98."""
    rows = len(task.tokens)
    return Response(
        task.task_id,
        task.hotkey,
        np.tile(np.asarray(tokens, np.int32), (rows, 1)),
        np.full((rows, 10), 0.098, np.float32),
    )


def test_the_gate_learns_whom_to_ask():
    text = two_languages()
    rule = config.Query(
        rows=1, context=12, shortest=12, top_k=V, sample=2, gate=True, gate_features=32, gate_lr=2.0, entropy_floor=2.0
    )
    mechanism = QueryMechanism(config.Mechanism(query=rule), text.log_unigram, V)
    hotkeys = tuple(f"{kind}{i}" for kind in ("small", "large") for i in range(4))
    state, chosen_well = State(), []
    for number in range(160):
        results = {}
        made = mechanism.tasks(Ask(0, 1, "v", number, hotkeys), state, text)
        assert len(made) == 2 and len({task.hotkey for task, _ in made}) == 2
        for task, sealed in made:
            found = answer(task, range(10) if task.hotkey.startswith("small") else range(10, 20))
            results[task.task_id] = mechanism.score([Item(task, sealed, found)])[0]
        shown = made[0][0].tokens[0]
        if (shown < 10).all() or (shown >= 10).all():
            chosen_well.append(made[1][0].hotkey.startswith("small" if shown[0] < 10 else "large"))
        state = advance(mechanism, state, gather(1, "v", number, results, answered=results))
    assert np.mean(chosen_well[-60:]) >= 0.9  # a coin would choose half of them well
    assert np.mean(chosen_well[-60:]) > np.mean(chosen_well[:20])


def test_the_gate_steps_down_the_squared_error():
    x, weights = (0.6, 0.8, 1.0), (0.1, -0.2, 0.3)
    target = math.exp(-max(0.0, 2.5 - 1.69))
    error = lambda w: (gate.score(w, x) - target) ** 2  # noqa: E731
    stepped = gate.learn(weights, x, 2.5, 1.69, lr=1.0)
    for i in range(3):
        up = tuple(w + (1e-6 if k == i else 0.0) for k, w in enumerate(weights))
        assert stepped[i] - weights[i] == pytest.approx(-(error(up) - error(weights)) / 1e-6, rel=1e-4)
    assert gate.best(
        State(miners={"a": {"gate": (1.0, 0.0)}, "b": {"gate": (-1.0, 0.0)}}), ["b", "c", "a"], (1.0, 1.0), 2
    ) == ["a", "c"]


def test_answers_are_mixed_by_weight_whatever_their_order():
    one = Response("t", "a", np.array([[0, 1]], np.int32), np.array([[0.5, 0.3]], np.float32))
    two = Response("t", "b", np.array([[[1, 2], [3, -1]]], np.int32), np.array([[0.9, 0.1]], np.float32))
    mixed = mix([two, one], {"a": 3.0, "b": 1.0}, 4)
    np.testing.assert_allclose(
        mixed, [[0.75 * 0.5, 0.75 * 0.3 + 0.25 * 0.9, 0.75 * 0.1, 0.75 * 0.1 + 0.25 * 0.1]], atol=1e-7
    )
    assert np.array_equal(mixed, mix([one, two], {"a": 3.0, "b": 1.0}, 4)) and mixed.sum() == pytest.approx(1.0)
    ids, probs = likeliest(mixed, 2)
    assert ids.tolist() == [[1, 0]] and probs[0, 0] == mixed[0, 1]
    np.testing.assert_allclose(
        mix([one, two], {}, 4), (distributions(one.ids, one.probs, 4) + distributions(two.ids, two.probs, 4)) / 2
    )
    with pytest.raises(ValueError, match="nobody answered"):
        mix([], {}, 4)


def test_distributions_agree_with_losses():
    draw = np.random.default_rng(1)
    ids = np.stack([draw.permutation(V)[:6] for _ in range(9)]).astype(np.int32)
    probs = (draw.dirichlet(np.ones(6), 9) * 0.8).astype(np.float32)
    targets = draw.integers(0, V, 9)
    full = distributions(ids, probs, V)
    np.testing.assert_allclose(full.sum(axis=1), 1.0)
    np.testing.assert_allclose(-np.log(full[np.arange(9), targets]), token_losses(ids, probs, targets, V), rtol=1e-9)


def test_losses_are_valued_per_byte():
    text = two_languages()
    rule = config.Query(rows=4, context=6, shortest=3, top_k=V, unit="byte", entropy_floor=0.1, baseline=False)
    mechanism = QueryMechanism(config.Mechanism(query=rule), text.log_unigram, V)
    task, sealed = mechanism.tasks(Ask(0, 1, "v", 0, ("a",)), State(), text)[0]
    score = mechanism.score([Item(task, sealed, answer(task, range(10)))])[0]
    assert isinstance(score, Score) and score.values["bytes_per_token"] == 4.0
    state = advance(mechanism, State(), gather(1, "v", 0, {task.task_id: score}, answered=[task.task_id]))
    assert state.floats("value")["a"] == pytest.approx(effective_parameters(score.values["loss"] / 4.0, 0.1, 0.5))
