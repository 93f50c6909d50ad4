"""Simulated miners of the query mechanism: n-gram tables in pure numpy, and the cheats that a mechanism must not pay.

In: tokens of a text, a `Task`. Out: ids and probabilities of an answer. No model, no Ray: thousands fit a laptop.
"""

from __future__ import annotations

import numpy as np

from raytensor.data.text import Text
from raytensor.types import Response, Task


class Table:
    """An interpolated n-gram model (Witten and Bell 1991: as much weight for the shorter context as it has seen kinds).

    tokens      that it has read.
    order       tokens of context that it looks at, 0 to 5.
    """

    def __init__(self, tokens: np.ndarray, order: int, vocab_size: int) -> None:
        assert (vocab_size + 1) ** (order + 1) < 2**63
        self._order, self._base, self._v = order, vocab_size + 1, vocab_size
        read = tokens.astype(np.int64)
        self._counts = []
        for length in range(order + 1):
            key = np.zeros(len(read) - length, dtype=np.int64)
            for offset in range(length + 1):
                key = key * self._base + read[offset : len(read) - length + offset]
            self._counts.append(np.unique(key, return_counts=True))

    def probabilities(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """float64 [B, V] next-token probabilities after each context."""
        found = np.full((len(tokens), self._v), 1.0 / self._v)
        for row, (context, length) in enumerate(zip(tokens.astype(np.int64), lengths.tolist(), strict=True)):
            p = found[row]
            for n in range(min(self._order, length) + 1):
                key = 0
                for token in context[length - n : length].tolist():
                    key = key * self._base + token
                keys, counts = self._counts[n]
                low, high = np.searchsorted(keys, (key * self._base, (key + 1) * self._base))
                if low == high:
                    break
                seen, kinds = counts[low:high], high - low
                p *= kinds / (seen.sum() + kinds)
                p[keys[low:high] - key * self._base] += seen / (seen.sum() + kinds)
        return found


def named(probabilities: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest tokens of each row as an answer of the task's kind: ids, probs float32."""
    top_k = min(task.top_k, probabilities.shape[1])
    ids = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k].astype(np.int32)
    probs = np.take_along_axis(probabilities, ids, axis=1)
    probs = (probs / np.maximum(1.0, probs.sum(axis=1, keepdims=True) * (1 + 1e-6))).astype(np.float32)
    return (ids if task.kind == "token" else ids[:, :, None]), probs


class Honest:
    """Answers with a table."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def answer(self, task: Task, seen: Response | None = None) -> Response | None:
        return Response(task.task_id, task.hotkey, *named(self.table.probabilities(task.tokens, task.lengths), task))


class Silent:
    """Never answers."""

    def answer(self, task: Task, seen: Response | None = None) -> Response | None:
        return None


class Constant:
    """One distribution for every question: the text's frequencies (`Constant.frequencies`), or any other."""

    def __init__(self, distribution: np.ndarray) -> None:
        self._distribution = distribution

    @classmethod
    def frequencies(cls, text: Text) -> Constant:
        return cls(np.exp(text.log_unigram.astype(np.float64)))

    @classmethod
    def one_answer(cls, text: Text) -> Constant:
        """Always the most frequent token, and a little for the rest."""
        p = np.full(text.vocab_size, 0.3 / text.vocab_size)
        p[int(text.log_unigram.argmax())] += 0.7
        return cls(p)

    def answer(self, task: Task, seen: Response | None = None) -> Response | None:
        return Response(
            task.task_id, task.hotkey, *named(np.repeat(self._distribution[None], len(task.tokens), axis=0), task)
        )


class Echo:
    """Repeats the question: the tokens of the context, the last ones most, and a little for the rest."""

    def __init__(self, vocab_size: int) -> None:
        self._v = vocab_size

    def answer(self, task: Task, seen: Response | None = None) -> Response | None:
        p = np.full((len(task.tokens), self._v), 0.3 / self._v)
        for row, (context, length) in enumerate(zip(task.tokens, task.lengths.tolist(), strict=True)):
            shown = context[max(0, length - 16) : length]
            share = 0.9 ** np.arange(len(shown))[::-1]
            np.add.at(p[row], shown, 0.7 * share / share.sum())
        return Response(task.task_id, task.hotkey, *named(p, task))


class Copy:
    """Answers with another miner's answer to the same validator in the same round, with noise on it or not."""

    def __init__(self, noise: float = 0.0) -> None:
        self._noise = noise

    def answer(self, task: Task, seen: Response | None = None) -> Response | None:
        if seen is None:
            return None
        draw = np.random.default_rng(task.round)
        probs = seen.probs * np.exp(self._noise * draw.standard_normal(seen.probs.shape)).astype(np.float32)
        probs = probs / np.maximum(1.0, probs.sum(axis=1, keepdims=True) * (1 + 1e-5))
        return Response(task.task_id, task.hotkey, seen.ids, probs.astype(np.float32))


class LookUp:
    """Finds the question in a text that it owns by `suffix` tokens that end `gap` before the context's end; where it
    finds     nothing it answers with the frequencies.

    text       its frequencies.
    owned      the text that it looks in.
    gap        tokens at the end of the context that it ignores, one of which is missing; 0 takes none for missing.
    """

    def __init__(self, text: Text, owned: np.ndarray, suffix: int = 8, gap: int = 0) -> None:
        self._owned, self._suffix, self._gap = owned.astype(np.int64), suffix, gap
        self._frequencies = np.exp(text.log_unigram.astype(np.float64))
        keys = self._hash(np.lib.stride_tricks.sliding_window_view(self._owned, suffix))
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def _hash(self, windows: np.ndarray) -> np.ndarray:
        key = np.zeros(len(windows), dtype=np.uint64)
        for column in range(self._suffix):
            key = key * np.uint64(0x9E3779B97F4A7C15) + windows[:, column].astype(np.uint64) + np.uint64(1)
        return key

    def answer(self, task: Task, seen: Response | None = None) -> Response | None:
        p = np.repeat(self._frequencies[None], len(task.tokens), axis=0)
        columns = task.lengths[:, None] - self._gap - self._suffix + np.arange(self._suffix)
        keys = self._hash(np.take_along_axis(task.tokens.astype(np.int64), np.maximum(0, columns), axis=1))
        low, high = np.searchsorted(self._keys, keys), np.searchsorted(self._keys, keys, side="right")
        for row in np.flatnonzero(high > low):
            after = self._order[low[row] : high[row]] + self._suffix + (self._gap + 1 if self._gap else 0)
            after = self._owned[after[after < len(self._owned)]]
            p[row] *= 0.02
            np.add.at(p[row], after, 0.98 / max(1, len(after)))
        return Response(task.task_id, task.hotkey, *named(p, task))
