"""Collaborative training behind the interface of mechanisms.

A round is a window. A task holds the text that its miner is to train on (kind "update": tokens [H * B, T + 1], horizon
H); the answer is a `Submission` with a compressed update of the shared model as it was before the window. The score of
an update is by how much a part of it, applied to that model, lowers the loss on the miner's own text and on random
text, and a sketch by which copies are found. After the round, `after_round` makes the shared model of the next window
from the updates that the evidence favours.

A score is a pure function of (shared model, update, texts): scorers hold no other state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from raytensor import config
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.errors import ConfigError, DataError
from raytensor.mechanisms.base import Ask, Item, Mechanism
from raytensor.mechanisms.collab import rating
from raytensor.mechanisms.collab.aggregate import Outer, robust_mean
from raytensor.mechanisms.collab.codec import Codec, Sparse
from raytensor.mechanisms.collab.likeness import copies, sketch
from raytensor.mechanisms.collab.store import Store
from raytensor.mechanisms.constraints import constrain
from raytensor.mechanisms.evidence import Evidence, State, number, numbers
from raytensor.types import Failure, Reason, Score, Submission, Task

KIND = "update"
# In a round in which most updates make random text worse, an update this many deviations (MAD) below the median is left
# out of the shared model.
SLACK = 4.0
MAD = 1.4826  # of a normal distribution: deviation / median absolute deviation


@dataclass(frozen=True, slots=True)
class Window:
    """What a validator keeps back of a task.

    own           int32 [n, T + 1]: some of the miner's text. random: as many rows that no miner was given.
    secret        seeds the sketch.
    committed_at  block at which the miner committed to its update; 0 where commitments are not used.
    """

    task_id: str
    folder: str
    window: int
    own: np.ndarray
    random: np.ndarray
    secret: str
    committed_at: int = 0


class CollabMechanism(Mechanism):
    """See `Mechanism`; `cfg.collab` are the settings. The shared model lies in `cfg.collab.folder` (see `store`)."""

    miner = "raytensor.miners.collaborator.CollaboratingMiner"
    behaviours = ("wrong_data", "sign_flip", "stale", "huge", "nan")

    def __init__(
        self, cfg: config.Mechanism, log_unigram: np.ndarray, vocab_size: int, *, deadline_s: float = 60.0
    ) -> None:
        self.cfg = cfg
        self.rule = cfg.collab
        self.codec = Codec(self.rule.k)
        self._vocab_size = vocab_size
        self._deadline_s = deadline_s
        self._judge: Any = None  # made when the first update is judged: it needs torch

    @classmethod
    def shared_state(cls, cfg: config.Mechanism, folder: str | None) -> config.Mechanism:
        """`cfg` with the folder of the shared model: the one that is set, else the job's."""
        if cfg.collab.folder is not None:
            return cfg
        if folder is None:
            raise ConfigError(
                "mechanism.collab.folder=null: miners train one shared model, so it needs a folder that they see\n"
                "  fix: set mechanism.collab.folder to the folder of the subnet's shared model"
            )
        return replace(cfg, collab=replace(cfg.collab, folder=folder))

    def start(self, seed: int, first_round: int) -> None:
        """Create the first model where there is none; see `Mechanism.start`."""
        from raytensor.mechanisms.collab.judge import first_model  # needs torch

        folder = self._folder()
        store = Store.create(folder, *first_model(self.rule, self._vocab_size, seed), first=first_round)
        if store.newest() < first_round:
            raise DataError(
                f"the shared model in {folder} is as of round {store.newest()}, and round {first_round} comes next\n"
                "  fix: the folder that belongs to this validator's evidence, or another name for the job"
            )
        store.before(first_round)

    def _folder(self) -> Path:
        assert self.rule.folder is not None, "`shared_state` sets the folder before the mechanism is constructed"
        return Path(self.rule.folder)

    # ------------------------------------------------------------------------------------------------------- asking

    def tasks(self, ask: Ask, state: State, text: Text) -> list[tuple[Task, Window]]:
        rule, width = self.rule, self.rule.seq_len + 1
        folder = str(self._folder())
        rows = rule.inner_steps * rule.batch_size
        # Every validator gives a miner the same work, and judges all miners of a window on the same random text.
        drawn = ask.draw("collab", "random", ask.validator).integers(0, len(text.train) - width, rule.judge_rows)
        random = _windows(text.train, drawn, width)
        made = []
        for hotkey in ask.hotkeys:
            given = _windows(
                text.train, ask.draw("collab", "given", hotkey).integers(0, len(text.train) - width, rows), width
            )
            chosen = ask.draw("collab", "judged", ask.validator, hotkey).permutation(rows)[: rule.judge_rows]
            task_id = f"{ask.netuid}/{ask.round}/{ask.validator}/{hotkey}"
            task = Task(
                task_id,
                ask.round,
                ask.netuid,
                ask.validator,
                hotkey,
                given,
                np.full(rows, width, np.int32),
                top_k=1,
                deadline_s=self._deadline_s,
                kind=KIND,
                horizon=rule.inner_steps,
            )
            committed = ask.commits[hotkey].block if hotkey in ask.commits else 0
            secret = f"{ask.seed}/{ask.netuid}/{ask.round}/{ask.validator}"
            made.append((task, Window(task_id, folder, ask.round, given[chosen], random, secret, committed)))
        return made

    # ------------------------------------------------------------------------------------------------------ judging

    def score(self, items: Sequence[Item]) -> list[Score | Failure]:
        return [self._score(*item) for item in items]

    def _score(self, task: Task, sealed: Window, answer: Any) -> Score | Failure:
        judge = self._judge_of(sealed)
        if not isinstance(answer, Submission):
            return Failure(task.task_id, task.hotkey, Reason.MALFORMED, "an update is a submission")
        try:
            update = self.codec.decode(answer.payload, judge.size)
        except ValueError as error:
            return Failure(task.task_id, task.hotkey, Reason.MALFORMED, str(error))
        own, random = judge.measure(sealed, update, self.rule.judge_share)
        values = {
            "own_before": own[0],
            "own_after": own[1],
            "random_before": random[0],
            "random_after": random[1],
            "norm": float(np.linalg.norm(update.values.astype(np.float64))),
            "bytes": float(len(answer.payload)),
            "digest": answer.digest,
            "committed_at": float(sealed.committed_at),
            "sketch": sketch(update, assign.generator(sealed.secret, "sketch")),
        }
        return Score(task.task_id, task.round, task.netuid, task.validator, task.hotkey, values)

    def _judge_of(self, sealed: Window) -> Any:
        from raytensor.mechanisms.collab.judge import Judge  # needs torch

        if self._judge is None or self._judge.folder != sealed.folder:
            self._judge = Judge(sealed.folder)
        return self._judge

    # ------------------------------------------------------------------------------------------------------- rating

    def reduce(self, state: State, evidence: Evidence) -> State:
        found = {score.hotkey: score for score in evidence.scores}
        gains = {hotkey: (_gain(score, "random"), _gain(score, "own")) for hotkey, score in found.items()}
        offences = self._offences(state, evidence, found, gains)
        clean = {hotkey: gain for hotkey, (gain, _) in gains.items() if hotkey not in offences}
        old = {hotkey: {**rating.START, **_numbers(state.miners.get(hotkey, {}))} for hotkey in {*found, *offences}}
        rated = rating.rate({hotkey: (old[hotkey]["mu"], old[hotkey]["sigma"]) for hotkey in clean}, clean)
        worth = rating.relative(clean)
        miners: dict[str, dict[str, Any]] = {hotkey: dict(values) for hotkey, values in state.miners.items()}
        for hotkey in sorted(old):
            if hotkey in clean:
                gain, own_gain = gains[hotkey]
                values: dict[str, Any] = rating.judged(
                    old[hotkey], own_gain > gain, worth[hotkey], rated[hotkey], self.rule.gain_ema
                )
            elif offences[hotkey] == "copy" and old[hotkey]["copied"] + 1.0 < rating.COPY_GRACE:
                values = rating.undecided(old[hotkey])
            elif hotkey in state.miners or hotkey in found:
                values = rating.offended(old[hotkey], offences[hotkey], self.rule.gain_ema)
            else:
                continue  # it never submitted an update, so it has no score to lower
            kept = {name: value for name, value in miners.get(hotkey, {}).items() if isinstance(value, str)}
            miners[hotkey] = {**kept, **values}
            if hotkey in found:
                seen = {"digest": found[hotkey].values["digest"], "loss": number(found[hotkey].values, "random_after")}
                miners[hotkey] |= seen | {"edge": rating.edge(old[hotkey], *gains[hotkey])}
        return State(state.round, miners, dict(state.common))

    def _offences(
        self, state: State, evidence: Evidence, found: Mapping[str, Score], gains: Mapping[str, tuple[float, float]]
    ) -> dict[str, str]:
        offences = {
            failure.hotkey: "invalid" if failure.reason is Reason.MALFORMED else "missing"
            for failure in evidence.failures
        }
        for hotkey, score in found.items():
            if state.miners.get(hotkey, {}).get("digest") == score.values["digest"]:
                offences[hotkey] = "repeated"  # the very bytes of its last update
        # The author of like updates: who committed first; else whose own text its updates have fitted best so far.
        claim = {}
        for hotkey, (gain, own_gain) in gains.items():
            block = number(found[hotkey].values, "committed_at")
            known = {**rating.START, **_numbers(state.miners.get(hotkey, {}))}
            claim[hotkey] = (block if block > 0 else np.inf, -rating.edge(known, gain, own_gain))
        sketches = {hotkey: numbers(score.values, "sketch") for hotkey, score in found.items()}
        for hotkey in copies(sketches, claim, self.rule.copy_cosine) if sketches else {}:
            offences.setdefault(hotkey, "copy")
        return offences

    def weights(self, state: State) -> dict[str, float]:
        standings = {
            hotkey: rating.standing({**rating.START, **_numbers(values)}) for hotkey, values in state.miners.items()
        }
        bonus = rating.bonus({hotkey: rated for hotkey, (rated, _) in standings.items()})
        paid = {
            hotkey: value * (1.0 + self.rule.rating_bonus * bonus[hotkey])
            for hotkey, (_, value) in sorted(standings.items())
        }
        return constrain(paid, self.cfg) if any(paid.values()) else {}

    # ----------------------------------------------------------------------------------------------- the shared model

    def after_round(self, state: State, evidence: Evidence, answers: Mapping[str, Submission]) -> None:
        """Make the shared model of the next window from the answers of this one.

        Equal arguments give the same model, bit for bit. See `Mechanism.after_round`.
        """
        store = Store(self._folder())
        _, velocity = store.before(evidence.round)
        updates: dict[str, Sparse] = {
            hotkey: self.codec.decode(answers[hotkey].payload, store.layout.size)
            for hotkey in self.chosen(state, evidence)
        }
        outer = Outer(self.rule.outer_lr, self.rule.outer_momentum, store.layout.size)
        outer.velocity = velocity
        change = outer.step(robust_mean(updates, store.layout, self.rule.peer_cap))
        store.append(
            evidence.round, change, outer.velocity, checkpoint=(evidence.round + 1) % self.rule.checkpoint_every == 0
        )

    def chosen(self, state: State, evidence: Evidence) -> tuple[str, ...]:
        """Miners whose updates are used: no offence, and a gain on random text not far below the others'."""
        found = {score.hotkey: score for score in evidence.scores}
        gains = {hotkey: (_gain(score, "random"), _gain(score, "own")) for hotkey, score in found.items()}
        offences = self._offences(state, evidence, found, gains)
        clean = {hotkey: gain for hotkey, (gain, _) in gains.items() if hotkey not in offences}
        if not clean:
            return ()
        middle = float(np.median(list(clean.values())))
        spread = MAD * float(np.median([abs(gain - middle) for gain in clean.values()]))
        # On the same text honest updates gain or lose together. Where most gain, an update that does not is left out.
        least = 0.0 if middle > 0 else middle - SLACK * spread
        return tuple(sorted(hotkey for hotkey, gain in clean.items() if gain > least))


def _windows(tokens: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    return np.ascontiguousarray(tokens[np.asarray(starts)[:, None] + np.arange(width)], np.int32)


def _gain(score: Score, name: str) -> float:
    """Share of the loss that an update takes away; negative when it adds to it."""
    before = number(score.values, f"{name}_before")
    return (before - number(score.values, f"{name}_after")) / before


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, float)}
