"""A whole sweep by the command that a user types: Ray Tune, hosts, kill -9 in the middle, the file for the best."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raytensor import config
from raytensor.errors import RunError
from raytensor.jobs.sweep.job import sweep_main

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "seed=3",
    "rounds=3",
    "data.tokenizer=bytes",
    "data.max_documents=60",
    "cluster.num_cpus=4",
    "max_concurrent=2",
    "miners.num_hosts=1",
    "miners.cpus_per_host=0.5",
    "miners.heldout_rows=128",
    "profile.hidden=32",
    "profile.layers=1",
    "profile.steps=40",
    "profile.batch_size=4",
    "search=own",
    "+search.space={profile.lr: {loguniform: [1e-5, 2e-2]}}",
    "search.num_trials=4",
    "rank_by=incentive",
    "mechanism.query.rows=64",
]

AGENTS = ("ray::DashboardA", "ray::RuntimeEnv")


def start(name: str, runs: Path, *more: str, env: dict[str, str] | None = None) -> subprocess.Popen:
    if env is None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        env |= {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1"}
    command = [
        sys.executable,
        "-m",
        "raytensor",
        "sweep",
        f"name={name}",
        f"paths.runs={runs}",
        f"paths.cache={os.environ['TEXT_CACHE']}",
        *more,
    ]
    return subprocess.Popen(
        command, cwd=runs, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen, timeout_s: float = 400) -> str:
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, output
    return output


def kill_after(process: subprocess.Popen, results: int) -> list[str]:
    """Kill -9 the driver after so many results and wait until its processes have ended. Returns what it printed."""
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if sum("held-out" in seen for seen in lines) == results:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=120)
    end = time.monotonic() + 120
    while time.monotonic() < end and any(alive(process.pid)):
        time.sleep(0.2)
    assert not alive(process.pid)
    return lines


def alive(session: int) -> list[int]:
    """Processes of a session that have not ended, without Ray's agents, which end a minute after their raylet."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            fields = rest.split()
        except (OSError, ValueError):
            continue
        if entry.name.isdigit() and int(fields[3]) == session and fields[0] != "Z" and name not in AGENTS:
            found.append(int(entry.name))
    return found


def trials_of(folder: Path) -> dict[tuple[str, ...], dict]:
    return {tuple(trial["overrides"]): trial for trial in json.loads((folder / "summary.json").read_text())["trials"]}


def finished_trained(folder: Path) -> int:
    """Rounds that were trained, over all trials and all starts."""
    return sum(len(file.read_text().splitlines()) for file in (folder / "trials").glob("*/results.jsonl"))


def test_kill_9_in_the_middle_loses_no_trial_and_no_round(tmp_path, joining):
    """Killed, resumed on another Ray: the same trials, each round trained once, the best is found; `run` takes it."""
    process = start("s", tmp_path, *SMALL)
    printed = kill_after(process, 4)
    before = {file: file.read_text().splitlines() for file in (tmp_path / "s" / "trials").glob("*/results.jsonl")}
    assert sum(map(len, before.values())) >= 4, "".join(printed)
    output = finish(start("s", tmp_path, *SMALL, "resume=auto", env=joining()))
    found = trials_of(tmp_path / "s")
    assert len(found) == 4 and {trial["number"] for trial in found.values()} == {1, 2, 3, 4}
    assert all(trial["status"] in ("finished", "stopped early") for trial in found.values())
    for file, lines in before.items():  # what was trained before the kill stands as it was
        now = file.read_text().splitlines()
        whole = [line for line in lines if line.endswith("}")]
        assert now[: len(whole)] == whole and [json.loads(line)["round"] for line in now if line.endswith("}")] == list(
            range(1, len(now) + 1)
        )
    best = json.loads((tmp_path / "s" / "summary.json").read_text())["trials"][0]
    assert best["incentive"] == max(trial["incentive"] for trial in found.values()) > 0
    assert best["heldout_loss"] == min(trial["heldout_loss"] for trial in found.values())
    assert "best:   trial" in output and (tmp_path / "s" / "trials.csv").read_text().count("\n") == 5
    report = (tmp_path / "s" / "report.html").read_text()
    assert report.count("<svg") == 2 and "https://" not in report
    command = json.loads((tmp_path / "s" / "summary.json").read_text())["run_the_best"]
    run = config.compose("run", [command.split("'")[1], "experiment=best"])
    assert f"profile.lr={run.miners.profiles[0].lr}" in best["overrides"][0] and run.miners.profiles[0].hidden == 32

    with pytest.raises(RunError, match=r"begun with other settings: profile.steps=41 \(was 40\)\n  fix: "):
        sweep_main(["name=s", f"paths.runs={tmp_path}", *SMALL, "resume=auto", "profile.steps=41"])


@pytest.mark.slow
def test_24_trials_with_asha_killed_and_resumed_give_the_same_best(tmp_path):
    """The small preset: an undisturbed sweep and one that is killed in the middle end alike."""
    finish(start("whole", tmp_path), timeout_s=900)
    kill_after(start("broken", tmp_path), 40)
    finish(start("broken", tmp_path, "resume=auto"), timeout_s=900)
    whole, broken = trials_of(tmp_path / "whole"), trials_of(tmp_path / "broken")
    assert whole.keys() == broken.keys() and len(whole) == 24
    assert next(iter(whole)) == next(iter(broken))  # the best comes first
    for key, trial in whole.items():  # every round that both trained gave the same bits
        other = broken[key]["heldout"]
        assert all(other[n] == loss for n, loss in trial["heldout"].items() if n in other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [["search=pbt", "scheduler.kind=pbt", "search.num_trials=4"], ["search.method=optuna", "search.num_trials=5"]],
)
def test_population_based_training_and_optuna(tmp_path, more):
    if "search.method=optuna" in more:
        pytest.importorskip("optuna")
    rest = [
        part
        for part in SMALL
        if not (part.startswith(("search.num", "rounds")) or ("pbt" in more[0] and "search" in part))
    ]
    rest.append("rounds=4")
    finish(start("s", tmp_path, *rest, *more))
    found = trials_of(tmp_path / "s")
    assert len(found) == (4 if "pbt" in more[0] else 5)
    if "pbt" in more[0]:
        assert any(len(trial["lineage"]) > 1 for trial in found.values())
    before = finished_trained(tmp_path / "s")
    finish(start("s", tmp_path, *rest, *more, "resume=auto"))  # begun again: everything is on file
    assert trials_of(tmp_path / "s").keys() == found.keys() and finished_trained(tmp_path / "s") == before
