"""The process of a job: its signals, its log file, and errors that are not ours as one line.

In: signals, log lines, exceptions. Out: `KeyboardInterrupt` in the main thread, job.log, a `Foreign` error. Knows
nothing of jobs.
"""

from __future__ import annotations

import errno
import io
import logging
import math
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from raytensor.errors import RunError, cause_of
from raytensor.supervised import UNEXPECTED, run_once
from raytensor.telemetry.events import Event, Warned
from raytensor.telemetry.metrics import Meters
from raytensor.telemetry.redact import redact_addresses

# What a user can do about an error that is not ours.
FIXES: dict[int, str] = {
    errno.ENOSPC: "free disk space, or set paths.runs and paths.cache to a disk with space",
    errno.EDQUOT: "free disk space, or set paths.runs and paths.cache to a disk with space",
    errno.EACCES: "give this user access, or set paths.runs and paths.cache to folders that it can write",
    errno.EROFS: "set paths.runs and paths.cache to a disk that can be written",
    errno.EMFILE: "raise the limit of open files: ulimit -n 65536",
    errno.ENOENT: "check that the file exists and that every node sees it",
}

LOST_S = 15.0  # after which an interruption that did not end the work is repeated
ONCE_S = 1.0  # in which signals are one interruption
POKE_S = 0.1  # between two signals to a main thread that has not run its handler yet
_NOWHERE = logging.NullHandler()


class Foreign(RunError):
    """An error that is not ours, in one line; the traceback is in job.log."""


def foreign(error: BaseException, job_log: Path) -> Foreign:
    """An exception that is not ours as one line: what happened, the fix, where the traceback is."""
    if isinstance(error, OSError) and error.strerror:
        what = error.strerror + (f": {error.filename}" if error.filename else "")
    else:
        what = cause_of(error)
        if not re.match(r"[\w.]*(Error|Exception)\b", what):
            what = f"{type(error).__name__}: {what}"
    if isinstance(error, UnicodeDecodeError):
        fix = "convert the file to UTF-8"
    elif isinstance(error, MemoryError):
        fix = "ask for less at a time, or use a machine with more memory"
    else:
        number = error.errno if isinstance(error, OSError) else None
        fix = FIXES.get(number or 0, "the settings are not at fault; report the traceback")
    return Foreign(f"{what}; fix: {fix} (traceback: {job_log})")


def is_importing(frame: FrameType | None) -> bool:
    """Whether a frame runs inside of an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


class Signals:
    """Ctrl-C and SIGTERM end the work of the main thread while the context lasts; a no-op outside of the main thread.

    on_stop  called in any thread at the first signal, maybe more than once; it must not wait for the main thread.

    Python runs a signal's handler in the main thread, between two bytecodes. A main thread that waits in a system call
    does not notice a signal that the kernel delivers to another thread, and Ray replaces the handler of SIGTERM while
    it starts. So a thread reads what Python's C handler writes at each signal (`signal.set_wakeup_fd`), calls `on_stop`
    at once, and sends SIGINT to the main thread itself until the handler has run there.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self._before: dict[int, Any] = {}
        self._over = threading.Event()
        self._raised_at = -math.inf  # when the main thread was interrupted last
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._thread = run_once("signals", self._watch)
        self._fd_before = -1

    def over(self) -> None:
        """The work is over: a further signal does nothing, so that it does not keep the job from taking things down."""
        self._over.set()

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._ends = socket.socketpair()
            self._ends[1].setblocking(False)
            self._fd_before = signal.set_wakeup_fd(self._ends[1].fileno(), warn_on_full_buffer=False)
            self._thread.start()
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._ends is not None:
            signal.set_wakeup_fd(self._fd_before)
            self._ends[1].shutdown(socket.SHUT_RDWR)
            self._thread.join()  # before the handlers go: it sends no signal afterwards
            for end in self._ends:
                end.close()
            self._ends = None
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, at any point of the work: record the end, then unwind."""
        if self._over.is_set():
            return
        self._on_stop()
        # An exception inside of the import machinery may leave a module locked for ever: the thread tries again soon.
        # One inside of a destructor or of foreign code may be lost: the thread repeats it later.
        if not is_importing(frame) and time.monotonic() - self._raised_at > ONCE_S:
            self._raised_at = time.monotonic()
            raise KeyboardInterrupt

    def _watch(self) -> None:
        assert self._ends is not None
        while number := self._ends[0].recv(1):  # signals of others, as SIGCHLD, have their number here, too
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                break
        else:
            return
        if not self._over.is_set():
            self._on_stop()
        while not self._over.wait(POKE_S):
            if time.monotonic() - self._raised_at > LOST_S:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class ThreadErrors:
    """Tells and counts the unexpected errors of this process's threads that come after this object was made."""

    def __init__(self) -> None:
        self._told = {name: number for name, (number, _) in UNEXPECTED.errors.items()}

    def tell(self, show: Callable[[Event], None], meters: Meters) -> None:
        """Show the first error of each thread, count all: a thread that fails all the time must not flood the view."""
        for name, (number, words) in UNEXPECTED.errors.items():
            new = number - self._told.get(name, 0)
            if new > 0:
                first, self._told[name] = name not in self._told, number
                meters.count("raytensor_thread_errors_total", new, thread=name)
                if first:
                    fix = "it is tried again where it may be; job.log has the traceback, report it"
                    show(Warned(text=f"the thread {name} failed: {words}", fix=fix))


class _Redacting(logging.Formatter):
    """Removes logins and keys of addresses, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact_addresses(super().format(record))


class JobLog(logging.FileHandler):
    """Python's log lines of the whole process go to a file, made with the first line, and not into the view."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self.setFormatter(_Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def _open(self) -> io.TextIOWrapper:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return io.TextIOWrapper(os.fdopen(handle, "ab"), encoding="utf-8")

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self)
        logging.captureWarnings(True)

    def __exit__(self, *_: object) -> None:
        logging.captureWarnings(False)
        # Threads that still end must not write to the terminal, as Python does where there is no handler.
        logging.getLogger().addHandler(_NOWHERE)
        logging.getLogger().removeHandler(self)
        with suppress(OSError):  # a full disk, with lines in the buffer
            self.close()

    def handleError(self, record: logging.LogRecord) -> None:
        """A log that can't be written, as on a full disk, must not write to the terminal instead."""
