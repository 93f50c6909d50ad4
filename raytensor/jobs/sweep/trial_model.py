"""A model on its way through a trial's rounds: brought to where it must stand, from whatever is on file.

In: a lineage and a round. Out: an engine that has trained exactly those rounds. A checkpoint that is damaged is passed
over: what it held is trained again, from an older one or from the start.
Waits for: nothing. Knows nothing of Ray, of stacks or of ranks: `make` gives it its engine.
"""

from __future__ import annotations

from collections.abc import Callable

from raytensor.config.sweep import SweepConfig
from raytensor.errors import DamagedCheckpoint
from raytensor.jobs.sweep.store import Lineage, Store
from raytensor.jobs.sweep.trial_data import Lessons
from raytensor.training.engine import Engine


class Pupil:
    """make  a new engine for a trial's settings; called whenever the settings change, the one before is then no longer used."""

    def __init__(self, lessons: Lessons, store: Store, make: Callable[[SweepConfig], Engine]) -> None:
        self._lessons = lessons
        self._store = store
        self._make = make
        self._lineage: Lineage | None = None
        self.round = 0
        self.engine: Engine
        self._setbacks: list[str] = []

    def bring(self, lineage: Lineage, round: int) -> SweepConfig:
        """Stand after `round` rounds of a lineage, by the newest whole checkpoint, or from the start; its settings."""
        cfg = self._lessons.of(lineage)
        if self._lineage == lineage and self.round == round:
            return cfg
        after, kept = lineage[-1][0], self._store.kept(lineage, round)
        assert after <= round, (lineage, round)
        if self._lineage == lineage and max(kept, default=0) <= self.round <= round:
            pass  # already further than what is on file
        else:
            self._start(lineage, cfg)
            self.round = next((n for n in kept if self._load(lineage, n)), 0)
            if not self.round and after:
                # The parent's model, from here on with other settings.
                if not self._load(lineage[:-1], after):
                    self.bring(lineage[:-1], after)
                    self.engine.save(self._store.checkpoint(lineage[:-1], after))
                    self._start(lineage, cfg)
                    self.engine.load(self._store.checkpoint(lineage[:-1], after))
                self.round = after
        while self.round < round:
            self.engine.train_steps(self._lessons.batches(cfg, self.round + 1))
            self.round += 1
        return cfg

    def setbacks(self) -> dict[str, str]:
        """What was wrong with checkpoints that were passed over since the last call, for a round's result."""
        found, self._setbacks = dict.fromkeys(self._setbacks), []
        return {"setback": f"{'; '.join(found)}; what it held was trained again"} if found else {}

    def _load(self, lineage: Lineage, round: int) -> bool:
        """Take over a checkpoint; False when there is none, or it is damaged."""
        place = self._store.checkpoint(lineage, round)
        if not place.exists():
            return False
        try:
            self.engine.load(place)
        except DamagedCheckpoint as error:
            self._setbacks.append(str(error))
            return False
        return True

    def _start(self, lineage: Lineage, cfg: SweepConfig) -> None:
        self.engine = self._make(cfg)
        self._lineage, self.round = lineage, 0
