"""Text to token ids: byte-pair encoding trained on the training part, plain bytes, or the tokenizer of a model.

In: a name, and the training part's text (never the held-out part's). Out: a `Tokenizer`; one that was trained is cached
as one JSON file. Every document is followed by the tokenizer's `end`, which the text of a document never encodes to.
Bounds: training reads at most `SAMPLE_CHARS` of text. Knows nothing of models.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer as HubTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from raytensor import disk

END = 0  # end of a document in the tokenizers that are made here
END_TEXT = "<|end|>"
AUTO, BPE, BYTES = KINDS = ("auto", "bpe", "bytes")  # any other name is a folder or a name on the hub
SAMPLE_CHARS = 256 * 2**20
EXPORTED = "raytensor.json"  # in the folder of an exported model: which tokenizer it was trained with
# A folder with one of these has a tokenizer of its own.
FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")
# Texts whose ids belong to the identity of a tokenizer: equal vocabularies may cut them differently.
_PROBES = ("Hello, world! 12345 naïve ☃ 😀\n\tif x == 1:  return\r\n", " leading and trailing ", "<|end|></s><s>[INST]")


class Tokenizer(Protocol):
    """vocab_size: ids lie in 0 .. vocab_size - 1. end: id that follows every document."""

    vocab_size: int
    end: int

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """int32 ids of each text, with what the tokenizer itself puts before a text, without the end of document."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; ends of documents are left out."""
        ...

    def digest(self) -> str:
        """A hash of the vocabulary and of how text is cut: equal digests give equal ids."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files that transformers' `AutoTokenizer` opens, if there are some, and `EXPORTED`."""
        ...

    def packed(self) -> dict[str, Any]:
        """What `unpack` makes an equal tokenizer of, in another process; it can't be saved there."""
        ...


class ByteTokenizer:
    """The 256 byte values of UTF-8; byte 0 ends a document and is dropped from its text."""

    vocab_size, end = 256, END

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        raw = (text.encode("utf-8", "replace").replace(b"\0", b"") for text in texts)
        return [np.frombuffer(data, dtype=np.uint8).astype(np.int32) for data in raw]

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(i for i in ids if i != END).decode("utf-8", "replace")

    def digest(self) -> str:
        return _digest(BYTES)

    def save(self, folder: Path) -> None:
        _save_name(folder, BYTES, self)

    def packed(self) -> dict[str, Any]:
        return {}


class BpeTokenizer:
    """A tokenizer of the library `tokenizers`.

    The default is byte-level byte-pair encoding (Sennrich et al. 2016, on bytes as in GPT-2), which encodes every text.

    adds_special  encode with what its post-processor adds, such as a token that begins a text.
    write         writes the files that `AutoTokenizer` opens to a folder; None: the file tokenizer.json and END_TEXT.
    """

    def __init__(
        self,
        inner: HubTokenizer,
        *,
        end: int = END,
        adds_special: bool = False,
        write: Callable[[Path], object] | None = None,
    ) -> None:
        # A document that contains the text of the end marker must not end there.
        inner.encode_special_tokens = True
        inner.no_truncation()
        inner.no_padding()
        self._inner, self.end, self._adds_special, self._write = inner, end, adds_special, write
        self.vocab_size = 1 + max(inner.get_vocab(with_added_tokens=True).values())

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        encoded = self._inner.encode_batch(texts, add_special_tokens=self._adds_special)
        found = [np.asarray(one.ids, dtype=np.int32) for one in encoded]
        return [ids[:-1] if self._adds_special and ids.size and ids[-1] == self.end else ids for ids in found]

    def decode(self, ids: Iterable[int]) -> str:
        return self._inner.decode([int(i) for i in ids], skip_special_tokens=True)

    def digest(self) -> str:
        vocabulary = sorted(self._inner.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
        return _digest(json.dumps([vocabulary, self.end, [ids.tolist() for ids in self.encode(list(_PROBES))]]))

    def save(self, folder: Path) -> None:
        if self._write is not None:
            self._write(folder)
        else:
            (folder / "tokenizer.json").write_text(self._inner.to_str(), encoding="utf-8")
            settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_TEXT}
            (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        _save_name(folder, "own", self)

    def packed(self) -> dict[str, Any]:
        return {"inner": self._inner.to_str(), "end": self.end, "adds_special": self._adds_special}


def unpack(packed: dict[str, Any]) -> Tokenizer:
    """The tokenizer of `Tokenizer.packed`."""
    if not packed:
        return ByteTokenizer()
    return BpeTokenizer(HubTokenizer.from_str(packed["inner"]), end=packed["end"], adds_special=packed["adds_special"])


def load(kind: str, vocab_size: int, key: str, train: Callable[[], Iterable[str]], cache: Path) -> Tokenizer:
    """The tokenizer `kind`: "bytes"; "bpe" (also for "auto"), from `cache` if it was trained before, else trained on
    `train()`; else that of a folder or hub name, see `pretrained.load`.

    key  identifies the corpus and the split. A damaged file in the cache is replaced.
    """
    if kind == BYTES:
        return ByteTokenizer()
    if kind not in KINDS:
        from raytensor.data import pretrained  # transformers takes seconds, and most jobs need no tokenizer of a model

        return pretrained.load(kind)
    path = cache / f"tokenizer-{key}-{vocab_size}.json"
    inner = _read(path, vocab_size)
    if inner is None:
        inner = _train(_sample(train()), vocab_size)
        _write(path, inner.to_str())
    return BpeTokenizer(inner)


def vocab_size_of(kind: str, vocab_size: int) -> int:
    """The size of a tokenizer's vocabulary, without training it; `vocab_size`: of "bpe", at most."""
    return vocab_size if kind in (AUTO, BPE) else load(kind, vocab_size, "", lambda: (), Path()).vocab_size


def fingerprint(kind: str) -> str:
    """What changes where the tokenizer that a name means changes: a hash of the files of a folder, else the name."""
    folder = Path(kind).expanduser()
    if kind in KINDS or not folder.is_dir():
        return BPE if kind == AUTO else kind
    digest = hashlib.blake2b(digest_size=16)
    for path in (folder / name for name in (*FILES, "merges.txt", "tokenizer_config.json", EXPORTED)):
        if path.is_file():
            digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _sample(texts: Iterable[str]) -> Iterator[str]:
    """The first texts, at most `SAMPLE_CHARS` long together: a tokenizer needs no more, and a corpus may be endless."""
    left = SAMPLE_CHARS
    for text in texts:
        yield text
        left -= len(text)
        if left <= 0:
            return


def _save_name(folder: Path, kind: str, coder: Tokenizer) -> None:
    found = {"tokenizer": kind, "tokenizer_digest": coder.digest(), "end": coder.end}
    (folder / EXPORTED).write_text(json.dumps(found))


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
