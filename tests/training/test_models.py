"""Models by size, by folder and by shape: counts, equal seeds, safetensors out and in, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from raytensor.errors import ConfigError
from raytensor.training import models
from raytensor.training.engine import PlainEngine
from raytensor.training.models import ModelSpec, build, num_parameters

SMALL = ModelSpec(hidden=32, layers=2, heads=2, vocab_size=64, seq_len=16)
BATCH = np.random.default_rng(0).integers(0, 64, (4, 17)).astype(np.uint16)


@pytest.mark.parametrize("size", models.LLAMA_SIZES)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_preset_has_the_parameters_of_its_name(architecture, size):
    wanted = float(size[:-1]) * {"M": 1e6, "B": 1e9}[size[-1]]
    model = build(ModelSpec(f"{architecture}-{size}"), meta=True)
    assert num_parameters(model) == pytest.approx(wanted, rel=0.06 if architecture == "gpt2" else 0.02)
    assert models.is_preset(size)


def test_flops_by_hand():
    """GPT-2 124M: 6 N + 12 L d T with N = 124,439,808 (a tied table multiplies as the output embedding)."""
    model = build(ModelSpec("gpt2-124M"), meta=True)
    assert models.flops_per_token(model, 1024) == 6 * 124_439_808 + 12 * 12 * 768 * 1024


@pytest.mark.parametrize("name", ["1M", "gpt2-1M", "qwen2-1M"])
def test_models_are_their_seeds_and_every_architecture_learns(name):
    spec = ModelSpec(name, vocab_size=64, seq_len=16)
    one, again = build(spec), build(spec)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    engine = PlainEngine(one, 3e-3)
    losses = [engine.train_steps([BATCH]) for _ in range(4)]
    assert losses[-1] < losses[0] - 0.3
    assert engine.log_probs(BATCH[:, :9].astype(np.int32), np.full(4, 5)).shape == (4, 64)


def test_out_as_safetensors_and_in_again(tmp_path):
    engine = PlainEngine(build(SMALL), 3e-3)
    engine.train_steps([BATCH] * 3)
    models.export(SMALL, engine.weights(), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors"} <= names and not any(
        name.endswith((".bin", ".pt", ".py")) for name in names
    )
    tokens = torch.from_numpy(BATCH[:, :16].astype(np.int64))
    expected = engine.model(input_ids=tokens).logits
    torch.testing.assert_close(
        AutoModelForCausalLM.from_pretrained(tmp_path / "out")(input_ids=tokens).logits, expected
    )
    inside = ModelSpec(str(tmp_path / "out"), vocab_size=64, seq_len=16)
    torch.testing.assert_close(build(inside)(input_ids=tokens).logits, expected)
    fresh = build(ModelSpec(str(tmp_path / "out"), pretrained=False, seed=4))
    assert not torch.allclose(fresh(input_ids=tokens).logits, expected, atol=1e-3)
    with pytest.raises(ConfigError, match="vocabulary of 64"):
        build(ModelSpec(str(tmp_path / "out"), vocab_size=65))


def test_adapters_are_merged_on_the_way_out(tmp_path):
    pytest.importorskip("peft")
    for name in (None, "gpt2-1M"):
        spec = ModelSpec(name, hidden=32, layers=2, heads=2, vocab_size=64, seq_len=16, lora_rank=2)
        engine = PlainEngine(build(spec), 3e-2)
        trained = sum(p.numel() for p in engine.model.parameters() if p.requires_grad)
        assert trained < 0.2 * num_parameters(engine.model)
        engine.train_steps([BATCH] * 3)
        models.export(spec, engine.weights(), tmp_path / "out")
        tokens = torch.from_numpy(BATCH[:, :16].astype(np.int64))
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        torch.testing.assert_close(
            merged(input_ids=tokens).logits, engine.model(input_ids=tokens).logits, atol=1e-5, rtol=1e-4
        )


def test_code_of_a_folder_is_never_run(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}'
    )
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ConfigError, match="can't be used"):
        build(ModelSpec(str(tmp_path)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name, words", [("/no/such/folder", "no such folder"), ("125M", "can't be used"), ("someone/model", "a size")]
)
def test_a_model_that_is_not_there_is_refused(name, words):
    with pytest.raises(ConfigError, match=words):
        build(ModelSpec(name))
