"""Submitted checkpoints of small Llamas are read within bounds and evaluated bit for bit; copies of them are found."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from raytensor import config
from raytensor.data import assign
from raytensor.data.text import Text, unigram
from raytensor.errors import DataError
from raytensor.mechanisms.base import Ask, Item
from raytensor.mechanisms.evidence import State, advance, gather
from raytensor.mechanisms.model_eval import ModelEvalMechanism
from raytensor.training import single_file
from raytensor.training.engine import PlainEngine
from raytensor.training.models import ModelSpec, build
from raytensor.types import Failure, FileCommit, Reason, Score, Submission
from raytensor.validators.forward import LlamaForward

V, T = 48, 24
RULE = config.ModelEval(sequences=96, seq_len=T, batch_size=16, probes=16)
BOUNDS = {"max_bytes": 2**22, "max_parameters": 10**6, "vocab_size": V}


@pytest.fixture(scope="module")
def text():
    """A chain of tokens with some noise: there is something to learn, and more steps learn more."""
    draw = np.random.default_rng(0)
    follow, tokens = draw.integers(0, V, (V, 2)), [0]
    for r, pick in zip(draw.random(30_000), draw.integers(0, V, 30_000), strict=True):
        tokens.append(int(follow[tokens[-1], int(r > 0.4)] if r < 0.8 else pick))
    tokens = np.array(tokens, dtype=np.uint16)
    train, heldout = tokens[:24_000], tokens[24_000:]
    return Text(train, heldout, np.array([0, len(train)]), np.array([0, len(heldout)]), unigram(train, V), V, 1.0)


def trained(text: Text, steps: int, seed: int):
    model = build(ModelSpec(hidden=32, layers=2, heads=4, vocab_size=V, seq_len=T, seed=seed))
    engine = PlainEngine(model, 5e-3)
    starts = assign.training_starts(seed, 0, "m", steps * 16, T + 1, len(text.train))
    engine.train_steps(text.train[starts[:, None] + np.arange(T + 1)].reshape(steps, 16, T + 1).astype(np.int64))
    return model.eval()


@pytest.fixture(scope="module")
def models(text):
    torch.set_num_threads(1)
    return {"king": trained(text, 40, 1), "equal": trained(text, 40, 2), "better": trained(text, 100, 3)}


def changed(model, change) -> bytes:
    """A file of the model's tensors after `change`, which edits them in place."""
    data = single_file.pack(model)
    size = int.from_bytes(data[:8], "little")
    tensors = load(data)
    change(tensors)
    return save(tensors, json.loads(data[8 : 8 + size])["__metadata__"])


def noise(tensors) -> None:
    draw = torch.Generator().manual_seed(0)
    for value in tensors.values():
        value += 1e-3 * value.std() * torch.randn(value.shape, generator=draw)


def permuted_heads(tensors) -> None:
    order = torch.tensor([2, 0, 3, 1])
    for layer in range(2):
        for name in ("q", "k", "v"):
            weight = tensors[f"model.layers.{layer}.self_attn.{name}_proj.weight"]
            weight.copy_(weight.view(4, 8, 32)[order].reshape(32, 32).clone())
        weight = tensors[f"model.layers.{layer}.self_attn.o_proj.weight"]
        weight.copy_(weight.view(32, 4, 8)[:, order].reshape(32, 32).clone())


def rescaled_norms(tensors) -> None:
    for layer in range(2):
        tensors[f"model.layers.{layer}.input_layernorm.weight"] *= 3.0
        for name in ("q", "k", "v"):
            tensors[f"model.layers.{layer}.self_attn.{name}_proj.weight"] /= 3.0


COPIES = {"exact": lambda tensors: None, "noise": noise, "permuted": permuted_heads, "rescaled": rescaled_norms}


