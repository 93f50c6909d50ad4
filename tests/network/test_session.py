"""The shell of a job: how it ends is recorded, refusals leave nothing, errors are one line with the fix."""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from raytensor.config.train import TrainConfig, Training
from raytensor.errors import ClusterError, ConfigError, RunError
from raytensor.jobs.session import Session
from raytensor.supervised import run_once
from raytensor.telemetry import events
from raytensor.telemetry.event_log import read_events


class Lines:
    """A view that keeps what it shows."""

    def __init__(self) -> None:
        self.shown: list[events.Event] = []
        self.closed = False

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *args: object) -> None:
        self.closed = True

    def show(self, event: events.Event) -> None:
        self.shown.append(event)


def session(tmp_path: Path, *, resume: str = "never", may_change=None, **training) -> Session[Lines]:
    cfg = TrainConfig(name="job", training=Training(**training))
    cfg.paths.runs = str(tmp_path / "runs")
    return Session("train", cfg, lambda one: Lines(), resume=resume, may_change=may_change)


def reason(tmp_path: Path) -> str:
    return read_events(tmp_path / "runs" / "job" / "events.jsonl")[-1].reason


def no_end(one: Session[Lines], reason: str) -> None:
    pytest.fail(f"no summary after {reason}")


def test_finished_and_taken_down_last(tmp_path):
    order = []

    def work(one: Session[Lines]) -> None:
        one.stack.callback(order.append, "down")
        one.begin()
        one.phase("working")

    def sum_up(one: Session[Lines], why: str) -> None:
        assert one.view.closed and one.view.shown[-1].reason == why == reason(tmp_path)
        order.append(why)

    assert session(tmp_path).run(work, sum_up) == 0
    assert order == ["finished", "down"]
    kinds = [event.kind for event in read_events(tmp_path / "runs" / "job" / "events.jsonl")]
    assert kinds == ["started", "phase", "stopped"]


def test_a_check_runs_behind_the_first_line_and_its_refusal_changes_nothing(tmp_path):
    def refuse() -> None:
        assert [event.kind for event in one.view.shown] == ["started"]
        raise ConfigError("no such mechanism")

    one = session(tmp_path)
    with pytest.raises(ConfigError, match="no such mechanism"):
        one.run(lambda _: pytest.fail("refused"), no_end, refuse)
    assert one.view.closed and not (tmp_path / "runs" / "job").exists()
    assert session(tmp_path).run(lambda one: one.begin(), lambda *_: None) == 0
    folder = tmp_path / "runs" / "job"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in ("events.jsonl", "config.yaml")}
    one = session(tmp_path, resume="auto", lr=0.5)
    with pytest.raises(ConfigError, match="no such mechanism"):
        one.run(lambda _: pytest.fail("refused"), no_end, refuse)
    assert before == {name: (folder / name).read_bytes() for name in before} and len(before) == 2


