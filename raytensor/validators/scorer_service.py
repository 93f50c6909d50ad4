"""The scorer service: one pool of scorers that any number of rounds of any subnets share.

In: answers of rounds, each in a `ScoringSession`. Out: one `Score` or `Failure` per answer, in the session that
submitted it. Results of a session that was closed are discarded: pool items have unique ids, so a late result of an
earlier round never reaches a later one.
Answers of one subnet are packed into calls; subnets take turns. With `threaded` one thread owns the pool and a session
that fetches no results delays no other one; without it the caller of `submit` and `result` works the pool itself.
Waits for: nothing in `submit`; at most its time-out in `result`. Bounds: those of `Pool`.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import queue
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ray

from raytensor import config
from raytensor.errors import PoolExhausted
from raytensor.payload import num_bytes
from raytensor.pool import Packing, Pool
from raytensor.supervised import SupervisedThread
from raytensor.types import Failure, Reason, Response, Score, Submission, Task
from raytensor.validators.scorer import Answered, MechanismSpec, Scorer, ScorerActor
from raytensor.wire.payloads import num_bytes_of

log = logging.getLogger(__name__)

MIB = 2**20
# A scorer may take this much longer than its limit before the whole actor counts as hung: the child is ended first.
GRACE_S = 10.0
ATTEMPTS = 2  # calls that an item may take down before the pool gives it up

Result = tuple[str, Score | Failure]


def make_pool(
    specs: Mapping[str, MechanismSpec], cfg: config.Scoring, torch_threads: int = 1, max_replacements: int | None = None
) -> Pool:
    """The pool of scorer actors. specs: by the name that `ScorerService.session` is given."""
    isolate = cfg.gpus_per_scorer == 0 if cfg.isolate is None else cfg.isolate
    # On a cluster that was there before us the workers know nothing of our environment. Without a GPU of its own a
    # scorer must not see one: since Ray 2.55 an actor with num_gpus=0 sees all of them.
    environment = {"OMP_NUM_THREADS": str(torch_threads), "TOKENIZERS_PARALLELISM": "false"}
    if cfg.gpus_per_scorer == 0:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    needs = {"num_cpus": cfg.cpus_per_scorer, "num_gpus": cfg.gpus_per_scorer, "max_restarts": 0}
    actor = ray.remote(ScorerActor).options(**needs, runtime_env={"env_vars": environment})
    make = partial(actor.remote, ray.put(dict(specs)), isolate, cfg.score_limit_s)
    packing = Packing(cfg.pack_items, cfg.pack_mib * MIB)
    limits: dict[str, Any] = {"max_attempts": ATTEMPTS, "max_replacements": max_replacements}
    return Pool(make, "score_all", cfg.num_scorers, queue=cfg.scorer_queue, packing=packing, **limits)


class InProcessScorers:
    """Scorers without actors: an answer is scored in this process when it is submitted. See `ScorerService`."""

    patience_s = 0.0  # a result never has to be waited for

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def session(self, name: str) -> InProcessSession:
        """Begin a round with the mechanism of that name."""
        return InProcessSession(self._scorer, name)


class InProcessSession:
    """A session of `InProcessScorers`."""

    def __init__(self, scorer: Scorer, name: str) -> None:
        self._scorer, self._name = scorer, name
        self._results: deque[Result] = deque()

    def submit(self, task: Task, sealed: Any, answer: Response | Submission) -> None:
        (result,) = self._scorer.score_all([(self._name, task, sealed, answer)])
        self._results.append((task.task_id, result))

    def result(self, timeout_s: float) -> Result | None:
        return self._results.popleft() if self._results else None

    def close(self) -> None:
        self._results.clear()


class ScoringSession:
    """The answers of one round. Made by `ScorerService.session`."""

    def __init__(self, service: ScorerService, name: str) -> None:
        self.name, self._service = name, service
        self.results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self.closed = False

    def submit(self, task: Task, sealed: Any, answer: Response | Submission) -> None:
        self._service.submit(self, (self.name, task, sealed, answer))

    def result(self, timeout_s: float) -> Result | None:
        return self._service.next_result(self, timeout_s)

    def close(self) -> None:
        self.closed = True


class ScorerService:
    """A context manager; leaving it ends the pool.

    make_pool  makes the pool, now and whenever it is used up.
    threaded   a thread owns the pool, and makes it again `restart_pause_s` after it has lost all actors: what it held
               fails with CRASHED, which costs no miner anything. False: the caller works the pool, and gets
               `PoolExhausted`.
    """

    def __init__(
        self,
        make_pool: Callable[[], Pool],
        cfg: config.Scoring,
        *,
        threaded: bool = True,
        restart_pause_s: float = 30.0,
    ) -> None:
        self._make_pool, self._cfg, self._restart_pause_s = make_pool, cfg, restart_pause_s
        self._pool = make_pool()
        self._serial = itertools.count()
        self._inbox: queue.SimpleQueue[tuple[ScoringSession, Answered]] = queue.SimpleQueue()
        self._sessions: dict[str, tuple[ScoringSession, Task]] = {}  # by the id of the pool's item
        self._broken = ""  # why the pool is to be made again
        self._thread = SupervisedThread("scorers", self._step, on_error=self._failed) if threaded else None
        self.scored = 0

    def __enter__(self) -> ScorerService:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.close(timeout_s=10)
        self._pool.close()

    @property
    def patience_s(self) -> float:
        """The pool answers an item that hangs its scorers within this time, so longer silence means that none work."""
        return ATTEMPTS * (self._cfg.score_limit_s + GRACE_S)

    def session(self, name: str) -> ScoringSession:
        """Begin a round with the mechanism of that name."""
        return ScoringSession(self, name)

    def submit(self, session: ScoringSession, answered: Answered) -> None:
        """Queue one answer of a session."""
        if self._thread is not None:
            self._inbox.put((session, answered))
        else:
            self._to_pool(session, answered)

    def next_result(self, session: ScoringSession, timeout_s: float) -> Result | None:
        """The next result of a session, None if none came in time."""
        if self._thread is None and session.results.empty():
            self._collect(timeout_s)
            timeout_s = 0.0
        try:
            return session.results.get(timeout=timeout_s) if timeout_s > 0 else session.results.get_nowait()
        except queue.Empty:
            return None

    def _to_pool(self, session: ScoringSession, answered: Answered) -> None:
        name, task, _, answer = answered
        size = num_bytes_of(answer) + num_bytes(task.payload)
        item_id = str(next(self._serial))
        self._sessions[item_id] = (session, task)
        try:
            limit_s, cost = self._cfg.score_limit_s + GRACE_S, task.tokens.nbytes + size + 1
            self._pool.submit(item_id, *answered, hotkey=task.hotkey, deadline_s=limit_s, group=name, cost=cost)
        except PoolExhausted as error:
            self._deliver(item_id, Failure(item_id, task.hotkey, Reason.CRASHED, str(error)))
            raise

    def _collect(self, timeout_s: float) -> None:
        for item_id, result in self._pool.poll(timeout_s):
            self._deliver(item_id, result)

    def _deliver(self, item_id: str, result: Score | Failure) -> None:
        session, task = self._sessions.pop(item_id)
        if isinstance(result, Failure):  # the pool's own failures have the id of the pool's item
            result = dataclasses.replace(result, item_id=task.task_id)
        else:
            self.scored += 1
        if not session.closed:
            session.results.put((task.task_id, result))

    def _step(self, thread: SupervisedThread) -> None:
        if self._broken:
            self._remake()
        try:
            # Without items wait for work; with items, look at new work and at results in turn.
            self._take_in(0.2 if not len(self._pool) else 0.0)
            self._collect(0.02)
        except PoolExhausted as error:
            log.error("%s; the scorers are started again in %g s", error, self._restart_pause_s)
            self._collect(0.0)
            thread.wait(self._restart_pause_s)
            self._broken = str(error)

    def _failed(self, error: Exception) -> None:
        """After an unexpected error: what the pool holds is in doubt, so the next step makes it again."""
        self._broken = f"{type(error).__name__}: {error}"

    def _remake(self) -> None:
        """Fail what the pool still holds, which costs no miner anything, and make the pool again."""
        for item_id, (_, task) in list(self._sessions.items()):
            self._deliver(item_id, Failure(item_id, task.hotkey, Reason.CRASHED, self._broken))
        self._pool.close()
        self._pool = self._make_pool()
        self._broken = ""

    def _take_in(self, wait_s: float) -> None:
        while True:
            try:
                session, answered = self._inbox.get(timeout=wait_s) if wait_s else self._inbox.get_nowait()
            except queue.Empty:
                return
            wait_s = 0.0
            if not session.closed:
                self._to_pool(session, answered)


Scorers = ScorerService | InProcessScorers  # where a round has its answers scored
Session = ScoringSession | InProcessSession  # answers of one round, and their results
