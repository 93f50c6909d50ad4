"""Population based training whose draws a sweep that goes on repeats.

In: results, as Tune reports them. Out: who goes on from whom, with which changes (Jaderberg et al. 2017, arXiv 1711.09846,
as Ray Tune has it). Tune draws from the global generators, which others in the process use as well, at times of their own.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from ray.tune.schedulers import PopulationBasedTraining

from raytensor.data import assign


class SeededPBT(PopulationBasedTraining):
    """In step (`synch`): what is drawn after a round depends on the seed and the round alone."""

    def __init__(self, seed: int, **settings: Any) -> None:
        super().__init__(synch=True, **settings)
        self._seed = seed

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        before, numpy_before = random.getstate(), np.random.get_state()
        draw = assign.seed_of(self._seed, "population based training", result["round"])
        random.seed(draw)
        np.random.seed(draw % 2**32)
        try:
            return super().on_trial_result(tune_controller, trial, result)
        finally:
            random.setstate(before)
            np.random.set_state(numpy_before)
