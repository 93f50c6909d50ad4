"""The scorers' desk: many subnets, each in a thread of its own, share the one pool.

In: answers of any subnet, from any thread. Out: each subnet's results, in its own queue. One thread owns the pool and
does nothing else; a subnet that does not fetch its results delays nobody. A pool that has lost all of its actors is made
again after `pause_s`; what it held fails with CRASHED, which costs no miner anything.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from raytensor import config
from raytensor.errors import PoolExhausted
from raytensor.pool import Pool
from raytensor.types import Failure, Reason, Response, Score, Submission, Task
from raytensor.validators.scorers import submit

log = logging.getLogger(__name__)

Result = tuple[str, Score | Failure]


class ScorerService:
    """make_pool: makes the pool, now and whenever it is used up. A context manager; leaving it ends the pool."""

    def __init__(self, make_pool: Callable[[], Pool], cfg: config.Validators, *, pause_s: float = 30.0) -> None:
        self._make_pool, self._cfg, self._pause_s = make_pool, cfg, pause_s
        self._pool = make_pool()
        self._inbox: queue.SimpleQueue[tuple[str, Task, Any, Response | Submission]] = queue.SimpleQueue()
        self._results: dict[str, queue.SimpleQueue[Result]] = {}
        self._of: dict[str, str] = {}  # task id -> name of the rules
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scorers-desk", daemon=True)
        self.scored = 0
        self.remade = 0

    def __enter__(self) -> ScorerService:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        self._pool.close()

    @property
    def replaced(self) -> int:
        """Actors that were replaced in the present pool."""
        return self._pool.replaced

    def open(self, name: str) -> None:
        """Start afresh for the rules of that name: results of what an earlier round handed in are nobody's any more."""
        self._results[name] = queue.SimpleQueue()

    def submit(self, name: str, task: Task, sealed: Any, answer: Response | Submission) -> None:
        """Hand in one answer."""
        self._inbox.put((name, task, sealed, answer))

    def result(self, name: str, timeout_s: float) -> Result | None:
        """The next result of these rules, None if none came in time."""
        try:
            return self._results[name].get(timeout=timeout_s) if timeout_s > 0 else self._results[name].get_nowait()
        except queue.Empty:
            return None

    # The thread

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                # Nothing in hand: wait for work; else look at both in turn.
                self._take_in(0.2 if not len(self._pool) else 0.0)
                for task_id, result in self._pool.poll(0.02):
                    self._deliver(task_id, result)
            except PoolExhausted as error:
                log.error("%s; the scorers are started again in %g s", error, self._pause_s)
                self._again()

    def _take_in(self, wait_s: float) -> None:
        while True:
            try:
                name, task, sealed, answer = self._inbox.get(timeout=wait_s) if wait_s else self._inbox.get_nowait()
            except queue.Empty:
                return
            wait_s = 0.0
            self._of[task.task_id] = name
            try:
                submit(self._pool, name, self._cfg, task, sealed, answer)
            except PoolExhausted as error:
                self._deliver(task.task_id, Failure(task.task_id, task.hotkey, Reason.CRASHED, str(error)))
                raise

    def _deliver(self, task_id: str, result: Score | Failure) -> None:
        self.scored += isinstance(result, Score)
        self._results[self._of.pop(task_id)].put((task_id, result))

    def _again(self) -> None:
        for task_id, result in self._pool.poll():
            self._deliver(task_id, result)
        end = time.monotonic() + self._pause_s
        while not self._stop.is_set() and time.monotonic() < end:
            self._stop.wait(0.2)
        self._pool.close()
        self._pool = self._make_pool()
        self.remade += 1
