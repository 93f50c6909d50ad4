"""Cross-entropy of next-token answers, and the checks that an answer must pass first.

In: arrays of one `Response`. Out: nats per token, or why the answer can't be used. Knows nothing of weights.
"""

from __future__ import annotations

import numpy as np

from raytensor.types import Response, Task

# A withheld token that was given no probability at all costs this much, not infinity (classic Bittensor: NaN -> 20).
MAX_LOSS = 20.0
# Probabilities are float32: a row of K of them may sum to this much above 1.
SUM_SLACK = 1e-4


def token_losses(ids: np.ndarray, probs: np.ndarray, targets: np.ndarray, vocab_size: int) -> np.ndarray:
    """float64 [B]: -ln of the probability that each row gave to its target, at most `MAX_LOSS`.

    ids int32 [B, K], probs float32 [B, K], targets int32 [B]. What a row leaves over of 1 is spread evenly over the
    vocab_size - K tokens that it does not name (the floor).
    """
    p = probs.astype(np.float64)
    unnamed = vocab_size - ids.shape[1]
    left = np.maximum(0.0, 1.0 - p.sum(axis=1))
    floor = left / unnamed if unnamed > 0 else np.zeros(len(p))
    hit = ids == targets[:, None]
    given = np.where(hit.any(axis=1), (p * hit).sum(axis=1), floor)
    return np.minimum(-np.log(np.maximum(given, 1e-300)), MAX_LOSS)


def fault(task: Task, response: Response, vocab_size: int) -> str | None:
    """Why a response breaks the bounds of its task; None when it keeps them."""
    ids, probs = response.ids, response.probs
    if response.task_id != task.task_id or response.hotkey != task.hotkey:
        return f"answers task {response.task_id!r} as {response.hotkey!r}"
    if not (isinstance(ids, np.ndarray) and isinstance(probs, np.ndarray)):
        return "ids and probs must be arrays"
    if ids.dtype != np.int32 or probs.dtype != np.float32:
        return f"ids must be int32 and probs float32, not {ids.dtype} and {probs.dtype}"
    rows = len(task.lengths)
    if ids.shape != probs.shape or ids.ndim != 2 or len(ids) != rows or not 1 <= ids.shape[1] <= min(task.top_k, vocab_size):
        return f"ids {ids.shape} and probs {probs.shape} must both be [{rows}, 1 .. {min(task.top_k, vocab_size)}]"
    if ids.min() < 0 or ids.max() >= vocab_size:
        return f"an id lies outside 0 .. {vocab_size - 1}"
    if (np.diff(np.sort(ids, axis=1), axis=1) == 0).any():
        return "a row names a token twice"
    if not np.isfinite(probs).all():
        return "a probability is not finite"
    if (probs < 0).any():
        return "a probability is negative"
    if probs.sum(axis=1, dtype=np.float64).max() > 1.0 + SUM_SLACK:
        return "the probabilities of a row sum to more than 1"
    return None
