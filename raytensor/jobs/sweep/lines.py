"""A line on the terminal for each result of a trial, in place of Ray Tune's own progress.

In: results, as Tune reports them. Out: lines, through `say`.
"""

from collections.abc import Callable
from typing import Any

from ray import tune

from raytensor.jobs.sweep.space import overrides
from raytensor.jobs.sweep.trainable import trial_number

METRIC = "heldout_loss"


class Silent(tune.ProgressReporter):
    """Tune's own progress is replaced by a line per result."""

    def should_report(self, trials: Any, done: bool = False) -> bool:
        return False

    def report(self, trials: Any, done: bool, *sys_info: Any) -> None:
        pass


class ResultLines(tune.Callback):
    """A line for each result of a trial, through `say`."""

    def __init__(self, rounds: int, say: Callable[[str], None]) -> None:
        self._rounds = rounds
        self._say = say
        self._best: tuple[float, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune saves its callbacks; `say` belongs to this process, and nothing restores them."""
        return self.__dict__ | {"_say": None}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        number, loss = trial_number(trial.trial_id), result[METRIC]
        if result["setback"]:
            self._say(f"warning: trial {number}: {result['setback']}")
        if self._best is None or loss < self._best[0]:
            self._best = (loss, f"trial {number}")
        self._say(
            f"trial {number:>3}  round {result['round']}/{self._rounds}  held-out {loss:.4f}  "
            f"best {self._best[0]:.4f} ({self._best[1]})  {' '.join(overrides(trial.config))}"
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say(f"trial {trial_number(trial.trial_id)} failed and is not retried; its error is in tune/")
