"""A model on its way through a trial's rounds: brought to where it must stand, from whatever is on file.

In: a lineage and a round. Out: an engine that has trained exactly those rounds.
Waits for: nothing. Knows nothing of Ray, of stacks or of ranks: `make` gives it its engine.
"""

from __future__ import annotations

from collections.abc import Callable

from raytensor.config.sweep import SweepConfig
from raytensor.sweep.lesson import Lessons
from raytensor.sweep.store import Lineage, Store
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

    def bring(self, lineage: Lineage, round: int) -> SweepConfig:
        """Stand after `round` rounds of a lineage, by the newest checkpoint there is, or from the start; its settings."""
        cfg = self._lessons.of(lineage)
        if self._lineage == lineage and self.round == round:
            return cfg
        after, newest = lineage[-1][0], self._store.newest(lineage, round)
        assert after <= round, (lineage, round)
        if self._lineage == lineage and newest <= self.round <= round:
            pass  # already further than what is on file
        elif newest or not after:
            self._start(lineage, cfg)
            if newest:
                self.engine.load(self._store.checkpoint(lineage, newest))
                self.round = newest
        else:
            # The parent's model, from here on with other settings.
            parent = self._store.checkpoint(lineage[:-1], after)
            if not parent.exists():
                self.bring(lineage[:-1], after)
                self.engine.save(parent)
            self._start(lineage, cfg)
            self.engine.load(parent)
            self.round = after
        while self.round < round:
            self.engine.train_steps(self._lessons.batches(cfg, self.round + 1))
            self.round += 1
        return cfg

    def _start(self, lineage: Lineage, cfg: SweepConfig) -> None:
        self.engine = self._make(cfg)
        self._lineage, self.round = lineage, 0
