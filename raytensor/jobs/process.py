"""The process of a job: its signals, its log file, and errors that are not ours as one line.

In: signals, log lines, exceptions. Out: a call of the handler, job.log, a `Foreign` error. Knows nothing of jobs.
"""

import errno
import io
import logging
import os
import re
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from raytensor.errors import RunError, cause_of
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
    """Ctrl-C and SIGTERM call `on_signal` while the context lasts; a no-op outside of the main thread."""

    def __init__(self, on_signal: Callable[[int, FrameType | None], None]) -> None:
        self._on_signal = on_signal
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


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
        logging.getLogger().removeHandler(self)
        with suppress(OSError):  # a full disk, with lines in the buffer
            self.close()

    def handleError(self, record: logging.LogRecord) -> None:
        """A log that can't be written, as on a full disk, must not write to the terminal instead."""
