"""What a training does about gradients that are not finite: steps left out, roll-backs, an end with a clear message.

In: an engine that counts the steps it left out, measured losses. Out: the engine at its newest checkpoint again, or
`Diverged`. A checkpoint is written only while all is finite, and the newest one that further steps have proved good is
never removed. All ranks see the same numbers, so that they decide alike. Knows nothing of Ray.
"""

import math
from collections.abc import Callable

from raytensor.errors import DataError
from raytensor.storage import join, open_folder
from raytensor.training.checkpoint import load_newest, step_name, steps_in
from raytensor.training.engine import TrainEngine
from raytensor.training.ranks import Ranks


class Diverged(DataError):
    """Every attempt to go on ended in gradients that are not finite. Raised on all ranks alike."""


class Survival:
    """points: place of the checkpoints, a path or an object-store URL. keep: newest ones to keep.

    max_skipped    steps in a row without a finite gradient after which the engine goes back to its newest checkpoint.
    max_rollbacks  times that it goes back in all.
    warn           called on the first rank with a line for each roll-back.
    """

    def __init__(
        self, points: str, ranks: Ranks, warn: Callable[[str], None], *, keep: int, max_skipped: int, max_rollbacks: int
    ) -> None:
        self._points, self._folder, self._ranks, self._warn, self._keep = points, open_folder(points), ranks, warn, keep
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

    def taken(self, step: int) -> None:
        """Note a new checkpoint, of which a snapshot has been taken."""
        self._unproved = step

    def prune(self, step: int) -> None:
        """Remove old checkpoints when that of `step` is complete, but never the newest that later steps have proved
        good. Called in the thread that wrote it."""
        if self._ranks.first:
            proved = [number for number in steps_in(self._folder) if number < step]
            for number in proved[: -max(1, self._keep - 1)]:
                self._folder.remove(step_name(number))

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
            kept = f"{step_name(steps[0])} is kept" if steps else "there is no checkpoint"
            tried = f" after {self._rollbacks} roll-backs" if steps else ""
            fix = "lower training.lr or training.clip, or look at the text; resume=auto goes on from a checkpoint"
            raise Diverged(f"the training diverged: {what}{tried}; {kept}\n  fix: {fix}")
        self._rollbacks += 1
        place, _, _ = load_newest([join(self._points, step_name(number)) for number in steps], engine.load)
        if self._ranks.first:
            back = place.rpartition("/")[2]
            self._warn(f"{what}: back to {back}, roll-back {self._rollbacks} of {self._max_rollbacks}")

    def _set_aside(self) -> list[int]:
        """Steps of the checkpoints that are left, newest first."""
        steps = steps_in(self._folder)[::-1]
        if self._unproved is not None and len(steps) > 1 and steps[0] == self._unproved:
            self._folder.rename(step_name(steps[0]), f"diverged-{step_name(steps[0])}")
            steps = steps[1:]
        return steps
