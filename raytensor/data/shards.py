"""A folder of tokenized text: memory-mapped shards, and a manifest that says what they hold.

    FOLDER/manifest.json                 totals, hash of each shard, tokenizer, source; written last
    FOLDER/tokenizer/                    the tokenizer, as transformers' `AutoTokenizer` opens it
    FOLDER/{train,heldout}-P-N.tokens    shard N of part P of the source

A shard is the tokens of whole documents (uint16, or int32 for a vocabulary above 65,536), each followed by the end of
document; then, at a multiple of 8 bytes, int64 offsets of the documents; then a BLAKE2b hash (16 bytes) of every
`CHUNK` bytes before. All numbers are little-endian.
In: a folder. Out: tokens of which every byte was compared with its hash.
Bounds: opening reads the manifest and the sizes of the files; a chunk is hashed once, when it is first read; at most
`MAPPED` shards are mapped. Knows nothing of batches and Ray.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from raytensor import disk
from raytensor.errors import ConfigError, DataError

FORMAT = 1
MANIFEST, TOKENIZER = "manifest.json", "tokenizer"
CHUNK, HASH = 2**16, 16  # bytes
MAPPED = 1024
AGAIN = "prepare the folder again (raytensor data prepare --restart), or copy it again"


@dataclass(frozen=True)
class Record:
    """A shard. size: bytes of the file. text_bytes: bytes of UTF-8 text. hash: of the hashes of its chunks."""

    name: str
    num_tokens: int
    num_documents: int
    text_bytes: int
    size: int
    hash: str


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds.

    tokenizer  `Tokenizer.digest`. source: the settings of the corpus. train, heldout: shards in the source's order.
    """

    tokenizer: str
    vocab_size: int
    end: int
    source: dict[str, Any]
    train: tuple[Record, ...]
    heldout: tuple[Record, ...]

    @property
    def dtype(self) -> np.dtype:
        return dtype_of(self.vocab_size)

    def digest(self) -> str:
        """A hash of everything in the manifest: equal digests mean equal tokens."""
        return digest_of(asdict(self))

    def save(self, folder: Path) -> None:
        content = {"format": FORMAT, **asdict(self), "hash": self.digest()}
        disk.write_text(folder / MANIFEST, json.dumps(content, indent=1))


def digest_of(content: Any) -> str:
    """A hash of a JSON value."""
    return _hash(json.dumps(content, sort_keys=True).encode()).hex()


def dtype_of(vocab_size: int) -> np.dtype:
    return np.dtype("<u2" if vocab_size <= 65536 else "<i4")


def write(folder: Path, name: str, documents: Sequence[np.ndarray], text_bytes: int, vocab_size: int) -> Record:
    """Write a shard, whole or not at all. documents: token ids of each, with the end of document."""
    offsets = np.concatenate([[0], np.cumsum([ids.size for ids in documents])]).astype("<i8")
    tokens = np.concatenate(documents).astype(dtype_of(vocab_size)).tobytes()
    body = tokens + bytes(-len(tokens) % 8) + offsets.tobytes()
    hashes = b"".join(_hash(body[at : at + CHUNK]) for at in range(0, len(body), CHUNK))
    disk.write_bytes(folder / name, (body, hashes))
    digest = _hash(hashes).hex()
    return Record(name, int(offsets[-1]), len(documents), text_bytes, len(body) + len(hashes), digest)


