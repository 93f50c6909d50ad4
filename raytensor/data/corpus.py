"""Documents as a stream of `datasets`, and the part of the split (train or held out) that each belongs to.

In: the `data` section of the configuration. Out: an `IterableDataset` with one column `text`. A hash of its content
decides whether a document is held out: the two parts never overlap, and equal documents are in the same part,
independent of order, number of files and machine. Knows nothing of tokens.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytensor.config import Data
from raytensor.data import mixture, tokenizer
from raytensor.data.files import LOCAL, local_files, refuse_unreadable
from raytensor.data.stdlib import stdlib_documents, stdlib_fingerprint
from raytensor.errors import ConfigError, DataError, RayTensorError, cause_of

if TYPE_CHECKING:
    from datasets import IterableDataset


# What `datasets` lets through; the last two: a packed file that is cut off or damaged.
_BROKEN = (OSError, ValueError, RuntimeError, StopIteration, EOFError, zlib.error)


def is_heldout(text: str, share: float) -> bool:
    """Whether a document is held out: the first 8 bytes of its BLAKE2b hash, as a fraction, lie below `share`."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def documents(cfg: Data, *, heldout: bool) -> Iterator[str]:
    """One part of the corpus, streamed, without empty documents.

    Raises `ConfigError` for files or a column that don't exist, `DataError` for a source that can't be read.
    """
    assert not cfg.prepared, cfg.prepared  # they hold tokens
    for row in rows(cfg, stream(cfg)):
        text = row["text"]
        if isinstance(text, str) and text.strip() and is_heldout(text, cfg.heldout_share) == heldout:
            yield text


def stream(cfg: Data) -> IterableDataset:
    """The whole corpus as a lazy `IterableDataset` with one column `text`."""
    with _readable(cfg):
        return _stream(cfg)


def _stream(cfg: Data) -> IterableDataset:
    if cfg.source == "stdlib":
        found = _datasets().IterableDataset.from_generator(_stdlib_rows)
    else:
        found = _load(cfg)
        columns = _columns(cfg, found)
        if cfg.column not in columns:
            there = ", ".join(columns) or "(none)"
            raise ConfigError(f"data.column={cfg.column!r}: the source has the columns {there}")
        found = found.select_columns([cfg.column])
        if cfg.column != "text":
            found = found.rename_column(cfg.column, "text")
    return found if cfg.max_documents is None else found.take(cfg.max_documents)


def fingerprint(cfg: Data) -> str:
    """A hash of the settings and of the source, without reading its text: names, sizes and times of local files, the
    interpreter for the embedded corpus, only the name of a hub dataset; of prepared folders, their manifests."""
    if cfg.prepared:
        return mixture.fingerprint(cfg, cfg.weights)
    settings: list[object] = [cfg.source, cfg.subset, cfg.split, cfg.column, cfg.max_documents, cfg.heldout_share]
    settings += [tokenizer.fingerprint(cfg.tokenizer), cfg.vocab_size]
    if cfg.source == "stdlib":
        settings.append(stdlib_fingerprint())
    elif cfg.source in LOCAL:
        stats = [(path, Path(path).stat()) for path in local_files(cfg)]
        settings.append([(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats])
    return hashlib.blake2b(json.dumps(settings).encode(), digest_size=12).hexdigest()


def refuse_missing(cfg: Data) -> None:
    """Raises `ConfigError` for local files that do not exist, `DataError` for one that can't be read. Called before
    anything starts; reads at most `files.CHECKED_BYTES`."""
    if cfg.prepared:
        mixture.refuse_unusable(cfg)
    elif cfg.source in LOCAL:
        refuse_unreadable(cfg)


def is_local(cfg: Data) -> bool:
    """Whether the source is on this machine: what can't be read there can't be read the next time either."""
    return bool(cfg.prepared) or cfg.source == "stdlib" or cfg.source in LOCAL


def rows(cfg: Data, source: IterableDataset) -> Iterator[dict[str, Any]]:
    """The rows of a stream. Raises `DataError` in one line with the cause, and the file where one is known."""
    with _readable(cfg):
        yield from source


def _datasets() -> Any:
    """The package `datasets`."""
    import datasets  # takes seconds, and not every process that imports this module reads a corpus

    return datasets


def _stdlib_rows() -> Iterator[dict[str, str]]:
    yield from ({"text": text} for text in stdlib_documents())


def _load(cfg: Data) -> IterableDataset:
    datasets = _datasets()
    options: dict[str, Any] = {"split": cfg.split, "streaming": True}
    if cfg.source in LOCAL:
        # A `DataFilesList` holds paths, where a list of texts would be read as glob patterns.
        files = local_files(cfg)
        times = [(name, str(Path(name).stat().st_mtime_ns)) for name in files]
        options["data_files"] = {cfg.split: datasets.data_files.DataFilesList(files, times)}
        if cfg.source == "text":
            options["sample_by"] = "paragraph"  # a line is no document, and one large file must be in both parts
    try:
        name, at, revision = cfg.source.partition("@")
        if at and cfg.source not in LOCAL:
            options["revision"] = revision
        return datasets.load_dataset(name, cfg.subset, **options)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        if cfg.source in LOCAL:
            raise _unreadable(cfg, error) from error
        fix = "check the name, data.subset, data.split and the network; data.source=stdlib needs none of them"
        raise DataError(f"data.source={cfg.source!r} can't be loaded: {_cause(error)}\n  fix: {fix}") from error


def _columns(cfg: Data, source: IterableDataset) -> list[str]:
    found = source.column_names or list(next(rows(cfg, source), {}))
    if not found and cfg.source in LOCAL:
        refuse_unreadable(cfg, math.inf)
    return found


@contextlib.contextmanager
def _readable(cfg: Data) -> Iterator[None]:
    """Raises `DataError` for what goes wrong in `datasets`, which raises all kinds of errors."""
    try:
        yield
    except RayTensorError:
        raise
    except (_datasets().exceptions.DatasetsError, *_BROKEN) as error:
        raise _unreadable(cfg, error) from error


def _unreadable(cfg: Data, error: Exception) -> DataError:
    """Why a source can't be read, with the file and the line of a local one."""
    if cfg.source in LOCAL:
        try:
            refuse_unreadable(cfg, math.inf)
        except DataError as found:
            return found
    return DataError(f"data.source={cfg.source!r} can't be read: {_cause(error)}")


def _cause(error: Exception) -> str:
    """Why a source can't be read, in one line; an error of the operating system with the file."""
    if not isinstance(error, OSError) or not error.strerror:
        return cause_of(error)
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the working directory of this process was deleted"
    return f"{error.strerror} (no file is named; is the disk of the cache or of Ray's temporary files full?)"
