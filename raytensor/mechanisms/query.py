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
from collections.abc import Mapping, Sequence

import numpy as np

from raytensor import config
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.mechanisms.base import Sealed
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
    """Next-token questions.

    cfg          the `mechanism` section.
    log_unigram  float32 [vocab_size]: log frequencies of the train part's tokens (`Text.log_unigram`).
    seed         of the run: decides windows and cuts.
    deadline_s   that a miner has for one question.
    """

    def __init__(
        self, cfg: config.Mechanism, log_unigram: np.ndarray, vocab_size: int, *, seed: int = 0, deadline_s: float = 60.0
    ) -> None:
        assert log_unigram.shape == (vocab_size,)
        self.cfg = cfg
        self.vocab_size = vocab_size
        self._seed = seed
        self._deadline_s = deadline_s
        self._table_losses = -log_unigram.astype(np.float64)
        # Entropy of the table: its expected loss on text like the train part. Nothing context-free does better.
        self.table_loss = float(np.sum(np.exp(-self._table_losses) * self._table_losses))

    def tasks(
        self, round: int, netuid: int, validator: str, hotkeys: Sequence[str], text: Text
    ) -> list[tuple[Task, Sealed]]:
        cfg, tokens = self.cfg, text.heldout
        starts = assign.question_starts(self._seed, round, validator, cfg.rows, cfg.context + 1, len(tokens))
        made = []
        for hotkey in hotkeys:
            cuts = assign.question_cuts(self._seed, round, validator, hotkey, cfg.rows, cfg.shortest, cfg.context)
            contexts, targets = assign.cut_windows(tokens, starts, cuts, cfg.context)
            task_id = f"{netuid}/{round}/{validator}/{hotkey}"
            task = Task(
                task_id=task_id,
                round=round,
                netuid=netuid,
                validator=validator,
                hotkey=hotkey,
                tokens=contexts,
                lengths=cuts,
                top_k=min(cfg.top_k, self.vocab_size),
                deadline_s=self._deadline_s,
            )
            made.append((task, Sealed(task_id, targets)))
        return made

    def score(self, task: Task, sealed: Sealed, response: Response) -> Score | Failure:
        assert sealed.task_id == task.task_id
        wrong = fault(task, response, self.vocab_size)
        if wrong:
            return Failure(task.task_id, task.hotkey, Reason.MALFORMED, wrong)
        losses = token_losses(response.ids, response.probs, sealed.targets, self.vocab_size)
        corrected = losses - self._table_losses[sealed.targets]
        return Score(
            task_id=task.task_id,
            round=task.round,
            netuid=task.netuid,
            validator=task.validator,
            hotkey=task.hotkey,
            loss=float(corrected.mean() + self.table_loss),
            num_tokens=len(losses),
        )

    def weights(self, losses: Mapping[str, float], presence: Mapping[str, float]) -> dict[str, float]:
        """value = max(0, N(L)^p - N(L_table)^p) * presence: what a frequency table can do earns nothing."""
        table = effective_parameters(self.table_loss, self.cfg.entropy_floor, self.cfg.power)
        values = {
            hotkey: max(0.0, effective_parameters(loss, self.cfg.entropy_floor, self.cfg.power) - table) * presence.get(hotkey, 0.0)
            for hotkey, loss in losses.items()
        }
        total = math.fsum(values.values())
        return {hotkey: value / total for hotkey, value in values.items()} if total > 0 else {}
