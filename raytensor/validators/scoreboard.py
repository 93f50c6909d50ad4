"""The score board: one validator's scores of the miners of one subnet, by hotkey.

In: the evidence of a round. Out: the mechanism's state, and the weights that follow from it.
A miner that was not asked keeps its scores. The state is written to one JSON file, whole; a uid is never stored.
Knows nothing of what the numbers mean, of Ray or of the chain.
"""

import json
import math
from pathlib import Path

from raytensor import disk
from raytensor.errors import DataError
from raytensor.mechanisms.evidence import Evidence, Reducer, State, advance, state_from_json, state_to_json

FORMAT = 2


class ScoreBoard:
    """The state of one (netuid, validator) under one mechanism.

    path  the mechanism's dotted path; a file of another mechanism is refused.
    """

    def __init__(self, netuid: int, validator: str, mechanism: Reducer, path: str) -> None:
        self.netuid, self.validator = netuid, validator
        self.state = State()
        self._mechanism, self._path = mechanism, path

    def update(self, evidence: Evidence) -> None:
        """Reduce one round. Where there is an evidence log, it has this evidence already."""
        assert (evidence.netuid, evidence.validator) == (self.netuid, self.validator)
        self.state = advance(self._mechanism, self.state, evidence)

    def weights(self) -> dict[str, float]:
        """Weights by hotkey, >= 0, that sum to 1; empty when no miner deserves any."""
        return self._mechanism.weights(self.state)

    def save(self, path: Path, *, saved_at: float) -> None:
        """Write the state. `saved_at` (seconds since 1970) is what a later `restore` checks the age by."""
        owner = {"format": FORMAT, "netuid": self.netuid, "validator": self.validator, "mechanism": self._path}
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = owner | {"saved_at": saved_at} | state_to_json(self.state)
        disk.write_text(path, json.dumps(fields, allow_nan=False))

    def restore(self, path: Path, *, now: float, max_age_s: float = math.inf) -> bool:
        """Read a saved state; False when there is none or it is older than `max_age_s` at `now`.

        Raises `DataError` when the file is damaged or belongs to another subnet, validator or mechanism.
        """
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except ValueError as error:
            raise DataError(f"the score board {path} is damaged: {error}; delete it to begin anew") from error
        expected = (FORMAT, self.netuid, self.validator, self._path)
        try:
            owner = (saved["format"], saved["netuid"], saved["validator"], saved.get("mechanism"))
            if owner != expected:
                names = "(format, netuid, validator, mechanism)"
                raise DataError(f"the score board {path} is of {names} {owner}, not {expected}")
            saved_at, state = float(saved["saved_at"]), state_from_json(saved)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"the score board {path} is damaged: {error!r}; delete it to begin anew") from error
        if now - saved_at > max_age_s:
            return False
        self.state = state
        return True
