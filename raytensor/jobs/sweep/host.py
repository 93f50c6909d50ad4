"""A host of small trials: trains models of one shape together. A plain class; the sweep creates the actors.

In: requests for one round of a trial, from many threads. Out: the round's result, which is on file by then.
Waits for: further requests, `GRACE_S` after each one, so that trials at the same pace are computed in one stack.
All of its state is on file: a restarted host restores its models, and a repeated request trains nothing.
Knows nothing of Tune, and of other hosts only what is on file.
"""

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
from raytensor.jobs.sweep.trial_data import TrialData, read_text
from raytensor.jobs.sweep.trial_model import TrialModel
from raytensor.miners.model import top_tokens
from raytensor.miners.placement import architecture
from raytensor.supervised import SupervisedThread
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
    futures: list[Future[dict[str, Any]]] = field(default_factory=list)


_Member = tuple[_Request, SweepConfig, TrialModel[StackedMember]]  # what is trained together


class TrialHost:
    """A host, ready when the constructor returns.

    base    the sweep's overrides; text: file of the sweep's text; folder: of the store.
    device  cpu | cuda; threads: torch threads.
    """

    def __init__(
        self,
        base: Sequence[str],
        text: Path,
        folder: Path,
        device: str = "cpu",
        *,
        threads: int = 1,
        keep_all: bool = False,
    ) -> None:
        transformers.logging.set_verbosity_error()
        self._data = TrialData(base, read_text(text))
        self._store = Store(folder, keep_all=keep_all)
        self._device, self._threads = device, threads
        self._stacks: dict[Any, StackedEngine] = {}
        self._models: dict[Lineage, TrialModel[StackedMember]] = {}
        self._lock = threading.Lock()  # of the models
        self._requests: queue.Queue[_Request] = queue.Queue()
        SupervisedThread("trials", self._serve).start()

    def ready(self) -> int:
        """The process id. Answers when the constructor has returned."""
        return os.getpid()

    def advance(self, lineage: Lineage, round: int) -> dict[str, Any]:
        """The result of one round of a trial: from its file, or by training it and the missing rounds before it."""
        future: Future[dict[str, Any]] = Future()
        self._requests.put(_Request(lineage, round, [future]))
        return future.result()

    def release(self, lineage: Lineage) -> None:
        """Drop a trial's model; its files stay."""
        with self._lock:
            model = self._models.pop(lineage, None)
            if model is not None and model.has_engine:
                model.engine.stack.drop(model.engine.number)

    def answer(self, lineage: Lineage, round: int, tasks: Sequence[Task]) -> list[Response]:
        """Answers of a trial's model, as it was after `round`, to a validator's tasks."""
        torch.set_num_threads(self._threads)
        with self._lock:
            model = TrialModel(self._data, self._store, self._alone)
            model.advance_to(lineage, round)
            answers = (top_tokens(model.engine.log_probs(task.tokens, task.lengths), task.top_k) for task in tasks)
            return [Response(task.task_id, task.hotkey, *tops) for task, tops in zip(tasks, answers)]

    def _serve(self, thread: SupervisedThread) -> None:
        torch.set_num_threads(self._threads)  # per thread
        asked: dict[tuple[Lineage, int], _Request] = {}
        request: _Request | None = self._requests.get()
        try:
            while request is not None:
                known = asked.setdefault((request.lineage, request.round), request)
                if known is not request:
                    known.futures += request.futures
                try:
                    request = self._requests.get(timeout=GRACE_S)
                except queue.Empty:
                    request = None
            with self._lock:
                self._train(list(asked.values()))
        except BaseException as error:  # callers wait without end: each gets the error, then the supervisor does
            for one in asked.values():
                _set_error(one, error)
            raise

    def _train(self, asked: list[_Request]) -> None:
        groups: dict[int, list[_Member]] = {}
        for request in asked:
            try:
                known = self._store.results(request.lineage).get(request.round)
                if known is not None:
                    _set_result(request, known)
                    continue
                model = self._models.setdefault(request.lineage, TrialModel(self._data, self._store, self._member))
                cfg = model.advance_to(request.lineage, request.round - 1)
                groups.setdefault(id(model.engine.stack), []).append((request, cfg, model))
            except Exception as error:  # the edge of the thread: raised in the caller
                _set_error(request, error)
        for group in groups.values():
            try:
                self._train_group(group)
            except Exception as error:  # as above
                for request, _, _ in group:
                    _set_error(request, error)

    def _train_group(self, group: list[_Member]) -> None:
        started, data = time.perf_counter(), self._data
        stack: StackedEngine = group[0][2].engine.stack
        numbers = [model.engine.number for _, _, model in group]
        losses = stack.train({model.engine.number: data.batches(cfg, asked.round) for asked, cfg, model in group})
        exam = (data.heldout_tokens, data.heldout_lengths)
        for start in range(0, len(group), stack.width):
            part = group[start : start + stack.width]
            answers = stack.log_probs(dict.fromkeys(numbers[start : start + stack.width], exam))
            for request, _, model in part:
                number = model.engine.number
                model.trained(request.round)
                wall_s = (time.perf_counter() - started) / len(group)  # its share of the stack's time
                result = data.result(request.round, float(losses[number].mean()), answers[number], wall_s)
                result |= model.setbacks()
                model.engine.save(self._store.checkpoint(request.lineage, request.round))
                self._store.add(request.lineage, result)
                self._store.prune(request.lineage)
                _set_result(request, result)

    def _member(self, cfg: SweepConfig) -> StackedMember:
        shape = (architecture(cfg.profile), cfg.miners.seq_len)
        stack = self._stacks.setdefault(shape, StackedEngine(device=self._device))
        return stack.add(models.build(self._data.model_spec(cfg)), Recipe.of(cfg.profile))

    def _alone(self, cfg: SweepConfig) -> Engine:
        """An engine that loads the checkpoint of any trial: stacked, sharded or neither."""
        if architecture(cfg.profile) is not None:
            return StackedEngine([models.build(self._data.model_spec(cfg))], [Recipe()]).members[0]
        # A checkpoint does not depend on the engine or the number of ranks.
        plain = replace(cfg, profile=replace(cfg.profile, engine="plain", ranks=1, accumulate=1))
        return self._data.engine(plain, ranks.alone(self._device))


def _set_result(request: _Request, result: dict[str, Any]) -> None:
    for future in request.futures:
        future.set_result(result)


def _set_error(request: _Request, error: BaseException) -> None:
    for future in request.futures:
        if not future.done():
            future.set_exception(error)
