"""The held-out loss of a model over whole sequences, with its standard error.

In: the held-out part of a corpus, an engine. Out: mean loss in nats per token. Bounds: reads at most twice the text
that is measured, so that the start does not grow with the corpus. Knows nothing of training.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from raytensor.config.train import TrainConfig
from raytensor.data import assign, corpus, mixture
from raytensor.data.tokenizer import Tokenizer
from raytensor.errors import DataError
from raytensor.training.engine import TrainEngine

FEWEST = 16  # sequences; a small held-out part is cut into shorter ones


@dataclass(frozen=True)
class Loss:
    """mean   nats per token, over all positions of the sequences.
    error  standard error of `mean` as an estimate of the loss on text like the held-out part: the standard deviation of
           the sequences' means over the root of their number. Tokens of one sequence are not independent.
    """

    mean: float
    error: float
    num_tokens: int


@dataclass(frozen=True)
class Exam:
    """Sequences int32 [B, T + 1]; see `draw`."""

    rows: np.ndarray

    def measure(self, engine: TrainEngine) -> Loss:
        """The loss of an engine. All ranks call it."""
        return estimate(engine.sequence_losses(self.rows), self.rows.shape[1] - 1)


def estimate(losses: np.ndarray, length: int) -> Loss:
    """`Loss` of the mean losses [B] of two or more sequences of `length` tokens."""
    count = len(losses)
    return Loss(float(np.mean(losses)), float(np.std(losses, ddof=1)) / math.sqrt(count), count * length)


def _documents(cfg: TrainConfig, coder: Tokenizer, texts: Iterable[str] | None) -> Iterator[np.ndarray]:
    """Those documents, or the held-out ones, as tokens, each with its end."""
    if cfg.data.prepared and texts is None:
        most = 2 * cfg.training.heldout_rows * cfg.training.seq_len // len(cfg.data.prepared)
        yield from mixture.heldout_documents(cfg.data, coder.digest(), most)
        return
    for text in corpus.documents(cfg.data, heldout=True) if texts is None else texts:
        yield np.append(coder.encode([text])[0], np.int32(coder.end))


def draw(cfg: TrainConfig, coder: Tokenizer, texts: Iterable[str] | None = None) -> Exam:
    """A fixed draw of `training.heldout_rows` sequences that do not overlap; all where there are fewer.

    texts  documents to draw from; None: the held-out part of the corpus.

    Raises `DataError` when the held-out part has less text than two sequences of two tokens.
    """
    training, tokens = cfg.training, 0
    pieces: list[np.ndarray] = []
    for ids in _documents(cfg, coder, texts):
        pieces.append(ids)
        tokens += ids.size
        if tokens > 2 * training.heldout_rows * training.seq_len:
            break
    length = min(training.seq_len, max(2, (tokens - 1) // FEWEST))
    if tokens < 2 * length + 1:
        fix = f"raise data.heldout_share (now {cfg.data.heldout_share})"
        what = f"the held-out part of data.source={cfg.data.source!r} has {tokens} tokens"
        raise DataError(f"{what}, which is too little to measure on: {fix}")
    stream = np.concatenate(pieces).astype(np.int32)
    number = (tokens - 1) // length
    chosen = assign.generator(cfg.seed, "held-out sequences").permutation(number)[: training.heldout_rows]
    starts = np.sort(chosen) * length
    return Exam(stream[starts[:, None] + np.arange(length + 1)])
