"""Raises an exception at chosen lines of the chain writer, as a locked journal, a full disk or a killed thread would.

In: points, which are lines (file, number) of the modules between the journal and the receipt, in one thread. Out: each
is raised at once, the next time when it is about to be executed. `seen` has every line that was executed.
Uses `sys.settrace`: nothing in the writer knows of it.
"""

from __future__ import annotations

import itertools
import sqlite3
import sys
import threading
from pathlib import Path

import raytensor.chain.writer as room

ROOM = str(Path(room.__file__).parent)
# The supervisor itself, and what only a start or another process runs.
LEFT_OUT = {
    "thread.py",
    "lease.py",
    "database.py",
    "settings.py",
    "actor.py",
    "policy.py",
    "journal_schema.py",
    "__init__.py",
}
Point = tuple[str, int]

ERRORS = (
    lambda: sqlite3.OperationalError("database is locked"),
    lambda: OSError(28, "No space left on device"),
    lambda: ValueError("an answer that means nothing"),
    lambda: SystemExit("the thread was killed"),
    lambda: MemoryError(),
)


class Raising:
    """thread_name: the thread whose lines are points. Enter it before that thread starts."""

    def __init__(self, thread_name: str) -> None:
        self._name = thread_name
        self._errors = itertools.cycle(ERRORS)
        self.seen: set[Point] = set()
        self.armed: set[Point] = set()
        self.raised: list[Point] = []

    def __enter__(self) -> Raising:
        threading.settrace(self._enter_frame)
        self._before = sys.gettrace()
        if self._name == threading.current_thread().name:
            sys.settrace(self._enter_frame)
        return self

    def __exit__(self, *_: object) -> None:
        threading.settrace(None)  # type: ignore[arg-type]
        sys.settrace(self._before)
        self.armed = set()

    def resume(self) -> None:
        """Trace the calls of this thread from here on: Python stops that after each exception of a trace function."""
        if threading.current_thread().name == self._name:
            sys.settrace(self._enter_frame)

    def _enter_frame(self, frame, event, arg):
        path = frame.f_code.co_filename
        if not path.startswith(ROOM) or threading.current_thread().name != self._name:
            return None
        return None if path.rsplit("/", 1)[-1] in LEFT_OUT else self._line

    def _line(self, frame, event, arg):
        if event == "line":
            point = frame.f_code.co_filename.rsplit("/", 1)[-1], frame.f_lineno
            self.seen.add(point)
            if point in self.armed:
                self.armed.discard(point)
                self.raised.append(point)
                raise next(self._errors)()
        return self._line
