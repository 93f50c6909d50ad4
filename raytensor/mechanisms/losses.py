"""Cross-entropy of answers, and the checks that an answer must pass before it is scored.

In: arrays of one `Response`. Out: losses in nats, or why the answer is malformed. Knows nothing of weights.

    token       the token that follows: named tokens have their probability, the others share the remainder evenly.
    phrase      classic Bittensor: the phrases that the withheld text begins with have their probabilities together.
    completion  the whole withheld text: the answer is a mixture of its continuations.
"""

import math

import numpy as np

from raytensor.types import Response, Submission, Task

# Loss of a target without any probability, instead of infinity (classic Bittensor: NaN -> 20).
MAX_LOSS = 20.0
# Probabilities are float32: a row of K of them may sum to this much above 1.
SUM_SLACK = 1e-4
# Probability that a token of a named completion is replaced by any token, so that partly right completions count.
SLIP = 0.2


def token_losses(ids: np.ndarray, probs: np.ndarray, targets: np.ndarray, vocab_size: int) -> np.ndarray:
    """float64 [B]: -ln of the probability that each row gave to its target, at most `MAX_LOSS`.

    ids int32 [B, K], probs float32 [B, K], targets int32 [B]. The remainder to 1 is spread evenly over the
    vocab_size - K tokens that it does not name (the floor).
    """
    p = probs.astype(np.float64)
    hit = ids == targets[:, None]
    given = np.where(hit.any(axis=1), (p * hit).sum(axis=1), _left(p) / max(1, vocab_size - ids.shape[1]))
    return np.minimum(-np.log(np.maximum(given, 1e-300)), MAX_LOSS)


def phrase_losses(ids: np.ndarray, probs: np.ndarray, targets: np.ndarray, vocab_size: int) -> np.ndarray:
    """float64 [B]: -ln(p + 1e-40), p the sum of the probabilities of the phrases that the withheld text begins with.

    ids int32 [B, K, L] padded with -1, probs float32 [B, K], targets int32 [B, H], L <= H. A row without such a phrase
    has the floor: what is left over of 1, divided by the vocabulary. Source: opentensor/bittensor v4.0.1,
    utils/tokenizer_utils.py, `phrase_cross_entropy` (there the miner states the floor itself).
    """
    p = probs.astype(np.float64)
    hit = ((ids == targets[:, None, : ids.shape[2]]) | (ids < 0)).all(axis=2)
    given = np.where(hit.any(axis=1), (p * hit).sum(axis=1), _left(p) / vocab_size)
    return -np.log(given + 1e-40)


def completion_losses(ids: np.ndarray, probs: np.ndarray, targets: np.ndarray, vocab_size: int) -> np.ndarray:
    """float64 [B]: nats per token of the withheld text under the mixture that an answer is, at most `MAX_LOSS`.

    ids int32 [B, K, H], probs float32 [B, K], targets int32 [B, H]. The mixture's parts are the named continuations,
    each token of which is replaced by any token at all with probability `SLIP`, and with what is left over of 1 the
    uniform distribution: a distribution over texts, so its log score is proper.
    """
    p = probs.astype(np.float64)
    horizon = targets.shape[1]
    right = (ids == targets[:, None, :]).sum(axis=2)
    log_part = right * math.log(1.0 - SLIP + SLIP / vocab_size) + (horizon - right) * math.log(SLIP / vocab_size)
    with np.errstate(divide="ignore"):
        rest = np.log(_left(p))[:, None] - horizon * math.log(vocab_size)
        terms = np.concatenate([np.log(p) + log_part, rest], axis=1)
    top = np.maximum(terms.max(axis=1), -1e300)
    total = top + np.log(np.exp(terms - top[:, None]).sum(axis=1))
    return np.minimum(-total / horizon, MAX_LOSS)


KINDS = {"token": token_losses, "phrase": phrase_losses, "completion": completion_losses}