def read_manifest(folder: Path) -> Manifest:
    """Raises `ConfigError` where there is no prepared folder, `DataError` for a damaged manifest."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        if content.pop("format") != FORMAT:
            raise DataError(f"{path}: a format that this version does not read; fix: {AGAIN}")
        saved, shards = content.pop("hash"), {part: content.pop(part) for part in ("train", "heldout")}
        records = [tuple(Record(**record) for record in shards[part]) for part in ("train", "heldout")]
        about = (content[key] for key in ("tokenizer", "vocab_size", "end", "source"))
        manifest = Manifest(*about, *records)
    except (FileNotFoundError, NotADirectoryError):
        fix = "prepare it: raytensor data prepare DIR data.source=... (a command that was stopped goes on where it was)"
        raise ConfigError(
            f"data.prepared: {folder} is not a prepared folder: it has no {MANIFEST}; fix: {fix}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: the manifest can't be read ({type(error).__name__}); fix: {AGAIN}") from error
    if manifest.digest() != saved:
        raise DataError(f"{path}: the manifest was changed after it was written; fix: {AGAIN}")
    return manifest


class Split:
    """One part (train or heldout) of a prepared folder. Raises `DataError` for a file that is missing or cut off."""

    def __init__(self, folder: Path, manifest: Manifest, part: str) -> None:
        self.records: tuple[Record, ...] = manifest.train if part == "train" else manifest.heldout
        self.num_tokens = sum(record.num_tokens for record in self.records)
        self._folder, self._dtype = folder, manifest.dtype
        self._maps: dict[int, np.ndarray] = {}
        self._sound: dict[int, np.ndarray] = {}  # shard -> which chunks were compared
        for record in self.records:
            _refuse_cut(folder, record)

    def tokens(self, shard: int, start: int, stop: int) -> np.ndarray:
        """Tokens start:stop of a shard. Raises `DataError` for bytes that changed since they were written."""
        width = self._dtype.itemsize
        return self._bytes(shard, start * width, stop * width).view(self._dtype)

    def documents(self, shard: int) -> Iterator[np.ndarray]:
        """The documents of a shard, each with its end of document."""
        offsets = self.offsets(shard)
        for start, stop in zip(offsets[:-1], offsets[1:], strict=True):
            yield self.tokens(shard, int(start), int(stop))

    def offsets(self, shard: int) -> np.ndarray:
        """int64 [D + 1]: document i of a shard is tokens offsets[i]:offsets[i + 1]."""
        record, size = self.records[shard], self.records[shard].num_tokens * self._dtype.itemsize
        start = size + -size % 8
        return self._bytes(shard, start, start + 8 * (record.num_documents + 1)).view("<i8")

    def verify(self) -> Iterator[Record]:
        """Compare every byte with its hash, shard by shard. Raises `DataError` for the first that differs."""
        for shard, record in enumerate(self.records):
            self._bytes(shard, 0, _body_size(record))
            yield record

    def _bytes(self, shard: int, start: int, stop: int) -> np.ndarray:
        data = self._map(shard)
        sound = self._sound[shard]
        first, last = start // CHUNK, max(start, stop - 1) // CHUNK
        for chunk in first + np.flatnonzero(~sound[first : last + 1]):
            self._compare(shard, data, int(chunk))
            sound[chunk] = True
        return data[start:stop]

    def _compare(self, shard: int, data: np.ndarray, chunk: int) -> None:
        size = _body_size(self.records[shard])
        saved = data[size + chunk * HASH : size + (chunk + 1) * HASH].tobytes()
        if _hash(data[chunk * CHUNK : min(size, (chunk + 1) * CHUNK)]) != saved:
            raise _damaged(self._folder, self.records[shard], f"bytes changed near {chunk * CHUNK:,}")

    def _map(self, shard: int) -> np.ndarray:
        if (found := self._maps.get(shard)) is not None:
            return found
        record = self.records[shard]
        _refuse_cut(self._folder, record)
        data = np.memmap(self._folder / record.name, mode="r")
        size = _body_size(record)
        if _hash(data[size:]).hex() != record.hash:
            raise _damaged(self._folder, record, "its hashes are not those of the manifest")
        self._sound.setdefault(shard, np.zeros(-(-size // CHUNK), bool))
        if len(self._maps) >= MAPPED:
            self._maps.pop(next(iter(self._maps)))
        self._maps[shard] = data
        return data


def record_of(content: dict[str, Any] | None) -> Record | None:
    """The record of a JSON object; None for None. Raises `TypeError` for another object."""
    if content is None:
        return None
    return Record(**{item.name: content[item.name] for item in fields(Record)})


def is_whole(folder: Path, record: Record) -> bool:
    """Whether a shard's file has the size that it was written with."""
    try:
        return (folder / record.name).stat().st_size == record.size
    except OSError:
        return False


def _body_size(record: Record) -> int:
    """Bytes of tokens and offsets: the size of the file without the hash of each of its chunks."""
    chunks = -(-record.size // (CHUNK + HASH))
    return record.size - chunks * HASH


def _refuse_cut(folder: Path, record: Record) -> None:
    try:
        size = (folder / record.name).stat().st_size
    except OSError as error:
        raise _damaged(folder, record, error.strerror or "it can't be read") from error
    if size != record.size:
        raise _damaged(folder, record, f"it has {size:,} bytes of {record.size:,}")


def _damaged(folder: Path, record: Record, why: str) -> DataError:
    return DataError(f"data.prepared: {folder / record.name}: {why}; fix: {AGAIN}")


def _hash(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=HASH).digest()
