"""The shell of a long job: claims the run folder, records events, handles signals, and ends truthfully.

In: a job's configuration, its view, and a function that does the work. Out: an exit status; in the run folder
config.yaml, events.jsonl and job.log.
The reason to stop is "failed" until the work is done. At the end, in this order: the `stopped` event is written, the
view is closed, the job sums up (summary, hint how to resume), and what the job started is taken down.
Waits for: the work. Bounds: an event is written in one system call; `ray job stop` allows 3 s after SIGTERM, and the
first two steps take milliseconds.
Knows nothing of what a job does.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from raytensor import __version__
from raytensor.errors import ConfigError, RayTensorError, RunError
from raytensor.jobs.process import Foreign, JobLog, Signals, ThreadErrors, foreign
from raytensor.supervised import SupervisedThread, run_once
from raytensor.telemetry import events
from raytensor.telemetry.event_log import EventLog, read_events
from raytensor.telemetry.metrics import Meters
from raytensor.telemetry.runfolder import RunFolder, new_name

QUIET_S = (3.0, 10.0, 30.0)  # of silence, after which the view says that a phase still lasts; then once a minute
FINISHED, INTERRUPTED = "finished", "interrupted"
log = logging.getLogger(__name__)


class View(Protocol):
    """What a job shows on the terminal."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *args: Any) -> None: ...
    def show(self, event: events.Event) -> None: ...


V = TypeVar("V", bound=View)


