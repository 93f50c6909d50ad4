"""Paths of miners' checkpoints: `<folder>/round-<n>/<hotkey>/`, and `<hotkey>.done` beside it when it is complete.

In: a folder, a round, hotkeys. Out: paths, and the newest complete round. Bounds: `KEPT` rounds are kept. Knows
nothing of what is saved.
"""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

KEPT = 2


def path_of(folder: Path, round: int, hotkey: str) -> Path:
    """The checkpoint folder of one miner."""
    return _at(folder, round) / hotkey


def mark(folder: Path, round: int, hotkey: str) -> None:
    """Mark a miner's checkpoint of a round as complete (also for a miner that has nothing to save)."""
    done = _at(folder, round) / f"{hotkey}.done"
    done.parent.mkdir(parents=True, exist_ok=True)
    done.touch()


def newest(folder: Path | None, hotkeys: Iterable[str], *, up_to: int) -> int | None:
    """The newest round, at most `up_to`, that has a complete checkpoint of each of `hotkeys`; None when there is none.

    A run that was killed and resumed from an older round may find later rounds of its earlier process; hence `up_to`.
    """
    names = [f"{hotkey}.done" for hotkey in hotkeys]
    at = {round: _at(folder, round) for round in rounds(folder) if round <= up_to}
    return max((round for round, path in at.items() if all((path / name).is_file() for name in names)), default=None)


def complete(folder: Path | None, hotkey: str, *, up_to: int | None = None) -> list[int]:
    """Rounds with a complete checkpoint of one miner, newest first; `up_to`: the newest that counts."""
    found = [n for n in reversed(rounds(folder)) if up_to is None or n <= up_to]
    return [n for n in found if (_at(folder, n) / f"{hotkey}.done").is_file()]


def rounds(folder: Path | None) -> list[int]:
    """Rounds with a checkpoint folder, oldest first."""
    if folder is None or not folder.is_dir():
        return []
    found = (re.fullmatch(r"round-(\d+)", path.name) for path in folder.iterdir())
    return sorted(int(match.group(1)) for match in found if match)


def prune(folder: Path, newest_whole: int) -> None:
    """Remove all but the `KEPT` newest rounds up to `newest_whole`."""
    for round in [number for number in rounds(folder) if number <= newest_whole][:-KEPT]:
        shutil.rmtree(_at(folder, round), ignore_errors=True)


def _at(folder: Path | None, round: int) -> Path:
    assert folder is not None
    return folder / f"round-{round:06d}"
