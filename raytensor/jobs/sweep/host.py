"""A host of small trials: models of one shape are trained together, whoever asks. A plain class; the sweep makes actors.

In: "one more round of this trial", from many callers at a time. Out: its result, which is on file when it returns.
Waits for: more callers, `GRACE_S` after each one, so that trials that go in step are computed in one stack.
Holds nothing that is not on file: a host that died is made again and brings its models back. Asking twice trains once.
Knows nothing of Tune, and of other hosts only what is on file.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from raytensor.config.sweep import SweepConfig
from raytensor.jobs.sweep.store import Lineage, Store
from raytensor.jobs.sweep.trial_data import Lessons, read_text
from raytensor.jobs.sweep.trial_model import Pupil
from raytensor.miners.miner import top_tokens
from raytensor.miners.model import make_engine, spec
from raytensor.miners.placement import architecture
from raytensor.training import models, ranks
from raytensor.training.engine import Engine
from raytensor.training.recipe import Recipe
from raytensor.training.stacked import StackedEngine, StackedMember
from raytensor.types import Response, Task

GRACE_S = 0.1
CALLERS = 512  # trials that one host serves at a time, at most


@dataclass
class _Request:
    lineage: Lineage
    round: int
    answers: list[Future[dict[str, Any]]] = field(default_factory=list)


class TrialHost:
    """base: the sweep's own overrides; text: file of the sweep's text; folder: of the store. Ready when the constructor returns."""

    def __init__(
        self,
        base: Sequence[str],
        text: Path,
        folder: Path,
        *,
        device: str = "cpu",
        threads: int = 1,
        keep_all: bool = False,
    ) -> None:
        transformers.logging.set_verbosity_error()
        self._lessons = Lessons(base, read_text(text))
        self._store = Store(folder, keep_all=keep_all)
        self._device, self._threads = device, threads
        self._stacks: dict[Any, StackedEngine] = {}
        self._pupils: dict[Lineage, Pupil] = {}
        self._lock = threading.Lock()  # of the models
        self._asked: queue.Queue[_Request] = queue.Queue()
        threading.Thread(target=self._serve, name="trials", daemon=True).start()

    def ready(self) -> int:
        """The process id; answers once the constructor is through."""
        return os.getpid()

    def advance(self, lineage: Lineage, round: int) -> dict[str, Any]:
        """The result of one round of a trial: from file, or after training it (and what is missing before it)."""
        answer: Future[dict[str, Any]] = Future()
        self._asked.put(_Request(lineage, round, [answer]))
        return answer.result()

    def release(self, lineage: Lineage) -> None:
        """The trial goes no further here; its files stay."""
        with self._lock:
            pupil = self._pupils.pop(lineage, None)
            if pupil is not None and isinstance(getattr(pupil, "engine", None), StackedMember):
                pupil.engine.stack.drop(pupil.engine.number)

    def answer(self, lineage: Lineage, round: int, tasks: Sequence[Task]) -> list[Response]:
        """A trial's model as a miner that is asked, as it stood after `round`."""
        torch.set_num_threads(self._threads)
        with self._lock:
            pupil = Pupil(self._lessons, self._store, self._alone)
            pupil.bring(lineage, round)
            return [
                Response(
                    task.task_id,
                    task.hotkey,
                    *top_tokens(pupil.engine.log_probs(task.tokens, task.lengths), task.top_k),
                )
                for task in tasks
            ]

    # ---------------------------------------------------------------------------------------------------- inside

    def _serve(self) -> None:
        torch.set_num_threads(self._threads)  # counts for the thread that says it
        while True:
            asked: dict[tuple[Lineage, int], _Request] = {}
            request: _Request | None = self._asked.get()
            while request is not None:
                known = asked.setdefault((request.lineage, request.round), request)
                if known is not request:
                    known.answers += request.answers
                try:
                    request = self._asked.get(timeout=GRACE_S)
                except queue.Empty:
                    request = None
            with self._lock:
                self._train(list(asked.values()))

    def _train(self, asked: list[_Request]) -> None:
        groups: dict[int, list[tuple[_Request, SweepConfig, Pupil]]] = {}
        for request in asked:
            try:
                known = self._store.results(request.lineage).get(request.round)
                if known is not None:
                    _answer(request, known)
                    continue
                pupil = self._pupils.setdefault(request.lineage, Pupil(self._lessons, self._store, self._member))
                cfg = pupil.bring(request.lineage, request.round - 1)
                groups.setdefault(id(pupil.engine.stack), []).append((request, cfg, pupil))
            except Exception as error:  # the thread's edge: the caller gets it
                _refuse(request, error)
        for group in groups.values():
            try:
                self._train_group(group)
            except Exception as error:  # as above
                for request, _, _ in group:
                    _refuse(request, error)

    def _train_group(self, group: list[tuple[_Request, SweepConfig, Pupil]]) -> None:
        started = time.perf_counter()
        stack: StackedEngine = group[0][2].engine.stack
        numbers = [pupil.engine.number for _, _, pupil in group]
        losses = stack.train(
            {n: self._lessons.batches(cfg, request.round) for n, (request, cfg, _) in zip(numbers, group, strict=True)}
        )
        exam = (self._lessons.exam_tokens, self._lessons.exam_lengths)
        for start in range(0, len(group), stack.width):
            part = group[start : start + stack.width]
            answers = stack.log_probs(dict.fromkeys(numbers[start : start + stack.width], exam))
            for request, _, pupil in part:
                number = pupil.engine.number
                pupil.round = request.round
                wall_s = (time.perf_counter() - started) / len(group)  # its share of the stack's time
                result = (
                    self._lessons.result(request.round, float(losses[number].mean()), answers[number], wall_s)
                    | pupil.setbacks()
                )
                pupil.engine.save(self._store.checkpoint(request.lineage, request.round))
                self._store.add(request.lineage, result)
                self._store.prune(request.lineage)
                _answer(request, result)

    def _member(self, cfg: SweepConfig) -> Engine:
        shape = (architecture(cfg.profile), cfg.miners.seq_len)
        stack = self._stacks.setdefault(shape, StackedEngine(device=self._device))
        profile = cfg.profile
        return stack.add(
            models.build(spec(profile, self._lessons.text.vocab_size, cfg.miners.seq_len, self._lessons.seed(cfg))),
            Recipe(lr=profile.lr),
        )

    def _alone(self, cfg: SweepConfig) -> Engine:
        """An engine that can load any trial's checkpoint, stacked, sharded or neither."""
        if architecture(cfg.profile) is not None:
            found = spec(cfg.profile, self._lessons.text.vocab_size, cfg.miners.seq_len, self._lessons.seed(cfg))
            return StackedEngine([models.build(found)], [Recipe()]).members[0]
        # Checkpoints don't depend on the engine or the number of ranks.
        profile = replace(cfg.profile, engine="plain", ranks=1, accumulate=1)
        return make_engine(
            profile,
            self._lessons.text.vocab_size,
            cfg.miners.seq_len,
            self._lessons.seed(cfg),
            ranks.alone(self._device),
        )


def _answer(request: _Request, result: dict[str, Any]) -> None:
    for answer in request.answers:
        answer.set_result(result)


def _refuse(request: _Request, error: Exception) -> None:
    for answer in request.answers:
        if not answer.done():
            answer.set_exception(error)
