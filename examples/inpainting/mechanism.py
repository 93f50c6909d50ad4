"""Pictures with a square hole: arrays go out, arrays come back, each within its declared shape and type."""

import numpy as np

from raytensor.mechanisms.base import Mechanism, malformed, scored
from raytensor.mechanisms.constraints import constrain
from raytensor.mechanisms.evidence import State
from raytensor.payload import Array, Fields, Number, Schema, Text
from raytensor.types import Score

SIZE, HOLE = 48, 12
PICTURES = Array("float32", ((1, 64), SIZE, SIZE))


class Inpainting(Mechanism):
    schemas = {
        "inpaint": Schema(
            question=Fields(
                pictures=PICTURES, hole=Array("bool", ((1, 64), SIZE, SIZE)), seed=Number(0, 2**32, whole=True)
            ),
            answer=Fields(pictures=PICTURES, method=Text(100, optional=True)),
        )
    }

    def __init__(self, cfg, log_unigram, vocab_size, *, deadline_s=60.0):
        self.cfg, self.deadline_s = cfg, deadline_s
        self.rows = int(cfg.options.get("rows", 8))

    def tasks(self, ask, state, text):
        made = []
        for hotkey in ask.hotkeys:
            draw = ask.draw("inpaint", ask.validator, hotkey)
            whole, hole = _pictures(draw, self.rows), np.zeros((self.rows, SIZE, SIZE), bool)
            for row, (top, left) in enumerate(draw.integers(1, SIZE - HOLE - 1, (self.rows, 2))):
                hole[row, top : top + HOLE, left : left + HOLE] = True
            payload = {
                "pictures": np.where(hole, np.float32(0), whole),
                "hole": hole,
                "seed": int(draw.integers(2**32)),
            }
            made.append((ask.question(hotkey, "inpaint", payload, self.deadline_s), whole))
        return made

    def score(self, items):
        return [self._score(*item) for item in items]

    def _score(self, task, whole, answer):
        pictures, hole = answer.payload["pictures"], task.payload["hole"]
        if pictures.shape != whole.shape:
            return malformed(task, f"pictures {pictures.shape}, asked were {whole.shape}")
        if not np.array_equal(pictures[~hole], whole[~hole]):
            return malformed(task, "pictures differ outside of the hole")
        error = float(np.square(pictures[hole].astype(np.float64) - whole[hole]).mean())
        spread = float(whole.astype(np.float64).var())
        return scored(task, {"explained": max(0.0, 1.0 - error / spread)})

    def reduce(self, state, evidence):
        miners = dict(state.miners)
        for result in evidence.results:
            explained = result.values["explained"] if isinstance(result, Score) else 0.0
            old = miners.get(result.hotkey, {"explained": explained})["explained"]
            miners[result.hotkey] = {"explained": 0.7 * old + 0.3 * explained}
        return State(evidence.round, miners)

    def weights(self, state):
        return constrain({hotkey: value**4 for hotkey, value in state.floats("explained").items()}, self.cfg)


def _pictures(draw, rows):
    """Sums of smooth waves, float32 [rows, SIZE, SIZE]."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    waves = draw.normal(size=(rows, 4, 4))
    angle = waves[:, :, 0, None, None] * x * 4 + waves[:, :, 1, None, None] * y * 4 + waves[:, :, 2, None, None]
    return (waves[:, :, 3, None, None] * np.sin(angle)).sum(1).astype(np.float32)
