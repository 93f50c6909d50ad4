"""Turns at a model: training lets questions in between two steps.

In: threads that want the model. Out: one at a time, in the order in which they asked. A lock of Python's own would let a
training loop take it again and again while a question waits.
"""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A lock, as a context manager, that is handed on first come, first served."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()  # it stays taken, by the next one
            else:
                self._taken = False
