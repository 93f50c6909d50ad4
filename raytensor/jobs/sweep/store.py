"""The results and checkpoints of a sweep's trials, on storage that all nodes see.

In: a lineage (which settings trained which rounds) and results. Out: the same, in any process, after any crash.

    trials/<key>/lineage.json     [[after round, [overrides]], ...]
    trials/<key>/results.jsonl    a line per round, in order
    trials/<key>/round-<n>/       the newest checkpoints

A trial's results are a pure function of its lineage and the sweep's settings, so a round that is on file is never
trained again. A resumed sweep starts over and finds its results here. Knows nothing of models.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from raytensor import disk

# Settings in the order in which they trained: ((after round, overrides), ...). The first is (0, ...); population based
# training adds an entry when a trial continues from another one's model with changed settings.
Lineage = tuple[tuple[int, tuple[str, ...]], ...]
KEEP = 2  # checkpoints of a trial


def key_of(lineage: Lineage) -> str:
    """A short name, equal for equal lineages."""
    return hashlib.blake2b(json.dumps(lineage).encode(), digest_size=6).hexdigest()


def read_lineage(text: str) -> Lineage:
    """A lineage from its JSON."""
    return tuple((int(after), tuple(overrides)) for after, overrides in json.loads(text))


class Store:
    """Files of a sweep's trials. keep_all: keep the checkpoints of all rounds, not just the newest."""

    def __init__(self, folder: Path, *, keep_all: bool = False) -> None:
        self.folder = folder
        self._keep_all = keep_all

    def results(self, lineage: Lineage) -> dict[int, dict[str, Any]]:
        """Results by round of a lineage; those before its last change are its parent's."""
        after = lineage[-1][0]
        found = {n: result for n, result in self.results(lineage[:-1]).items() if n <= after} if after else {}
        path = self._of(lineage) / "results.jsonl"
        for _, line in disk.whole_lines(path) if path.exists() else ():
            try:
                result = json.loads(line)
            except ValueError:  # torn by a kill, and ended by a later write of an earlier version
                continue
            found[int(result["round"])] = result
        return found

    def add(self, lineage: Lineage, result: dict[str, Any]) -> None:
        """Append a round's result; it is on the disk when this returns."""
        place = self._of(lineage)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "lineage.json").exists():
            disk.write_text(place / "lineage.json", json.dumps(lineage))
        disk.append_line(place / "results.jsonl", json.dumps(result, allow_nan=False))

    def checkpoint(self, lineage: Lineage, round: int) -> Path:
        """Folder of the checkpoint after a round."""
        return self._of(lineage) / f"round-{round:05d}"

    def kept(self, lineage: Lineage, up_to: int) -> list[int]:
        """Rounds, at most `up_to`, that have a checkpoint of this lineage itself, newest first."""
        return [n for n in reversed(self._rounds(lineage)) if n <= up_to]

    def prune(self, lineage: Lineage) -> None:
        """Delete all but the newest checkpoints."""
        for round in [] if self._keep_all else self._rounds(lineage)[:-KEEP]:
            shutil.rmtree(self.checkpoint(lineage, round), ignore_errors=True)

    def _rounds(self, lineage: Lineage) -> list[int]:
        found = (re.fullmatch(r"round-(\d+)", path.name) for path in self._of(lineage).glob("round-*"))
        return sorted(int(match.group(1)) for match in found if match)

    def _of(self, lineage: Lineage) -> Path:
        return self.folder / key_of(lineage)
