"""ASHA with recorded decisions: a resumed sweep repeats them, and compares new results with the old ones.

In: results, as Tune reports them. Out: continue or stop (Li et al. 2018, arXiv 1810.05934, Ray Tune's implementation).
ASHA's decisions depend on the order of results. Tune's own scheduler loses its rungs when a sweep is restored, and
would decide differently.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler

from raytensor import disk
from raytensor.jobs.sweep.space import overrides


class RecordedASHA(ASHAScheduler):
    """Minimises `metric`.

    file  a line per decision, in order; decisions of earlier processes of the sweep are read from it.
    """

    def __init__(self, file: Path, *, metric: str, **settings: Any) -> None:
        super().__init__(metric=metric, mode="min", time_attr="round", **settings)
        self._file = file
        self._known: dict[str, str] = {}
        nobody: Any = None  # ASHA does not use the controller
        for _, line in disk.whole_lines(file) if file.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:  # torn by a kill, and ended by a later write of an earlier version
                continue
            stand_in: Any = SimpleNamespace(trial_id=f"earlier {entry['trial']}")
            if stand_in.trial_id not in self._trial_info:
                super().on_trial_add(nobody, stand_in)
            super().on_trial_result(nobody, stand_in, entry["result"])
            self._known[self._key(entry["trial"], entry["result"]["round"])] = entry["action"]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        name = " ".join(overrides(trial.config))
        key = self._key(name, result["round"])
        if key in self._known:
            return self._known[key]
        action = super().on_trial_result(tune_controller, trial, result)
        self._known[key] = action
        kept = {key: result[key] for key in ("round", str(self._metric))}
        disk.append_line(self._file, json.dumps({"trial": name, "result": kept, "action": action}))
        return action

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        # Tune would judge the last result a second time, and count it twice.
        self._trial_info.pop(trial.trial_id, None)

    @staticmethod
    def _key(name: str, round: int) -> str:
        return f"{name} @ {round}"
