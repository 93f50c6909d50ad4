"""The network's answer to one question: the miners' answers averaged by their weights. Pure numpy.

In: responses to one `Task`, a weight for each miner. Out: one distribution per row, and its likeliest tokens.
Knows nothing of how weights are made.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from raytensor.mechanisms.losses import distributions
from raytensor.types import Response


def mix(responses: Sequence[Response], weights: Mapping[str, float], vocab_size: int) -> np.ndarray:
    """float64 [B, V]: next-token distributions, sum over miners of weight * distribution, weights as shares.

    weights  by hotkey, >= 0; a missing one counts as 0. When all are 0, all miners count the same.
    Raises ValueError when there is no response.
    """
    if not responses:
        raise ValueError("nobody answered: there is nothing to mix")
    ordered = sorted(responses, key=lambda response: response.hotkey)
    shares = np.array([max(0.0, weights.get(response.hotkey, 0.0)) for response in ordered])
    shares = shares / shares.sum() if shares.sum() > 0 else np.full(len(ordered), 1.0 / len(ordered))
    mixed = np.zeros((len(ordered[0].probs), vocab_size))
    for share, response in zip(shares, ordered, strict=True):
        mixed = mixed + share * distributions(response.ids, response.probs, vocab_size)
    return mixed


def likeliest(mixed: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top_k` likeliest tokens of each row, likeliest first: ids int32 [B, K], probs float64 [B, K]."""
    ids = np.argsort(-mixed, axis=1, kind="stable")[:, :top_k]
    return ids.astype(np.int32), np.take_along_axis(mixed, ids, axis=1)
