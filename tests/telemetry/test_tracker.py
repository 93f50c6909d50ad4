"""Trackers: real wandb, offline; and a wandb that dies, hangs or has no network never touches the run."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raytensor.config import Tracker as TrackerConfig
from raytensor.telemetry import events as ev
from raytensor.telemetry.history import History
from raytensor.telemetry.tracker import MAX_PENDING_BYTES, Tracker, WandbTracker, make_tracker, round_metrics


def wandb_services(parent: int) -> list[int]:
    """Pids of the service that wandb started for a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"wandb-core" in words[0] and str(parent).encode() in words:
                found.append(int(entry.name))
    return found


def wait_for(condition, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def test_none_is_the_default(tmp_path):
    tracker = make_tracker(TrackerConfig(), tmp_path, "demo")
    assert isinstance(tracker, Tracker)
    tracker.log({"a": 1.0}, 1)
    tracker.finish()
    assert list(tmp_path.iterdir()) == []


def test_offline_without_key_or_network_writes_what_was_logged(tmp_path, no_key, caplog):
    tracker = make_tracker(TrackerConfig(kind="wandb"), tmp_path, "demo", {"seed": 3, "api_key": "hunter2"})
    os.kill(tracker.process.pid, signal.SIGSTOP)  # as if wandb took for ever to start: nothing waits for it
    for step in range(1, 6):
        tracker.log({"loss/best": 6.0 - step, "bad": float("nan")}, step)
    os.kill(tracker.process.pid, signal.SIGCONT)
    tracker.finish(timeout_s=240.0)
    tracker.finish()
    files = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 1
    data = files[0].read_bytes()
    assert data.count(b"loss/best") >= 5 and b"hunter2" not in data and b"[redacted]" in data
    assert caplog.records == []


def test_online_without_a_key_stays_offline(tmp_path, no_key, caplog):
    tracker = make_tracker(TrackerConfig(kind="wandb", mode="online"), tmp_path, "demo")
    tracker.log({"a": 1.0}, 1)
    tracker.finish(timeout_s=240.0)
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1
    assert ["wandb has no key" in record.message for record in caplog.records] == [True]


def test_online_without_a_network_ends_in_time_and_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    tracker = make_tracker(TrackerConfig(kind="wandb", mode="online"), tmp_path, "demo")
    pid = tracker.process.pid
    for step in range(100):
        tracker.log({"a": 1.0}, step)
    started = time.monotonic()
    tracker.finish(timeout_s=2.0)
    assert time.monotonic() - started < 60.0
    tracker.log({"a": 1.0}, 101)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the run goes on without it: it did not finish within 2 s" in caplog.text
    assert wait_for(lambda: not wandb_services(pid), 120.0)


def test_a_tracker_that_dies_is_logged_once_with_its_cause(tmp_path, no_key, caplog):
    (tmp_path / "wandb").write_text("in the way of wandb's folder")
    tracker = WandbTracker(TrackerConfig(kind="wandb", project="not/allowed"), tmp_path, "demo")
    pid = tracker.process.pid
    assert wait_for(lambda: "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3], 240.0)
    for step in range(10):
        tracker.log({"a": 1.0}, step)
    tracker.finish()
    assert len(caplog.records) == 1 and "wandb is off" in caplog.text and "not/allowed" in caplog.text


def test_a_killed_tracker_is_no_error(tmp_path, no_key, caplog):
    tracker = WandbTracker(TrackerConfig(kind="wandb"), tmp_path, "demo")
    os.kill(tracker.process.pid, signal.SIGKILL)
    tracker.process.wait(timeout=60)
    tracker.log({"a": 1.0}, 1)
    tracker.log({"a": 1.0}, 2)
    tracker.finish()
    assert len(caplog.records) == 1


def test_a_tracker_that_does_not_read_never_blocks_and_is_bounded(tmp_path, no_key, caplog):
    tracker = WandbTracker(TrackerConfig(kind="wandb"), tmp_path, "demo")
    os.kill(tracker.process.pid, signal.SIGSTOP)
    metrics = {f"loss/miner-{n}": float(n) for n in range(500)}
    started = time.monotonic()
    for step in range(300):  # about 3 MB
        tracker.log(metrics, step)
    assert time.monotonic() - started < 60.0
    assert len(tracker.pending) < MAX_PENDING_BYTES + 20_000 and tracker.dropped > 50
    tracker.finish(timeout_s=0.5)
    assert "did not finish within 0.5 s" in caplog.text


def test_kill_9_of_the_run_leaves_no_process(tmp_path, no_key):
    program = (
        "import sys, time; from pathlib import Path; from raytensor.config import Tracker\n"
        "from raytensor.telemetry.tracker import WandbTracker\n"
        "t = WandbTracker(Tracker(kind='wandb'), Path(sys.argv[1]), 'demo'); t.log({'a': 1.0}, 1)\n"
        "print(t.process.pid, flush=True); time.sleep(60)"
    )
    run = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    child = int(run.stdout.readline())
    run.kill()
    run.wait(timeout=60)
    run.stdout.close()

    def gone() -> bool:
        try:
            return "Z" in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2][:3]
        except OSError:
            return True

    assert wait_for(gone, 30.0) and wait_for(lambda: not wandb_services(child), 20.0)


def test_the_numbers_of_a_round(run_events):
    upto = next(n for n, event in enumerate(run_events) if isinstance(event, ev.RoundDone) and event.round == 6)
    metrics = round_metrics(History(run_events[: upto + 1]))
    event = run_events[upto]
    assert metrics["round/responses"] == 21.0 and metrics["round/failures"] == 3.0
    assert metrics["time/training_s"] == event.train_s and metrics["extrinsics/included"] == 32.0
    assert metrics["chain/block"] == 102.0 and metrics["chain/epochs"] == 4.0
    assert metrics["loss/best"] == min(event.losses.values()) == metrics["loss/miner-0"]
    assert "loss/miner-7" not in metrics and metrics["incentive/miner-7"] == 0.0


def test_no_round_no_numbers_and_many_miners_no_names(make_events):
    assert round_metrics(History()) == {}
    metrics = round_metrics(History(make_events(65, 2, rounds=2)))
    assert (
        not [key for key in metrics if "miner" in key]
        and metrics["loss/worst"] > metrics["loss/median"] > metrics["loss/best"]
    )
