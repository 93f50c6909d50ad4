"""The corpus as token arrays: a training part, a held-out part, and the frequency table of the training part.

In: the `data` section and a cache folder. Out: a frozen `Text`, put into the object store once and read by every
actor without a copy. Waits for: the corpus (seconds the first time; later starts read the cache).
Knows nothing of miners or rounds.
"""

import io
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from raytensor import disk
from raytensor.config import Data
from raytensor.data import corpus, mixture, tokenizer
from raytensor.data.shards import Split
from raytensor.errors import DataError

FORMAT = 1  # raise it when what is cached changes
CHUNK = 512  # documents that are encoded together
MAX_TOKENS = 2**28  # of each part of prepared folders: what the memory of miners and validators holds
MIN_TOKENS = 2048  # of each part; fewer are not enough to train or to measure on


@dataclass(frozen=True)
class Text:
    """Tokenized text. Every document is followed by the end of document of its tokenizer.

    train, heldout                  uint16 [N] (int32 when the vocabulary needs it).
    train_offsets, heldout_offsets  int64 [D + 1]: document i is tokens offsets[i]:offsets[i + 1].
    log_unigram                     float32 [vocab_size]: log frequencies of the training part, one added to each count.
    vocab_size                      token ids lie in 0 .. vocab_size - 1.
    bytes_per_token                 bytes of UTF-8 text per token: nats/byte = nats/token / bytes_per_token.
    """

    train: np.ndarray
    heldout: np.ndarray
    train_offsets: np.ndarray
    heldout_offsets: np.ndarray
    log_unigram: np.ndarray
    vocab_size: int
    bytes_per_token: float


def prepare(cfg: Data, cache_dir: str | Path, progress: Callable[[str], None] = lambda line: None) -> Text:
    """The text of a configuration, from the cache if it was prepared before.

    progress  called with a line for each step.

    Raises `ConfigError` for files or a column that don't exist, `DataError` for a source that can't be read or is
    too small.
    """
    if cfg.prepared:
        return _told(_from_folders(cfg, load_tokenizer(cfg, cache_dir)), progress)
    cache = Path(cache_dir).expanduser()
    key = corpus.fingerprint(cfg)
    path = cache / f"text-{FORMAT}-{key}.npz"
    text = load(path)
    if text is None:
        text = _build(cfg, cache, progress)
        save(path, text)
    return _told(text, progress)


def _told(text: Text, progress: Callable[[str], None]) -> Text:
    sizes = f"{text.train.size:,} tokens to train on, {text.heldout.size:,} held out"
    progress(f"text: {sizes}, vocabulary {text.vocab_size}")
    return text


def load_tokenizer(cfg: Data, cache_dir: str | Path) -> tokenizer.Tokenizer:
    """The tokenizer of a configuration. One that is trained on the corpus is cached.

    Raises `ConfigError` for a folder or hub name without a tokenizer, `DataError` for a source that can't be read.
    """
    cache, texts = Path(cache_dir).expanduser(), partial(corpus.documents, cfg, heldout=False)
    return tokenizer.load(cfg.tokenizer, cfg.vocab_size, corpus.fingerprint(cfg), texts, cache)


