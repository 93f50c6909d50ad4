"""Stacked models: each as if it were alone, to the bit beside others and closely beside the plain engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from raytensor.config import MinerProfile
from raytensor.errors import DataError
from raytensor.miners.model import spec
from raytensor.training import models, stacked_adamw
from raytensor.training.engine import PlainEngine
from raytensor.training.recipe import Recipe
from raytensor.training.stacked import StackedEngine, stackable

V = 64
PROFILE = MinerProfile(hidden=32, layers=2, heads=2)


def build(profile: MinerProfile, vocab_size: int, seq_len: int, seed: int):
    return models.build(spec(profile, vocab_size, seq_len, seed))


RECIPES = [
    Recipe(lr=3e-3),
    Recipe(lr=1e-2, warmup_steps=3, weight_decay=0.0),
    Recipe(lr=1e-3, clip=0.1, betas=(0.8, 0.99)),
    Recipe(lr=5e-3, warmup_steps=1, weight_decay=0.5, schedule="wsd", total_steps=8),
    Recipe(lr=2e-3, schedule="cosine", total_steps=30),
]
STEPS = [12, 5, 9, 0, 12]  # a model leaves the group when it is done


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def some_models(seeds, profile: MinerProfile = PROFILE):
    return (build(profile, V, 16, seed) for seed in seeds)


def stack(seeds=range(5), recipes=RECIPES, **more) -> StackedEngine:
    return StackedEngine(some_models(seeds), recipes, **more)


def batches(number: int, steps: int, rows: int = 4) -> np.ndarray:
    return np.random.default_rng(number).integers(0, V, (steps, rows, 17)).astype(np.uint16)


def question(number: int, rows: int = 70) -> tuple[np.ndarray, np.ndarray]:  # more rows than one forward takes
    draw = np.random.default_rng(number)
    return draw.integers(0, V, (rows, 12)).astype(np.int32), draw.integers(1, 13, rows).astype(np.int32)


def bits(found: StackedEngine, number: int) -> list[bytes]:
    return [value.numpy().tobytes() for value in found.weights(number).values()]


def test_every_model_trains_as_it_would_alone():
    """Beside the plain engine: losses to 1e-4 nats, weights and answers to 1e-3 after 12 steps.

    The formulas are the same and every gradient agrees to float32 rounding; AdamW divides by the gradient's size, so
    that where a gradient is nearly zero its rounding decides a step of up to the learning rate.
    """
    found = stack()
    losses = found.train({n: batches(n, steps) for n, steps in enumerate(STEPS)})
    answers = found.log_probs({n: question(n) for n in range(5)})
    for n, recipe in enumerate(RECIPES):
        alone = PlainEngine(
            build(PROFILE, V, 16, n), recipe.lr, **{k: getattr(recipe, k) for k in vars(recipe) if k != "lr"}
        )
        expected = [alone.train_steps([batch]) for batch in batches(n, STEPS[n])]
        np.testing.assert_allclose(losses[n], expected, atol=1e-4)
        assert found.steps[n] == alone.steps == STEPS[n]
        np.testing.assert_allclose(answers[n], alone.log_probs(*question(n)), atol=1e-3)
        for name, weight in alone.weights().items():
            np.testing.assert_allclose(found.weights(n)[name], weight, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("hidden, rows", [(32, 4), (24, 3), (40, 1)])  # sizes that vector instructions divide, and not
def test_neighbours_change_no_bit(hidden, rows):
    profile = MinerProfile(hidden=hidden, layers=2, heads=2)
    together, narrow = (StackedEngine(some_models(range(5), profile), RECIPES, width=width) for width in (None, 2))
    work = {n: batches(n, steps, rows) for n, steps in enumerate(STEPS)}
    losses, narrow_losses = together.train(work), narrow.train(work)
    answers = together.log_probs({n: question(n) for n in range(5)})
    for n in range(5):
        alone = StackedEngine(some_models([n], profile), [RECIPES[n]])
        assert np.array_equal(alone.train({0: work[n]})[0], losses[n]) and np.array_equal(losses[n], narrow_losses[n])
        assert bits(alone, 0) == bits(together, n) == bits(narrow, n)
        assert np.array_equal(alone.log_probs({0: question(n)})[0], answers[n])


def test_two_calls_are_one_and_order_and_absence_change_nothing():
    whole, parts = stack(), stack()
    whole.train({n: batches(n, 6) for n in range(5)})
    parts.train({n: batches(n, 6)[:2] for n in (4, 1, 3)})
    parts.train({n: batches(n, 6)[2:] for n in (1, 3)} | {0: batches(0, 6)})
    parts.train({2: batches(2, 6)})
    parts.train({4: batches(4, 6)[2:]})
    assert all(bits(whole, n) == bits(parts, n) for n in range(5))


def test_unequal_batches_and_questions_are_grouped():
    mixed, equal = stack(), stack()
    work = {0: batches(0, 3), 1: batches(1, 3, rows=2), 2: batches(2, 3)}
    losses = mixed.train(work)
    for n in work:
        assert np.array_equal(equal.train({n: work[n]})[n], losses[n])
    answers = mixed.log_probs({0: question(0), 1: question(1, rows=5)})
    assert answers[0].shape == (70, V) and answers[1].shape == (5, V)
    assert np.array_equal(answers[1], equal.log_probs({1: question(1, rows=5)})[1])


def test_out_of_a_stack_and_back(tmp_path):
    """A checkpoint is the plain engine's: it goes on there, comes back, and is the same file either way."""
    found = stack()
    found.train({n: batches(n, 4) for n in range(5)})
    found.save(1, tmp_path / "stacked", {"round": 7})
    plain = PlainEngine(build(PROFILE, V, 16, 99), RECIPES[1].lr)
    assert plain.load(tmp_path / "stacked") == {"round": 7} and plain.steps == 4
    plain.save(tmp_path / "plain", {"round": 7})
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (tmp_path / "stacked" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    again = stack(seeds=[5, 6, 7, 8, 9])
    assert again.load(3, tmp_path / "plain") == {"round": 7} and again.steps == [0, 0, 0, 4, 0]
    assert bits(again, 3) == bits(found, 1)
    again.recipes[3] = RECIPES[1]
    assert np.array_equal(again.train({3: batches(8, 3)})[3], found.train({1: batches(8, 3)})[1])
    assert bits(again, 3) == bits(found, 1)


def test_a_new_model_leaves_and_comes_back(tmp_path):
    found, again = stack(), stack(seeds=[9] * 5)
    found.save(0, tmp_path / "new")
    PlainEngine(build(PROFILE, V, 16, 99), 1e-3).load(tmp_path / "new")
    again.load(0, tmp_path / "new")
    assert again.steps[0] == 0 and np.array_equal(
        again.train({0: batches(1, 3)})[0], found.train({0: batches(1, 3)})[0]
    )
    with pytest.raises(DataError, match="another model"):
        StackedEngine(some_models([0], MinerProfile(hidden=48, layers=2, heads=2)), [Recipe()]).load(
            0, tmp_path / "new"
        )


def test_a_member_is_an_engine():
    found, other = stack(), stack()
    member = found.members[2]
    assert np.isnan(member.train_steps([])) and member.steps == 0
    loss = member.train_steps(batches(0, 3))
    assert (
        loss == pytest.approx(other.train({2: batches(0, 3)})[2].mean())
        and member.steps == 3
        and found.steps == [0, 0, 3, 0, 0]
    )
    assert np.array_equal(member.log_probs(*question(1)), other.log_probs({2: question(1)})[2])


def test_models_come_and_go():
    found, fixed = stack(), stack(seeds=[0, 1, 2, 3, 4, 7], recipes=[*RECIPES, Recipe(lr=4e-3)])
    found.train({0: batches(0, 2)})
    found.drop(2)
    member = found.add(build(PROFILE, V, 16, 7), Recipe(lr=4e-3))
    assert member.number == 5 and len(found) == 6
    found.train({0: batches(1, 4), 5: batches(5, 3)})
    fixed.train({0: np.concatenate([batches(0, 2), batches(1, 4)]), 5: batches(5, 3)})
    assert bits(found, 5) == bits(fixed, 5) and bits(found, 0) == bits(fixed, 0)


def test_the_two_ways_of_adamw_agree():
    draw = torch.Generator().manual_seed(0)
    rows, grads = torch.randn(5, 300, generator=draw), torch.randn(5, 300, generator=draw)
    states = [(rows.clone(), grads.clone(), torch.zeros(2, 5, 300)) for _ in range(2)]
    for count in range(1, 6):
        for state, together in zip(states, (False, True), strict=True):
            state[1].copy_(grads.roll(count))
            stacked_adamw.step(state, RECIPES, [count + n for n in range(5)], 200, together=together)
    for one, both in zip(*states, strict=True):
        torch.testing.assert_close(one, both, rtol=1e-5, atol=1e-6)
    assert not torch.equal(states[0][0], rows)


def test_what_can_not_be_stacked_is_refused():
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=16, n_embd=32, n_layer=1, n_head=2))
    assert not stackable(gpt2) and stackable(build(PROFILE, V, 16, 0))
    with pytest.raises(ValueError, match="no plain Llama"):
        StackedEngine([gpt2], [Recipe()])
    other = build(MinerProfile(hidden=48, layers=2, heads=2), V, 16, 0)
    with pytest.raises(ValueError, match="model 1 .* has another shape"):
        StackedEngine([build(PROFILE, V, 16, 0), other], [Recipe(), Recipe()])
    with pytest.raises(ValueError, match="longer"):
        StackedEngine(some_models([0]), [Recipe(), Recipe()])
    with pytest.raises(ValueError, match="sgd.*use the plain engine"):
        StackedEngine(some_models([0]), [Recipe(optimizer="sgd")])
    with pytest.raises(ValueError, match="bf16.*use the plain engine"):
        StackedEngine(some_models([0]), [Recipe(precision="bf16")])
