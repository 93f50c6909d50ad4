"""Gradients that are not finite: steps are left out, the training goes back, good checkpoints stay."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_train_job import settings

from raytensor.errors import DataError
from raytensor.training import loop, models
from raytensor.training.engine import PlainEngine
from raytensor.training.models import ModelSpec, build
from raytensor.training.ranks import alone

SMALL = ModelSpec(hidden=32, layers=1, heads=2, vocab_size=64, seq_len=16)
BATCHES = np.random.default_rng(0).integers(0, 64, (12, 4, 17)).astype(np.uint16)


def poison(model: torch.nn.Module, steps: set[int]) -> torch.nn.Module:
    """The gradients of the backward passes `steps`, counted from 1, become NaN."""
    count = 0

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return gradient * math.nan if count in steps else gradient

    next(model.parameters()).register_hook(hook)
    return model


def poisoned_models(monkeypatch, steps: set[int]) -> None:
    made = models.build
    monkeypatch.setattr(
        models, "build", lambda spec, meta=False: made(spec, meta=True) if meta else poison(made(spec), steps)
    )


def finite(folder: Path) -> bool:
    return all(value.isfinite().all() for value in load_file(folder / "model.safetensors").values())


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_a_step_without_a_finite_gradient_is_left_out_and_resumed_exactly(tmp_path):
    engine, without = PlainEngine(poison(build(SMALL), {4, 5}), 3e-3), PlainEngine(build(SMALL), 3e-3)
    engine.train_steps(BATCHES[:3])
    before = {name: value.clone() for name, value in engine.weights().items()}
    engine.train_steps(BATCHES[3:5])
    assert all(torch.equal(value, before[name]) for name, value in engine.weights().items())
    health = engine.health
    assert (health.skipped, health.skipped_in_row, health.poisoned) == (2, 2, False) and math.isnan(
        health.gradient_norm
    )
    engine.train_steps(BATCHES[5:8])
    assert (engine.steps, engine.health.skipped, engine.health.skipped_in_row) == (8, 2, 0)
    assert 0 < engine.health.gradient_norm < 100
    engine.save(tmp_path / "step")
    again = PlainEngine(build(SMALL), 3e-3)
    again.load(tmp_path / "step")
    assert again.health.skipped == 2
    assert again.train_steps(BATCHES[8:]) == engine.train_steps(BATCHES[8:])  # AdamW's own count of steps as well
    assert all(torch.equal(value, again.weights()[name]) for name, value in engine.weights().items())
    without.train_steps(BATCHES[:3])
    without.save(tmp_path / "none")
    assert "skipped" not in json.loads((tmp_path / "none" / "engine.json").read_text())


def test_a_few_bad_steps_cost_these_steps_only(tmp_path, monkeypatch):
    poisoned_models(monkeypatch, {12, 13})
    seen, said = [], []
    loop.run(settings(tmp_path), alone(), tmp_path / "run", seen.append, said.append)
    assert [event.skipped for event in seen] == [0, 0, 2, 2, 2, 2] and not said
    assert seen[-1].tokens == 30 * 4 * 16 and 0 < seen[-1].gradient_norm < 100
    assert names(tmp_path / "run") == ["step-0000025", "step-0000030"] and finite(tmp_path / "run" / "export")


def test_many_bad_steps_go_back_to_the_newest_checkpoint(tmp_path, monkeypatch):
    """No checkpoint is written meanwhile; with other data the training comes to its end."""
    poisoned_models(monkeypatch, set(range(12, 22)))
    seen, said = [], []
    loop.run(settings(tmp_path, max_skipped=8), alone(), tmp_path / "run", seen.append, said.append)
    assert said == ["no finite gradient in 9 steps in a row up to step 20: back to step-0000010, roll-back 1 of 3"]
    assert [event.step for event in seen] == [5, 10, 15, 20, 15, 20, 25, 30]
    assert finite(tmp_path / "run" / "export")


@pytest.mark.parametrize("keep", [1, 2])
def test_a_diverged_training_never_overwrites_the_good_one(tmp_path, keep):
    """10 good steps, then a learning rate that no training survives: it ends with a message, and can go on."""
    run = tmp_path / "run"
    good = settings(tmp_path, steps=10, schedule="constant", keep=keep)
    loop.run(good, alone(), run, lambda event: None)
    export = (run / "export" / "model.safetensors").read_bytes()
    bad = replace(good, training=replace(good.training, steps=60, lr=1e30, log_every=1, checkpoint_every=1))
    said: list[str] = []
    with pytest.raises(DataError) as caught:
        loop.run(bad, alone(), run, lambda event: None, said.append)
    text = str(caught.value)
    assert "the training diverged: no finite gradient in 10 steps in a row" in text
    assert "after 3 roll-backs; step-0000010 is kept\n  fix: lower training.lr" in text and len(said) == 3
    assert names(run)[-1] == "step-0000010" and "diverged-step-0000011" in names(run)
    assert (run / "export" / "model.safetensors").read_bytes() == export
    losses: list[float] = []
    after = replace(good, training=replace(good.training, steps=20))
    loop.run(after, alone(), run, lambda event: losses.append(event.loss))
    assert len(losses) == 2 and losses[-1] < 5


def test_without_a_checkpoint_it_ends_at_once(tmp_path):
    with pytest.raises(DataError, match="the training diverged: .* there is no checkpoint"):
        loop.run(settings(tmp_path, lr=1e30, warmup_steps=0), alone(), tmp_path / "run", lambda event: None)
    assert not (tmp_path / "run" / "export").exists()
