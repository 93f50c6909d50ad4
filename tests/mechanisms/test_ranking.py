"""Shares from a ranking of models: graded shares, and the epsilon rule against its definition."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raytensor import config
from raytensor.mechanisms import ranking


def test_graded_shares():
    rule = config.ModelEval(top=3, reserve=0.1, reserve_top=2, ramp=2.0, quality_nats=1e9)
    shares = ranking.graded({"e": 0.5, "d": 0.4, "c": 0.3, "b": 0.2, "a": 0.1, "f": 0.6}, rule, first="a")
    expected = {"a": 0.9 * 2 / 4.5, "b": 0.9 * 1.5 / 4.5, "c": 0.9 / 4.5, "d": 0.1 * 2 / 3, "e": 0.1 / 3}
    assert shares == pytest.approx(expected)
    faded = ranking.graded({"a": 0.0, "b": 0.1}, replace(rule, quality_nats=0.1), first="a")
    assert faded["b"] / faded["a"] == pytest.approx(math.exp(-1) * 1.5 / 2)


def epsilon_by_hand(losses, blocks, now, start, end, over, temperature):
    """The rule of subnet 9, one pair at a time."""
    order = sorted(losses, key=lambda h: (blocks[h], h))

    def wins(a, b, eps):
        older = order[min(order.index(a), order.index(b))]
        adjusted = {h: losses[h] * (1 - eps) if h == older else losses[h] for h in (a, b)}
        return adjusted[a] < adjusted[b]

    competitive = [h for i, h in enumerate(order) if all(wins(h, older, end) for older in order[:i])]
    rates = {}
    for a in competitive:
        others = [b for b in competitive if b != a]
        count = 0
        for b in others:
            age = now - min(blocks[a], blocks[b])
            count += wins(a, b, start + (end - start) * min(1, age / over))
        rates[a] = count / len(others) if others else 1.0
    total = sum(math.exp((rate - 1) / temperature) for rate in rates.values())
    return {a: math.exp((rate - 1) / temperature) / total for a, rate in rates.items()}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(2.9, 3.1), st.integers(0, 20_000)), min_size=1, max_size=8))
def test_epsilon_shares_equal_the_definition(models):
    losses = {f"m{i}": loss for i, (loss, _) in enumerate(models)}
    blocks = {f"m{i}": float(block) for i, (_, block) in enumerate(models)}
    rule = config.ModelEval(rule="epsilon")
    found = ranking.softmax(ranking.win_rates(losses, blocks, 21_000.0, rule), rule.temperature)
    assert found == pytest.approx(epsilon_by_hand(losses, blocks, 21_000.0, 0.005, 0.0001, 14_400, 0.01), abs=1e-9)
