"""A folder of tokenized text: memory-mapped shards, and a manifest that says what they hold.

    FOLDER/manifest.json                 totals, hash of each shard, tokenizer, source; written last
    FOLDER/tokenizer/                    the tokenizer, as transformers' `AutoTokenizer` opens it
    FOLDER/{train,heldout}-P-N.tokens    shard N of part P of the source

A shard is the tokens of whole documents (uint16, or int32 for a vocabulary above 65,536), each followed by the end of
document; then, at a multiple of 8 bytes, int64 offsets of the documents; then an XXH3 hash (16 bytes) of every chunk of
4 KiB before (format 1: BLAKE2b of 64 KiB). The manifest has the BLAKE2b of these hashes. All numbers are little-endian.
In: a folder. Out: tokens of which every byte was compared with its hash.
Bounds: opening reads the manifest only; a shard is opened when it is first read, and a chunk is hashed once, when it is
first read; at most `MAPPED` shards are mapped. Knows nothing of batches and Ray.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from raytensor import disk
from raytensor.errors import ConfigError, DataError

FORMAT = 2
MANIFEST, TOKENIZER = "manifest.json", "tokenizer"
CHUNK, HASH = 2**12, 16  # bytes; small, since a shuffled sequence is the only one that is read of its chunk at a time
CHUNK_OF_1 = 2**16  # of format 1
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
    chunk      bytes that have a hash of their own.
    """

    tokenizer: str
    vocab_size: int
    end: int
    source: dict[str, Any]
    train: tuple[Record, ...]
    heldout: tuple[Record, ...]
    chunk: int = CHUNK

    @property
    def dtype(self) -> np.dtype:
        return dtype_of(self.vocab_size)

    def digest(self) -> str:
        """A hash of everything in the manifest: equal digests mean equal tokens."""
        return digest_of(self._content())

    def save(self, folder: Path) -> None:
        content = {"format": FORMAT, **self._content(), "hash": self.digest()}
        disk.write_text(folder / MANIFEST, json.dumps(content, indent=1))

    def _content(self) -> dict[str, Any]:
        found = dict(vars(self))
        if self.chunk == CHUNK_OF_1:  # format 1 does not name it
            del found["chunk"]
        return found | {part: [vars(record) for record in found[part]] for part in ("train", "heldout")}


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
    hash_of = _hash_of(CHUNK)
    hashes = b"".join(hash_of(body[at : at + CHUNK]) for at in range(0, len(body), CHUNK))
    disk.write_bytes(folder / name, (body, hashes))
    digest = _hash(hashes).hex()
    return Record(name, int(offsets[-1]), len(documents), text_bytes, len(body) + len(hashes), digest)


def read_manifest(folder: Path) -> Manifest:
    """Raises `ConfigError` where there is no prepared folder, `DataError` for a damaged manifest."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        if content.pop("format") not in (1, FORMAT):
            raise DataError(f"{path}: a format that this version does not read; fix: {AGAIN}")
        saved, shards = content.pop("hash"), {part: content.pop(part) for part in ("train", "heldout")}
        records = [tuple(Record(**record) for record in shards[part]) for part in ("train", "heldout")]
        about = (content[key] for key in ("tokenizer", "vocab_size", "end", "source"))
        manifest = Manifest(*about, *records, chunk=int(content.get("chunk", CHUNK_OF_1)))
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
    """One part (train or heldout) of a prepared folder.

    Reading raises `DataError` for a file that is missing, cut off or changed since it was written.
    """

    def __init__(self, folder: Path, manifest: Manifest, part: str) -> None:
        self.records: tuple[Record, ...] = manifest.train if part == "train" else manifest.heldout
        self.num_tokens = sum(record.num_tokens for record in self.records)
        self._folder, self._dtype, self._chunk = folder, manifest.dtype, manifest.chunk
        self._maps: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # shard -> its bytes, its tokens
        self._sound: dict[int, bytearray] = {}  # shard -> 1 for each chunk that was compared

    def refuse_cut(self) -> None:
        """Raises `DataError` for the first file that is missing or cut off."""
        for record in self.records:
            _refuse_cut(self._folder, record)

    def tokens(self, shard: int, start: int, stop: int) -> np.ndarray:
        """Tokens start:stop of a shard."""
        _, tokens = self._maps.get(shard) or self._map(shard)
        width = self._dtype.itemsize
        first, last = start * width // self._chunk, max(start, stop - 1) * width // self._chunk + 1
        if self._sound[shard].find(0, first, last) >= 0:
            self._compare(shard, first, last)
        return tokens[start:stop]

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
            self._bytes(shard, 0, self._body_size(record))
            yield record

    def _bytes(self, shard: int, start: int, stop: int) -> np.ndarray:
        data, _ = self._maps.get(shard) or self._map(shard)
        self._compare(shard, start // self._chunk, max(start, stop - 1) // self._chunk + 1)
        return data[start:stop]

    def _compare(self, shard: int, first: int, last: int) -> None:
        """Compare the chunks first:last of a shard with their hashes, each once."""
        (data, _), sound, record = self._maps[shard], self._sound[shard], self.records[shard]
        size, chunk, hash_of = self._body_size(record), self._chunk, _hash_of(self._chunk)
        while (number := sound.find(0, first, last)) >= 0:
            start = size + number * HASH
            if hash_of(data[number * chunk : min(size, (number + 1) * chunk)]) != data[start : start + HASH].tobytes():
                raise _damaged(self._folder, record, f"bytes changed near {number * chunk:,}")
            sound[number] = 1

    def _map(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        record = self.records[shard]
        _refuse_cut(self._folder, record)
        data = np.asarray(np.memmap(self._folder / record.name, mode="r"))
        size = self._body_size(record)
        if _hash(data[size:]).hex() != record.hash:
            raise _damaged(self._folder, record, "its hashes are not those of the manifest")
        self._sound.setdefault(shard, bytearray(-(-size // self._chunk)))
        if len(self._maps) >= MAPPED:
            self._maps.pop(next(iter(self._maps)))
        found = data, data[: record.num_tokens * self._dtype.itemsize].view(self._dtype)
        self._maps[shard] = found
        return found

    def _body_size(self, record: Record) -> int:
        """Bytes of tokens and offsets: the size of the file without the hash of each of its chunks."""
        chunks = -(-record.size // (self._chunk + HASH))
        return record.size - chunks * HASH


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


def _refuse_cut(folder: Path, record: Record) -> None:
    try:
        size = (folder / record.name).stat().st_size
    except OSError as error:
        raise _damaged(folder, record, error.strerror or "it can't be read") from error
    if size != record.size:
        raise _damaged(folder, record, f"it has {size:,} bytes of {record.size:,}")


def _damaged(folder: Path, record: Record, why: str) -> DataError:
    return DataError(f"data.prepared: {folder / record.name}: {why}; fix: {AGAIN}")


def _hash_of(chunk: int) -> Callable[[Any], bytes]:
    """The hash of a chunk of this size."""
    return _hash if chunk == CHUNK_OF_1 else xxhash.xxh3_128_digest


def _hash(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=HASH).digest()