def unigram(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """float32 [vocab_size]: log-probability of each token, by add-one counts."""
    counts = np.bincount(tokens, minlength=vocab_size).astype(np.float64) + 1.0
    return np.log(counts / counts.sum()).astype(np.float32)


def _build(cfg: Data, cache: Path, progress: Callable[[str], None]) -> Text:
    trains = cfg.tokenizer in (tokenizer.AUTO, tokenizer.BPE)
    progress(f"reading the corpus ({cfg.source})" + (" and training its tokenizer" if trains else ""))
    coder = load_tokenizer(cfg, cache)
    progress("tokenizing")
    dtype = np.dtype(np.uint16 if coder.vocab_size <= 65536 else np.int32)
    train, train_offsets, train_bytes = _encode(corpus.documents(cfg, heldout=False), coder, dtype)
    heldout, heldout_offsets, heldout_bytes = _encode(corpus.documents(cfg, heldout=True), coder, dtype)
    for name, tokens, offsets in (("train", train, train_offsets), ("held-out", heldout, heldout_offsets)):
        if tokens.size < MIN_TOKENS:
            found = f"has {tokens.size} tokens in {len(offsets) - 1} documents; at least {MIN_TOKENS} are needed"
            fix = f"more text, or another data.heldout_share (now {cfg.heldout_share})"
            raise DataError(f"the {name} part of data.source={cfg.source!r} {found}\n  fix: {fix}")
    bytes_per_token = (train_bytes + heldout_bytes) / (train.size + heldout.size)
    table = unigram(train, coder.vocab_size)
    return Text(train, heldout, train_offsets, heldout_offsets, table, coder.vocab_size, bytes_per_token)


def _from_folders(cfg: Data, coder: tokenizer.Tokenizer) -> Text:
    """The text of prepared folders: of each its first documents, at most `MAX_TOKENS` tokens of each part in all. With
    weights the folders' shares are the weights: less of a folder is read than it has, where it has too much."""
    folders = mixture.open_folders(cfg, coder.digest())
    values: dict[str, np.ndarray] = {}
    num_bytes, num_tokens = 0.0, 0
    for part in ("train", "heldout"):
        splits = [Split(folder, manifest, part) for folder, manifest in folders.items()]
        sizes = np.array([split.num_tokens for split in splits], np.float64)
        shares = np.array(cfg.weights or sizes)
        shares = shares / (shares.sum() or 1.0)
        whole = min((size / share for size, share in zip(sizes, shares, strict=True) if share), default=0)
        limits = (np.floor(min(whole, MAX_TOKENS) * shares + 1e-6)).astype(np.int64)
        found = [_documents(split, int(limit)) for split, limit in zip(splits, limits, strict=True)]
        tokens, lengths = (np.concatenate([one[place] for one in found]) for place in (0, 1))
        if tokens.size < MIN_TOKENS:
            what = f"the {part} part of data.prepared={cfg.prepared} has {tokens.size} tokens"
            raise DataError(f"{what}; at least {MIN_TOKENS} are needed\n  fix: prepare more text")
        values |= {part: tokens, f"{part}_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)}
        num_bytes += sum(record.text_bytes for split in splits for record in split.records)
        num_tokens += int(sizes.sum())
    table = unigram(values["train"], coder.vocab_size)
    return Text(**values, log_unigram=table, vocab_size=coder.vocab_size, bytes_per_token=num_bytes / num_tokens)


def _documents(split: Split, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, lengths) of the first whole documents of a part, at most `limit` tokens."""
    tokens, lengths = [np.zeros(0, np.uint16)], [np.zeros(0, np.int64)]
    for shard, record in enumerate(split.records):
        if limit <= 0:
            break
        offsets = split.offsets(shard)
        count = (
            record.num_documents if record.num_tokens <= limit else int(np.searchsorted(offsets, limit, "right")) - 1
        )
        tokens.append(split.tokens(shard, 0, int(offsets[count])))
        lengths.append(np.diff(offsets[: count + 1]))
        limit = limit - record.num_tokens
    return np.concatenate(tokens), np.concatenate(lengths)


def _encode(texts: Iterable[str], coder: tokenizer.Tokenizer, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, int]:
    """(tokens, offsets, bytes of text) of some documents."""
    end = np.array([coder.end], dtype=dtype)
    pieces: list[np.ndarray] = []
    lengths: list[int] = []
    batch: list[str] = []
    num_bytes = 0

    def flush() -> None:
        nonlocal num_bytes
        for text, ids in zip(batch, coder.encode(batch), strict=True):
            pieces.extend((ids.astype(dtype), end))
            lengths.append(ids.size + 1)
            num_bytes += len(text.encode("utf-8", "replace"))
        batch.clear()

    for text in texts:
        batch.append(text)
        if len(batch) == CHUNK:
            flush()
    flush()
    tokens = np.concatenate(pieces) if pieces else np.zeros(0, dtype)
    return tokens, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64), num_bytes


def load(path: Path) -> Text | None:
    """A saved `Text`; None when it is missing or damaged (the zip format has a checksum of each array)."""
    try:
        with np.load(path, allow_pickle=False) as found:
            values = {field.name: found[field.name] for field in fields(Text)}
    except (FileNotFoundError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    numbers = {"vocab_size": int(values["vocab_size"]), "bytes_per_token": float(values["bytes_per_token"])}
    return Text(**values | numbers)


def save(path: Path, text: Text) -> None:
    """Write a `Text`; see `disk.write_bytes`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    np.savez(file, **{field.name: getattr(text, field.name) for field in fields(Text)})
    disk.write_bytes(path, file.getvalue())
