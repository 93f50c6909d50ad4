"""What one validator thinks of each miner of one subnet, kept by hotkey.

In: the scores of a round, and who of the asked gave none. Out: moving averages of loss and of presence.
A miner that was not asked keeps both. State goes to one JSON file, at once or not at all; a uid is never stored.
Knows nothing of weights, Ray or the chain.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from raytensor.errors import DataError
from raytensor.types import Score

FORMAT = 1


class ScoreBoard:
    """Moving averages of one (netuid, validator).

    ema   weight of the newest loss: loss <- (1 - ema) loss + ema newest; the first loss starts the average.
    miss  weight of the newest question in the presence: p <- (1 - miss) p + miss [answered]; the first answer starts it
          at 1. Classic Bittensor lets a silent miner's value fall the same way, with 0.1 (opentensor/bittensor v4.0.1,
          `neuron_stats_update`, the keys ending in "!").
    """

    def __init__(self, netuid: int, validator: str, *, ema: float, miss: float) -> None:
        assert 0 < ema <= 1 and 0 < miss <= 1
        self.netuid = netuid
        self.validator = validator
        self._ema = ema
        self._miss = miss
        self._losses: dict[str, float] = {}
        self._presence: dict[str, float] = {}

    def update(self, scores: Iterable[Score], silent: Iterable[str]) -> None:
        """Take in one round: `scores` of those that answered, `silent` those that were asked and gave no usable answer."""
        for score in sorted(scores, key=lambda score: score.task_id):
            assert (score.netuid, score.validator) == (self.netuid, self.validator) and math.isfinite(score.loss)
            old = self._losses.get(score.hotkey, score.loss)
            self._losses[score.hotkey] = (1.0 - self._ema) * old + self._ema * score.loss
            self._presence[score.hotkey] = (1.0 - self._miss) * self._presence.get(score.hotkey, 1.0) + self._miss
        for hotkey in silent:
            if hotkey in self._presence:
                self._presence[hotkey] *= 1.0 - self._miss

    def losses(self) -> dict[str, float]:
        """Moving average of the loss by hotkey, of everyone that ever answered; nats per token."""
        return dict(self._losses)

    def presence(self) -> dict[str, float]:
        """Moving share of questions answered by hotkey, of everyone that ever answered; 0 to 1."""
        return dict(self._presence)

    def forget(self, hotkey: str) -> None:
        """Drop a hotkey that left the subnet."""
        self._losses.pop(hotkey, None)
        self._presence.pop(hotkey, None)

    def save(self, path: Path, *, saved_at: float) -> None:
        """Write the state; `saved_at` is the time (seconds since 1970) that a later `load` checks its age by."""
        state = {
            "format": FORMAT,
            "netuid": self.netuid,
            "validator": self.validator,
            "saved_at": saved_at,
            "losses": self._losses,
            "presence": self._presence,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)

    def restore(self, path: Path, *, now: float, max_age_s: float = math.inf) -> bool:
        """Take over a saved state; False when there is none or it is older than `max_age_s` at `now`.

        Raises `DataError` when the file is damaged or belongs to another subnet or validator.
        """
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except ValueError as error:
            raise DataError(f"the score board {path} is damaged: {error}; delete it to start afresh") from error
        try:
            owner = (state["format"], state["netuid"], state["validator"])
            saved_at = float(state["saved_at"])
            losses = {str(hotkey): float(loss) for hotkey, loss in state["losses"].items()}
            presence = {str(hotkey): float(share) for hotkey, share in state["presence"].items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"the score board {path} is damaged: {error!r}; delete it to start afresh") from error
        if owner != (FORMAT, self.netuid, self.validator):
            raise DataError(f"the score board {path} is of (format, netuid, validator) {owner}, not {(FORMAT, self.netuid, self.validator)}")
        if now - saved_at > max_age_s:
            return False
        self._losses, self._presence = losses, presence
        return True
