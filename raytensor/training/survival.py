"""What a training does about gradients that are not finite: steps left out, roll-backs, an end with a clear message.

In: an engine that counts the steps it left out, measured losses. Out: the engine at its newest checkpoint again, or
`Diverged`. A checkpoint is written only while all is finite, and the newest one that further steps have proved good is
never removed. All ranks see the same numbers, so that they decide alike. Knows nothing of Ray.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

from raytensor.errors import DataError
from raytensor.training.checkpoint import load_newest, step_folder, steps_in
from raytensor.training.engine import TrainEngine
from raytensor.training.ranks import Ranks


class Diverged(DataError):
    """Every attempt to go on ended in gradients that are not finite. Raised on all ranks alike."""


class Survival:
    """points: folder of the checkpoints. keep: newest ones to keep.

    max_skipped    steps in a row without a finite gradient after which the engine goes back to its newest checkpoint.
    max_rollbacks  times that it goes back in all.
    warn           called on the first rank with a line for each roll-back.
    """

    def __init__(
        self,
        points: Path,
        ranks: Ranks,
        warn: Callable[[str], None],
        *,
        keep: int,
        max_skipped: int,
        max_rollbacks: int,
    ) -> None:
        self._points, self._ranks, self._warn, self._keep = points, ranks, warn, keep
        self._max_skipped, self._max_rollbacks = max_skipped, max_rollbacks
        self._rollbacks = 0
        self._unproved: int | None = None  # the newest checkpoint, until a later step is finite

    def is_sound(self, engine: TrainEngine, *losses: float | None) -> bool:
        """Whether a checkpoint may be written now: the last step had a finite gradient, and the losses are finite. It
        proves the checkpoint before it good."""
        known = [loss for loss in losses if loss is not None]
        health = engine.health
        sound = not health.skipped_in_row and not health.poisoned and all(map(math.isfinite, known))
        if sound:
            self._unproved = None
        return sound

    def must_go_back(self, engine: TrainEngine, *, last: bool) -> bool:
        """Whether an unsound engine has to go back to its newest checkpoint. `last`: no step is left to recover."""
        return last or engine.health.poisoned or engine.health.skipped_in_row >= self._max_skipped

    def saved(self, step: int) -> None:
        """Note a new checkpoint and remove old ones, but never the newest that later steps have proved good."""
        self._unproved = step
        if self._ranks.first:
            proved = [number for number in sorted(steps_in(self._points)) if number < step]
            for number in proved[: -max(1, self._keep - 1)]:
                shutil.rmtree(step_folder(self._points, number), ignore_errors=True)

    def go_back(self, engine: TrainEngine) -> None:
        """Restore the newest intact checkpoint; the data goes on where it is.

        One that nothing finite followed is set aside as diverged-step-<n> where there is an older one. Raises
        `Diverged` when there is none, or after too many times.
        """
        at, in_row = engine.steps, engine.health.skipped_in_row
        what = f"no finite gradient in {in_row} steps in a row up to step {at}"
        what = what if in_row else f"no finite loss at step {at}"
        if self._unproved is not None and at - in_row > self._unproved:
            self._unproved = None  # a finite step followed it
        steps = self._ranks.broadcast(self._set_aside() if self._ranks.first else None)
        self._unproved = None
        if not steps or self._rollbacks >= self._max_rollbacks:
            kept = f"{step_folder(self._points, steps[0]).name} is kept" if steps else "there is no checkpoint"
            tried = f" after {self._rollbacks} roll-backs" if steps else ""
            fix = "lower training.lr or training.clip, or look at the text; resume=auto goes on from a checkpoint"
            raise Diverged(f"the training diverged: {what}{tried}; {kept}\n  fix: {fix}")
        self._rollbacks += 1
        place, _, _ = load_newest([step_folder(self._points, number) for number in steps], engine.load)
        if self._ranks.first:
            self._warn(f"{what}: back to {place.name}, roll-back {self._rollbacks} of {self._max_rollbacks}")

    def _set_aside(self) -> list[int]:
        """Steps of the checkpoints that are left, newest first."""
        steps = sorted(steps_in(self._points), reverse=True)
        if self._unproved is not None and len(steps) > 1 and steps[0] == self._unproved:
            aside = self._points / f"diverged-step-{steps[0]:07d}"
            shutil.rmtree(aside, ignore_errors=True)
            step_folder(self._points, steps[0]).rename(aside)
            steps = steps[1:]
        return steps
