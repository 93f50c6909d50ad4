"""A trial's model: restored to a round from the newest intact checkpoint, training what is missing.

In: a lineage and a round. Out: an engine that has trained exactly those rounds. A damaged checkpoint is skipped: its
rounds are trained again, from an older checkpoint or from the start.
Waits for: nothing. Knows nothing of Ray, of stacks or of ranks: `make` creates the engine.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from raytensor.config.sweep import SweepConfig
from raytensor.errors import DamagedCheckpoint
from raytensor.jobs.sweep.store import Lineage, Store
from raytensor.jobs.sweep.trial_data import TrialData
from raytensor.training.engine import Engine

E = TypeVar("E", bound=Engine)


class TrialModel(Generic[E]):
    """The model of one trial.

    make  returns a new engine for a trial's settings; called when the settings change, which ends the use of the engine
          before.
    """

    def __init__(self, data: TrialData, store: Store, make: Callable[[SweepConfig], E]) -> None:
        self._data = data
        self._store = store
        self._make = make
        self._lineage: Lineage | None = None
        self._engine: E | None = None
        self._round = 0
        self._setbacks: list[str] = []

    def advance_to(self, lineage: Lineage, round: int) -> SweepConfig:
        """Load or train, so that the engine has trained `round` rounds of the lineage. Returns its settings."""
        cfg = self._data.settings_of(lineage)
        if self._lineage == lineage and self._round == round:
            return cfg
        after, kept = lineage[-1][0], self._store.kept(lineage, round)
        assert after <= round, (lineage, round)
        if self._lineage == lineage and max(kept, default=0) <= self._round <= round:
            pass  # the model is further than its checkpoints
        else:
            self._start(lineage, cfg)
            self._round = next((n for n in kept if self._load(lineage, n)), 0)
            if not self._round and after:
                # The parent's model continues with other settings.
                if not self._load(lineage[:-1], after):
                    self.advance_to(lineage[:-1], after)
                    self.engine.save(self._store.checkpoint(lineage[:-1], after))
                    self._start(lineage, cfg)
                    self.engine.load(self._store.checkpoint(lineage[:-1], after))
                self._round = after
        while self._round < round:
            self.engine.train_steps(self._data.batches(cfg, self._round + 1))
            self._round += 1
        return cfg

    @property
    def engine(self) -> E:
        """The engine, after the first `advance_to`."""
        assert self._engine is not None
        return self._engine

    @property
    def has_engine(self) -> bool:
        return self._engine is not None

    def trained(self, round: int) -> None:
        """Note that the engine was trained to `round`, together with others."""
        self._round = round

    def setbacks(self) -> dict[str, str]:
        """What was wrong with checkpoints that were skipped since the last call, as part of a round's result."""
        found, self._setbacks = dict.fromkeys(self._setbacks), []
        return {"setback": f"{'; '.join(found)}; what it held was trained again"} if found else {}

    def _load(self, lineage: Lineage, round: int) -> bool:
        """Load a checkpoint. False when there is none, or it is damaged."""
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
        self._engine = self._make(cfg)
        self._lineage, self._round = lineage, 0
