"""The query mechanism: predict the token that was withheld (classic Bittensor's TextCausalLMNext, one token).

In: held-out text, responses, moving averages. Out: questions, scores, weights. Pure numpy.

Questions are private: all miners of one (round, validator) get the same windows of held-out text, each cut at places of
its own, so that one miner's answer does not fit another's question. The next token never leaves the validator.

A score is the answer's mean loss, corrected for the luck of the draw: the loss of the train part's frequency table on
the same targets is subtracted and the table's expected loss added (a control variate: the expectation stays, about half
of the variance goes). The table itself as an answer thus scores its own entropy exactly, every time.

Weights are proportional to effective parameters above the table's: see `effective_parameters`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from raytensor import config
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.mechanisms.base import Ask, Item, Sealed
from raytensor.mechanisms.constraints import constrain
from raytensor.mechanisms.evidence import Evidence, State
from raytensor.mechanisms.losses import fault, token_losses
from raytensor.types import Failure, Reason, Response, Score, Task

# Kaplan et al. 2020 (arXiv 2001.08361, eq. 1.1): L(N) = (N_c / N)^alpha_N with these two.
N_C = 8.8e13
ALPHA_N = 0.076


def effective_parameters(loss: float, entropy_floor: float, power: float) -> float:
    """N(L)^power with N(L) = exp(ln 8.8e13 - ln(max(L, entropy_floor)) / 0.076), as the classic validator values a loss.

    The scaling law of Kaplan et al. solved for N: the parameters of a large model that would reach `loss`. Source:
    opentensor/bittensor v4.0.1, core_validator, `shapley_base` (floor 1.69 nats per token, power 0.5).
    """
    return math.exp(power * (math.log(N_C) - math.log(max(loss, entropy_floor)) / ALPHA_N))


class QueryMechanism:
    """Next-token questions. Made as `base.Mechanism` says."""

    def __init__(self, cfg: config.Mechanism, log_unigram: np.ndarray, vocab_size: int, *, deadline_s: float = 60.0) -> None:
        assert log_unigram.shape == (vocab_size,)
        self.cfg = cfg
        self.rule = cfg.query
        self.vocab_size = vocab_size
        self._deadline_s = deadline_s
        self._table_losses = -log_unigram.astype(np.float64)
        # Entropy of the table: its expected loss on text like the train part. Nothing context-free does better.
        self.table_loss = float(np.sum(np.exp(-self._table_losses) * self._table_losses))

    def tasks(self, ask: Ask, state: State, text: Text) -> list[tuple[Task, Sealed]]:
        rule, tokens = self.rule, text.heldout
        windows = ask.draw("query", "windows", ask.validator)
        starts = windows.integers(0, len(tokens) - rule.context, rule.rows)
        made = []
        for hotkey in ask.hotkeys:
            # Every miner has cuts of its own: what one answers about a window does not fit the question of another.
            cuts = ask.draw("query", "cuts", ask.validator, hotkey).integers(rule.shortest, rule.context + 1, rule.rows, dtype=np.int32)
            contexts, targets = assign.cut_windows(tokens, starts, cuts, rule.context)
            task_id = f"{ask.netuid}/{ask.round}/{ask.validator}/{hotkey}"
            task = Task(
                task_id=task_id,
                round=ask.round,
                netuid=ask.netuid,
                validator=ask.validator,
                hotkey=hotkey,
                tokens=contexts,
                lengths=cuts,
                top_k=min(rule.top_k, self.vocab_size),
                deadline_s=self._deadline_s,
            )
            made.append((task, Sealed(task_id, targets)))
        return made

    def score(self, items: Sequence[Item]) -> list[Score | Failure]:
        return [self._score(*item) for item in items]

    def _score(self, task: Task, sealed: Sealed, response: Response) -> Score | Failure:
        assert sealed.task_id == task.task_id
        wrong = fault(task, response, self.vocab_size)
        if wrong:
            return Failure(task.task_id, task.hotkey, Reason.MALFORMED, wrong)
        losses = token_losses(response.ids, response.probs, sealed.targets, self.vocab_size)
        corrected = losses - self._table_losses[sealed.targets]
        values = {"loss": float(corrected.mean() + self.table_loss)}
        return Score(task.task_id, task.round, task.netuid, task.validator, task.hotkey, values)

    def reduce(self, state: State, evidence: Evidence) -> State:
        """Moving averages: loss <- (1 - ema) loss + ema newest, the first loss starts it; presence <- (1 - miss) presence
        + miss [answered], the first answer starts it at 1 (classic Bittensor lets a silent miner's value fall the same
        way: opentensor/bittensor v4.0.1, `neuron_stats_update`, the keys that end in "!")."""
        rule = self.rule
        miners = dict(state.miners)
        for result in evidence.results:
            old = miners.get(result.hotkey)
            if isinstance(result, Score):
                newest = result.values["loss"]
                old = old or {"loss": newest, "presence": 1.0}
                presence = (1.0 - rule.miss) * old["presence"] + rule.miss
                miners[result.hotkey] = {"loss": (1.0 - rule.ema) * old["loss"] + rule.ema * newest, "presence": presence}
            elif old:
                miners[result.hotkey] = {**old, "presence": old["presence"] * (1.0 - rule.miss)}
        return replace(state, miners=miners)

    def weights(self, state: State) -> dict[str, float]:
        """value = max(0, N(L)^p - N(L_table)^p) * presence: what a frequency table can do earns nothing."""
        rule = self.rule
        table = effective_parameters(self.table_loss, rule.entropy_floor, rule.power)
        values = {
            hotkey: max(0.0, effective_parameters(miner["loss"], rule.entropy_floor, rule.power) - table) * miner["presence"]
            for hotkey, miner in state.miners.items()
        }
        return constrain(values, self.cfg)
