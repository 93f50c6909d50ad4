"""The search space: what is refused and how it is told, and what is drawn from it."""

from __future__ import annotations

import builtins

import pytest

from raytensor import cluster, config
from raytensor.config.sweep import SweepConfig
from raytensor.errors import ConfigError, DemandError
from raytensor.jobs.sweep import space, tuner
from raytensor.jobs.sweep.job import sweep_main

KEYS = config.settings(SweepConfig)
SPACE = {
    "profile.lr": {"loguniform": [1e-3, 1e-1]},
    "profile.layers": {"int": [1, 3]},
    "profile.batch_size": {"choice": [4, 8]},
    "profile.steps": {"uniform": [1, 9]},
}


@pytest.mark.parametrize(
    "text, told",
    [
        ({}, "is empty.*search=small"),
        ({"profile.lrr": {"choice": [1]}}, "unknown setting 'profile.lrr'; did you mean profile.lr"),
        ({"rounds": {"int": [1, 5]}}, "rounds is the same for all trials"),
        ({"data.vocab_size": {"int": [300, 500]}}, "data.vocab_size is the same for all trials"),
        ({"profile.lr": 3}, "3 is not a distribution; write {uniform"),
        ({"profile.lr": {"loguniforn": [1, 2]}}, "unknown distribution 'loguniforn'; did you mean loguniform"),
        ({"profile.lr": {"uniform": [2, 1]}}, "the first must be smaller"),
        ({"profile.lr": {"uniform": [1, 2, 3]}}, "must be two numbers"),
        ({"profile.lr": {"uniform": "ab"}}, "must be a list"),
        ({"profile.lr": {"loguniform": [0, 1]}}, "must be greater than 0; take uniform"),
        ({"profile.layers": {"int": [1.5, 3]}}, "must be whole numbers"),
        ({"profile.layers": {"choice": []}}, "one value or more"),
    ],
)
def test_a_wrong_space_is_refused_with_the_fix(text, told):
    with pytest.raises(ConfigError, match=told):
        space.parse(text, KEYS)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as refused:
        space.parse({"profile.x": {"choice": [1]}, "profile.lr": {"int": [2, 1]}}, KEYS)
    assert len(str(refused.value).splitlines()) == 2


def test_random_points_follow_from_the_seed_and_lie_in_the_space():
    found = space.parse(SPACE, KEYS)
    points = space.points(found, "random", 40, 7)
    assert points == space.points(found, "random", 40, 7) != space.points(found, "random", 40, 8)
    assert points[:10] == space.points(found, "random", 10, 7)  # more trials leave the first ones as they are
    assert all(1e-3 <= p["profile.lr"] <= 1e-1 and p["profile.batch_size"] in (4, 8) for p in points)
    assert {p["profile.layers"] for p in points} == {1, 2, 3}
    assert sum(p["profile.lr"] < 1e-2 for p in points) in range(
        10, 31
    )  # as many below the middle of the logarithms as above
    assert len({tuple(space.overrides(p)) for p in points}) == 40


def test_a_small_space_is_tried_once_and_a_grid_whole():
    small = space.parse({"profile.layers": {"int": [1, 3]}}, KEYS)
    assert sorted(p["profile.layers"] for p in space.points(small, "random", 24, 0)) == [1, 2, 3]
    grid = space.parse({"profile.lr": {"grid": [0.1, 0.2]}, "profile.layers": {"choice": [1, 2, 3]}}, KEYS)
    points = space.points(grid, "grid", 1, 0)
    assert len(points) == 6 and points[1] == {"profile.lr": 0.1, "profile.layers": 2}
    with pytest.raises(ConfigError, match=r"profile.layers is a range \(int\); give its values"):
        space.points(small, "grid", 1, 0)


def test_an_override_list_is_the_point():
    point = {
        "profile.lr": 0.0012345,
        "profile.batch_size": 4,
        "profile.model": None,
        "profile.activation_checkpointing": True,
    }
    lines = space.overrides(point)
    assert lines == [
        "profile.activation_checkpointing=true",
        "profile.batch_size=4",
        "profile.lr=0.0012345",
        "profile.model=null",
    ]
    profile = config.compose("sweep", lines).profile
    assert (profile.lr, profile.batch_size, profile.model, profile.activation_checkpointing) == (
        0.0012345,
        4,
        None,
        True,
    )


