"""Training text as a stream of packed batches that resumes exactly.

In: the `data` section, a tokenizer. Out: int32 [B, T + 1] batches: the documents of the training part in sequence, each
followed by the end of document, cut into rows without padding; at its end the source is read again from the start.
Documents keep the order of the source: a shuffle buffer could not be resumed exactly. Equal settings give equal batches
in every process, so each rank reads the whole stream and uses its share of the rows.
Bounds: at most `DOCUMENTS` encoded documents in memory. Knows nothing of models and ranks.
"""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np

from raytensor.config import Data
from raytensor.data import corpus
from raytensor.data.tokenizer import Tokenizer
from raytensor.errors import DataError

DOCUMENTS = 32  # encoded together


class PackedStream:
    """`batch` returns the next batch; `state` and `restore` save and restore the exact position, as JSON.

    Raises `DataError` when the train part holds no text at all.
    """

    def __init__(self, cfg: Data, coder: Tokenizer, *, seq_len: int, batch_size: int) -> None:
        self._cfg, self._coder = cfg, coder
        self._corpus = corpus.fingerprint(cfg)
        self._shape = (batch_size, seq_len + 1)
        self._open(None)
        self._waiting = np.zeros(0, np.int32)
        self.epoch = 0  # times the source has been read to its end
        self._found = False  # any text since the source was opened

    def batch(self) -> np.ndarray:
        """The next batch."""
        need = self._shape[0] * self._shape[1]
        parts, have = [self._waiting], self._waiting.size
        while have < need:
            tokens = self._encode(self._documents())
            parts.append(tokens)
            have += tokens.size
        tokens = np.concatenate(parts)
        self._waiting = tokens[need:]
        return tokens[:need].reshape(self._shape)

    def state(self) -> dict[str, Any]:
        """The position of the stream, before the next batch."""
        waiting = base64.b64encode(self._waiting.tobytes()).decode()
        # A stream that has not moved since it was opened reports the start of the source, wherever it was opened.
        source = self._source.state_dict() if self._moved or self._opened_at is None else self._opened_at
        found = {"source": source, "waiting": waiting, "epoch": self.epoch, "found": self._found}
        return {**found, "corpus": self._corpus}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume at a saved position. Raises `DataError` when it was taken from another corpus."""
        if state["corpus"] != self._corpus:
            cause = "the saved position belongs to another corpus (its files, settings or tokenizer changed)"
            raise DataError(f"{cause}\n  fix: use the same data, or start a new run")
        self._open(state["source"])
        self._waiting = np.frombuffer(base64.b64decode(state["waiting"]), np.int32)
        self.epoch, self._found = int(state["epoch"]), bool(state["found"])

    def _open(self, position: dict[str, Any] | None) -> None:
        """Read the source from a saved position of its own; None: from its start."""
        self._source = corpus.stream(self._cfg)
        if position is not None:
            self._source.load_state_dict(position)
        self._rows: Iterator[dict[str, Any]] = corpus.rows(self._cfg, self._source)
        self._opened_at, self._moved = position, False

    def _documents(self) -> list[str]:
        """The next few documents of the train part, fewer at the end of the source."""
        found: list[str] = []
        while len(found) < DOCUMENTS:
            row = next(self._rows, None)
            if row is None:
                if not self._found and not found:
                    raise DataError(f"the train part of data.source={self._cfg.source!r} holds no text")
                self._open(None)
                self.epoch, self._found = self.epoch + 1, False
                break
            self._moved = True
            text = row["text"]
            if isinstance(text, str) and text.strip() and not corpus.is_heldout(text, self._cfg.heldout_share):
                found.append(text)
                self._found = True
        return found

    def _encode(self, texts: list[str]) -> np.ndarray:
        end = np.array([self._coder.end], np.int32)
        pieces = [piece for ids in self._coder.encode(texts) for piece in (ids.astype(np.int32), end)] if texts else []
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
