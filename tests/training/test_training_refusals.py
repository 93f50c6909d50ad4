"""What can't be done is refused before anything starts: what was asked, what there is, the fix. The exact words."""

from __future__ import annotations

import importlib.metadata

import pytest

from raytensor.errors import ConfigError
from raytensor.jobs.run.job import run_main
from raytensor.jobs.sweep.job import sweep_main
from raytensor.jobs.train import train_main

UNKNOWN = "optimizer='lion': must be adamw, sgd or muon"
CUT = "optimizer='muon': works on whole matrices, which engine=zero2 shards; use engine=ddp, or optimizer=adamw or sgd"
UNEVEN = "batch_size=8: must divide by ranks * accumulate (3 * 1); use 9, for example"
NO_DATA = "data.files='/no/such/texts': no file matches; give a file, a glob, or a folder that holds *.txt *.md *.rst"
JOBS = {"train": (train_main, "training."), "run": (run_main, "miners.profiles[0]."), "sweep": (sweep_main, "profile.")}


def overrides(job: str, **settings: object) -> list[str]:
    if job == "run":
        return [f"miners.profiles=[{{{', '.join(f'{key}: {value}' for key, value in settings.items())}}}]"]
    return [f"{JOBS[job][1]}{key}={value}" for key, value in settings.items()]


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(
    "settings, words",
    [
        ({"optimizer": "lion"}, UNKNOWN),
        ({"optimizer": "muon", "engine": "zero2", "ranks": 2}, CUT),
        ({"engine": "ddp", "ranks": 3}, UNEVEN),
        ({"gpus_per_rank": 2}, "gpus_per_rank=2: must be 0 or 1: a rank has one device; more GPUs are more ranks"),
    ],
)
def test_impossible_models(tmp_path, monkeypatch, job, settings, words):
    monkeypatch.chdir(tmp_path)
    main, prefix = JOBS[job]
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0")
    with pytest.raises(ConfigError) as caught:
        main(overrides(job, **settings))
    assert str(caught.value) == prefix + words and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("job", JOBS)
def test_missing_data(tmp_path, monkeypatch, job):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        JOBS[job][0](["data=files", "data.files=/no/such/texts"])
    assert str(caught.value) == NO_DATA and list(tmp_path.iterdir()) == []


def test_muon_of_an_older_torch(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.6.0+cu124")
    with pytest.raises(ConfigError) as caught:
        train_main(["training.optimizer=muon"])
    fix = "use optimizer=adamw or sgd, or a newer torch"
    assert str(caught.value) == f"training.optimizer='muon': needs torch 2.9, 2.6.0+cu124 is installed; {fix}"
