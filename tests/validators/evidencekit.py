"""A validator's board and log over rounds that are made up by a seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from raytensor import config
from raytensor.mechanisms.evidence import Evidence, gather
from raytensor.mechanisms.guard import Guard
from raytensor.types import Failure, Reason, Score
from raytensor.validators.evidence_log import EvidenceLog, Keep, replay
from raytensor.validators.scoreboard import ScoreBoard
from raytensor.validators.scorer import MechanismSpec

V = 50
HOTKEYS = [f"m{i}" for i in range(6)]
TABLE = np.log(np.full(V, 1 / V, np.float32))
RULES = MechanismSpec(config.Mechanism(), TABLE, V)


def evidence(number: int) -> Evidence:
    """Some are asked, some of those stay silent; losses below a table's."""
    draw = np.random.default_rng(number)
    results = {}
    for place, hotkey in enumerate(HOTKEYS):
        task_id = f"1/{number}/v/{hotkey}"
        if draw.random() < 0.3:
            continue  # not asked
        if draw.random() < 0.2:
            results[task_id] = Failure(task_id, hotkey, Reason.TIMEOUT)
        else:
            loss = math.log(V) - 0.3 * (place + 1) + draw.normal(0, 0.05)
            results[task_id] = Score(task_id, number, 1, "v", hotkey, {"loss": float(loss)})
    return gather(1, "v", number, results, answered=[key for key, one in results.items() if isinstance(one, Score)])


def board() -> ScoreBoard:
    return ScoreBoard(1, "v", RULES.load(), RULES.mechanism.path)


def open_validator(folder: Path, keep: Keep = Keep()) -> tuple[ScoreBoard, EvidenceLog]:
    """As a restart does it: the newest saved state, then what the log has beyond it."""
    log = EvidenceLog(folder / "evidence.jsonl", 1, "v", RULES, keep)
    mine = board()
    mine.restore(folder / "board.json", now=time.time())
    mine.state = replay(log.path, state=mine.state).state
    return mine, log


def play(
    folder: Path,
    rounds: int,
    keep: Keep = Keep(),
    *,
    told: Callable[[int], object] = lambda number: None,
    save: bool = False,
) -> ScoreBoard:
    """Go on to `rounds` rounds, as a validator does. told: called when a round is on the disk. save: the board, too."""
    mine, log = open_validator(folder, keep)
    for number in range(mine.state.round + 1, rounds):
        one = evidence(number)
        log.append(one)
        told(number)
        mine.update(one)
        log.append_weights(number, mine.weights())
        if save:
            mine.save(folder / "board.json", saved_at=time.time())
        log.roll(mine.state, number if save else -1)
    log.close()
    return mine


def guarded(mechanism) -> Guard:
    """A mechanism of the tests behind the checks that every job puts before it."""
    return Guard(mechanism, f"{type(mechanism).__module__}.{type(mechanism).__name__}")
