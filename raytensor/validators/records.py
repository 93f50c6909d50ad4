"""What validators keep of one subnet: a score board and an evidence log for each, in memory and on disk.

In: the evidence of rounds. Out: boards that have reduced it, weights, files that a later process continues from.
There are two ways to keep files. `newest`: one board for each validator, saved after every round; a restart reads it,
then the rest of the log. `at_round`: boards are saved in a folder per round, on request; a restart begins at such a
round and removes what the logs have beyond it, because a run plays those rounds again.
Waits for: the disk. Knows nothing of what the numbers mean, of Ray or of the chain.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from raytensor.mechanisms.evidence import Evidence
from raytensor.mechanisms.guard import Guard
from raytensor.validators.evidence_log import EvidenceLog, Keep, replay
from raytensor.validators.scoreboard import ScoreBoard
from raytensor.validators.scorer import MechanismSpec

ROUNDS_KEPT = 2  # folders of boards, where they are saved per round


class Records:
    """The boards and logs of one subnet, by validator hotkey. Made by `in_memory`, `newest` or `at_round`."""

    def __init__(self, boards: Mapping[str, ScoreBoard]) -> None:
        self.boards = dict(boards)
        self._logs: dict[str, EvidenceLog] = {}
        self._newest: Path | None = None  # folder of the boards that are saved after every round

    @classmethod
    def in_memory(cls, netuid: int, hotkeys: tuple[str, ...], mechanism: Guard) -> Records:
        """Boards that are kept nowhere."""
        return cls({hotkey: ScoreBoard(netuid, hotkey, mechanism, mechanism.path) for hotkey in hotkeys})

    @classmethod
    def newest(
        cls, folder: Path, netuid: int, hotkeys: tuple[str, ...], spec: MechanismSpec, mechanism: Guard, keep: Keep
    ) -> Records:
        """`folder`/HOTKEY/board.json and evidence.jsonl of each validator.

        Raises `DataError` for files that can't be read, or that belong to something else.
        """
        with ExitStack() as opened:
            records = cls.in_memory(netuid, hotkeys, mechanism)
            records._newest = folder
            for hotkey, board in records.boards.items():
                log = EvidenceLog(folder / hotkey / "evidence.jsonl", netuid, hotkey, spec, keep)
                records._logs[hotkey] = log
                opened.callback(log.close)
                board.restore(folder / hotkey / "board.json", now=time.time())
                _continue(log, board)
                board.state = replay(log.path, state=board.state).state
            opened.pop_all()
            return records

    @classmethod
    def at_round(
        cls,
        folder: Path,
        netuid: int,
        hotkeys: tuple[str, ...],
        spec: MechanismSpec,
        mechanism: Guard,
        keep: Keep,
        *,
        after_round: int | None,
    ) -> Records:
        """`folder`/evidence/HOTKEY.jsonl, and `folder`/boards/round-NUMBER/HOTKEY.json as `save_round` writes them.

        after_round  to continue after; None begins anew.
        """
        with ExitStack() as opened:
            records = cls.in_memory(netuid, hotkeys, mechanism)
            for hotkey, board in records.boards.items():
                log = EvidenceLog(folder / "evidence" / f"{hotkey}.jsonl", netuid, hotkey, spec, keep)
                records._logs[hotkey] = log
                opened.callback(log.close)
                if after_round is not None:
                    board.restore(_board_path(folder, after_round, hotkey), now=time.time())
                log.cut_after(after_round or 0)
                _continue(log, board)
            opened.pop_all()
            return records

    @property
    def last_round(self) -> int:
        """The newest round that any of the validators has reduced; -1 before the first."""
        return max(board.state.round for board in self.boards.values())

    def append(self, evidence: Evidence) -> None:
        """One validator's evidence of a round: to its log, and once it is on disk to its board."""
        if (log := self._logs.get(evidence.validator)) is not None:
            log.append(evidence)
        self.boards[evidence.validator].update(evidence)

    def weigh(self, number: int) -> dict[str, dict[str, float]]:
        """The weights of every validator after a round, {validator: {hotkey: weight}}; they are logged, too."""
        made = {validator: board.weights() for validator, board in self.boards.items()}
        for validator, values in made.items():
            if (log := self._logs.get(validator)) is not None:
                log.append_weights(number, values)
        return made

    def end_round(self, number: int) -> None:
        """Save the newest boards, where that is how they are kept."""
        if self._newest is None:
            return
        for hotkey, board in self.boards.items():
            board.save(self._newest / hotkey / "board.json", saved_at=time.time())
            self._logs[hotkey].roll(board.state, number)

    def save_round(self, folder: Path, number: int) -> None:
        """Save every board as of round `number`; `end_save` removes older ones, once nothing refers to them."""
        for hotkey, board in self.boards.items():
            board.save(_board_path(folder, number, hotkey), saved_at=time.time())

    def end_save(self, folder: Path, number: int) -> None:
        """A restart will begin at round `number` at the earliest: close full segments, remove older boards."""
        for hotkey, log in self._logs.items():
            log.roll(self.boards[hotkey].state, number)
        for old in sorted((folder / "boards").glob("round-*"))[:-ROUNDS_KEPT]:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()

    def close(self) -> None:
        """Close the logs."""
        for log in self._logs.values():
            log.close()


def _continue(log: EvidenceLog, board: ScoreBoard) -> None:
    """Write the board's state to a log that ends before it: the log was removed, or began later."""
    if board.state.round > log.last_round:
        log.append_state(board.state)


def _board_path(folder: Path, number: int, hotkey: str) -> Path:
    return folder / "boards" / f"round-{number:06d}" / f"{hotkey}.json"
