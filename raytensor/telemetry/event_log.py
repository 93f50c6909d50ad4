"""The file of a job's events: one JSON object a line, appended as they happen, and read back as the same events.

In: events. Out: `events.jsonl`, and the events of such a file, also of one that an older version wrote (`OLD_KINDS`).
Bounds: `read_events` holds all events of a file in memory. Knows nothing of who makes or reads events.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import logging
import math
import numbers
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from raytensor import disk
from raytensor.errors import DataError
from raytensor.telemetry import miner_events  # noqa: F401 (imported, its kinds are read as well)
from raytensor.telemetry.events import KINDS, Event, ReceiptSeen, RoundDone, Warned, WeightsMade
from raytensor.telemetry.redact import redact_addresses

log = logging.getLogger(__name__)


class Old(NamedTuple):
    """How a line of an older version is read: as which event, {old field: new field}, and fields that it lacks."""

    event: type[Event]
    renamed: Mapping[str, str] = {}
    missing: Mapping[str, Any] = {}


# By kind. Also holds kinds that still exist and whose fields were renamed.
OLD_KINDS: dict[str, Old] = {
    "round_done": Old(RoundDone, {"responses": "scored"}),
    "subnet_round": Old(RoundDone),
    "weights_handed": Old(WeightsMade, missing={"values": {}}),
    "weights_receipt": Old(ReceiptSeen, {"hotkey": "signer"}, {"call": "weights"}),
}


def to_line(event: Event) -> str:
    """The event as one line of JSON, without the line's end. Numbers that are not finite are written as null, logins
    and keys of addresses as `[redacted]`."""
    body = {"kind": event.kind, "t": event.t}
    body |= {item.name: _plain(getattr(event, item.name)) for item in dataclasses.fields(event)}
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def from_line(line: str | bytes) -> Event | None:
    """The event of a line; None for a kind that this version does not know. Unknown fields are dropped.

    Raises `ValueError` for a line that is not an event: no JSON object, or a field is missing.
    """
    body = json.loads(line)
    if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
        raise ValueError("no JSON object with a 'kind'")
    kind = body.pop("kind")
    old = OLD_KINDS.get(kind)
    if old is not None:
        body = {**old.missing, **{old.renamed.get(name, name): value for name, value in body.items()}}
    cls = old.event if old is not None else KINDS.get(kind)
    if cls is None:
        return None
    known = {item.name: str(item.type) for item in dataclasses.fields(cls)}
    try:
        return cls(**{name: _restored(value, known[name]) for name, value in body.items() if name in known})
    except TypeError as error:
        raise ValueError(str(error)) from error


class EventLog:
    """Appends events to a file, each in one write to the system, so that `kill -9` loses none. A context manager.

    path  the file, of mode 600. A torn last line, left by a full disk or a crash of the machine, is cut off on opening.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.lost = self._lost_now = 0  # events that could not be written: in all, since the last that was
        disk.cut_torn_line(self.path)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with suppress(PermissionError):  # of an older version, or of another user
            os.fchmod(self._fd, 0o600)

    def append(self, event: Event) -> None:
        """Write one event, whole or not at all. Raises `OSError` when the disk is full."""
        data = (to_line(event) + "\n").encode()
        size = os.fstat(self._fd).st_size
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            os.ftruncate(self._fd, size)  # else the next event would follow a part of this one
            raise

    def write(self, event: Event) -> str:
        """`append` that raises nothing: an event that can't be written is counted, and the next one that can says so.

        Returns the error of the first that is lost in a row, else "".
        """
        try:
            if self._lost_now:
                text = f"{self._lost_now} events before this one could not be written"
                self.append(Warned(text=text, fix="they were shown, and are lost"))
                self._lost_now = 0
            self.append(event)
        except (OSError, ValueError, TypeError) as error:  # the file's trouble, or an event that JSON can't hold
            self.lost, self._lost_now = self.lost + 1, self._lost_now + 1
            if self._lost_now == 1:
                log.error("%s can't be written: %s", self.path, error)
                return f"{self.path} can't be written: {(isinstance(error, OSError) and error.strerror) or error}"
        return ""

    @property
    def trouble(self) -> str:
        """Why events can't be written, "" while they can."""
        return f"{self.path}: {self._lost_now} events could not be written" if self._lost_now else ""

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_events(path: Path) -> list[Event]:
    """All events of a file in order. A last line without its end is not yet written and is left out.

    Raises `DataError` when the file is missing or another line of it is no event.
    """
    found: list[Event] = []
    try:
        for number, line in disk.whole_lines(Path(path)):
            try:
                event = from_line(line)
            except ValueError as error:
                fix = "remove the line to read the rest"
                raise DataError(f"{path}, line {number}: not an event ({error}); {fix}") from error
            if event is not None:
                found.append(event)
    except OSError as error:
        raise DataError(f"{path}: no events to read ({error.strerror}); name the folder of a run") from error
    return found


def _plain(value: Any) -> Any:
    """JSON of a field: containers, dataclasses, enums, and numbers of Python or numpy."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, str):
        return redact_addresses(value)
    if isinstance(value, numbers.Integral):
        return value if isinstance(value, bool) else int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return value


def _restored(value: Any, annotation: str) -> Any:
    """NaN in place of the null that was written for a number that is not finite."""
    if value is None and annotation == "float":
        return math.nan
    if isinstance(value, dict) and "float" in annotation:
        return {key: math.nan if item is None else item for key, item in value.items()}
    return value
