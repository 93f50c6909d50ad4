"""Local text files: which ones a configuration means, and whether their content can be read.

In: the `data` section. Out: absolute paths; a `DataError` of one line with the file, the line and the fix.
Bounds: a check reads at most `CHECKED_BYTES` unless it is told otherwise, so that the start of a job does not grow with
the corpus; it runs before anything is started. Knows nothing of documents and tokens.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from raytensor.config import Data
from raytensor.errors import ConfigError, DataError, cause_of

LOCAL = {"text": ("*.txt", "*.md", "*.rst"), "json": ("*.json", "*.jsonl"), "parquet": ("*.parquet",)}
CHECKED_BYTES = 64 * 2**20
BLOCK = 2**20
PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")  # read by `datasets`, not checked here


def local_files(cfg: Data) -> list[str]:
    """Absolute paths of a local source, sorted. Raises `ConfigError` when there are none.

    The parts of `data.files` that exist are literal, whatever characters they hold; the rest is a glob pattern.
    """
    if not cfg.files:
        fix = "add data.files=FOLDER or data.files='FOLDER/*'"
        raise ConfigError(f"data.files is not set: data.source={cfg.source!r} reads local files; {fix}")
    path = Path(cfg.files).expanduser()
    if path.is_dir():
        found = [file for pattern in LOCAL[cfg.source] for file in path.rglob(pattern)]
    elif path.is_file():
        found = [path]
    else:
        anchor = next(parent for parent in (*path.parents, Path()) if parent.is_dir())
        found = [file for file in anchor.glob(str(path.relative_to(anchor))) if file.is_file()]
    if not found:
        kinds = " ".join(LOCAL[cfg.source])
        fix = f"give a file, a glob, or a folder that holds {kinds}"
        raise ConfigError(f"data.files={cfg.files!r}: no file matches; {fix}")
    files = sorted(str(file.absolute()) for file in found)
    if chained := next((name for name in files if "::" in name), None):
        raise ConfigError(f"data.files: {chained}: `datasets` reads '::' as a chain of addresses; rename the file")
    return files


def refuse_unreadable(cfg: Data, limit: float = CHECKED_BYTES) -> None:
    """Read the local files of a configuration, at most `limit` bytes of text in all.

    Raises `DataError` for the first that holds no readable text: not UTF-8, not JSON lines, no such column, no text.
    """
    left, empty = limit, True
    for name in local_files(cfg):
        path = Path(name)
        if left <= 0 or path.suffix in PACKED:
            return
        try:
            size = path.stat().st_size
            empty = _CHECKS[cfg.source](path, cfg.column, left) and size <= left and empty
        except (OSError, pyarrow.ArrowException) as error:
            raise _unreadable(path, cause_of(error), "copy it again, or leave it out of data.files") from error
        left -= size
    if empty:
        raise DataError(f"data.files={cfg.files!r} holds no text: every file is empty; give files with text")


def _check_text(path: Path, column: str, limit: float) -> bool:
    """Whether a text file is empty."""
    if column != "text":
        raise ConfigError(f"data.column={column!r}: the source has the columns text")
    return not any(line.strip() for line in _lines(path, limit))


def _check_json(path: Path, column: str, limit: float) -> bool:
    """Whether a file of JSON lines, or of one JSON value, is empty."""
    columns: dict[str, None] = {}
    for number, line in enumerate(_lines(path, limit), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if not columns and _is_one_value(path, limit):
                return False
            fix = "each line must be a JSON object; repair or remove the line"
            raise _unreadable(path, f"line {number} is not JSON ({error.msg})", fix) from error
        if isinstance(row, list) and not columns:  # one array of objects in one line
            return False
        if why := _why_no_row(row, column):
            raise _unreadable(path, f"line {number}: {why}", "repair or remove the line")
        columns |= dict.fromkeys(row)
    if columns and column not in columns:
        raise ConfigError(f"data.column={column!r}: the source has the columns {', '.join(columns)}")
    return not columns


def _check_parquet(path: Path, column: str, limit: float) -> bool:
    """Whether a parquet file has no rows."""
    with pyarrow.parquet.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    if column not in schema.names:
        raise ConfigError(f"data.column={column!r}: the source has the columns {', '.join(schema.names)}")
    kind = schema.field(column).type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_dictionary(kind)):
        raise _unreadable(path, f"the column {column!r} is {kind}, not text", "name a column of text in data.column")
    return rows == 0


_CHECKS: dict[str, Any] = {"text": _check_text, "json": _check_json, "parquet": _check_parquet}


def _lines(path: Path, limit: float) -> Iterator[str]:
    """The whole lines within the first `limit` bytes. Raises `DataError` with the line of what is not UTF-8."""
    read, number, waiting = 0, 1, ""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    with path.open("rb") as file:
        while read < limit and (block := file.read(BLOCK)):
            read += len(block)
            lines = (waiting + _decoded(path, decoder, block, number, final=False)).split("\n")
            waiting = lines.pop()
            number += len(lines)
            yield from lines
        if read < limit:
            yield waiting + _decoded(path, decoder, b"", number, final=True)


def _decoded(path: Path, decoder: Any, block: bytes, number: int, *, final: bool) -> str:
    try:
        return decoder.decode(block, final)
    except UnicodeDecodeError as error:
        why = "it is UTF-16, not UTF-8"
        if number > 1 or error.object[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            line = number + error.object[: error.start].count(b"\n")
            why = f"line {line} is not UTF-8 (byte 0x{error.object[error.start]:02x})"
        fix = "convert it (iconv -f ENCODING -t UTF-8), or leave it out of data.files"
        raise _unreadable(path, why, fix) from error


def _is_one_value(path: Path, limit: float) -> bool:
    """Whether a whole file is one JSON value over several lines; True, unread, for one that is longer than `limit`."""
    if path.stat().st_size > limit:
        return True
    with path.open(encoding="utf-8-sig") as file:
        try:
            return isinstance(json.load(file), (dict, list))
        except ValueError:
            return False


def _why_no_row(row: Any, column: str) -> str:
    if not isinstance(row, dict):
        return f"it is no JSON object: {json.dumps(row)[:60]}"
    text = row.get(column)
    if text is not None and not isinstance(text, str):
        return f"{column!r} is no text: {json.dumps(text)[:60]}"
    if text and re.search("[\ud800-\udfff]", text):
        return f"{column!r} holds half of a surrogate pair, which is no character"
    return ""


def _unreadable(path: Path, why: str, fix: str) -> DataError:
    return DataError(f"data.files: {path}: {why}; fix: {fix}")
