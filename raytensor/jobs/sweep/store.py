"""What a sweep keeps of its trials, on storage that all nodes see: every result, and the newest checkpoints.

In: a lineage (which settings trained which rounds) and results. Out: the same again, in any process, after any crash.

    trials/<key>/lineage.json     [[after round, [overrides]], ...]
    trials/<key>/results.jsonl    a line per round, in order
    trials/<key>/round-<n>/       the newest checkpoints

A trial's results are a pure function of its lineage and of the sweep's settings: whoever asks for a round that is on
file gets it from the file. That is how a sweep goes on after a stop: it begins again, and what was trained is not
trained again. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from raytensor.telemetry.runfolder import write_text

# Settings in the order in which they trained: ((after round, overrides), ...). The first is (0, ...); population based
# training adds an entry when a trial goes on from another one's model with changed settings.
Lineage = tuple[tuple[int, tuple[str, ...]], ...]
KEPT = 2  # checkpoints of a trial


def key_of(lineage: Lineage) -> str:
    """A short name, equal for equal lineages."""
    return hashlib.blake2b(json.dumps(lineage).encode(), digest_size=6).hexdigest()


def read_lineage(text: str) -> Lineage:
    return tuple((int(after), tuple(overrides)) for after, overrides in json.loads(text))


class Store:
    """keep_all: keep the checkpoints of all rounds; others may want to go on from any."""

    def __init__(self, folder: Path, *, keep_all: bool = False) -> None:
        self.folder = folder
        self._keep_all = keep_all

    def results(self, lineage: Lineage) -> dict[int, dict[str, Any]]:
        """Results by round of a lineage; those before its last change are its parent's."""
        after = lineage[-1][0]
        found = {n: result for n, result in self.results(lineage[:-1]).items() if n <= after} if after else {}
        try:
            lines = (self._of(lineage) / "results.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return found
        for line in lines:
            try:
                result = json.loads(line)
            except ValueError:  # the line that was being written when a process was killed
                continue
            found[int(result["round"])] = result
        return found

    def add(self, lineage: Lineage, result: dict[str, Any]) -> None:
        """One more round's result, on disk when this returns."""
        place = self._of(lineage)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "lineage.json").exists():
            write_text(place / "lineage.json", json.dumps(lineage))
        with (place / "results.jsonl").open("a+") as file:
            file.seek(0)
            torn = file.read()
            file.write(("\n" if torn and not torn.endswith("\n") else "") + json.dumps(result, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def checkpoint(self, lineage: Lineage, round: int) -> Path:
        return self._of(lineage) / f"round-{round:05d}"

    def kept(self, lineage: Lineage, up_to: int) -> list[int]:
        """Rounds, at most `up_to`, that have a checkpoint of this lineage itself, newest first."""
        return [n for n in reversed(self._rounds(lineage)) if n <= up_to]

    def prune(self, lineage: Lineage) -> None:
        for round in [] if self._keep_all else self._rounds(lineage)[:-KEPT]:
            shutil.rmtree(self.checkpoint(lineage, round), ignore_errors=True)

    def _rounds(self, lineage: Lineage) -> list[int]:
        found = (re.fullmatch(r"round-(\d+)", path.name) for path in self._of(lineage).glob("round-*"))
        return sorted(int(match.group(1)) for match in found if match)

    def _of(self, lineage: Lineage) -> Path:
        return self.folder / key_of(lineage)
