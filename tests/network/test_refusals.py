"""What a run can't have is refused before anything starts."""

from __future__ import annotations

import pytest

from raytensor import config
from raytensor.config import MinerProfile
from raytensor.errors import ConfigError
from raytensor.jobs.run.job import run_main
from raytensor.jobs.run.plan import refuse_unusable
from raytensor.jobs.sweep.job import sweep_main
from raytensor.jobs.train import train_main
from raytensor.training import models
from raytensor.training.models import ModelSpec

SPEC = ModelSpec(hidden=32, layers=1, heads=2, vocab_size=256, seq_len=32)


def with_model(name: str) -> config.RunConfig:
    return config.RunConfig(
        miners=config.Miners(profiles=[MinerProfile(model=name)]), data=config.Data(tokenizer="bytes")
    )


def test_missing_texts_and_models_and_damaged_weights(tmp_path):
    with pytest.raises(ConfigError, match="no file matches"):
        refuse_unusable(config.RunConfig(data=config.Data(source="json", files=str(tmp_path / "nothing"))))
    with pytest.raises(ConfigError, match="no such folder"):
        refuse_unusable(with_model(str(tmp_path / "nothing")))
    folder = tmp_path / "model"
    models.export(SPEC, {}, folder)
    refuse_unusable(with_model(str(folder)))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="model.safetensors is damaged"):
        refuse_unusable(with_model(str(folder)))


@pytest.mark.parametrize(
    "profile, words",
    [
        ("engine: ddp, ranks: 3", "batch_size=8: must divide by ranks * accumulate (3 * 1); use 9, for example"),
        ("engine: adam", "engine='adam': must be one of plain, ddp, fsdp2, hsdp, tp, zero1, zero2, zero3"),
        ("ranks: 2", "engine=plain is one process"),
        ("behaviour: silent, engine: ddp, ranks: 2", "has no model"),
        ("precision: fp8", "must be fp32 or bf16"),
    ],
)
def test_profiles_that_can_not_be(profile, words):
    with pytest.raises(ConfigError) as caught:
        config.compose("run", [f"miners.profiles=[{{{profile}}}]"])
    assert f"miners.profiles[0].{words.partition(':')[0]}" in str(caught.value) or words in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "main, key",
    [
        (run_main, "miners.profiles=[{model: /nowhere}]"),
        (train_main, "training.model=/nowhere"),
        (sweep_main, "profile.model=/nowhere"),
    ],
)
@pytest.mark.parametrize("more", [[], ["dry_run=true"]])
def test_a_missing_model_is_refused_before_there_is_a_folder(tmp_path, main, key, more):
    with pytest.raises(
        ConfigError, match="model='/nowhere': there is no such folder; give one that holds config.json, or a size: 1M"
    ):
        main([key, f"paths.runs={tmp_path}", "name=x", *more])
    assert not list(tmp_path.iterdir())
