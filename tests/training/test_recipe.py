"""How a model is trained, as settings give it: rates, the loss's penalty, one schema for training and miners."""

from __future__ import annotations

import pytest
import torch

from raytensor import config
from raytensor.config import MinerProfile
from raytensor.config.train import Training
from raytensor.errors import ConfigError
from raytensor.miners.collaborator import CollaboratingMiner
from raytensor.miners.model import spec
from raytensor.miners.placement import architecture
from raytensor.training.causal import Causal
from raytensor.training.models import build
from raytensor.training.recipe import Recipe


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("constant", {1: 0.25, 4: 1.0, 12: 1.0, 20: 1.0, 40: 1.0}),
        ("linear", {1: 0.25, 4: 1.0, 12: 0.6, 20: 0.2, 40: 0.2}),  # halfway from 4 to 20: halfway from 1 to 0.2
        ("cosine", {1: 0.25, 4: 1.0, 12: 0.6, 20: 0.2, 40: 0.2}),
        ("wsd", {1: 0.25, 4: 1.0, 12: 1.0, 15: 1.0, 16: 0.84, 18: 0.52, 20: 0.2, 40: 0.2}),  # falls from step 15 on
    ],
)
def test_rates_of_a_schedule(schedule, expected):
    recipe = Recipe(lr=1.0, warmup_steps=4, schedule=schedule, total_steps=20, min_lr_share=0.2, decay_share=0.25)
    assert {step: recipe.rate(step) for step in expected} == pytest.approx(expected, abs=1e-12)


def test_the_penalty_is_in_the_gradient_and_not_in_the_loss():
    def gradient(z_loss):
        model = build(spec(MinerProfile(hidden=32, layers=1, heads=2), 64, 16, 0))
        causal, tokens = Causal(model, z_loss=z_loss), torch.arange(34).reshape(2, 17)
        loss = causal(tokens)
        loss.backward()
        log_z = model(input_ids=tokens[:, :-1]).logits.float().logsumexp(-1)
        return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}, (model, log_z)

    loss, without, (model, log_z) = gradient(0.0)
    same, with_it, _ = gradient(0.5)
    model.zero_grad()
    (0.5 * log_z.square().mean()).backward()
    assert same == loss
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(with_it[name], without[name] + parameter.grad, atol=1e-6, rtol=1e-5)


def test_training_and_profiles_have_one_schema():
    given = {"lr": 1e-2, "warmup_steps": 3, "schedule": "wsd", "decay_share": 0.5, "betas": [0.8, 0.9]}
    given |= {"weight_decay": 0.0, "clip": 0.5, "z_loss": 1e-4, "accumulate": 2, "precision": "bf16"}
    expected = {name: getattr(Recipe(**(given | {"betas": (0.8, 0.9)})), name) for name in given}
    for settings in (Training(**given), MinerProfile(**given, total_steps=40)):
        recipe = Recipe.of(settings, total_steps=40)
        assert {name: getattr(recipe, name) for name in given} == expected and recipe.total_steps == 40
    assert Recipe.of(MinerProfile()) == Recipe() and Recipe.of(MinerProfile()).total_steps == 0
    assert architecture(MinerProfile()) == (128, 4, 4), "stacked"
    assert architecture(MinerProfile(z_loss=1e-4)) is None


@pytest.mark.parametrize(
    "setting, words",
    [
        ("schedule: linear", "total_steps"),
        ("schedule: step", "schedule"),
        ("betas: [0.9]", "must be two numbers"),
        ("betas: [0.9, 1.0]", "betas"),
        ("z_loss: -1", "z_loss"),
        ("decay_share: 0", "decay_share"),
    ],
)
def test_what_makes_no_sense_in_a_profile_is_refused(setting, words):
    with pytest.raises(ConfigError, match=words):
        config.compose("run", [f"miners.profiles=[{{{setting}}}]"])


def test_help_of_an_inherited_setting_says_what_it_is():
    found = config.help.settings(Training)
    assert found["warmup_steps"].default == 20 and "linear warm-up" in found["warmup_steps"].comment
    assert found["schedule"].default == "cosine" and "wsd" in found["schedule"].comment


def test_a_collaborating_miner_trains_as_its_profile_says(monkeypatch):
    seen = []
    monkeypatch.setattr("raytensor.miners.collaborator.Collaborator", lambda *args, **more: seen.append(args[3]))
    cfg = config.compose("run", ["mechanism=collab"])
    text = type("Text", (), {"train": torch.zeros(1000), "vocab_size": 64})
    CollaboratingMiner("a", MinerProfile(weight_decay=0.3, accumulate=2, clip=0.2), cfg, text)
    assert (seen[0].weight_decay, seen[0].accumulate, seen[0].clip) == (0.3, 2, 0.2)