@pytest.mark.parametrize("importing", [False, True])
def test_a_stop_during_the_check_leaves_no_folder(tmp_path, importing, monkeypatch):
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    if importing:  # then the signal raises nothing until the import is over
        (tmp_path / "stops_here.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
        monkeypatch.syspath_prepend(tmp_path)
    check = (lambda: importlib.import_module("stops_here")) if importing else stop
    assert session(tmp_path).run(lambda _: pytest.fail("stopped"), no_end, check) == 130
    assert not (tmp_path / "runs" / "job").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_recorded_before_anything_else(tmp_path, number, capfd):
    before, recorded = signal.getsignal(number), []

    def work(one: Session[Lines]) -> None:
        one.begin()
        try:
            os.kill(os.getpid(), number)
            pytest.fail("not interrupted")
        finally:
            recorded.append(reason(tmp_path))
            raise OSError("a consequence, which is not the reason")

    ends = []
    assert session(tmp_path).run(work, lambda one, why: ends.append(why)) == 130
    assert recorded == ends == ["interrupted"] and reason(tmp_path) == "interrupted"
    assert capfd.readouterr().err == "stopping ...\n" and signal.getsignal(number) == before


def test_a_signal_in_the_middle_of_an_import_waits_for_its_end(tmp_path, monkeypatch):
    (tmp_path / "slow_module.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nfor _ in range(1000): pass\nDONE = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def work(one: Session[Lines]) -> None:
        one.begin()
        import slow_module

        assert slow_module.DONE
        signal.pause()
        pytest.fail("not interrupted")

    ends = []
    assert session(tmp_path).run(work, lambda one, why: ends.append(why)) == 130
    assert ends == ["interrupted"]


def test_a_stop_is_recorded_while_the_main_thread_can_run_no_handler(tmp_path):
    """The main thread waits for a mutex in C, which no signal ends, until the stop is in the log."""
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)  # zeros: a mutex that is free
    taken, waits, recorded = threading.Event(), threading.Event(), []

    def stop_and_free() -> None:
        libc.pthread_mutex_lock(mutex)
        try:
            taken.set()
            waits.wait(60)
            os.kill(os.getpid(), signal.SIGTERM)
            end = time.monotonic() + 60
            while not recorded and time.monotonic() < end:
                last = read_events(tmp_path / "runs" / "job" / "events.jsonl")[-1]
                if isinstance(last, events.Stopped):
                    recorded.append(last.reason)
        finally:
            libc.pthread_mutex_unlock(mutex)

    thread = threading.Thread(target=stop_and_free, daemon=True)

    def work(one: Session[Lines]) -> None:
        one.begin()
        signal.signal(signal.SIGTERM, lambda *_: None)  # as Ray does while it starts
        thread.start()
        taken.wait(60)
        waits.set()
        libc.pthread_mutex_lock(mutex)
        threading.Event().wait(60)
        pytest.fail("not interrupted")

    assert session(tmp_path).run(work, lambda one, why: None) == 130
    thread.join(120)
    assert recorded == ["interrupted"]


def test_a_signal_that_another_thread_receives_ends_a_wait_of_the_main_thread(tmp_path):
    unwound, gave_up = threading.Event(), threading.Event()

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        if not unwound.wait(60):
            gave_up.set()

    def work(one: Session[Lines]) -> None:
        one.begin()
        threading.Thread(target=stop, daemon=True).start()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # the kernel chooses the other thread
        try:
            gave_up.wait()
        finally:
            unwound.set()

    try:
        assert session(tmp_path).run(work, lambda one, why: None) == 130
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    assert reason(tmp_path) == "interrupted" and not gave_up.is_set()


@pytest.mark.parametrize("done", [False, True])
def test_a_stop_behind_the_work_is_no_interruption(tmp_path, done):
    def work(one: Session[Lines]) -> None:
        one.begin()
        if done:
            one.finished()
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()

    ends = []
    assert session(tmp_path).run(work, lambda one, why: ends.append(why)) == (0 if done else 130)
    assert ends == [reason(tmp_path)] == ["finished" if done else "interrupted"]


def test_ray_s_own_answer_to_sigterm_is_an_interruption(tmp_path):
    def work(one: Session[Lines]) -> None:
        sys.exit(signal.SIGTERM)

    assert session(tmp_path).run(work, lambda one, why: None) == 130
    assert reason(tmp_path) == "interrupted"


def test_a_refused_start_leaves_no_folder_and_the_name_is_free(tmp_path):
    def work(one: Session[Lines]) -> None:
        one.phase("connecting")
        raise ClusterError("could not reach a Ray cluster at x\n  fix: export RAY_AUTH_MODE=token")

    for _ in range(2):
        with pytest.raises(ClusterError, match="could not reach"):
            session(tmp_path).run(work, no_end)
        assert list(tmp_path.iterdir()) == []


def test_a_failure_after_the_start_keeps_the_folder(tmp_path):
    def work(one: Session[Lines]) -> None:
        one.begin()
        raise ClusterError("two lines\n  fix: none")

    with pytest.raises(ClusterError):
        session(tmp_path).run(work, no_end)
    assert reason(tmp_path) == "two lines fix: none"
    with pytest.raises(RunError, match="holds a run already"):
        session(tmp_path)


@pytest.mark.parametrize(
    "error, line",
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y"),
            (
                "No space left on device: /x/y; fix: free disk space, "
                "or set paths.runs and paths.cache to a disk with space"
            ),
        ),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "end"),
            (
                "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: end; "
                "fix: convert the file to UTF-8"
            ),
        ),
        (KeyError("a"), "KeyError: 'a'; fix: the settings are not at fault; report the traceback"),
    ],
)
def test_an_error_that_is_not_ours_is_one_line_with_the_fix(tmp_path, error, line):
    def work(one: Session[Lines]) -> None:
        logging.getLogger("some.library").warning("a line of a library")
        raise error

    with pytest.raises(RunError) as caught:
        session(tmp_path).run(work, no_end)
    job_log = tmp_path / "runs" / "job" / "job.log"
    assert str(caught.value) == reason(tmp_path) == f"{line} (traceback: {job_log})"
    text = job_log.read_text()
    assert "a line of a library" in text and "Traceback" in text and "in work" in text


def test_a_full_disk_ends_the_job_in_one_line(tmp_path):
    """The file system refuses every write after some bytes: the job ends with one line, not with a traceback."""
    program = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from pathlib import Path
from test_session import session
def work(one):
    one.begin()
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
    for _ in range(100):
        one.phase("x" * 100)  # what is lost of these is counted, and ends nothing
    assert one.events_lost > 90
    one.save(text="x" * 1000)