def play(
    text: Text, files: dict[str, bytes], blocks: dict[str, int], rounds: int, order=lambda items: items
) -> tuple[State, ModelEvalMechanism]:
    mechanism, state = ModelEvalMechanism(config.Mechanism(model_eval=RULE), text.log_unigram, V), State()
    commits = {hotkey: FileCommit(single_file.digest(data), blocks[hotkey]) for hotkey, data in files.items()}
    for number in range(rounds):
        items = [
            Item(task, trial, Submission(task.task_id, task.hotkey, trial.digest, payload=files[task.hotkey]))
            for task, trial in mechanism.tasks(Ask(1, 1, "v", number, tuple(files), commits, 100 + number), state, text)
        ]
        results = {}
        for part in order(items):
            results |= {item.task.task_id: result for item, result in zip(part, mechanism.score(part), strict=True)}
        state = advance(mechanism, state, gather(1, "v", number, results, answered=results))
    return state, mechanism


def test_copies_are_found_and_the_better_model_is_crowned(models, text):
    files = {hotkey: single_file.pack(model) for hotkey, model in models.items()}
    files |= {f"copy-{name}": changed(models["king"], change) for name, change in COPIES.items()}
    assert files["copy-permuted"] != files["king"] and files["copy-rescaled"] != files["king"]
    blocks = {"king": 1, "equal": 2, "better": 9} | {f"copy-{name}": 3 for name in COPIES}
    state, mechanism = play(text, files, blocks, 8, lambda items: [items])
    statuses = {hotkey: entry["status"] for hotkey, entry in state.miners.items()}
    assert {hotkey: statuses[hotkey] for hotkey in files if hotkey.startswith("copy")} == {
        f"copy-{name}": "copy" for name in COPIES
    }
    assert statuses["better"] == "king" and statuses["king"] == "turned down" and statuses["equal"] != "copy"
    weights = mechanism.weights(state)
    assert max(weights, key=weights.get) == "better" and not any(hotkey.startswith("copy") for hotkey in weights)
    # One at a time and in reverse: the same state, to the bit.
    again, _ = play(text, files, blocks, 8, lambda items: [[item] for item in reversed(items)])
    assert again == state


def test_how_far_copies_and_other_models_are_apart(models, text):
    """The distances that `copy_nats` and the benchmark's simulated copies stand on."""
    forward = LlamaForward(RULE, V)
    draw = np.random.default_rng(0).integers(0, len(text.heldout) - T, 64)
    sequences = text.heldout[draw[:, None] + np.arange(T)].astype(np.int32)
    tokens = np.concatenate([sequences[:16, -1:], np.tile(np.argsort(-text.log_unigram)[:3], (16, 1))], axis=1)

    def evaluate(data: bytes):
        return forward.evaluate(
            Submission("t", "a", single_file.digest(data), payload=data), sequences, sequences[:16], tokens
        )

    losses, prints = evaluate(single_file.pack(models["king"]))
    for name, change in COPIES.items():
        other, its = evaluate(changed(models["king"], change))
        assert np.sqrt(np.mean((its - prints) ** 2)) < (1e-2 if name == "noise" else 1e-4)
        assert np.abs(other - losses).max() < (1e-3 if name == "noise" else 1e-5)
    _, its = evaluate(single_file.pack(models["equal"]))
    assert np.sqrt(np.mean((its - prints) ** 2)) > 2 * RULE.copy_nats


def test_losses_are_the_models_own_and_do_not_depend_on_what_is_beside_them(models, text):
    data = single_file.pack(models["equal"])
    submission = Submission("t", "a", single_file.digest(data), payload=data)
    sequences = text.heldout[: 40 * T].reshape(40, T).astype(np.int32)
    tokens = np.zeros((1, 4), np.int32)
    losses, prints = LlamaForward(RULE, V).evaluate(submission, sequences, sequences[:1], tokens)
    with torch.inference_mode():
        logits = models["equal"](input_ids=torch.from_numpy(sequences.astype(np.int64))).logits.double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    by_hand = -np.take_along_axis(log_p[:, :-1], sequences[:, 1:, None].astype(np.int64), axis=2)[..., 0].mean(axis=1)
    np.testing.assert_allclose(losses, by_hand, atol=1e-5)
    np.testing.assert_allclose(prints, [log_p[0, -2, 0]] * 4, atol=1e-5)
    some, _ = LlamaForward(RULE, V).evaluate(submission, sequences[7:12], sequences[:1], tokens)
    assert np.array_equal(some, losses[7:12])