class Session(Generic[V]):
    """One process's work in a run folder.

    job         the command: "run", "train".
    cfg         the job's configuration; it has `name` and `paths.runs`.
    make_view   called once with the session; makes `view`.
    resume      never | auto | must, as `RunFolder` takes it.
    may_change  prefixes of settings that may differ when the job is resumed; None: all may.
    rounds      for the `started` event; None: the job writes an event of its own when it is up.

    folder, view, meters  the claimed folder, the view and the metrics of this process.
    state, past           what earlier processes saved (None: nothing), and their events.
    stack                 what is taken down at the end, in reverse order.

    Raises `ConfigError` when the folder lies in Ray's copy of a working directory, and `RunError` when the folder is in
    use, holds another run, or was begun with other settings.
    """

    def __init__(
        self,
        job: str,
        cfg: Any,
        make_view: Callable[[Session[V]], V],
        *,
        resume: str,
        may_change: tuple[str, ...] | None = None,
        rounds: int | None = 0,
    ) -> None:
        runs = Path(cfg.paths.runs)
        refuse_working_copy(runs)
        self.job, self.cfg = job, cfg
        self.folder = RunFolder(runs / (cfg.name or new_name(runs, job=job)), resume)
        self.meters, self.stack = Meters(), ExitStack()
        self._may_change, self._rounds = may_change, rounds
        self._events: EventLog | None = None
        self._view_is_open = self._view_failed = False
        self._lock = threading.RLock()  # a signal handler may write while its own thread does
        self._phase, self._shown_at = "", time.monotonic()
        self._phases = SupervisedThread("session-phase", self._repeat_phase, pause_s=(1.0, 30.0))
        self._said = 0  # times that the present phase was repeated
        self._thread_errors = ThreadErrors()
        self._stopped: events.Stopped | None = None
        self._reason_of_stop = INTERRUPTED
        self._ending = False
        try:
            self.state = self.folder.load_state() if self.folder.resuming else None
            self._refuse_other_settings()
            self.past = read_events(self.folder.events) if self.folder.events.exists() else []
            self.view = make_view(self)
        except BaseException:
            self.folder.discard()
            raise
        # Until `begin` a refusal removes the folder, so that the name stays free; never that of an earlier process.
        self._begun = not self.folder.is_new

    def show(self, event: events.Event) -> None:
        """Write an event to events.jsonl, then show it and count it. An event that can't be written is shown, counted
        in `events_lost` and told once. Raises `KeyboardInterrupt` in the main thread after a signal: nothing follows
        the `stopped` event."""
        if self._stopped is not None:
            if not self._ending and threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            return
        with self._lock:
            assert self._events is not None, "events are shown while the session runs"
            lost, trouble = self._events.lost, self._events.write(event)
            self.meters.count("raytensor_events_lost_total", self._events.lost - lost)
            self._shown_at = time.monotonic()
            if isinstance(event, events.Phase):
                self._phase = event.text
        self._view(event)
        self.meters.record(event)
        if trouble:
            self._view(events.Warned(text=trouble, fix="free space under paths.runs; the job goes on"))

    def _view(self, event: events.Event) -> None:
        if self._view_is_open:
            try:
                self.view.show(event)
            except Exception as error:  # the view's edge: a terminal that is gone, a full disk, an event it can't show
                self.meters.count("raytensor_view_errors_total")
                if not self._view_failed:
                    log.error("the view can't be shown: %s", error, exc_info=not isinstance(error, OSError))
                self._view_failed = True

    @property
    def trouble(self) -> str:
        """Why events can't be written, "" while they can."""
        return self._events.trouble if self._events is not None else ""

    @property
    def events_lost(self) -> int:
        """Number of events that could not be written."""
        return self._events.lost if self._events is not None else 0

    def phase(self, text: str) -> None:
        """Say what the job does now. While nothing else is shown, the view repeats it with the seconds that passed."""
        self.show(events.Phase(text=text))

    def begin(self) -> None:
        """The job could start: from here on the folder and its name are kept, however the job ends."""
        self._begun = True

    def finished(self) -> None:
        """All work is done, and the job only waits for answers: from here on a signal ends it as finished."""
        with self._lock:
            if self._stopped is None:
                self._reason_of_stop = FINISHED

    def doing(self, text: str) -> None:
        """Name the phase without showing it; "": silence is normal from here on, and nothing is repeated."""
        self._phase = text

    def save(self, **state: Any) -> None:
        """Replace the state that a later process resumes from; the settings that must stay equal are added."""
        settled = {} if self._may_change is None else {"config": self.settled}
        self.folder.save_state({**settled, **state})

    @property
    def settled(self) -> dict[str, Any]:
        """Settings by dotted key that must stay equal while the run lives."""
        flat = flatten(dataclasses.asdict(self.cfg))
        return {key: value for key, value in flat.items() if not key.startswith(self._may_change or ())}

    def blocking(self, work: Callable[[], Any]) -> Any:
        """Run `work` in a thread and wait for it: a signal ends the wait, and libraries can't replace our handlers."""
        result: list[Any] = []
        failure: list[BaseException] = []

        def target() -> None:
            try:
                result.append(work())
            except BaseException as error:  # raised again below, in the thread that waits
                failure.append(error)

        thread = run_once(f"{self.job}-work", target)
        thread.start()
        while thread.is_alive():
            thread.join(0.2)
        if failure:
            raise failure[0]
        return result[0]

    def run(
        self,
        work: Callable[[Session[V]], Any],
        sum_up: Callable[[Session[V], str], None],
        check: Callable[[], None] = lambda: None,
    ) -> int:
        """Do the work and end. Returns 0 when it finished, 130 when it was interrupted before that.

        check   called when the first line is on the screen; its refusal leaves the folder as it was.
        sum_up  called after the `stopped` event with "finished" or "interrupted", before anything is taken down; it
                writes the summary and prints the last lines.

        Raises `RayTensorError` in every other case: our own errors as they are, all others as a `RunError` of one line
        that says the fix and where the traceback is.
        """
        reason = "failed"
        error: RayTensorError | None = None
        with self.folder, JobLog(self.folder.path / "job.log"), Signals(self._on_stop) as signals:
            try:
                self._open(check)
                work(self)
                self.finished()
                reason = self._reason_of_stop
            except (KeyboardInterrupt, SystemExit) as stop:
                # During its start Ray answers SIGTERM with SystemExit.
                if isinstance(stop, KeyboardInterrupt) or stop.code == signal.SIGTERM:
                    reason = self._reason_of_stop
            except Exception as caught:  # the edge of the job: whatever it was becomes one line
                log.error("the job failed\n%s", traceback.format_exc())
                if self._stopped is None:  # else a consequence of the interruption
                    error = self._error_of(caught)
                reason = self._reason_of_stop if error is None else " ".join(str(error).split())
            finally:
                self._ending = True
                self._phases.stop()
                signals.over()
            self._record(reason)
            try:
                self._close_view(show=error is None)
                if error is None and self._events is not None:
                    sum_up(self, reason)
            except Exception as caught:  # as above
                log.error("summing up failed\n%s", traceback.format_exc())
                error = error or self._error_of(caught)
            finally:
                self._take_down()
            if not self._begun and (self._events is None if error is None else self._is_refusal(error)):
                self.folder.discard()
        if error is not None:
            raise error
        return 0 if reason == FINISHED else 130

    def _open(self, check: Callable[[], None]) -> None:
        name, rounds = self.folder.name, self._rounds
        started = None if rounds is None else events.Started(name, rounds, self.cfg.seed, __version__)
        self.view.__enter__()
        self._view_is_open = True
        self._phases.start()
        if started is not None:
            self.view.show(started)
        check()
        if self._stopped is not None:
            raise KeyboardInterrupt
        self._events = EventLog(self.folder.events)
        self.folder.write_config(self.cfg)
        if started is not None:
            self._events.append(started)
            self.meters.record(started)

    def _on_stop(self) -> None:
        """At a signal, in any thread: the end is recorded before anything is unwound."""
        with self._lock:
            if self._stopped is None and not self._ending:
                with suppress(OSError):  # without a terminal the job ends all the same
                    os.write(2, b"stopping ...\n")
                self._record(self._reason_of_stop)

    def _record(self, reason: str) -> None:
        """Write the `stopped` event, once; a disk that is full can't keep it."""
        with self._lock:
            if self._stopped is None:
                self._stopped = events.Stopped(reason=reason)
                try:
                    if self._events is not None:
                        self._events.append(self._stopped)
                except OSError:
                    log.error("events.jsonl can't be written: %s", reason)

    def _close_view(self, *, show: bool) -> None:
        if self._view_is_open:
            self._view_is_open = False
            if show and self._stopped is not None:
                self.view.show(self._stopped)
            self.view.__exit__(None, None, None)

    def _take_down(self) -> None:
        try:
            self.stack.close()
        except Exception:  # the edge of the job: its outcome is recorded, and the rest must still be closed
            log.error("taking down failed\n%s", traceback.format_exc())
        if self._events is not None:
            self._events.close()

    def _error_of(self, caught: Exception) -> RayTensorError:
        return caught if isinstance(caught, RayTensorError) else foreign(caught, self.folder.path / "job.log")

    def _is_refusal(self, error: RayTensorError) -> bool:
        """An error that needs no file of the folder: it neither hides a traceback nor points at a log in it."""
        return not isinstance(error, Foreign) and str(self.folder.path) not in str(error)

    def _repeat_phase(self, thread: SupervisedThread) -> None:
        if thread.wait(0.5):
            return
        if self._events is not None:
            self._thread_errors.tell(self.show, self.meters)
        said, quiet_s = self._said, time.monotonic() - self._shown_at
        due = QUIET_S[said] if said < len(QUIET_S) else 60.0 * (said - len(QUIET_S) + 1)
        if quiet_s < QUIET_S[0]:
            self._said = 0
        elif quiet_s >= due and self._phase and self._view_is_open:
            self._said += 1
            self._view(events.Phase(text=f"{self._phase} ({quiet_s:.0f} s so far)"))

    def _refuse_other_settings(self) -> None:
        if self.state is None or self._may_change is None or "config" not in self.state:
            return
        # A setting that is newer than the folder had its default then; one that is gone no longer matters.
        before = flatten(dataclasses.asdict(type(self.cfg)())) | self.state["config"]
        changed = {key: now for key, now in self.settled.items() if _as_json(now) != before.get(key)}
        differs = [f"{key}={now!r} (was {before.get(key)!r})" for key, now in changed.items()]
        if differs:
            fix = "give the same settings again (config.yaml there has them), or take another name"
            what = f"{self.folder.path} was begun with other settings: {', '.join(differs)}"
            raise RunError(f"{what}\n  fix: {fix}")


def refuse_working_copy(runs: Path) -> None:
    """Refuse a folder in Ray's copy of a working directory, which Ray deletes after the job. Raises `ConfigError`."""
    if any(part.startswith("_ray_pkg_") for part in runs.absolute().parts):
        what = f"paths.runs={str(runs)!r}: lies in Ray's copy of the working directory, which is deleted after the job"
        fix = "set paths.runs to a folder outside of it that every node sees, as paths.runs=/shared/runs"
        raise ConfigError(f"{what}\n  fix: {fix}")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys; lists stay as they are, empty dictionaries are left out."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _as_json(value: Any) -> Any:
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value
