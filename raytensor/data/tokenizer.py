"""Text to token ids: byte-pair encoding trained on the training part, or plain bytes.

In: the training part's text (never the held-out part's). Out: a `Tokenizer`, cached as one JSON file.
Id 0 ends a document in both; the text of a document never encodes to it. Knows nothing of models.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer as HubTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from raytensor import disk

END = 0  # id of the end of a document
END_TEXT = "<|end|>"


class Tokenizer(Protocol):
    vocab_size: int

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """int32 ids of each text, without the end of document."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; ends of documents are left out."""
        ...

    def to_json(self) -> str | None:
        """The content of a tokenizer.json, as transformers reads it; None for one that has no such file."""
        ...


class ByteTokenizer:
    """The 256 byte values of UTF-8; byte 0 ends a document and is dropped from its text."""

    vocab_size = 256

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        raw = (text.encode("utf-8", "replace").replace(b"\0", b"") for text in texts)
        return [np.frombuffer(data, dtype=np.uint8).astype(np.int32) for data in raw]

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(i for i in ids if i != END).decode("utf-8", "replace")

    def to_json(self) -> None:
        return None


class BpeTokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016, on bytes as in GPT-2): every text can be encoded."""

    def __init__(self, inner: HubTokenizer) -> None:
        # A document that contains the text of the end marker must not end there.
        inner.encode_special_tokens = True
        self._inner = inner
        self.vocab_size = inner.get_vocab_size()

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        encoded = self._inner.encode_batch(texts, add_special_tokens=False)
        return [np.asarray(found.ids, dtype=np.int32) for found in encoded]

    def to_json(self) -> str:
        return self._inner.to_str()

    def decode(self, ids: Iterable[int]) -> str:
        return self._inner.decode([int(i) for i in ids], skip_special_tokens=True)


def load(kind: str, vocab_size: int, key: str, train: Callable[[], Iterable[str]], cache: Path) -> Tokenizer:
    """The tokenizer `kind` ("bpe" or "bytes"): from `cache` if it was trained before, else trained on `train()`.

    key  identifies the corpus and the split. A damaged file in the cache is replaced.
    """
    if kind == "bytes":
        return ByteTokenizer()
    path = cache / f"tokenizer-{key}-{vocab_size}.json"
    inner = _read(path, vocab_size)
    if inner is None:
        inner = _train(train(), vocab_size)
        _write(path, inner.to_str())
    return BpeTokenizer(inner)


def _train(texts: Iterable[str], vocab_size: int) -> HubTokenizer:
    inner = HubTokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    assert inner.token_to_id(END_TEXT) == END
    return inner


def _read(path: Path, vocab_size: int) -> HubTokenizer | None:
    """A cached tokenizer (the hash of the body on the first line, then the body); None when missing or damaged."""
    try:
        digest, _, body = path.read_text(encoding="utf-8").partition("\n")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    if digest != _digest(body):
        return None
    inner = HubTokenizer.from_str(body)
    return inner if inner.get_vocab_size() <= vocab_size else None


def _write(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write_text(path, f"{_digest(body)}\n{body}")


def _digest(body: str) -> str:
    return hashlib.blake2b(body.encode("utf-8"), digest_size=16).hexdigest()