session(Path({str(tmp_path)!r})).run(work, lambda one, why: print("summed up", why))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert done.returncode == 1 and "summed up" not in done.stdout
    assert done.stderr.splitlines()[-1].startswith("raytensor.jobs.process.Foreign: File too large; fix: ")


def test_ray_s_copy_of_a_working_directory_is_refused(tmp_path):
    place = tmp_path / "working_dir_files" / "_ray_pkg_0123"
    with pytest.raises(ConfigError) as caught:
        session(place)
    assert str(caught.value) == (
        f"paths.runs={str(place / 'runs')!r}: lies in Ray's copy of the working directory, which is deleted after the "
        "job\n  fix: set paths.runs to a folder outside of it that every node sees, as paths.runs=/shared/runs"
    )
    assert not place.exists()


def test_other_settings_are_refused_and_new_ones_had_their_default(tmp_path):
    first = session(tmp_path, may_change=("training.steps",))
    first.run(lambda one: one.save(round=3), lambda one, why: None)
    state = tmp_path / "runs" / "job" / "state.json"
    saved = json.loads(state.read_text())
    assert saved["round"] == 3 and "training.steps" not in saved["config"]
    del saved["config"]["training.clip"]  # as an older version, which had no such setting
    state.write_text(json.dumps(saved))
    again = session(tmp_path, resume="auto", may_change=("training.steps",), steps=7)
    assert again.state == saved and [event.kind for event in again.past] == ["started", "stopped"]
    again.folder.close()
    with pytest.raises(RunError, match=r"begun with other settings: training.lr=0.5 \(was 0.003\)\n  fix: "):
        session(tmp_path, resume="auto", may_change=("training.steps",), lr=0.5)
    assert state.exists()


def test_what_ray_uploads_as_a_working_directory(tmp_path):
    """Runs are not uploaded, whether the folder is a checkout or any other: asked of Ray's own packaging."""
    from ray._private.runtime_env.packaging import create_package

    session(tmp_path).run(lambda one: (one.folder.path / "checkpoints" / "big").write_text("x"), lambda one, why: None)
    (tmp_path / "mechanism.py").write_text("")
    package = tmp_path.parent / f"{tmp_path.name}.zip"
    create_package(str(tmp_path), package, include_gitignore=False)
    import zipfile

    with zipfile.ZipFile(package) as found:
        assert [name for name in found.namelist() if not name.endswith("/")] == ["mechanism.py"]


@pytest.mark.parametrize("raised", [ValueError("I/O operation on closed file"), KeyError("field"), OSError(5, "gone")])
def test_a_view_that_fails_does_not_end_the_job(tmp_path, raised):
    one = session(tmp_path)

    def work(one: Session[Lines]) -> None:
        def broken(event):
            raise raised

        one.begin()
        one.view.show, kept = broken, one.view.show
        one.phase("working")
        one.view.show = kept

    assert one.run(work, lambda one, why: None) == 0
    kinds = [event.kind for event in read_events(tmp_path / "runs" / "job" / "events.jsonl")]
    assert kinds == ["started", "phase", "stopped"]


@pytest.mark.parametrize("text", ["a lone surrogate \ud800", object()])
def test_an_event_that_can_not_be_written_is_counted_and_the_job_goes_on(tmp_path, text):
    one, lost = session(tmp_path), []

    def work(one: Session[Lines]) -> None:
        one.begin()
        one.show(events.Phase(text=text))
        lost.append((one.events_lost, bool(one.trouble)))
        one.phase("working")
        lost.append((one.events_lost, bool(one.trouble)))

    assert one.run(work, lambda one, why: None) == 0
    assert lost == [(1, True), (1, False)]
    warned = [event.text for event in one.view.shown if event.kind == "warned"]
    assert len(warned) == 1 and "can't be written" in warned[0]


def test_a_thread_that_fails_is_told_and_written_once(tmp_path):
    def broken() -> None:
        raise RuntimeError("nobody foresaw it")

    def work(one: Session[Lines]) -> None:
        one.begin()
        for _ in range(2):
            thread = run_once("told-thread", broken)
            thread.start()
            thread.join()
        end = time.monotonic() + 60
        while not any(event.kind == "warned" for event in one.view.shown):
            assert time.monotonic() < end, "not told"
            time.sleep(0.05)

    one = session(tmp_path)
    assert one.run(work, lambda one, why: None) == 0
    found = read_events(tmp_path / "runs" / "job" / "events.jsonl")
    texts = [event.text for event in found if event.kind == "warned"]
    assert texts == ["the thread told-thread failed: RuntimeError: nobody foresaw it"]
