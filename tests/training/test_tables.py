"""The tables of behaviours, engines and optimizers are what the checks, the help texts and the engines use."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from raytensor import config
from raytensor.config import behaviours
from raytensor.config.optimizers import ENGINES, MOMENTS, OPTIMIZERS
from raytensor.errors import ConfigError
from raytensor.mechanisms.collab.mechanism import CollabMechanism
from raytensor.miners.behaviours import ACTIONS
from raytensor.miners.model import spec
from raytensor.training import engine, models
from raytensor.training.recipe import Recipe, moments_of


def test_behaviours_by_mechanism():
    found: dict[str, list[str]] = {}
    for name, row in behaviours.BEHAVIOURS.items():
        found.setdefault(row.mechanism, []).append(name)
    assert found == {
        "": ["honest", "lazy", "copy", "constant", "random", "silent"],
        "collab": ["wrong_data", "sign_flip", "stale", "huge", "nan"],
        "files": ["copy_noise"],
    }
    assert [name for name, row in behaviours.BEHAVIOURS.items() if row.trains] == ["honest", "lazy"]
    assert set(ACTIONS) == set(behaviours.BEHAVIOURS)
    assert CollabMechanism.behaviours == tuple(found["collab"])


def test_help_lists_every_row():
    found = {name: setting.comment for name, setting in config.settings(config.MinerProfile).items()}
    assert all(f"{name} ({row.help})" in found["behaviour"] for name, row in behaviours.BEHAVIOURS.items())
    assert all(name in found["engine"] for name in ENGINES) and all(name in found["optimizer"] for name in OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_every_optimizer_has_a_row(name):
    if OPTIMIZERS[name].least_torch and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    parameters = {"matrix": nn.Parameter(torch.ones(4, 4)), "vector": nn.Parameter(torch.ones(4))}
    made = Recipe(optimizer=name).optimizers(parameters, ["matrix"])
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    kept = set()
    for optimizer in made:
        optimizer.step()
        moments = moments_of(optimizer)
        for state in optimizer.state.values():
            assert set(state) == {*moments.names, *(["step"] if moments.counts_steps else [])}
            kept |= set(state)
    assert kept and type(made[0]).__name__ in MOMENTS


def test_a_broken_deepspeed_is_refused_with_the_engine_and_the_fix(tmp_path, monkeypatch):
    (tmp_path / "deepspeed").mkdir()
    (tmp_path / "deepspeed" / "__init__.py").write_text(
        "raise ImportError('libaio.so.1: cannot open shared object file')"
    )
    monkeypatch.delitem(sys.modules, "deepspeed", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    model = models.build(spec(config.MinerProfile(hidden=32, layers=1, heads=2), 64, 16, seed=0))
    with pytest.raises(ConfigError, match=r"engine=zero2: .*libaio.so.1.*fix: pip install --force-reinstall deepspeed"):
        engine.make("zero2", model, Recipe())
