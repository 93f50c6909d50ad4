"""What one validator thinks of each miner of one subnet, kept by hotkey.

In: the evidence of a round. Out: a mechanism's state, and the weights that follow from it.
A miner that was not asked keeps what it has. State goes to one JSON file, at once or not at all; a uid is never stored.
Knows nothing of what the numbers mean, of Ray or of the chain.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path

from raytensor.errors import DataError
from raytensor.mechanisms.base import Mechanism
from raytensor.mechanisms.evidence import Evidence, State, advance, state_from_json, state_to_json

FORMAT = 2


class ScoreBoard:
    """The state of one (netuid, validator) under one mechanism.

    path  the mechanism's dotted path; a file that another one wrote is refused.
    """

    def __init__(self, netuid: int, validator: str, mechanism: Mechanism, path: str) -> None:
        self.netuid = netuid
        self.validator = validator
        self.state = State()
        self._mechanism = mechanism
        self._path = path

    def update(self, evidence: Evidence) -> None:
        """Take in one round. Whoever keeps a log writes the evidence there first."""
        assert (evidence.netuid, evidence.validator) == (self.netuid, self.validator)
        self.state = advance(self._mechanism, self.state, evidence)

    def weights(self) -> dict[str, float]:
        """Weights by hotkey, >= 0, that sum to 1; empty when nobody deserves any."""
        return self._mechanism.weights(self.state)

    def save(self, path: Path, *, saved_at: float) -> None:
        """Write the state; `saved_at` is the time (seconds since 1970) that a later `restore` checks its age by."""
        owner = {"format": FORMAT, "netuid": self.netuid, "validator": self.validator, "mechanism": self._path}
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(owner | {"saved_at": saved_at} | state_to_json(self.state), file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)

    def restore(self, path: Path, *, now: float, max_age_s: float = math.inf) -> bool:
        """Take over a saved state; False when there is none or it is older than `max_age_s` at `now`.

        Raises `DataError` when the file is damaged or belongs to another subnet, validator or mechanism.
        """
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except ValueError as error:
            raise DataError(f"the score board {path} is damaged: {error}; delete it to start afresh") from error
        wanted = (FORMAT, self.netuid, self.validator, self._path)
        try:
            owner = (saved["format"], saved["netuid"], saved["validator"], saved.get("mechanism"))
            if owner != wanted:
                raise DataError(
                    f"the score board {path} is of (format, netuid, validator, mechanism) {owner}, not {wanted}"
                )
            saved_at, state = float(saved["saved_at"]), state_from_json(saved)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"the score board {path} is damaged: {error!r}; delete it to start afresh") from error
        if now - saved_at > max_age_s:
            return False
        self.state = state
        return True