def distributions(ids: np.ndarray, probs: np.ndarray, vocab_size: int) -> np.ndarray:
    """float64 [B, V]: the next-token distribution of an answer; for phrases, of their first token.

    ids int32 [B, K] or [B, K, L]. The remainder goes evenly to the tokens that are not named.
    """
    p, first = probs.astype(np.float64), ids if ids.ndim == 2 else ids[:, :, 0]
    spread = np.zeros((len(p), vocab_size))
    np.add.at(spread, (np.arange(len(p))[:, None], first), p)
    named = np.zeros(spread.shape, dtype=bool)
    np.put_along_axis(named, first, True, axis=1)
    unnamed = vocab_size - named.sum(axis=1)
    return spread + np.where(named, 0.0, (_left(p) / np.maximum(1, unnamed))[:, None])


def fault(task: Task, response: Response | Submission, vocab_size: int) -> str | None:
    """Why a response breaks the bounds of its task; None when it does not."""
    if not isinstance(response, Response):
        return f"a {type(response).__name__} is no answer to a question of kind {task.kind!r}"
    ids, probs = response.ids, response.probs
    if response.task_id != task.task_id or response.hotkey != task.hotkey:
        return f"answers task {response.task_id!r} as {response.hotkey!r}"
    if not (isinstance(ids, np.ndarray) and isinstance(probs, np.ndarray)):
        return "ids and probs must be arrays"
    if ids.dtype != np.int32 or probs.dtype != np.float32:
        return f"ids must be int32 and probs float32, not {ids.dtype} and {probs.dtype}"
    rows, most = len(task.lengths), min(task.top_k, vocab_size) if task.kind == "token" else task.top_k
    if probs.ndim != 2 or len(probs) != rows or not 1 <= probs.shape[1] <= most:
        return f"probs {probs.shape} must be [{rows}, 1 .. {most}]"
    if ids.shape[:2] != probs.shape or ids.ndim != (2 if task.kind == "token" else 3):
        return f"ids {ids.shape} do not fit probs {probs.shape} in a question of kind {task.kind!r}"
    wrong = _words(task, ids, vocab_size)
    if wrong:
        return wrong
    if not np.isfinite(probs).all():
        return "a probability is not finite"
    if (probs < 0).any():
        return "a probability is negative"
    if probs.sum(axis=1, dtype=np.float64).max() > 1.0 + SUM_SLACK:
        return "the probabilities of a row sum to more than 1"
    return None


def _words(task: Task, ids: np.ndarray, vocab_size: int) -> str | None:
    """What is wrong with the named tokens or phrases; None when nothing is."""
    if ids.max() >= vocab_size or ids.min() < (0 if task.kind == "token" else -1):
        return f"an id lies outside 0 .. {vocab_size - 1}"
    if ids.ndim == 2:
        return "a row names a token twice" if (np.diff(np.sort(ids, axis=1), axis=1) == 0).any() else None
    length, whole = ids.shape[2], task.kind == "completion"
    if not 1 <= length <= task.horizon or (whole and (length != task.horizon or (ids < 0).any())):
        return f"a phrase has {length} tokens; {task.horizon} {'are asked for' if whole else 'at most'}"
    if (ids[:, :, 0] < 0).any() or ((ids[:, :, 1:] >= 0) & (ids[:, :, :-1] < 0)).any():
        return "a phrase is empty or has a gap"
    if length == 1:
        return "a row names a phrase twice" if (np.diff(np.sort(ids[:, :, 0], axis=1), axis=1) == 0).any() else None
    for row in ids:
        ordered = row[np.lexsort(row.T)]
        if (ordered[1:] == ordered[:-1]).all(axis=1).any():
            return "a row names a phrase twice"
    return None


def _left(p: np.ndarray) -> np.ndarray:
    """float64 [B]: the remainder of the named probabilities to 1."""
    return np.maximum(0.0, 1.0 - p.sum(axis=1))
