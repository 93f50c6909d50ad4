"""The files of an evidence log: closed segments beside the newest one.

    evidence-000001.jsonl, evidence-000002.jsonl, ...   closed: whole, synced, never written again
    evidence.jsonl                                      the newest, appended to

In: the path of the newest. Out: the lines of all of them in order. After each step that changes files the log reads the
same, so a process killed between two steps loses nothing. Knows nothing of the content of lines.
"""

import glob
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from raytensor import disk
from raytensor.errors import DataError

_NUMBER = re.compile(r"-(\d{6,})$")


def closed(path: Path) -> list[Path]:
    """The closed segments of a log, oldest first."""
    files = path.parent.glob(f"{glob.escape(path.stem)}-*{path.suffix}")
    return sorted((file for file in files if log_of(file) == path and file != path), key=_number)


def log_of(path: Path) -> Path:
    """The path of the log's newest segment, for any file of the log."""
    return path.with_name(_NUMBER.sub("", path.stem) + path.suffix)


def restore(path: Path) -> None:
    """Repair what a killed process left: without a newest segment, the last closed one becomes the newest again."""
    disk.remove_unfinished(path.parent)
    if not path.exists() and (before := closed(path)):
        disk.replace(before[-1], path)


def close(path: Path, head: Iterable[bytes]) -> None:
    """Close the newest segment, which must be synced, and begin another one with `head`."""
    disk.write_bytes(temporary(path), head)
    before = closed(path)
    number = _number(before[-1]) + 1 if before else 1
    disk.replace(path, path.with_name(f"{path.stem}-{number:06d}{path.suffix}"))
    disk.replace(temporary(path), path)


def lines(path: Path, first: Path | None = None) -> Iterator[tuple[Path, int, bytes]]:
    """(segment, number from 1, line) of all segments in order, beginning with the closed one `first`.

    A torn last line of the newest is left out. The log may be written, and segments closed, meanwhile.

    Raises `DataError` for a closed segment that is not whole.
    """
    before = closed(path)
    done = set(before[: before.index(first)]) if first in before else set()
    while True:
        newest = path.open("rb") if path.exists() else None
        # Looked for after the newest was opened: what is closed from now on is still that file.
        waiting = [segment for segment in closed(path) if segment not in done]
        if not waiting:
            break
        if newest is not None:
            newest.close()
        for segment in waiting:
            done.add(segment)
            with segment.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        raise DataError(f"{segment}, line {number}: the segment is closed, and ends within a line")
                    yield segment, number, line
    if newest is not None:
        with newest:
            for number, line in enumerate(newest, 1):
                if line.endswith(b"\n"):
                    yield path, number, line


def temporary(path: Path) -> Path:
    """The next newest segment until the present one is closed."""
    return path.with_name(f".{path.name}.tmp")


def _number(segment: Path) -> int:
    """The number in the name of a closed segment, -1 for any other file."""
    found = _NUMBER.search(segment.stem)
    return int(found.group(1)) if found else -1
