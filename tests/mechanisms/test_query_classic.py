"""The classic formulas against a scalar transcription, and who is paid what by the `classic` preset."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raytensor import config
from raytensor.config import compose
from raytensor.data.text import Text, prepare, unigram
from raytensor.mechanisms.base import Ask, Item
from raytensor.mechanisms.coalition import excess_divergence, representatives, synergy
from raytensor.mechanisms.evidence import State, advance, gather
from raytensor.mechanisms.losses import completion_losses, fault, phrase_losses
from raytensor.mechanisms.query import QueryMechanism
from raytensor.types import Failure, Reason, Response, Score, Task

V, B, K, H = 30, 6, 9, 4


@pytest.fixture(scope="module")
def text():
    draw = np.random.default_rng(0)
    train, heldout = (draw.zipf(1.4, n).clip(1, V).astype(np.uint16) - 1 for n in (9_000, 2_000))
    return Text(train, heldout, np.array([0, 9_000]), np.array([0, 2_000]), unigram(train, V), V, 2.5)


# ------------------------------------------------------------------------------- the formulas, one number at a time


def n_of(loss: float, floor: float, power: float) -> float:
    """N(L) = exp(ln 8.8e13 - ln(max(L, floor)) / 0.076), to a power."""
    return math.exp(math.log(8.8e13) - math.log(max(loss, floor)) / 0.076) ** power


def phrase_loss(phrases, probs, target, vocab_size) -> float:
    """-ln(sum over c, k of p_k [phrase_k = target[:c]] + 1e-40), with the floor when no phrase matches."""
    match, any_match = 0.0, False
    for c in range(1, len(target) + 1):
        for phrase, p in zip(phrases, probs, strict=True):
            if [token for token in phrase if token >= 0] == list(target[:c]):
                match, any_match = match + float(p), True
    return -math.log((match if any_match else max(0.0, 1.0 - sum(map(float, probs))) / vocab_size) + 1e-40)


def scalar_synergy(losses: list[list[float]], floor: float, power: float) -> list[float]:
    """For each pair: the loss of averaged probabilities against the better of both; each gets a half, over n."""
    n, found = len(losses), [0.0] * len(losses)
    mean = [sum(row) / len(row) for row in losses]
    for i in range(n):
        for j in range(i + 1, n):
            measured = sum(
                -math.log((math.exp(-a) + math.exp(-b)) / 2 + 1e-40) for a, b in zip(losses[i], losses[j], strict=True)
            ) / len(losses[i])
            gain = max(0.0, n_of(measured, floor, power) - n_of(min(mean[i], mean[j]), floor, power))
            found[i] += gain / 2 / n
            found[j] += gain / 2 / n
    return found


def scalar_excess(distributions: np.ndarray) -> list[float]:
    """Hellinger distances from the mean answer; clamp(((h - (mean + std)) / std)^3, 0, 10)."""
    n, rows, cells = distributions.shape
    h = []
    for i in range(n):
        distances = []
        for r in range(rows):
            average = [sum(float(distributions[j, r, c]) for j in range(n)) / n for c in range(cells)]
            distances.append(
                math.sqrt(
                    0.5
                    * sum((math.sqrt(float(distributions[i, r, c])) - math.sqrt(average[c])) ** 2 for c in range(cells))
                )
            )
        h.append(sum(distances) / rows)
    mean = sum(h) / n
    std = math.sqrt(sum((x - mean) ** 2 for x in h) / (n - 1))
    return [min(10.0, max(0.0, ((x - (mean + std)) / std) ** 3)) for x in h]


def random_answer(draw, rows=B, k=K, longest=H):
    """Distinct phrases of 1 to `longest` tokens, most of them of few tokens so that some match."""
    ids = np.full((rows, k, longest), -1, dtype=np.int32)
    for row in ids:
        made: set[tuple[int, ...]] = set()
        while len(made) < k:
            made.add(tuple(draw.integers(0, 5, draw.integers(1, longest + 1)).tolist()))
        for phrase, words in zip(row, sorted(made), strict=True):
            phrase[: len(words)] = words
    return ids, (draw.dirichlet(np.ones(k), rows) * draw.uniform(0.5, 1.0, (rows, 1))).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_phrase_losses_equal_the_definition(seed):
    draw = np.random.default_rng(seed)
    ids, probs = random_answer(draw)
    targets = draw.integers(0, 5, (B, H)).astype(np.int32)
    expected = [phrase_loss(i.tolist(), p, t.tolist(), V) for i, p, t in zip(ids, probs, targets, strict=True)]
    np.testing.assert_allclose(phrase_losses(ids, probs, targets, V), expected, atol=1e-6)


def test_completion_losses_are_a_distribution_over_texts():
    """Over all texts of two tokens the probabilities sum to one, and what is partly right counts."""
    v, ids = 5, np.array([[[1, 2], [3, 4]]], np.int32)
    probs = np.array([[0.5, 0.3]], np.float32)
    texts = np.array([[a, b] for a in range(v) for b in range(v)], np.int32)
    losses = np.array([completion_losses(ids, probs, t[None], v)[0] for t in texts])
    assert np.exp(-2 * losses).sum() == pytest.approx(1.0, abs=1e-6)
    by_text = dict(zip(map(tuple, texts.tolist()), losses, strict=True))
    assert by_text[1, 2] < by_text[3, 4] < by_text[1, 0] < by_text[0, 0]
    # By hand: both tokens right with probability 0.84 each, both wrong 0.04 each, and 0.2 spread over 25 texts.
    assert by_text[1, 2] == pytest.approx(-math.log(0.5 * 0.84**2 + 0.3 * 0.04**2 + 0.2 / 25) / 2, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 7))
def test_synergy_and_divergence_equal_the_definition(seed, n):
    draw = np.random.default_rng(seed)
    losses = draw.uniform(0.5, 5.0, (n, B))
    np.testing.assert_allclose(
        synergy(losses, 1.69, 0.5), scalar_synergy(losses.tolist(), 1.69, 0.5), rtol=1e-5, atol=1e-5
    )
    distributions = draw.dirichlet(np.ones(7) * 0.5, (max(3, n), B))
    np.testing.assert_allclose(excess_divergence(distributions), scalar_excess(distributions), rtol=1e-5, atol=1e-5)


def test_the_whole_mechanism_equals_the_definition(text):
    """Three rounds of classic rules with nothing of ours switched on; every distribution compared token by token."""
    rule = config.Query(
        kind="phrase",
        rows=10,
        context=12,
        shortest=4,
        horizon=H,
        top_k=K,
        prune=True,
        group_size=5,
        shared_rows=6,
        ema=0.1,
        miss=0.1,
        value_ema=0.1,
        control_variate=False,
        baseline=False,
        synergy_power=0.5,
        synergy_limit=None,
        divergence_penalty=0.02,
        divergence_cells=0,
        duplicate_nats=0.0,
    )
    cfg = config.Mechanism(query=rule)
    mechanism, state = QueryMechanism(cfg, text.log_unigram, V), State()
    hotkeys = ("a", "b", "c", "d", "e")
    loss, shared_loss, value = {}, {}, dict.fromkeys(hotkeys, 0.0)
    draw = np.random.default_rng(5)
    for number in range(3):
        results, rows, dists = {}, {}, {}
        answering = [hotkey for hotkey in hotkeys if (number, hotkey) != (2, "e")]
        for task, sealed in mechanism.tasks(Ask(0, 1, "v", number, hotkeys), state, text):
            if task.hotkey not in answering:
                results[task.task_id] = Failure(task.task_id, task.hotkey, Reason.SILENT)
                continue
            ids, probs = random_answer(draw, rows=10)
            results[task.task_id] = mechanism.score(
                [Item(task, sealed, Response(task.task_id, task.hotkey, ids, probs))]
            )[0]
            rows[task.hotkey] = [
                phrase_loss(i.tolist(), p, t.tolist(), V) for i, p, t in zip(ids, probs, sealed.targets, strict=True)
            ]
            full = np.zeros((6, V))
            for r in range(6):
                for phrase, p in zip(ids[r], probs[r], strict=True):
                    full[r, phrase[0]] += float(p)
                unnamed = [token for token in range(V) if token not in ids[r, :, 0]]
                full[r, unnamed] += (1.0 - float(probs[r].astype(float).sum())) / len(unnamed)
            dists[task.hotkey] = full
        state = advance(
            mechanism,
            state,
            gather(1, "v", number, results, answered=[t for t, r in results.items() if isinstance(r, Score)]),
        )
        together = dict(zip(answering, scalar_synergy([rows[h][:6] for h in answering], 1.69, 0.5), strict=True))
        excess = dict(zip(answering, scalar_excess(np.stack([dists[h] for h in answering])), strict=True))
        for hotkey in hotkeys:
            if hotkey not in answering:
                value[hotkey] *= 0.9
                continue
            own, shown = sum(rows[hotkey][6:]) / 4, sum(rows[hotkey][:6]) / 6
            loss[hotkey] = 0.9 * loss.get(hotkey, own) + 0.1 * own
            shared_loss[hotkey] = 0.9 * shared_loss.get(hotkey, shown) + 0.1 * shown
            base = n_of(loss[hotkey], 1.69, 0.5)
            bears = min(1.0, base / n_of(shared_loss[hotkey], 1.69, 0.5))
            value[hotkey] = 0.9 * value[hotkey] + 0.1 * (base + together[hotkey] * bears) / (1 + 0.02 * excess[hotkey])
    total = sum(value.values())
    assert any(together.values()) and any(excess.values())
    assert mechanism.weights(state) == pytest.approx({hotkey: v / total for hotkey, v in value.items()}, abs=1e-5)
    assert state.floats("value") == pytest.approx(value, rel=1e-5) and state.floats("loss") == pytest.approx(
        loss, rel=1e-5
    )


# ------------------------------------------------------------------------------------------------ duplicates, groups


def test_duplicates_are_one_and_the_best_stands_for_them():
    draw = np.random.default_rng(0)
    one, other = draw.uniform(1, 4, 8), draw.uniform(1, 4, 8)
    losses = np.stack([one, other, one + 0.01, one - 0.01, other])
    assert representatives(losses, np.array([3.0, 2.0, 1.0, 4.0, 2.0]), 0.015).tolist() == [2, 1, 2, 2, 1]
    assert representatives(losses, np.array([3.0, 2.0, 1.0, 4.0, 2.0]), 0.0).tolist() == [0, 1, 2, 3, 1]
    twins = np.stack([one, one])
    assert synergy(twins, 0.5, 0.5).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_twins_are_paid_as_one_miner_each_and_no_synergy_with_each_other(text):
    rule = config.Query(
        rows=8, context=10, shortest=3, top_k=V, group_size=4, shared_rows=4, baseline=False, synergy_power=0.5
    )
    mechanism = QueryMechanism(config.Mechanism(query=rule), text.log_unigram, V)

    def round_of(*hotkeys):
        scores = {h: Score(h, 0, 1, "v", h, {"loss": 3.0, "shared": shared[h[0]]}, "g") for h in hotkeys}
        return advance(mechanism, State(), gather(1, "v", 0, scores, answered=scores)).floats("value")

    shared = {"a": (1.0, 4.0, 2.0, 5.0), "b": (4.0, 1.0, 5.0, 2.0)}
    alone, twins, two = round_of("a1"), round_of("a1", "a2"), round_of("a1", "b1")
    assert twins == {"a1": alone["a1"], "a2": alone["a1"]}  # nothing is gained by being two
    assert two["a1"] > alone["a1"] and two["a1"] == two["b1"]
    with_twin = round_of("a1", "a2", "b1")
    assert with_twin["b1"] == two["b1"] and with_twin["a2"] == alone["a1"]  # the twin adds nothing to anyone


def test_a_sweep_asks_everyone_once_in_groups_with_the_same_shared_rows(text):
    rule = config.Query(rows=6, context=10, shortest=3, top_k=4, sample=20, group_size=5, shared_rows=2)
    mechanism = QueryMechanism(config.Mechanism(query=rule), text.log_unigram, V)
    hotkeys = tuple(f"m{i}" for i in range(50))
    asked = []
    for number in range(6):
        made = mechanism.tasks(Ask(1, 1, "v", number, hotkeys), State(), text)
        asked += [task.hotkey for task, _ in made]
        groups: dict[str, list] = {}
        for task, sealed in made:
            groups.setdefault(sealed.group, []).append((task, sealed))
        assert all(len(members) == 5 for members in groups.values())
        for members in groups.values():
            first = members[0]
            for task, sealed in members[1:]:
                assert np.array_equal(task.tokens[:2], first[0].tokens[:2]) and np.array_equal(
                    sealed.targets[:2], first[1].targets[:2]
                )
                assert not np.array_equal(task.tokens[2:], first[0].tokens[2:])
    assert sorted(asked[:50]) == sorted(asked[50:]) == sorted(hotkeys) and asked[:50] != asked[50:]


def test_a_pruned_question_is_nowhere_in_the_text():
    heldout = np.arange(1000, dtype=np.uint16)  # every window of it is there once
    text = Text(heldout, heldout, np.array([0, 1000]), np.array([0, 1000]), unigram(heldout, 1000), 1000, 1.0)
    for within, holes in ((None, set()), (3, set())):
        rule = config.Query(rows=200, context=12, shortest=6, horizon=3, kind="phrase", prune=True, prune_within=within)
        mechanism = QueryMechanism(config.Mechanism(query=rule), text.log_unigram, 1000)
        task, sealed = mechanism.tasks(Ask(0, 1, "v", 0, ("a",)), State(), text)[0]
        for row, length, target in zip(task.tokens, task.lengths, sealed.targets, strict=True):
            shown = row[:length]
            steps = np.diff(shown)
            assert sorted(steps.tolist())[:-1] == [1] * (length - 2) and steps.max() == 2
            assert target.tolist() == [shown[-1] + 1 + i for i in range(3)]
            holes.add(length - 1 - int(steps.argmax()))  # tokens after the hole
        assert holes == (set(range(1, 12)) if within is None else {1, 2, 3})


BAD_PHRASES = {
    "empty": lambda ids: np.full_like(ids, -1),
    "gap": lambda ids: np.concatenate(
        [ids[:, :, :1], np.full_like(ids[:, :, :1], -1), np.maximum(0, ids[:, :, 2:])], axis=2
    ),
    "twice": lambda ids: np.repeat(ids[:, :1], K, axis=1),
    "too long": lambda ids: np.concatenate([np.maximum(0, ids), np.zeros_like(ids[:, :, :1])], axis=2),
    "id above": lambda ids: np.where(ids == ids.max(), V, ids).astype(np.int32),
    "id below": lambda ids: np.where(ids == 0, -2, ids).astype(np.int32),
    "two dimensions": lambda ids: ids[:, :, 0],
}


@pytest.mark.parametrize("name", BAD_PHRASES)
def test_phrases_out_of_bounds_are_refused(name):
    ids, probs = random_answer(np.random.default_rng(0))
    task = Task("t", 0, 1, "v", "m", np.zeros((B, 5), np.int32), np.full(B, 5, np.int32), K, 1.0, "phrase", H)
    assert fault(task, Response("t", "m", ids, probs), V) is None
    assert fault(task, Response("t", "m", BAD_PHRASES[name](ids), probs), V)
    assert "tokens" in fault(replace(task, kind="completion"), Response("t", "m", ids, probs), V)


# --------------------------------------------------------------------------------------------------------- incentive


def test_honest_miners_are_paid_by_their_loss_and_cheats_next_to_nothing(bench, cache_dir):
    """The preset on bytes and a small text (`jobs/bench/mechanisms.py` has the full size): 50 questions each."""
    text = prepare(config.Data(tokenizer="bytes", max_documents=200), cache_dir)
    overrides = [
        "max_weight=1.0",
        "query.rows=64",
        "query.sample=0",
        "query.group_size=24",
        "query.entropy_floor=0.5",
        "query.prune_within=16",
    ]
    cfg = compose("run", ["mechanism=classic", *(f"mechanism.{item}" for item in overrides)]).mechanism
    found = bench.query_incentive(cfg, text, 50, 2000, suffix=20)
    assert found["spearman"] >= 0.95, found["table"]
    assert set(found["cheats"]) == {"silent", "constant", "unigram", "echo", "copy", "noisy copy", "look-up"}
    assert max(found["cheats"].values()) <= 0.05, found["cheats"]


def test_a_crowd_is_swept_by_the_preset(bench, cache_dir):
    text = prepare(config.Data(tokenizer="bytes", max_documents=200), cache_dir)
    cfg = compose("run", ["mechanism=classic"]).mechanism
    bench.query_sweep(cfg, text, 200)  # asserts that each was asked, scored and weighed; its time is the benchmark's


def test_the_preset_has_the_constants_of_the_4096_uid_network():
    cfg = compose("run", ["mechanism=classic"])
    rule = cfg.mechanism.query
    assert (cfg.mechanism.max_weight, cfg.mechanism.exclude_quantile) == (0.015, 0.1)
    assert (rule.rows, rule.context, rule.horizon, rule.top_k, rule.group_size) == (32, 256, 8, 4096, 20)
    assert (rule.ema, rule.miss, rule.power, rule.synergy_power, rule.divergence_penalty, rule.entropy_floor) == (
        0.1,
        0.1,
        0.5,
        0.5,
        0.02,
        1.69,
    )
