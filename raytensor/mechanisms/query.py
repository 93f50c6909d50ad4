"""The query mechanism: miners predict the next tokens, phrases or completion of a text, as in classic Bittensor.

In: held-out text, responses, evidence. Out: questions, scores, state, weights. Pure numpy.
`questions` makes the questions, `losses` scores single answers, `coalition` values answers together.

With `control_variate` the loss of the train part's frequency table on the same targets is subtracted and the table's
expected loss added: the expectation is unchanged, the variance about halved. The table itself as an answer thus always
scores exactly its entropy; with `baseline` it is paid nothing.

Evidence of one answer: "loss" (own rows, nats per token), and on shared rows "shared" (loss of each) and "cells" (its
distributions over parts of the vocabulary).
State of a miner: "loss" and "shared_loss" (moving averages), "presence" (moving share of answered questions), "value"
(what is paid, before constraints), and with a gate its weights "gate".

    base  = N(loss)^p, with `baseline` max(0, N(loss)^p - N(table)^p)
    value = (base + min(synergy * bears, synergy_limit * base)) / (1 + penalty * excess)

where bears = min(1, N(loss)^p / N(shared_loss)^p): answers on shared rows count no more than the miner's
own rows support, so repeating another's answers is worth nothing.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from raytensor import config
from raytensor.data.text import Text
from raytensor.mechanisms import coalition, learned_router, questions
from raytensor.mechanisms.base import Ask, Item, Mechanism, Sealed, malformed, scored
from raytensor.mechanisms.coalition import effective_parameters
from raytensor.mechanisms.constraints import constrain
from raytensor.mechanisms.evidence import Evidence, State, number, numbers
from raytensor.mechanisms.losses import KINDS, distributions, fault
from raytensor.types import Failure, Response, Score, Submission, Task, Value


class QueryMechanism(Mechanism):
    """Questions about text. Constructed as `base.Mechanism` says; its settings are `cfg.query`."""

    def __init__(
        self, cfg: config.Mechanism, log_unigram: np.ndarray, vocab_size: int, *, deadline_s: float = 60.0
    ) -> None:
        assert log_unigram.shape == (vocab_size,)
        self.cfg = cfg
        self.rule = cfg.query
        self.vocab_size = vocab_size
        self._deadline_s = deadline_s
        self._table_losses = -log_unigram.astype(np.float64)
        # Entropy of the table: its expected loss on text like the train part, the least without context.
        self.table_loss = float(np.sum(np.exp(-self._table_losses) * self._table_losses))

    def tasks(self, ask: Ask, state: State, text: Text) -> list[tuple[Task, Sealed]]:
        rule, made = self.rule, []
        top_k = min(rule.top_k, self.vocab_size) if rule.kind == "token" else rule.top_k
        asked = (top_k, self._deadline_s, rule.kind, rule.horizon)
        for group in questions.groups(ask, rule, state, text.heldout):
            for hotkey in group.hotkeys:
                contexts, lengths, targets = questions.question(ask, rule, text.heldout, group.number, hotkey)
                task = ask.task(hotkey, contexts, lengths, *asked)
                made.append((task, Sealed(task.task_id, targets, group.name, text.bytes_per_token, group.features)))
        return made

    def score(self, items: Sequence[Item]) -> list[Score | Failure]:
        return [self._score(*item) for item in items]

    def _score(self, task: Task, sealed: Sealed, response: Response | Submission) -> Score | Failure:
        assert sealed.task_id == task.task_id
        rule, targets = self.rule, sealed.targets
        wrong = fault(task, response, self.vocab_size)
        if wrong or isinstance(response, Submission):
            return malformed(task, wrong or "")
        wanted = targets if rule.kind == "token" or targets.ndim == 2 else targets[:, None]
        losses = KINDS[rule.kind](response.ids, response.probs, wanted, self.vocab_size)
        own = losses[rule.shared_rows :]
        if rule.control_variate:
            first = targets if targets.ndim == 1 else targets[:, 0]
            own = own - self._table_losses[first[rule.shared_rows :]]
        values: dict[str, Value] = {"loss": float(own.mean() + (self.table_loss if rule.baseline else 0.0))}
        if rule.unit == "byte":
            values["bytes_per_token"] = sealed.bytes_per_token
        if rule.shared_rows:
            values["shared"] = tuple(losses[: rule.shared_rows].tolist())
            if rule.divergence_penalty:
                values["cells"] = tuple(self._cells(response, sealed.group).ravel().tolist())
        if sealed.features:
            values["features"] = sealed.features
        return scored(task, values, sealed.group)

    def _cells(self, response: Response, group: str) -> np.ndarray:
        """float64 [shared_rows, cells]: an answer's distributions, summed over random parts of the vocabulary.

        The parts are drawn for each group. Merging tokens can only make distances smaller.
        """
        rule = self.rule
        spread = distributions(response.ids[: rule.shared_rows], response.probs[: rule.shared_rows], self.vocab_size)
        if not rule.divergence_cells:
            return spread
        seed = int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "little")
        part = np.random.Generator(np.random.Philox(seed)).permutation(self.vocab_size) % rule.divergence_cells
        return np.stack([np.bincount(part, weights=row, minlength=rule.divergence_cells) for row in spread])

    def reduce(self, state: State, evidence: Evidence) -> State:
        """Moving averages first, then the joint value of each group's answers, then values.

        loss <- (1 - ema) loss + ema newest, the first loss starts it; presence <- (1 - miss) presence + miss
        [answered], the first answer starts it at 1. With `value_ema`, value <- (1 - value_ema) value + value_ema
        (newest, or 0 when silent), from 0: opentensor/bittensor v4.0.1, `neuron_stats_update`, the keys that end in
        "!".
        """
        rule = self.rule
        miners = dict(state.miners)
        for result in evidence.results:
            if isinstance(result, Score):
                miners[result.hotkey] = self._averaged(miners.get(result.hotkey, {}), result)
            elif old := miners.get(result.hotkey):
                late = {"presence": number(old, "presence") * (1.0 - rule.miss)}
                if rule.value_ema:
                    late["value"] = (1.0 - rule.value_ema) * number(old, "value")
                miners[result.hotkey] = {**old, **late}
        common = dict(state.common)
        scores = evidence.scores
        if rule.unit == "byte" and scores:
            common["bytes_per_token"] = scores[-1].values["bytes_per_token"]
        unit = number(common, "bytes_per_token", 1.0)
        groups: dict[str, list[Score]] = {}
        for score in scores:
            groups.setdefault(score.group, []).append(score)
        for name, members in groups.items():
            for score, value in zip(members, self._values(miners, members, unit, compared=bool(name)), strict=True):
                old = miners[score.hotkey]
                if rule.value_ema is not None:
                    value = (1.0 - rule.value_ema) * number(old, "value", 0.0) + rule.value_ema * value
                miners[score.hotkey] = {**old, "value": value}
        return replace(state, miners=miners, common=common)

    def _averaged(self, old: Mapping[str, Value], score: Score) -> dict[str, Value]:
        rule, newest = self.rule, number(score.values, "loss")
        new: dict[str, Value] = {**old, "loss": (1.0 - rule.ema) * number(old, "loss", newest) + rule.ema * newest}
        new["presence"] = (1.0 - rule.miss) * number(old, "presence", 1.0) + rule.miss
        if rule.shared_rows:
            shared = math.fsum(numbers(score.values, "shared")) / rule.shared_rows
            new["shared_loss"] = (1.0 - rule.ema) * number(old, "shared_loss", shared) + rule.ema * shared
        if "features" in score.values:
            x = numbers(score.values, "features")
            known = numbers(old, "gate", (0.0,) * len(x))
            new["gate"] = learned_router.learn(known, x, newest, rule.entropy_floor, rule.gate_lr)
        return new

    def _values(
        self, miners: Mapping[str, Mapping[str, Value]], members: list[Score], unit: float, *, compared: bool
    ) -> list[float]:
        """The value of each answer of a group; `compared` when they have shared rows."""
        rule = self.rule
        losses = [number(miners[score.hotkey], "loss") for score in members]
        bases = [self.value_of(loss, unit) for loss in losses]
        if not compared:
            return bases
        shared = np.array([score.values["shared"] for score in members])
        representative = coalition.representatives(shared, np.array(losses), rule.duplicate_nats)
        distinct = np.flatnonzero(representative == np.arange(len(members)))
        together, excess = np.zeros(len(members)), np.zeros(len(members))
        if rule.synergy_power:
            together[distinct] = coalition.synergy(shared[distinct], rule.entropy_floor, rule.synergy_power, unit)
        if rule.divergence_penalty:
            cells = np.array([score.values["cells"] for score in members]).reshape(*shared.shape, -1)
            excess = coalition.excess_divergence(cells[distinct])[np.searchsorted(distinct, representative)]
        values = []
        for i, score in enumerate(members):
            own, shown = (self._effective(number(miners[score.hotkey], key), unit) for key in ("loss", "shared_loss"))
            extra = float(together[i]) * min(1.0, own / shown)
            if rule.synergy_limit is not None:
                extra = min(extra, rule.synergy_limit * bases[i])
            values.append((bases[i] + extra) / (1.0 + rule.divergence_penalty * float(excess[i])))
        return values

    def value_of(self, loss: float, bytes_per_token: float = 1.0) -> float:
        """The value of a loss (nats per token): effective parameters^p, with `baseline` less the table's."""
        value = self._effective(loss, bytes_per_token)
        return max(0.0, value - self._effective(self.table_loss, bytes_per_token)) if self.rule.baseline else value

    def _effective(self, loss: float, bytes_per_token: float) -> float:
        unit = bytes_per_token if self.rule.unit == "byte" else 1.0
        return effective_parameters(loss / unit, self.rule.entropy_floor, self.rule.power)

    def weights(self, state: State) -> dict[str, float]:
        """Values as shares; without `value_ema` times the presence. Then the constraints that all mechanisms share."""
        rated, averaged = {key: miner for key, miner in state.miners.items() if "value" in miner}, self.rule.value_ema
        presence = {key: 1.0 if averaged else number(miner, "presence") for key, miner in rated.items()}
        return constrain({key: number(rated[key], "value") * presence[key] for key in rated}, self.cfg)
