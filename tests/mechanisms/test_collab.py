"""Collaborative training: the wire format, the oracle against plain AdamW, who is paid, what attackers can do."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from raytensor.data import assign
from raytensor.errors import DataError
from raytensor.mechanisms.collab import rating
from raytensor.mechanisms.collab.aggregate import Outer, norms, robust_mean
from raytensor.mechanisms.collab.codec import Codec, Feedback, Sparse
from raytensor.mechanisms.collab.layout import Layout
from raytensor.mechanisms.collab.likeness import copies, sketch
from raytensor.mechanisms.collab.store import Store
from raytensor.mechanisms.evidence import State, advance, evidence_from_json, evidence_to_json
from raytensor.training.engine import PlainEngine
from raytensor.training.models import ModelSpec, build
from raytensor.training.recipe import Recipe
from raytensor.types import Failure, Reason

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "jobs" / "bench"))
from collab_play import Play, markov_text

SIZE = 119_104  # parameters of the model that the byte goals are stated for


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def words():
    return markov_text()


def vector(size: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * 1e-3).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------ codec


@pytest.mark.parametrize("k, share", [(512, 17), (64, 130)])
def test_bytes_on_the_wire(k, share):
    assert len(Codec(k).encode(vector(SIZE))) <= 4 * SIZE / share


@pytest.mark.parametrize("size", [1, 5, 4096, 4097, 10_000])
@pytest.mark.parametrize("k", [0, 1, 64, 4096])
def test_what_is_sent_is_the_largest_of_each_chunk(size, k):
    codec, full = Codec(k), vector(size)
    payload = codec.encode(full)
    assert len(payload) <= codec.max_bytes(size)
    sent = codec.decode(payload, size)
    if k == 0:
        assert np.array_equal(sent.dense(), full)
        return
    for start, count in zip(range(0, size, 4096), codec.counts(size)):
        chunk = full[start : start + 4096]
        inside = (sent.places >= start) & (sent.places < start + 4096)
        assert set(sent.places[inside] - start) == set(np.argsort(-np.abs(chunk), kind="stable")[:count])
        assert len(set(np.abs(sent.values[inside]))) <= 2
    assert (np.sign(sent.values) == np.sign(full[sent.places])).all()


def test_what_was_not_sent_is_sent_later():
    feedback, total, sent = Feedback(Codec(64), 9000, decay=1.0), np.zeros(9000), np.zeros(9000)
    for seed in range(6):
        total += vector(9000, seed)
        sent += feedback.codec.decode(feedback.send(vector(9000, seed)), 9000).dense()
        np.testing.assert_allclose(sent + feedback.residual, total, atol=1e-7)


def test_nonsense_is_refused_with_the_reason():
    codec, size = Codec(64), 5000
    good = codec.encode(vector(size))
    fields = load(good)
    later = {**fields, "p": fields["p"][::-1].copy()}
    wrong = {
        b"": "header does not fit",
        good[:-1]: "not safetensors",
        b"\xff" * 200: "header does not fit",
        good + bytes(2000): "more than",
        save({"p": fields["p"]}): "the tensors are",
        save({**fields, "l": fields["l"].astype(np.float32)}): "the tensors are",
        save({**fields, "l": fields["l"] * np.nan}): "not finite",
        save({**fields, "l": -fields["l"]}): "negative",
        save(later): "not ascending",
    }
    for payload, words in wrong.items():
        with pytest.raises(ValueError, match=words):
            codec.decode(payload, size)
    with pytest.raises(ValueError, match="not finite"):
        codec.encode(np.full(10, np.inf, np.float32))


@given(st.data())
def test_changed_bytes_are_decoded_or_refused(data):
    codec = Codec(16)
    payload = bytearray(codec.encode(vector(4200)))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = codec.decode(bytes(payload), 4200)
    except ValueError:
        return
    assert np.isfinite(found.values).all() and (np.diff(found.places) > 0).all() and found.places[-1] < 4200


# -------------------------------------------------------------------------------------------------------- aggregation


def sparse(dense: np.ndarray) -> Sparse:
    return Sparse(len(dense), np.arange(len(dense)), dense.astype(np.float32))


LAYOUT = Layout(("a", "b"), ((2, 3), (4,)))


def test_each_tensor_is_clipped_to_the_median_norm():
    one = np.ones(10, np.float32)
    updates = {"x": sparse(one), "y": sparse(one), "z": sparse(one * 1e6)}
    np.testing.assert_allclose(norms(updates["z"], LAYOUT), [1e6 * 6**0.5, 2e6])
    np.testing.assert_allclose(robust_mean(updates, LAYOUT), one, rtol=1e-6)


def test_no_peer_has_more_than_its_cap():
    flat = Layout(("a",), ((4,),))
    small, large = np.array([0.1, 0, 0, 0]), np.array([0, 1.0, 0, 0])
    updates = {"big": sparse(large), "big2": sparse(large), "small": sparse(small)}
    mean = robust_mean(updates, flat, peer_cap=0.25)  # norms 1, 1, 0.1: a quarter of 2.1 is 0.525
    np.testing.assert_allclose(mean, [0.1 / 3, 2 * 0.525 / 3, 0, 0], rtol=1e-6)
    assert not robust_mean({}, flat).any()


def test_nesterov_by_hand():
    outer, g = Outer(0.5, 0.9, 1), np.array([1.0], np.float32)
    assert outer.step(g) == pytest.approx(0.5 * (1 + 0.9))
    assert outer.step(g) == pytest.approx(0.5 * (1 + 0.9 * 1.9))


# ------------------------------------------------------------------------------------------------------------- copies


def test_copies_are_found_with_noise_and_rescaled_and_honest_work_is_not():
    base, size = vector(20_000), 20_000
    common = vector(size, 99)
    vectors = {"author": base, "same": base.copy(), "noisy": base + 0.1 * vector(size, 2), "scaled": base * 7}
    vectors |= {f"honest{n}": 0.6 * common + 0.8 * vector(size, 10 + n) for n in range(4)}
    codec = Codec(512)
    sketches = {
        name: sketch(codec.decode(codec.encode(v.astype(np.float32)), size), assign.generator("secret"))
        for name, v in vectors.items()
    }
    claim = dict.fromkeys(vectors, (np.inf, 0.0)) | {"author": (np.inf, -1.0)}
    assert copies(sketches, claim) == {"same": "author", "noisy": "author", "scaled": "author"}
    assert copies(sketches, claim | {"noisy": (7.0, 0.0)})["author"] == "noisy"  # who committed first is the author


def test_gains_count_in_times_of_their_rounds_mean():
    assert rating.relative({"a": 0.75, "b": 0.25, "c": -0.25, "d": -9.0}) == {"a": 1.5, "b": 0.5, "c": -0.5, "d": -1.0}
    assert rating.relative({"a": -0.1, "b": 0.0}) == {"a": 0.0, "b": 0.0} and rating.relative({}) == {}


def test_a_copier_that_ties_in_every_round_takes_nothing_once_it_is_left_out():
    def play(hotkeys):
        ratings = dict.fromkeys(hotkeys, (25.0, 25.0 / 3))
        for number in range(40):
            draw = np.random.default_rng(number)
            gains = {f"m{n}": 1.0 + n / 4 + draw.normal(0, 0.3) for n in range(4)}
            gains |= {"copy": gains["m3"]} if "copy" in hotkeys else {}
            ratings |= rating.rate(ratings, {hotkey: gains[hotkey] for hotkey in hotkeys})
        return ratings["m3"][0] - 3 * ratings["m3"][1]

    alone, beside = play(["m0", "m1", "m2", "m3"]), play(["m0", "m1", "m2", "m3", "copy"])
    assert beside < 0.9 * alone  # why copies are taken out before anybody is rated


# -------------------------------------------------------------------------------------------------------------- store


def test_a_joiner_gets_the_same_model_from_checkpoint_and_changes(tmp_path):
    arrays = {"w": vector(12).reshape(3, 4), "b": vector(4, 1)}
    store = Store.create(tmp_path, arrays, {"seed": 1})
    theta = store.layout.flatten(arrays)
    for window in range(7):
        change = vector(16, 100 + window)
        theta = theta - change
        assert np.array_equal(store.append(window, change, vector(16, window), checkpoint=(window + 1) % 3 == 0), theta)
    late, velocity = Store(tmp_path).before(7)
    assert np.array_equal(late, theta) and np.array_equal(velocity, vector(16, 6)) and store.newest() == 7
    assert {path.name for path in tmp_path.glob("window-*")} == {
        "window-000003.safetensors",
        "window-000006.safetensors",
    }
    earlier = store.before(5)[0]
    store.append(5, vector(16, 1), vector(16, 2), checkpoint=False)  # another life of window 5: what came after is gone
    assert store.newest() == 6 and np.array_equal(store.before(6)[0], earlier - vector(16, 1))


def test_a_damaged_store_says_so(tmp_path):
    with pytest.raises(DataError, match="no shared model"):
        Store(tmp_path / "none")
    store = Store.create(tmp_path, {"w": vector(8)}, {})
    with pytest.raises(DataError, match="another shared model"):
        Store.create(tmp_path, {"w": vector(9)}, {})
    (tmp_path / "window-000000.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="window-000000"):
        store.before(0)


# ---------------------------------------------------------------------------------------------------- whole windows


def test_one_worker_and_one_step_is_plain_adamw(tmp_path, words):
    """Uncompressed, outer rate 1: the same path as AdamW on the same batches, to 1e-6."""
    recipe = Recipe(lr=3e-3)
    play = Play(
        tmp_path,
        {"m": "honest"},
        words,
        recipe,
        k=0,
        inner_steps=1,
        outer_lr=1.0,
        feedback=1.0,
        judge_rows=8,
        peer_cap=1.0,
    )
    plain = PlainEngine(build(ModelSpec(**play.store.model)), **vars(recipe))
    for _ in range(8):
        (task, _), *_ = play.answers()[0]
        loss = plain.train_steps(task.tokens.reshape(1, -1, task.tokens.shape[1]))
        play.window()
        assert abs(play.miners["m"].loss - loss) <= 1e-6
    theirs = play.store.layout.flatten({name: p.detach().numpy() for name, p in plain.model.named_parameters()})
    np.testing.assert_allclose(play.store.before(8)[0], theirs, atol=1e-6)


ROLES = {
    "a": "honest",
    "b": "honest",
    "c": "honest",
    "lazy": "lazy",
    "copy": "copy",
    "wrong": "wrong_data",
    "noise": "random",
    "flip": "sign_flip",
    "zero": "constant",
    "stale": "stale",
    "huge": "huge",
    "nan": "nan",
    "silent": "silent",
}


@pytest.fixture(scope="module")
def played(tmp_path_factory, words):
    play = Play(tmp_path_factory.mktemp("shared"), ROLES, words)
    first = play.heldout_loss()
    rounds = [play.window() for _ in range(14)]
    return play, first, rounds


def test_the_shared_model_grows_and_only_work_is_paid(played):
    play, first, rounds = played
    assert play.heldout_loss() < first - 1.0
    paid = play.mechanism.weights(play.state)
    assert sum(paid.values()) == pytest.approx(1.0)
    honest = min(paid[name] for name in "abc")
    assert honest >= 5 * paid["lazy"] > 0
    assert all(paid.get(name, 0.0) <= 0.01 for name in ROLES if name not in ("a", "b", "c", "lazy")), paid
    assert all(set(chosen) <= {"a", "b", "c", "lazy", "wrong", "noise", "stale"} for _, chosen in rounds)
    assert all({"flip", "huge", "copy"}.isdisjoint(chosen) for _, chosen in rounds)


def test_failures_say_why(played):
    _, _, rounds = played
    failed = {failure.hotkey: failure for failure in rounds[-1][0].failures}
    assert failed["nan"].reason is Reason.MALFORMED and "not finite" in failed["nan"].detail
    assert failed["silent"].reason is Reason.SILENT


def test_the_weights_come_again_from_the_logged_evidence(played):
    play, _, rounds = played
    state = State()
    for evidence, _ in rounds:
        state = advance(
            play.mechanism,
            state,
            evidence_from_json(json.loads(json.dumps(evidence_to_json(evidence), allow_nan=False))),
        )
    assert play.mechanism.weights(state) == play.mechanism.weights(play.state)


def test_judgements_do_not_depend_on_order_or_company(played):
    play, _, _ = played
    asked, answers = play.answers()
    together = play.evidence(asked, answers)
    assert play.evidence(asked[::-1], answers) == together
    some = play.evidence(asked[3:6], answers)
    assert {s.hotkey: s for s in some.scores} == {
        s.hotkey: s for s in together.scores if s.hotkey in {t.hotkey for t, _ in asked[3:6]}
    }


def test_a_stopped_miner_goes_on_bit_for_bit(tmp_path, words):
    play = Play(tmp_path / "shared", {"a": "honest", "b": "honest"}, words)
    for _ in range(2):
        play.window()
    play.miners["a"].save(tmp_path / "own")
    asked, answers = play.answers()
    play.join("a", "honest")
    with pytest.raises(DataError):
        play.miners["a"].load(tmp_path / "nothing")
    play.miners["a"].load(tmp_path / "own")
    again = play.miners["a"].work(next(task for task, _ in asked if task.hotkey == "a"))
    assert again.digest == answers["a"].digest == hashlib.blake2b(again.payload, digest_size=32).hexdigest()


def test_an_answer_of_another_kind_is_malformed(played):
    from raytensor.mechanisms.base import Item
    from raytensor.types import Response

    play, _, _ = played
    (task, sealed), *_ = play.answers()[0]
    (found,) = play.mechanism.score(
        [
            Item(
                task,
                sealed,
                Response(task.task_id, task.hotkey, np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32)),
            )
        ]
    )
    assert isinstance(found, Failure) and found.reason is Reason.MALFORMED
