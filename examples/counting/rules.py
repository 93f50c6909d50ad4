import numpy as np

from raytensor.mechanisms.base import Sealed
from raytensor.mechanisms.constraints import constrain
from raytensor.mechanisms.evidence import State
from raytensor.types import Failure, Reason, Score, Task


class Counting:
    def __init__(self, cfg, log_unigram, vocab_size, *, deadline_s):
        self.cfg, self.vocab_size, self.deadline_s = cfg, vocab_size, deadline_s
        self.rows = int(cfg.options.get("rows", 32))

    def tasks(self, ask, state, text):
        starts = ask.draw("counting", ask.validator).integers(0, len(text.heldout) - 5, self.rows)
        windows = text.heldout[starts[:, None] + np.arange(5)].astype(np.int32)
        made, four = [], np.full(self.rows, 4, np.int32)
        for hotkey in ask.hotkeys:
            task_id = f"{ask.netuid}/{ask.round}/{ask.validator}/{hotkey}"
            task = Task(task_id, ask.round, ask.netuid, ask.validator, hotkey, windows[:, :4], four, 1, self.deadline_s)
            made.append((task, Sealed(task_id, windows[:, 4])))
        return made

    def score(self, items):
        return [self.score_one(*item) for item in items]

    def score_one(self, task, sealed, response):
        if response.ids.shape != (self.rows, 1) or response.ids.dtype != np.int32:
            return Failure(task.task_id, task.hotkey, Reason.MALFORMED, f"ids {response.ids.shape}, not one per row")
        right = float((response.ids[:, 0] == sealed.targets).mean())
        return Score(task.task_id, task.round, task.netuid, task.validator, task.hotkey, {"right": right})

    def reduce(self, state, evidence):
        miners = dict(state.miners)
        for score in evidence.scores:
            old = miners.get(score.hotkey, {"right": score.values["right"]})["right"]
            miners[score.hotkey] = {"right": 0.8 * old + 0.2 * score.values["right"]}
        for failure in evidence.failures:
            miners[failure.hotkey] = {"right": 0.8 * miners.get(failure.hotkey, {"right": 0.0})["right"]}
        return State(evidence.round, miners)

    def weights(self, state):
        return constrain(state.floats("right"), self.cfg)
