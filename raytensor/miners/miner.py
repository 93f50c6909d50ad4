"""A miner: a hotkey, a profile, and a model if its behaviour needs one; how it trains and how it answers.

In: the training part of the text, tasks. Out: losses, responses, a held-out loss, checkpoint folders.
Waits for: a question that comes during training waits for the step under way and is answered before the next one, with
the model as it is then. Answers do not change the training.
Knows nothing of Ray, of scores, or of other miners: everything it does is a pure function of (seed, hotkey, profile,
text, rounds trained so far), bit for bit.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from raytensor.config import MinerProfile, MinersJob
from raytensor.config.behaviours import BEHAVIOURS
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.mechanisms import base
from raytensor.mechanisms.losses import token_losses
from raytensor.miners.behaviours import ACTIONS, Predicted, Question
from raytensor.miners.fifo_lock import FifoLock
from raytensor.miners.model import make_engine, spec, top_tokens
from raytensor.miners.submission_export import Original, SubmissionExporter
from raytensor.training import models
from raytensor.training.decoding import CachedDecoder, bytes_per_token, is_cacheable
from raytensor.training.engine import Engine
from raytensor.training.ranks import alone
from raytensor.types import Response, Submission, Task

log = logging.getLogger(__name__)
MAX_COMPLETIONS = 4  # each costs a forward pass per token


@dataclass(frozen=True)
class QuestionSet:
    """Fixed questions: contexts int32 [B, T], lengths int32 [B], targets int32 [B]; `top_k` tokens named per row."""

    tokens: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    top_k: int

    def loss(self, ids: np.ndarray, probs: np.ndarray, vocab_size: int) -> float:
        """Mean cross-entropy of an answer in nats per token."""
        return float(token_losses(ids, probs, self.targets, vocab_size).mean())


def heldout_questions(cfg: MinersJob, text: Text) -> QuestionSet:
    """The held-out questions that all miners of a run are measured on; they depend on the run's seed only."""
    rule, tokens = cfg.mechanism.query, text.heldout
    num_rows = cfg.miners.heldout_rows
    starts = assign.question_starts(cfg.seed, 0, "held-out exam", num_rows, rule.context + 1, len(tokens))
    cuts = assign.question_cuts(cfg.seed, 0, "held-out exam", "everyone", num_rows, rule.shortest, rule.context)
    contexts, targets = assign.cut_windows(tokens, starts, cuts, rule.context)
    return QuestionSet(contexts, cuts, targets, min(rule.top_k, text.vocab_size))


