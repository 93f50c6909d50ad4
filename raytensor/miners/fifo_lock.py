"""A first-in first-out lock: inference may run between two training steps.

In: threads that want a model. Out: one at a time, in the order in which they asked. Python's own lock is not fair: a
training loop would acquire it again and again while a question waits. Knows nothing of models.
"""

import threading
from collections import deque


class FifoLock:
    """A lock, as a context manager, acquired in the order of the requests."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locked = False
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._locked:
                self._locked = True
                return
            released = threading.Event()
            self._waiting.append(released)
        released.wait()

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()  # it stays locked, by the next thread
            else:
                self._locked = False