def with_shape(data: bytes, **changes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    shape = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["llama"]) | changes
    return save(load(data), {"llama": json.dumps(shape)})


BAD = {
    "empty": (lambda data: b"", "cut off"),
    "cut": (lambda data: data[: len(data) // 2], "safetensors"),
    "pickle": (lambda data: b"\x80\x04" + bytes(100), "cut off|JSON"),
    "header too long": (lambda data: (2**60).to_bytes(8, "little") + data[8:], "too large"),
    "no metadata": (lambda data: save(load(data)), "metadata"),
    "shape is text": (lambda data: save(load(data), {"llama": "[1]"}), "exactly"),
    "deep json": (lambda data: save(load(data), {"llama": "[" * 100_000}), "Llama"),
    "huge layers": (lambda data: with_shape(data, num_hidden_layers=2**20), "at most 512"),
    "huge width": (lambda data: with_shape(data, hidden_size=2**20), "parameters"),
    "a fraction": (lambda data: with_shape(data, hidden_size=32.5), "whole number"),
    "negative": (lambda data: with_shape(data, hidden_size=-32), "whole number"),
    "code": (lambda data: with_shape(data, auto_map="x"), "exactly"),
    "other vocabulary": (lambda data: with_shape(data, vocab_size=V + 1), "vocabulary"),
    "missing tensor": (lambda data: with_shape(data, num_hidden_layers=3), "missing"),
    "one tensor more": (lambda data: with_shape(data, num_hidden_layers=1), "not of this model"),
    "wrong shape": (lambda data: with_shape(data, intermediate_size=64), "asks for"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_the_reason(models, name):
    change, words = BAD[name]
    with pytest.raises(DataError, match=words):
        single_file.unpack(change(single_file.pack(models["king"])), **BOUNDS)


def test_files_have_bounds(models, text, tmp_path):
    data = single_file.pack(models["king"])
    assert single_file.pack(single_file.unpack(data, **BOUNDS)) == data
    with pytest.raises(DataError, match="at most 1000 are read"):
        single_file.unpack(data, **BOUNDS | {"max_bytes": 1000})
    with pytest.raises(DataError, match="at most 1000 are built"):
        single_file.unpack(data, **BOUNDS | {"max_parameters": 1000})
    nan = changed(models["king"], lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(DataError, match="not finite"):
        single_file.unpack(nan, **BOUNDS)
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    sequences, tokens = np.zeros((3, T), np.int32), np.zeros((1, 4), np.int32)
    given = Submission("t", "a", single_file.digest(data), path=str(path))
    assert LlamaForward(RULE, V).evaluate(given, sequences, sequences[:1], tokens)[0].shape == (3,)
    for rule, submission, words in (
        (RULE, replace(given, digest="0" * 64), "digest differs"),
        (replace(RULE, max_bytes=1000), given, "at most 1000"),
        (replace(RULE, seq_len=T + 1), given, "are needed"),
    ):
        with pytest.raises(DataError, match=words):
            LlamaForward(rule, V).evaluate(submission, sequences, sequences[:1], tokens)
    mechanism = ModelEvalMechanism(config.Mechanism(model_eval=RULE), text.log_unigram, V)
    commit = {"a": FileCommit(single_file.digest(nan), 1)}
    task, trial = mechanism.tasks(Ask(0, 1, "v", 0, ("a",), commit), State(), text)[0]
    result = mechanism.score([Item(task, trial, Submission(task.task_id, "a", trial.digest, payload=nan))])[0]
    assert isinstance(result, Failure) and not isinstance(result, Score)
    assert result.reason is Reason.MALFORMED and "not finite" in result.detail
