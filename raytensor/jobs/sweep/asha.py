"""ASHA whose decisions are on file: a sweep that goes on stands by them, and judges new results beside the old ones.

In: results, as Tune reports them. Out: go on or stop (Li et al. 2018, arXiv 1810.05934, as Ray Tune has it). Tune's own
forgets its rungs when a sweep is restored; the order of results decides who is stopped, so it would decide anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler

from raytensor.jobs.sweep.space import overrides


class RecordedASHA(ASHAScheduler):
    """file: a line per decision, in order; what is in it already is the sweep's earlier life. `METRIC` is made smaller."""

    def __init__(self, file: Path, *, metric: str, **settings: Any) -> None:
        super().__init__(metric=metric, mode="min", time_attr="round", **settings)
        self._file = file
        self._known: dict[str, str] = {}
        for line in file.read_text().splitlines() if file.exists() else []:
            try:
                entry = json.loads(line)
            except ValueError:  # the line that was being written when the process was killed
                continue
            stand_in = SimpleNamespace(trial_id=f"earlier {entry['trial']}")
            if stand_in.trial_id not in self._trial_info:
                super().on_trial_add(None, stand_in)
            super().on_trial_result(None, stand_in, entry["result"])
            self._known[self._key(entry["trial"], entry["result"]["round"])] = entry["action"]
        if file.exists() and not file.read_text().endswith("\n"):
            with file.open("a") as torn:
                torn.write("\n")

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        name = " ".join(overrides(trial.config))
        key = self._key(name, result["round"])
        if key in self._known:
            return self._known[key]
        action = super().on_trial_result(tune_controller, trial, result)
        self._known[key] = action
        entry = {
            "trial": name,
            "result": {"round": result["round"], self._metric: result[self._metric]},
            "action": action,
        }
        with self._file.open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return action

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        # Its last result was judged already; judged again it might count twice.
        self._trial_info.pop(trial.trial_id, None)

    @staticmethod
    def _key(name: str, round: int) -> str:
        return f"{name} @ {round}"