class Miner:
    """One identity.

    hotkey   ss58 address; also the key of its randomness and of its training data.
    profile  behaviour, model and training.
    engine   made from the profile when None; not used by behaviours that need no model.
    lock     held while the model computes; shared by models that are computed together. None: one of its own.
    """

    def __init__(
        self,
        hotkey: str,
        profile: MinerProfile,
        cfg: MinersJob,
        text: Text,
        *,
        device: str = "cpu",
        engine: Engine | None = None,
        lock: FifoLock | None = None,
    ) -> None:
        self.hotkey, self.profile = hotkey, profile
        self._behaviour = BEHAVIOURS[profile.behaviour]
        self._seed, self._text = cfg.seed, text
        self._seq_len, self._warmup_rounds = cfg.miners.seq_len, cfg.miners.warmup_rounds
        files = base.needs(cfg.mechanism).asks_for_files
        self._action = ACTIONS[profile.behaviour]
        if engine is None and (self._behaviour.trains or (files and self._action.untrained_file)):
            seed = assign.seed_of(cfg.seed, "model", hotkey)
            engine = make_engine(profile, text.vocab_size, cfg.miners.seq_len, seed, alone(device))
        self.engine, self._device = engine, device
        self._lock = lock or FifoLock()
        folder = Path(cfg.miners.files or "")
        self._exporter = SubmissionExporter(hotkey, profile, text, cfg, folder) if files else None

    def train(self, round: int) -> float | None:
        """Train one round. Returns the mean loss in nats per token; None when the miner does not train in this round.

        A new honest miner first trains `warmup_rounds` rounds more; a lazy one does not.
        """
        losses = [self._steps(batches) for batches in self.training_batches(round)]
        return losses[-1] if losses else None

    def training_batches(self, round: int) -> list[np.ndarray]:
        """What it trains on in a round: [steps, batch, seq_len + 1] token ids; several of them when it warms up, none
        when it does not train."""
        every = self._behaviour.trains_every
        if self.engine is None or not every or round % every:
            return []
        first = round - self._warmup_rounds if self.engine.steps == 0 and every == 1 else round
        return [self.batches(number) for number in range(first, round + 1)]

    def batches(self, round: int) -> np.ndarray:
        """[steps, batch, seq_len + 1] token ids of the training part, drawn by (seed, round, hotkey)."""
        profile, window = self.profile, self._seq_len + 1
        num_windows = profile.steps * profile.batch_size
        starts = assign.training_starts(self._seed, round, self.hotkey, num_windows, window, len(self._text.train))
        tokens = self._text.train[starts[:, None] + np.arange(window)]
        return tokens.reshape(profile.steps, profile.batch_size, window)

    def export(self, original: Original | None = None, committed: Mapping[str, str] | None = None) -> str | None:
        """Write the model as the newest file to submit. See `SubmissionExporter.export`."""
        assert self._exporter is not None, "the mechanism asks for no files"
        return self._exporter.export(self._weights if self.engine is not None else None, original, committed)

    def answer(self, task: Task, observed: Response | None = None) -> Response | Submission | None:
        """The answer to one question; None when the miner gives none.

        observed  another miner's response to the same validator in the same round, for a copying miner.
        """
        if task.kind == "file":
            return self._exporter.answer(task) if self._exporter is not None else None
        started = time.perf_counter()
        top_k = min(task.top_k, MAX_COMPLETIONS) if task.kind == "completion" else task.top_k
        found = self._predict(task.task_id, task.tokens, task.lengths, top_k, observed)
        if found is None:
            return None
        if task.kind in ("phrase", "completion") and found[0].ndim == 2:
            # Single tokens are the likeliest phrases; only completions must be longer.
            found = self._continued(task, *found) if task.kind == "completion" else (found[0][:, :, None], found[1])
        return Response(task.task_id, self.hotkey, *found, elapsed_s=time.perf_counter() - started)

    def _continued(self, task: Task, ids: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Completions of `task.horizon` tokens that begin with `ids` [B, K], each continued by its likeliest token.

        Returns int32 [B, K, horizon], and the probabilities of whole completions, float32 [B, K].
        """
        rows, count = ids.shape
        made = np.zeros((rows * count, self._seq_len + task.horizon), np.int32)
        made[:, : task.tokens.shape[1]] = np.repeat(task.tokens, count, axis=0)
        ends = np.repeat(task.lengths.astype(np.int64), count)
        whole, every = probs.ravel().astype(np.float64), np.arange(rows * count)
        made[every, ends] = ids.ravel()
        for step in range(1, task.horizon):
            lengths = np.minimum(ends + step, self._seq_len)
            columns = np.maximum(0, ends + step - self._seq_len)[:, None] + np.arange(self._seq_len)
            shown = np.where(np.arange(self._seq_len) < lengths[:, None], np.take_along_axis(made, columns, axis=1), 0)
            found = self._predict(f"{task.task_id}/{step}", shown, lengths.astype(np.int32), 1, None)
            assert found is not None
            made[every, ends + step] = found[0][:, 0]
            whole *= found[1][:, 0]
        phrases = np.take_along_axis(made, ends[:, None] + np.arange(task.horizon), axis=1)
        found = phrases.reshape(rows, count, task.horizon).astype(np.int32)
        return found, whole.reshape(rows, count).astype(np.float32)

    def heldout_loss(self, questions: QuestionSet) -> float | None:
        """Mean cross-entropy of its answers in nats per token; None when it gives no answers of its own."""
        found = self._predict("held-out exam", questions.tokens, questions.lengths, questions.top_k, None)
        return None if found is None else questions.loss(*found, self._text.vocab_size)

    def checkpoint(self, folder: Path) -> None:
        """Write the model and its optimizer to `folder`, which appears at once; nothing for a miner without a model."""
        if self.engine is not None:
            with self._lock:
                self.engine.save(folder)

    def restore(self, folder: Path) -> None:
        """Restore a checkpoint, bit for bit. Raises as `Engine.load`."""
        if self.engine is not None:
            self.engine.load(folder)

    def cached_decoder(self) -> CachedDecoder | None:
        """A decoder with a copy of the model; None where answers are not of one model in this process, or its layers
        are not all plain attention."""
        if self.engine is None or self.profile.ranks > 1:
            return None
        # The seed of the engine's model: weights that are not trained (under adapters) come from it.
        seed = assign.seed_of(self._seed, "model", self.hotkey)
        model = models.build(spec(self.profile, self._text.vocab_size, self._seq_len, seed))
        if not is_cacheable(model):
            return None
        size = bytes_per_token(model, bf16=self.profile.precision == "bf16")
        log.info("%s answers prompts: a copy of its model, and %d bytes for each token", self.hotkey[:8], size)
        about = {"device": self._device, "bf16": self.profile.precision == "bf16"}
        return CachedDecoder(model, self._text.vocab_size, self._own_weights, **about)

    def _own_weights(self) -> dict[str, Tensor]:
        """A copy that training does not change."""
        assert self.engine is not None
        with self._lock:
            return {name: value.clone() for name, value in self.engine.weights().items()}

    def _weights(self) -> dict[str, Tensor]:
        assert self.engine is not None
        with self._lock:
            return self.engine.weights()

    def _steps(self, batches: np.ndarray) -> float:
        """One optimizer step per batch; questions may be answered in between. Returns the mean loss."""
        assert self.engine is not None
        losses = []
        for batch in batches:
            with self._lock:
                losses.append(self.engine.train_steps([batch]))
        return float(np.mean(losses)) if losses else float("nan")

    def _predict(
        self, name: str, tokens: np.ndarray, lengths: np.ndarray, top_k: int, observed: Response | None
    ) -> Predicted | None:
        """(ids int32 [B, K], probs float32 [B, K]) by the miner's behaviour."""
        top_k = min(top_k, self._text.vocab_size)
        model = partial(self._by_model, tokens, lengths, top_k) if self.engine is not None else None
        about = self._seed, self.hotkey, name, len(tokens), top_k
        return self._action.answer(Question(*about, self._text, observed, model))

    def _by_model(self, tokens: np.ndarray, lengths: np.ndarray, top_k: int) -> Predicted:
        assert self.engine is not None
        with self._lock:
            log_probs = self.engine.log_probs(tokens, lengths)
        # A model with its own vocabulary may have more tokens than the text.
        return top_tokens(log_probs[:, : self._text.vocab_size], top_k)
