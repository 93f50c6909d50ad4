"""The plain engine: it learns, its answers depend on their own rows only, and its state comes back bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from raytensor import disk
from raytensor.config import MinerProfile
from raytensor.errors import DamagedCheckpoint, DataError
from raytensor.miners.model import spec
from raytensor.training import models
from raytensor.training.engine import PlainEngine

V = 64
PROFILE = MinerProfile(hidden=32, layers=2, heads=2)


def build(profile: MinerProfile, vocab_size: int, seq_len: int, seed: int):
    return models.build(spec(profile, vocab_size, seq_len, seed))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def engine(seed: int = 0, profile: MinerProfile = PROFILE, **recipe) -> PlainEngine:
    return PlainEngine(build(profile, V, 16, seed), 3e-3, **recipe)


def batches(number: int, steps: int = 6) -> np.ndarray:
    return np.random.default_rng(number).integers(0, V, (steps, 4, 17)).astype(np.uint16)


def test_parameters_by_hand():
    model = build(PROFILE, V, 16, 0)
    inner = 80  # 8/3 * 32 = 85.3, rounded to a multiple of 16
    assert models.num_parameters(model) == V * 32 + 2 * (4 * 32 * 32 + 3 * 32 * inner + 2 * 32) + 32


def test_models_are_their_seeds_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = build(PROFILE, V, 16, 1), build(PROFILE, V, 16, 1), build(PROFILE, V, 16, 2)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_a_pattern_is_learnt():
    found = engine()
    pattern = np.tile(np.arange(17, dtype=np.uint16) % 7, (4, 1))
    first = found.train_steps([pattern] * 3)
    for _ in range(10):
        last = found.train_steps([pattern] * 8)
    assert first > 3.0 and last < 0.2 and found.steps == 83
    log_probs = found.log_probs(pattern[:, :9].astype(np.int32), np.array([9, 5, 3, 7]))
    assert log_probs.argmax(axis=1).tolist() == [2, 5, 3, 0]
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, atol=1e-5)


def optimizer(name: str) -> str:
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    return name


def test_two_steps_are_sgd_by_hand():
    """Decay on matrices only, momentum 0.9, the rate of each step of the warm-up."""
    found, work = engine(optimizer="sgd", clip=1e9), batches(0, 2)
    model = build(PROFILE, V, 16, 0)
    found.train_steps(work)
    kept: dict[str, torch.Tensor] = {}
    for step in (1, 2):
        tokens = torch.from_numpy(work[step - 1].astype(np.int64))
        logits = model(input_ids=tokens[:, :-1]).logits
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        with torch.no_grad():
            for name, p in model.named_parameters():
                push = p.grad + 0.1 * p if p.ndim >= 2 else p.grad
                kept[name] = push + 0.9 * kept[name] if step == 2 else push
                p -= 3e-3 * step / 10 * kept[name]
    for (name, expected), after in zip(model.named_parameters(), found.model.parameters(), strict=True):
        torch.testing.assert_close(after, expected, atol=1e-7, rtol=1e-5, msg=name)


def test_muon_steps_are_orthogonal():
    """Of the layers' matrices: U V^T of the gradient, as large as AdamW's (0.2 a value); the others as AdamW does
    it.
    """
    optimizer("muon")
    found, adamw = engine(optimizer="muon", weight_decay=0.0), engine(weight_decay=0.0)
    before = {name: value.clone() for name, value in found.weights().items()}
    for each in (found, adamw):
        each.train_steps(batches(0, 1))
    after, by_adamw = found.weights(), adamw.weights()
    for name, value in before.items():
        change = (after[name] - value) / (3e-3 / 10)
        if ".layers." in name and value.ndim == 2:
            singular = torch.linalg.svdvals(change) / (0.2 * max(value.shape) ** 0.5)
            # Five steps of Newton-Schulz: all but the smallest come near 1.
            assert 0.6 < singular.quantile(0.2) and singular.max() < 1.25, (name, singular)
            assert not torch.equal(after[name], by_adamw[name])
        else:
            assert torch.equal(after[name], by_adamw[name])


def test_the_first_step_is_adamw_by_hand():
    """One step: gradient clipped to norm 1, moments corrected, decay on matrices only, rate at a tenth of lr."""
    found, batch = engine(), batches(0, 1)
    model = build(PROFILE, V, 16, 0)
    tokens = torch.from_numpy(batch[0].astype(np.int64))
    logits = model(input_ids=tokens[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in model.parameters()]))
    scale = min(1.0, 1.0 / (norm.item() + 1e-6))
    assert found.train_steps(batch) == pytest.approx(loss.item(), rel=1e-6)
    lr = 3e-3 / 10
    for (name, before), after in zip(model.named_parameters(), found.model.parameters(), strict=True):
        g = before.grad * scale
        decayed = before * (1 - lr * 0.1) if before.ndim >= 2 else before
        expected = decayed - lr * g / (g.abs() + 1e-8)  # the first corrected moments are g and g^2
        # Where the gradient is as small as epsilon, float32 decides; the bulk must agree.
        assert torch.isclose(after, expected, atol=2e-6).float().mean() > 0.99, name


def test_an_answer_depends_on_its_own_row_only():
    found = engine()
    found.train_steps(batches(1))
    draw = np.random.default_rng(2)
    tokens = draw.integers(0, V, (300, 12)).astype(np.int32)  # more rows than one forward takes
    lengths = draw.integers(1, 13, 300).astype(np.int32)
    base = found.log_probs(tokens, lengths)
    assert np.array_equal(base, found.log_probs(tokens, lengths))
    padded = np.where(np.arange(12) < lengths[:, None], tokens, 63)  # other rubbish behind the end
    np.testing.assert_array_equal(base, found.log_probs(padded.astype(np.int32), lengths))
    # Equal to what the model says about the row by itself, all positions at once.
    with torch.inference_mode():
        row = torch.from_numpy(tokens[7:8, : lengths[7]].astype(np.int64))
        alone = torch.log_softmax(found.model(input_ids=row).logits[0, -1], dim=-1).numpy()
    np.testing.assert_allclose(base[7], alone, atol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_a_checkpoint_goes_on_bit_for_bit(tmp_path, name):
    straight, broken = (engine(optimizer=optimizer(name)) for _ in range(2))
    straight.train_steps(batches(1))
    broken.train_steps(batches(1))
    broken.save(tmp_path / "point")
    straight_loss = straight.train_steps(batches(2))
    again = engine(seed=9, optimizer=name)
    again.load(tmp_path / "point")
    assert again.steps == 6
    assert again.train_steps(batches(2)) == straight_loss
    assert all(torch.equal(a, b) for a, b in zip(straight.model.parameters(), again.model.parameters(), strict=True))
    assert sorted(path.name for path in (tmp_path / "point").iterdir()) == [
        "engine.json",
        "model.safetensors",
        "optimizer.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["point"]
    # A tied model must still be tied: one tensor, not two that were equal once.
    assert again.model.lm_head.weight is again.model.model.embed_tokens.weight


def test_a_new_engine_can_be_saved_before_it_ever_stepped(tmp_path):
    engine(seed=3).save(tmp_path / "point")
    again = engine(seed=4)
    again.load(tmp_path / "point")
    assert again.train_steps(batches(1)) == engine(seed=3).train_steps(batches(1))


@pytest.mark.parametrize(
    "damage, why",
    [
        ("missing", "no engine.json"),
        ("no optimizer", "optimizer.safetensors is missing: the part of one of the 1 ranks"),
        ("cut model", r"model.safetensors is damaged: it has \d+ bytes of the \d+ that were written"),
        ("one bit", "model.safetensors is damaged: its hash is not the one that was written"),
        ("no step count", "engine.json is damaged"),
        ("another step count", "engine.json is damaged: .*its hash is not the one that was written"),
        ("other optimizer", r"another optimizer \(sgd\), this one is adamw; take sgd"),
        (
            "other model",
            r"another model: model.embed_tokens.weight has the shape \(64, 32\) in it and .* \(64, 48\) here",
        ),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(tmp_path, damage, why):
    point = tmp_path / "point"
    engine().save(point)
    loader = engine(seed=5)
    file = point / "model.safetensors"
    if damage == "missing":
        point = tmp_path / "nothing"
    elif damage == "no optimizer":
        (point / "optimizer.safetensors").unlink()
    elif damage == "cut model":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "one bit":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif damage == "no step count":
        (point / "engine.json").write_text(json.dumps({}))
    elif damage == "another step count":
        text = (point / "engine.json").read_text()
        (point / "engine.json").write_text(text.replace('"steps": 0', '"steps": 7'))
    elif damage == "other optimizer":
        engine(optimizer="sgd").save(point)
    else:
        loader = engine(profile=MinerProfile(hidden=48, layers=2, heads=2))
    before = {name: value.clone() for name, value in loader.weights().items()}
    with pytest.raises(DataError, match=f"can't be loaded: .*{why}") as caught:
        loader.load(point)
    # An older one may do in its place, unless it is whole and of something else.
    assert isinstance(caught.value, DamagedCheckpoint) == (not damage.startswith("other"))
    assert loader.steps == 0 and all(torch.equal(value, before[name]) for name, value in loader.weights().items())


def test_the_caller_s_position_and_the_random_state_come_back(tmp_path):
    found = engine()
    torch.manual_seed(7)
    found.save(tmp_path / "point", {"row": 5, "shard": "a"})
    drawn = torch.rand(3)
    assert engine().load(tmp_path / "point") == {"row": 5, "shard": "a"}
    assert torch.equal(torch.rand(3), drawn)


def test_a_folder_appears_at_once_or_not_at_all(tmp_path):
    target = tmp_path / "point"
    with pytest.raises(KeyError), disk.new_folder(target) as new:
        (new / "half").write_text("x")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    for content in ("old", "new"):
        with disk.new_folder(target) as new:
            (new / content).write_text(content)
            assert not (target / content).exists()
    assert [path.name for path in target.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [target]
    with pytest.raises(KeyError), disk.new_folder(target) as new:
        raise KeyError
    assert [path.name for path in target.iterdir()] == ["new"]
