"""The files of an evidence log: closed segments beside the newest one.

    evidence-000001.jsonl, evidence-000002.jsonl, ...   closed: whole, synced, never written again
    evidence.jsonl                                      the newest, appended to

In: the path of the newest. Out: lines of all of them in order. Each step that changes files leaves a log that reads the
same, so that a kill between any two loses nothing. Knows nothing of what the lines say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from raytensor.errors import DataError

_NUMBER = re.compile(r"-(\d{6,})$")


def closed(path: Path) -> list[Path]:
    """The closed segments of a log, oldest first."""
    found = {}
    for file in path.parent.glob(f"{_escaped(path.stem)}-*{path.suffix}"):
        number = _NUMBER.search(file.stem)
        if number and file.stem == path.stem + number.group():
            found[int(number.group(1))] = file
    return [found[number] for number in sorted(found)]


def log_of(path: Path) -> Path:
    """The log that a file belongs to: a closed segment's newest one, else the file itself."""
    return path.with_name(_NUMBER.sub("", path.stem) + path.suffix)


def restore(path: Path) -> None:
    """Undo what a killed process left half done: an unfinished file goes, and without a newest segment the last closed
    one is the newest again."""
    temporary(path).unlink(missing_ok=True)
    if not path.exists() and (before := closed(path)):
        os.replace(before[-1], path)


def close(path: Path, head: Iterable[bytes]) -> None:
    """Close the newest segment, which must be synced, and begin another one with `head`."""
    write_whole(temporary(path), head)
    before = closed(path)
    number = int(_NUMBER.search(before[-1].stem).group(1)) + 1 if before else 1  # type: ignore[union-attr]
    os.rename(path, path.with_name(f"{path.stem}-{number:06d}{path.suffix}"))
    os.replace(temporary(path), path)
    sync_folder(path.parent)


def replace(path: Path, lines: Iterable[bytes]) -> None:
    """Write the newest segment anew, at once or not at all."""
    write_whole(temporary(path), lines)
    os.replace(temporary(path), path)
    sync_folder(path.parent)


def lines(path: Path, first: Path | None = None) -> Iterator[tuple[Path, int, bytes]]:
    """(segment, number from 1, line) of all segments in order, from the closed one `first` on. A torn last line of the
    newest is left out. The log may be written, and segments closed, meanwhile.

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


def cut_torn_line(path: Path) -> int:
    """Cut off what follows the last line's end. Returns the number of bytes that went."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
        return size - end


def temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def write_whole(path: Path, content: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Names are on the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _escaped(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)
