"""A host: several small miners in one process. A plain class; the fleet makes actors of it.

In: rounds to train, tasks. Out: responses, held-out losses, checkpoints of the miners that it was given.
Waits for: nothing. Calls run one after another, in the order in which they came; only `serve` may run beside them, in a
lane of its own, and then waits for one training step of its miner at most, or for the round of the few models that are
computed together with it (a stack's `width`).
Knows nothing of the other hosts, and which miners share it makes no difference to what a miner does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from raytensor.config import MinerProfile, RunConfig, collaborates, hands_in_files
from raytensor.data.text import Text
from raytensor.miners import checkpoints
from raytensor.miners.collaborator import CollaboratingMiner
from raytensor.miners.fifo_lock import Turns
from raytensor.miners.gauges import Gauges
from raytensor.miners.miner import Miner, exam, top_tokens
from raytensor.miners.stacks import make_members, stacks
from raytensor.miners.submission_export import Original
from raytensor.training.checkpoint import load_newest
from raytensor.training.engine import Engine
from raytensor.training.stacked import StackedEngine
from raytensor.types import Failure, Reason, Response, Submission, Task


@dataclass(frozen=True)
class Trained:
    """What a host did in one round: training losses by hotkey (of those that trained) in nats/token, its seconds, and the
    digests by hotkey of files that are new (see `Miner.renew`)."""

    round: int
    losses: dict[str, float]
    wall_s: float
    files: dict[str, str] = field(default_factory=dict)


class MinerHost:
    """Hosts the miners `members`; ready when the constructor returns.

    members        (hotkey, profile) of each.
    folder         where checkpoints go; None writes none.
    resume_round   round whose checkpoint each miner goes on from; None starts with new models. A miner whose checkpoint of
                   that round is damaged goes on from its newest one that is whole, and trains the rounds since then again.
    engines        by hotkey, of miners that don't make their own.
    Raises `DamagedCheckpoint` when a miner has no checkpoint that is whole.
    """

    def __init__(
        self,
        cfg: RunConfig,
        members: Sequence[tuple[str, MinerProfile]],
        text: Text,
        folder: Path | None = None,
        resume_round: int | None = None,
        engines: Mapping[str, Engine] | None = None,
    ) -> None:
        torch.set_num_threads(cfg.cluster.torch_threads)
        transformers.logging.set_verbosity_error()
        device = "cuda" if cfg.miners.gpus_per_host > 0 else "cpu"
        self._folder = folder
        self._exam = exam(cfg, text)
        self._seq_len = cfg.miners.seq_len
        self._commit_every = cfg.miners.commit_every if hands_in_files(cfg.mechanism) else 0
        self._gauges = Gauges("run")
        self._vocab_size = text.vocab_size
        self._miners: dict[str, Miner | CollaboratingMiner]
        stacked = {}
        if stacks(cfg, device) and not engines and not collaborates(cfg.mechanism):
            stacked = make_members(cfg, members, text.vocab_size, device)
        own = {**stacked, **(engines or {})}
        # Models of a stack are computed in one place: they take turns together.
        self._turns = Turns()
        if collaborates(cfg.mechanism):
            self._miners = {
                hotkey: CollaboratingMiner(hotkey, profile, cfg, text, device=device) for hotkey, profile in members
            }
        else:
            self._miners = {
                hotkey: Miner(
                    hotkey,
                    profile,
                    cfg,
                    text,
                    device=device,
                    engine=own.get(hotkey),
                    turns=self._turns if hotkey in stacked else None,
                )
                for hotkey, profile in members
            }
        # Hotkeys of each stack, in the order of its models.
        self._stacks: dict[StackedEngine, list[str]] = {}
        for hotkey, member in stacked.items():
            self._stacks.setdefault(member.stack, []).append(hotkey)
        self._setbacks: list[str] = []
        if resume_round is not None:
            for hotkey in self._miners:
                self._restore(hotkey, resume_round)

    def ready(self) -> int:
        """The process id; answers once the constructor is through."""
        return os.getpid()

    def setbacks(self) -> list[str]:
        """What was wrong with the checkpoints that it began with, a line each."""
        return self._setbacks

    def train(
        self, round: int, committed: Mapping[str, str] | None = None, originals: Mapping[str, Original] | None = None
    ) -> Trained:
        """Train all miners for one round, and write their files in the rounds for it.

        committed  digests by hotkey, as the chain has them; originals: whose file a copying miner takes.
        """
        started = time.perf_counter()
        losses: dict[str, float | None] = {}
        for stack, hotkeys in self._stacks.items():
            losses.update(self._train_stack(stack, hotkeys, round))
        losses.update({hotkey: miner.train(round) for hotkey, miner in self._miners.items() if hotkey not in losses})
        files = {}
        if self._commit_every and (round - 1) % self._commit_every == 0:
            made = {
                hotkey: miner.renew((originals or {}).get(hotkey), committed) for hotkey, miner in self._miners.items()
            }
            files = {hotkey: digest for hotkey, digest in made.items() if digest is not None}
        wall_s = time.perf_counter() - started
        trained = [self._miners[hotkey].profile for hotkey, loss in losses.items() if loss is not None]
        tokens = sum(profile.steps * profile.batch_size for profile in trained) * self._seq_len
        self._gauges.trained([loss for loss in losses.values() if loss is not None], tokens, wall_s)
        return Trained(round, {hotkey: loss for hotkey, loss in losses.items() if loss is not None}, wall_s, files)

    def answer(self, task: Task, observed: Any = None) -> Response | Submission | Failure:
        """One miner's answer; a `Failure` with SILENT when it gives none."""
        began = time.perf_counter()
        answer = self._answer(task, observed)
        self._gauges.answered(answer, time.perf_counter() - began)
        return answer

    def serve(self, task: Task) -> Response | Submission | Failure:
        """As `answer`, for questions from outside the run: called in a lane of its own, it answers while others train."""
        if task.hotkey not in self._miners:
            return Failure(task.task_id, task.hotkey, Reason.REFUSED, "this host has no miner of that hotkey")
        if (
            wrong := self._unanswerable(task) if task.kind != "file" else None
        ):  # an index out of range would end a model's processes, on a GPU for good
            return Failure(task.task_id, task.hotkey, Reason.REFUSED, wrong)
        return self._answer(task, None)

    def _unanswerable(self, task: Task) -> str | None:
        """Why a stranger's question can't be asked of a model; None when it can."""
        if task.tokens.shape[1] > self._seq_len:
            return f"a context has {task.tokens.shape[1]} tokens; this miner sees at most {self._seq_len}"
        if task.tokens.min() < 0 or task.tokens.max() >= self._vocab_size:
            return f"a token lies outside 0 .. {self._vocab_size - 1}"
        if task.lengths.min() < 1 or task.lengths.max() > task.tokens.shape[1]:
            return f"a length lies outside 1 .. {task.tokens.shape[1]}"
        return None

    def _answer(self, task: Task, observed: Any) -> Response | Submission | Failure:
        response = self._miners[task.hotkey].answer(task, observed)
        return response or Failure(task.task_id, task.hotkey, Reason.SILENT, "the miner gave no answer")

    def heldout_losses(self) -> dict[str, float | None]:
        """Held-out loss of each miner in nats per token; None for one that gives no answers of its own."""
        found: dict[str, float | None] = {}
        exam = self._exam
        for stack, hotkeys in self._stacks.items():
            for start in range(0, len(stack), stack.width):  # the answers of all at once may be gigabytes
                numbers = range(start, min(start + stack.width, len(stack)))
                with self._turns:
                    answers = stack.log_probs(dict.fromkeys(numbers, (exam.tokens, exam.lengths)))
                for number, answer in answers.items():
                    found[hotkeys[number]] = exam.loss(*top_tokens(answer, exam.top_k), self._vocab_size)
        return {
            hotkey: found[hotkey] if hotkey in found else miner.heldout_loss(exam)
            for hotkey, miner in self._miners.items()
        }

    def checkpoint(self, round: int) -> None:
        """Write a checkpoint of every miner."""
        assert self._folder is not None
        for hotkey, miner in self._miners.items():
            miner.checkpoint(checkpoints.path_of(self._folder, round, hotkey))
            checkpoints.mark(self._folder, round, hotkey)

    def _restore(self, hotkey: str, round: int) -> None:
        assert self._folder is not None
        rounds = [round, *checkpoints.older(self._folder, round, hotkey)]
        places = {checkpoints.path_of(self._folder, number, hotkey): number for number in rounds}
        miner = self._miners[hotkey]
        place, _, damaged = load_newest(places, miner.restore)
        self._setbacks += [f"{why}; the miner goes on from round {places[place]}" for why in damaged]
        for missed in range(places[place] + 1, round + 1):  # the same text, so that it ends up where it was
            miner.train(missed)

    def _train_stack(self, stack: StackedEngine, hotkeys: Sequence[str], round: int) -> dict[str, float | None]:
        lessons = [self._miners[hotkey].lessons(round) for hotkey in hotkeys]
        work = {number: np.concatenate(mine) for number, mine in enumerate(lessons) if mine}
        # As many as are computed together anyway, so that a question waits for these only, not for all.
        order = sorted(work, key=lambda number: (work[number].shape[1:], -len(work[number]), number))
        losses: dict[int, np.ndarray] = {}
        for start in range(0, len(order), stack.width):
            with self._turns:
                losses.update(stack.train({number: work[number] for number in order[start : start + stack.width]}))
        # As when it trains alone: the mean over the newest round's steps.
        return {
            hotkey: float(np.mean(losses[number][-len(lessons[number][-1]) :])) if number in losses else None
            for number, hotkey in enumerate(hotkeys)
        }
