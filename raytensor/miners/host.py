"""A host: several small miners in one process. A plain class; `HostActor` (actors.py) holds one.

In: rounds to train, tasks. Out: responses, held-out losses, checkpoints of its miners.
Waits for: nothing. Calls run one after another, in order of arrival. Only `serve` and `generate` may run beside them,
in concurrency groups of their own. `serve` waits for at most one training step of its miner, or for the training of the
models that are computed together with it (`width` of a stack). Knows nothing of other hosts. What a miner does does not
depend on the miners beside it.
"""

import logging
import os
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from raytensor.config import MinersJob
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.errors import cause_of
from raytensor.mechanisms import base
from raytensor.miners import checkpoints
from raytensor.miners.actors import GenerationRequest, NewTokens, Trained
from raytensor.miners.collaborator import CollaboratingMiner
from raytensor.miners.fifo_lock import FifoLock
from raytensor.miners.gauges import Gauges
from raytensor.miners.generation import Batch, FullForward, Generations
from raytensor.miners.miner import Miner, heldout_questions
from raytensor.miners.model import spec, top_tokens
from raytensor.miners.placement import Member, architecture
from raytensor.miners.responder import RespondingMiner
from raytensor.miners.submission_export import Original
from raytensor.training import devices, models
from raytensor.training.checkpoint import load_newest
from raytensor.training.engine import Engine
from raytensor.training.pulse import Report
from raytensor.training.recipe import Recipe
from raytensor.training.stacked import StackedEngine, StackedMember
from raytensor.types import Failure, Reason, Response, Submission, Task

log = logging.getLogger(__name__)

AnyMiner = Miner | CollaboratingMiner | RespondingMiner


