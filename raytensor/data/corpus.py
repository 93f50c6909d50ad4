"""Documents as a stream of `datasets`, and the part of the split (train or held out) that each belongs to.

In: the `data` section of the configuration. Out: an `IterableDataset` with one column `text`. A hash of its content
decides whether a document is held out: the two parts never overlap, and equal documents are in the same part,
independent of order, number of files and machine. Knows nothing of tokens.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytensor.config import Data
from raytensor.data.stdlib import stdlib_documents, stdlib_fingerprint
from raytensor.errors import ConfigError, DataError, cause_of

if TYPE_CHECKING:
    from datasets import IterableDataset

LOCAL = {"text": ("*.txt", "*.md", "*.rst"), "json": ("*.json", "*.jsonl"), "parquet": ("*.parquet",)}


def is_heldout(text: str, share: float) -> bool:
    """Whether a document is held out: the first 8 bytes of its BLAKE2b hash, as a fraction, lie below `share`."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def documents(cfg: Data, *, heldout: bool) -> Iterator[str]:
    """One part of the corpus, streamed, without empty documents.

    Raises `ConfigError` for files or a column that don't exist, `DataError` for a source that can't be read.
    """
    datasets = _datasets()
    try:
        for row in stream(cfg):
            text = row["text"]
            if isinstance(text, str) and text.strip() and is_heldout(text, cfg.heldout_share) == heldout:
                yield text
    except (datasets.exceptions.DatasetsError, OSError) as error:
        raise DataError(f"data.source={cfg.source!r} can't be read: {_cause(error)}") from error


def stream(cfg: Data) -> IterableDataset:
    """The whole corpus as a lazy `IterableDataset` with one column `text`."""
    datasets = _datasets()
    if cfg.source == "stdlib":
        found = datasets.IterableDataset.from_generator(_stdlib_rows)
    else:
        found = _load(cfg)
        columns = found.column_names or list(next(iter(found), {}))
        if cfg.column not in columns:
            there = ", ".join(columns) or "(none)"
            raise ConfigError(f"data.column={cfg.column!r}: the source has the columns {there}")
        found = found.select_columns([cfg.column])
        if cfg.column != "text":
            found = found.rename_column(cfg.column, "text")
    return found if cfg.max_documents is None else found.take(cfg.max_documents)


def fingerprint(cfg: Data) -> str:
    """A hash of the settings and of the source, without reading its text: names, sizes and times of local files, the
    interpreter for the embedded corpus, only the name of a hub dataset."""
    settings: list[object] = [cfg.source, cfg.subset, cfg.split, cfg.column, cfg.max_documents, cfg.heldout_share]
    settings += [cfg.tokenizer, cfg.vocab_size]
    if cfg.source == "stdlib":
        settings.append(stdlib_fingerprint())
    elif cfg.source in LOCAL:
        stats = [(path, Path(path).stat()) for path in local_files(cfg)]
        settings.append([(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats])
    return hashlib.blake2b(json.dumps(settings).encode(), digest_size=12).hexdigest()


def refuse_missing(cfg: Data) -> None:
    """Raises `ConfigError` for local files that do not exist. Called before anything starts."""
    if cfg.source in LOCAL:
        local_files(cfg)


def local_files(cfg: Data) -> list[str]:
    """Absolute paths of a local source, sorted. Raises `ConfigError` when there are none."""
    if not cfg.files:
        fix = "add data.files=FOLDER or data.files='FOLDER/*'"
        raise ConfigError(f"data.files is not set: data.source={cfg.source!r} reads local files; {fix}")
    path = Path(cfg.files).expanduser()
    if path.is_dir():
        found = [file for pattern in LOCAL[cfg.source] for file in path.rglob(pattern)]
    elif path.is_file():
        found = [path]
    else:
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else str(path)
        found = [file for file in anchor.glob(pattern) if file.is_file()]
    if not found:
        kinds = " ".join(LOCAL[cfg.source])
        fix = f"give a file, a glob, or a folder that holds {kinds}"
        raise ConfigError(f"data.files={cfg.files!r}: no file matches; {fix}")
    return sorted(str(file.absolute()) for file in found)


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
        options["data_files"] = {cfg.split: local_files(cfg)}
        if cfg.source == "text":
            options["sample_by"] = "paragraph"  # a line is no document, and one large file must be in both parts
    try:
        return datasets.load_dataset(cfg.source, cfg.subset, **options)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        fix = "check the name, data.subset, data.split and the network; data.source=stdlib needs none of them"
        raise DataError(f"data.source={cfg.source!r} can't be loaded: {_cause(error)}\n  fix: {fix}") from error


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