@pytest.mark.parametrize("search", ["small", "lr", "pbt", "gpus"])
def test_every_shipped_space_can_be_tried(search):
    cfg = config.compose("sweep", [f"search={search}"])
    found = space.parse(cfg.search.space, KEYS)
    points = space.points(found, cfg.search.method, cfg.search.num_trials, cfg.seed)
    asked = tuner.demand(cfg, [], points, {"CPU": 2.0})
    if search == "gpus":  # one GPU and four in one sweep
        assert [sum(b.get("GPU", 0) for b in bundles) for bundles in asked.trials] == [1, 4] and asked.hosts.count == 0
        with pytest.raises(DemandError) as refused:
            cluster.check(asked.needs, {"CPU": 64.0, "GPU": 2.0})
        assert str(refused.value) == (
            "the settings ask for 4 GPUs and the cluster has 2 (2 free)\n"
            "  a trial      1 x 0.02 CPU\n  its ranks    4 x 0.5 CPU + 1 GPU\n"
            "  fix: lower profile.ranks, profile.cpus_per_rank or profile.gpus_per_rank, also in search.space; "
            "or take a larger cluster"
        )
        cluster.check(asked.needs, {"CPU": 64.0, "GPU": 4.0})
        assert tuner.concurrency(cfg, asked, 8, {"CPU": 64.0, "GPU": 8.0}) == 8
    else:
        assert asked.hosts.count == 2 and len(asked.trials) == 1
        cluster.check(asked.needs, {"CPU": 2.0})
        assert tuner.concurrency(cfg, asked, len(points), {"CPU": 2.0}) == min(8, len(points))


def test_a_trial_that_can_not_be_trained_is_named():
    cfg = config.compose("sweep", ["search=own"])
    found = space.parse({"profile.hidden": {"choice": [64, 36]}, "profile.heads": {"choice": [2, 4]}}, KEYS)
    with pytest.raises(
        ConfigError,
        match=r"(?s)trial profile.heads=4 profile.hidden=36 can't be trained.*multiple of 2 \* heads.*fix: change",
    ):
        tuner.demand(cfg, [], space.points(found, "grid", 4, 0), {"CPU": 2.0})


@pytest.mark.parametrize(
    "args, told",
    [
        (["search=own"], "search.space is empty"),
        (["search=own", "+search.space={profile.lrr: {choice: [1]}}"], "did you mean profile.lr"),
        (["search.method=annealing"], "must be random, grid or optuna"),
        (["search=small", "scheduler.kind=pbt"], "can't change while a model trains"),
        (["search=small", "search.method=grid"], "is a range"),
        (["scheduler.grace=99"], r"must be at most rounds \(9\)"),
        (["rank_by=beauty"], "must be heldout_loss or incentive"),
        (["resume=auto"], "needs the name of the run to resume"),
        (["search.method=optuna", "scheduler.kind=pbt", "search=pbt"], "pbt changes settings by itself"),
    ],
)
def test_an_impossible_sweep_is_refused_before_anything_starts(args, told, tmp_path):
    with pytest.raises(ConfigError, match=told):
        sweep_main([*args, f"paths.runs={tmp_path}/runs"])
    assert not (tmp_path / "runs").exists()


def test_without_optuna_the_fix_is_told(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"optuna is not installed\n  fix: pip install 'raytensor\[sweep\]'"):
        sweep_main(["search.method=optuna"])


def test_dry_run_shows_trials_and_resources(capsys, tmp_path):
    assert sweep_main(["dry_run=true", "search=lr", "cluster.num_cpus=4", f"paths.runs={tmp_path}/runs"]) == 0
    told = capsys.readouterr().out
    assert "5 trials (grid)" in told and "trial 5: profile.lr=0.03" in told and "hosts        4 x 0.8 CPU" in told
    assert not (tmp_path / "runs").exists()


def test_help_teaches(capsys):
    assert sweep_main(["--help"]) == 0
    told = capsys.readouterr().out
    assert "search=gpus|lr|own|pbt|small" in told and "resume=auto" in told and "profile.lr=0.003" not in told
    assert sweep_main(["--help", "profile"]) == 0
    assert "profile.lr=0.003\n      Learning rate after the warm-up." in capsys.readouterr().out


def test_asha_stands_by_its_decisions(tmp_path):
    """Begun again, results in another order are judged as they were; new ones are judged beside the old."""
    from types import SimpleNamespace

    from raytensor.jobs.sweep.asha import RecordedASHA

    def scheduler() -> RecordedASHA:
        return RecordedASHA(tmp_path / "decisions.jsonl", metric="loss", max_t=9, grace_period=1, reduction_factor=3)

    def judge(found: RecordedASHA, number: int, round: int, loss: float, life: str) -> str:
        trial = SimpleNamespace(trial_id=f"{life}_{number}", config={"lr": number})
        if trial.trial_id not in found._trial_info:
            found.on_trial_add(None, trial)
        return found.on_trial_result(None, trial, {"round": round, "loss": loss})

    first = scheduler()
    decided = {n: judge(first, n, 1, loss, "one") for n, loss in enumerate([3.0, 2.0, 2.5, 1.0])}
    assert decided == {0: "CONTINUE", 1: "CONTINUE", 2: "STOP", 3: "CONTINUE"}
    with (tmp_path / "decisions.jsonl").open("a") as file:
        file.write('{"trial": "lr=4", "resu')  # torn by a kill
    again = scheduler()
    assert {n: judge(again, n, 1, loss, "two") for n, loss in [(3, 1.0), (2, 2.5), (1, 2.0), (0, 3.0)]} == decided
    # Alone the fifth would go on; beside the earlier four it is the worst but one.
    assert judge(again, 5, 1, 2.6, "two") == "STOP"
    assert judge(again, 3, 9, 0.5, "two") == "STOP"  # the last round
