"""Population based training with draws that a resumed sweep repeats.

In: results, as Tune reports them. Out: which trial continues from which, with which changed settings (Jaderberg et al.
2017, arXiv 1711.09846, Ray Tune's implementation). Tune draws from the global generators of random and numpy, which
other code in the process uses as well.
"""

import random
from typing import Any

import numpy as np
from ray.tune.schedulers import PopulationBasedTraining

from raytensor.data import assign


class SeededPBT(PopulationBasedTraining):
    """Synchronous, so that draws depend on the seed and the round only, not on which trial is faster."""

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