class MinerHost:
    """Hosts the miners `members`. Ready when the constructor returns.

    members        (hotkey, profile) of each.
    folder         of checkpoints; None: none are written.
    resume_round   round whose checkpoints the miners continue from; None: new models. A miner whose checkpoint of that
                   round is damaged or missing continues from its newest intact one, and trains the rounds since then
                   again; one that never had a checkpoint begins with a new model.
    engines        by hotkey, of miners that do not make their own.

    Raises `DamagedCheckpoint` when a miner has no intact checkpoint.
    """

    def __init__(
        self,
        cfg: MinersJob,
        members: Sequence[Member],
        text: Text,
        folder: Path | None = None,
        resume_round: int | None = None,
        engines: Mapping[str, Engine] | None = None,
    ) -> None:
        torch.set_num_threads(cfg.cluster.torch_threads)
        transformers.logging.set_verbosity_error()
        declared = base.needs(cfg.mechanism)
        self._folder = folder
        self._heldout = heldout_questions(cfg, text)
        self._seq_len = cfg.miners.seq_len
        self._commit_every = cfg.miners.commit_every if declared.asks_for_files else 0
        self._gauges, self._vocab_size = Gauges("run"), text.vocab_size
        self._stack_lock = FifoLock()  # of all stacked models, which are computed together
        self._miners: dict[str, AnyMiner] = {}
        device = devices.name_for(cfg.miners.gpus_per_host)
        stacked: Mapping[str, StackedMember] = {}
        if declared.responder:
            for hotkey, profile in members:
                self._miners[hotkey] = RespondingMiner(hotkey, profile, cfg, text, declared.responder, device=device)
        elif declared.miner:
            miner_class = base.load_class(declared.miner, "the mechanism's miner")
            for hotkey, profile in members:
                self._miners[hotkey] = miner_class(hotkey, profile, cfg, text, device=device)
        else:
            if not engines and (device == "cpu" if cfg.miners.stacked is None else cfg.miners.stacked):
                stacked = _stack(cfg, members, text.vocab_size, device)
            own = {**stacked, **(engines or {})}
            for hotkey, profile in members:
                lock, engine = self._stack_lock if hotkey in stacked else None, own.get(hotkey)
                self._miners[hotkey] = Miner(hotkey, profile, cfg, text, device=device, engine=engine, lock=lock)
        # Hotkeys of each stack, in the order of its models.
        self._stacks: dict[StackedEngine, list[str]] = {}
        for hotkey, member in stacked.items():
            self._stacks.setdefault(member.stack, []).append(hotkey)
        self._generation = cfg.miners.generation
        self._generations = Generations(self._batch, self._generation.share)
        self._restore_warnings: list[str] = []
        if resume_round is not None:
            for hotkey in self._miners:
                self._restore(hotkey, resume_round)

    def ready(self) -> int:
        """The process id."""
        return os.getpid()

    def report(self) -> Report | None:
        """What the process is doing, where it is a rank of a sharded miner."""
        return None

    def restore_warnings(self) -> list[str]:
        """What was wrong with the checkpoints of `resume_round`, one line each."""
        return self._restore_warnings

    def train(
        self, round: int, committed: Mapping[str, str] | None = None, originals: Mapping[str, Original] | None = None
    ) -> Trained:
        """Train all miners for one round, and write their files in the rounds for it.

        committed  digests by hotkey, as the chain has them.
        originals  by hotkey of a copying miner: whose file it copies.
        """
        started = time.perf_counter()
        losses: dict[str, float | None] = {}
        failures: dict[str, str] = {}
        with self._generations.training():
            for stack, hotkeys in self._stacks.items():
                losses.update(self._train_stack(stack, hotkeys, round))
            for hotkey, miner in self._miners.items():
                if hotkey not in losses:
                    losses[hotkey] = self._train_one(miner, round, failures)
        self._generations.trained()
        files: dict[str, str] = {}
        if self._commit_every and (round - 1) % self._commit_every == 0:
            for hotkey, miner in self._miners.items():
                digest = miner.export((originals or {}).get(hotkey), committed)
                files |= {hotkey: digest} if digest is not None else {}
        wall_s = time.perf_counter() - started
        trained = {hotkey: loss for hotkey, loss in losses.items() if loss is not None}
        profiles = [self._miners[hotkey].profile for hotkey in trained]
        tokens = sum(profile.steps * profile.batch_size for profile in profiles) * self._seq_len
        self._gauges.trained(list(trained.values()), tokens, wall_s)
        return Trained(round, trained, wall_s, files, failures)

    def answer(self, task: Task, observed: Any = None) -> Response | Submission | Failure:
        """One miner's answer; a `Failure` with SILENT when it gives none."""
        began = time.perf_counter()
        answer = self._answer(task, observed)
        self._gauges.answered(answer, time.perf_counter() - began)
        return answer

    def serve(self, task: Task) -> Response | Submission | Failure:
        """As `answer`, for questions from outside the run: it may be called while the miners train."""
        if task.hotkey not in self._miners:
            return Failure(task.task_id, task.hotkey, Reason.REFUSED, "this host has no miner of that hotkey")
        # An index out of range would raise in a model, and on a GPU make its process useless.
        if task.kind != "file" and task.payload is None and (wrong := self._unanswerable(task)):
            return Failure(task.task_id, task.hotkey, Reason.REFUSED, wrong)
        return self._answer(task, None)

    def generate(self, joins: Sequence[GenerationRequest], leaves: Sequence[str]) -> dict[str, NewTokens]:
        """Continue prompts from outside the run, see `Generations.run`; it may be called while the miners train."""
        wrong: dict[str, NewTokens] = {}
        for request in joins:
            if request.hotkey not in self._miners:
                wrong[request.name] = NewTokens(done=True, error="this host has no miner of that hotkey")
            elif request.tokens.min() < 0 or request.tokens.max() >= self._vocab_size:
                outside = f"a token lies outside 0 .. {self._vocab_size - 1}"
                wrong[request.name] = NewTokens(done=True, error=outside)
        return wrong | self._generations.run([one for one in joins if one.name not in wrong], leaves)

    def heldout_losses(self) -> dict[str, float | None]:
        """Held-out loss of each miner in nats per token; None for one that gives no answers of its own."""
        found: dict[str, float | None] = {}
        questions = self._heldout
        for stack, hotkeys in self._stacks.items():
            for start in range(0, len(stack), stack.width):  # the answers of all at once may be gigabytes
                numbers = range(start, min(start + stack.width, len(stack)))
                with self._stack_lock:
                    answers = stack.log_probs(dict.fromkeys(numbers, (questions.tokens, questions.lengths)))
                for number, answer in answers.items():
                    found[hotkeys[number]] = questions.loss(*top_tokens(answer, questions.top_k), self._vocab_size)
        alone = {hotkey: miner for hotkey, miner in self._miners.items() if hotkey not in found}
        found |= {hotkey: miner.heldout_loss(questions) for hotkey, miner in alone.items()}
        return {hotkey: found[hotkey] for hotkey in self._miners}

    def checkpoint(self, round: int) -> None:
        """Write a checkpoint of every miner."""
        assert self._folder is not None
        for hotkey, miner in self._miners.items():
            miner.checkpoint(checkpoints.path_of(self._folder, round, hotkey))
            checkpoints.mark(self._folder, round, hotkey)

    def _batch(self, hotkey: str) -> Batch:
        miner, rule = self._miners[hotkey], self._generation
        cached = miner.cached_decoder() if rule.kv_cache else None
        decoder = cached or FullForward(miner.answer, hotkey, together=miner.engine is not None)
        return Batch(decoder, self._vocab_size, self._seq_len, rule.max_sequences)

    def _unanswerable(self, task: Task) -> str | None:
        """Why a stranger's question can't be given to a model; None when it can."""
        if task.tokens.shape[1] > self._seq_len:
            return f"a context has {task.tokens.shape[1]} tokens; this miner sees at most {self._seq_len}"
        if task.tokens.min() < 0 or task.tokens.max() >= self._vocab_size:
            return f"a token lies outside 0 .. {self._vocab_size - 1}"
        if task.lengths.min() < 1 or task.lengths.max() > task.tokens.shape[1]:
            return f"a length lies outside 1 .. {task.tokens.shape[1]}"
        return None

    def _train_one(self, miner: AnyMiner, round: int, failures: dict[str, str]) -> float | None:
        try:
            return miner.train(round)
        except Exception as error:  # the edge of a miner: those beside it train on; the supervisor tells and counts it
            if len(self._miners) == 1 or devices.is_lost(error):
                raise
            log.error("%s did not train\n%s", miner.hotkey, traceback.format_exc())
            failures[miner.hotkey] = cause_of(error)
            return None

    def _answer(self, task: Task, observed: Any) -> Response | Submission | Failure:
        response = self._miners[task.hotkey].answer(task, observed)
        return response or Failure(task.task_id, task.hotkey, Reason.SILENT, "the miner gave no answer")

    def _restore(self, hotkey: str, round: int) -> None:
        assert self._folder is not None
        rounds = checkpoints.complete(self._folder, hotkey, up_to=round)
        if not rounds:
            self._restore_warnings.append(f"{hotkey[:8]} has no checkpoint: it begins with a new model")
            return
        places = {checkpoints.path_of(self._folder, number, hotkey): number for number in rounds}
        miner = self._miners[hotkey]
        place, _, damaged = load_newest(places, miner.restore)
        self._restore_warnings += [f"{why}; the miner continues from round {places[place]}" for why in damaged]
        for missed in range(places[place] + 1, round + 1):  # the same text, and so the same model
            miner.train(missed)

    def _train_stack(self, stack: StackedEngine, hotkeys: Sequence[str], round: int) -> dict[str, float | None]:
        batches = [self._miners[hotkey].training_batches(round) for hotkey in hotkeys]
        work = {number: np.concatenate(rounds) for number, rounds in enumerate(batches) if rounds}
        # As many as are computed together anyway, so that a question waits for these only, not for all.
        order = sorted(work, key=lambda number: (work[number].shape[1:], -len(work[number]), number))
        losses: dict[int, np.ndarray] = {}
        for start in range(0, len(order), stack.width):
            with self._stack_lock:
                losses.update(stack.train({number: work[number] for number in order[start : start + stack.width]}))
        # The mean over the steps of the newest round, as for a miner that trains alone.
        newest = {number: float(np.mean(of[-len(batches[number][-1]) :])) for number, of in losses.items()}
        return {hotkey: newest.get(number) for number, hotkey in enumerate(hotkeys)}


def _stack(cfg: MinersJob, members: Sequence[Member], vocab_size: int, device: str) -> dict[str, StackedMember]:
    """Engines of the stackable miners by hotkey; those of one architecture share a stack.

    Whether a miner is stacked depends on its own profile only, so that its bits do not depend on the number of hosts.
    """
    stacks: dict[tuple[int, int, int], StackedEngine] = {}
    found: dict[str, StackedMember] = {}
    for hotkey, profile in members:
        if (shape := architecture(profile)) is not None:
            seed = assign.seed_of(cfg.seed, "model", hotkey)
            model = models.build(spec(profile, vocab_size, cfg.miners.seq_len, seed))
            stack = stacks.setdefault(shape, StackedEngine(device=device))
            found[hotkey] = stack.add(model, Recipe.of(profile))
    return found
