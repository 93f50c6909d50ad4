"""A learned router: chooses the miners to ask, by how well they answered similar questions. Pure.

In: questions, and the losses of answers. Out: hotkeys. One logistic unit per hotkey on hashed token counts of the
question, trained on classic Bittensor's routing target exp(-max(0, L - floor)) (opentensor/bittensor v4.0.1,
core_validator, `textcausallmnext`; the gates of v2.1, a sparsely gated mixture of experts, were linear too).
Its weights are stored in `State.miners` by hotkey, under "gate".
"""

import math
from collections.abc import Sequence

import numpy as np

from raytensor.mechanisms.evidence import State, numbers

_MIX = 0x9E3779B97F4A7C15  # Knuth's multiplicative hashing, 2^64 / golden ratio


def features(tokens: np.ndarray, lengths: np.ndarray, size: int) -> tuple[float, ...]:
    """`size` numbers of a question: the root-mean share of its tokens by hash, and 1 for the bias; length about 1.

    tokens int32 [B, T], lengths int32 [B].
    """
    shown = tokens[np.arange(tokens.shape[1])[None, :] < lengths[:, None]].astype(np.uint64)
    cells = ((shown * np.uint64(_MIX)) >> np.uint64(32)) % np.uint64(max(1, size - 1))
    counts = np.bincount(cells.astype(np.int64), minlength=max(1, size - 1))[: size - 1]
    return (*np.sqrt(counts / max(1, counts.sum())).tolist(), 1.0)


def score(weights: Sequence[float], x: Sequence[float]) -> float:
    """Expected value, 0 to 1, of a miner's answer to a question with features `x`."""
    return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, math.fsum(w * f for w, f in zip(weights, x, strict=True))))))


def learn(
    weights: Sequence[float], x: Sequence[float], loss: float, entropy_floor: float, lr: float
) -> tuple[float, ...]:
    """The weights after one step of gradient descent on (score - exp(-max(0, loss - floor)))^2."""
    found, wanted = score(weights, x), math.exp(-max(0.0, loss - entropy_floor))
    slope = 2.0 * (found - wanted) * found * (1.0 - found)
    return tuple(w - lr * slope * f for w, f in zip(weights, x, strict=True))


def best(state: State, hotkeys: Sequence[str], x: Sequence[float], count: int) -> list[str]:
    """The `count` hotkeys with the highest scores for a question, ties by hotkey. Unknown ones score 0.5."""
    none = (0.0,) * len(x)
    scores = {hotkey: score(numbers(state.miners.get(hotkey, {}), "gate", none), x) for hotkey in hotkeys}
    return sorted(hotkeys, key=lambda hotkey: (-scores[hotkey], hotkey))[: max(0, count)]
