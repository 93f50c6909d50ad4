"""The mechanism of collaborative training: miners train one shared model window by window.

A round is a window. A task holds the text that a miner trains on (kind "update": tokens [H * B, T + 1], horizon H). The
answer is a `Submission` with a compressed update of the shared model as it was before the window. `score` applies a
share of the update to that model, and measures the loss on the miner's own text and on random text; it also computes a
sketch, by which `reduce` finds copies. `after_round` computes the shared model of the next window from the updates that
the evidence supports.

In: text, submissions, evidence. Out: tasks, scores, weights; the shared model of each window, in a `Store`.
A score is a pure function of (shared model, update, texts): scorers hold no other state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from raytensor import config
from raytensor.config.behaviours import BEHAVIOURS
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.errors import ConfigError, DataError
from raytensor.mechanisms.base import Ask, Item, Mechanism, malformed, scored
from raytensor.mechanisms.collab import rating
from raytensor.mechanisms.collab.aggregate import Outer, robust_mean
from raytensor.mechanisms.collab.codec import Codec
from raytensor.mechanisms.collab.likeness import copies, sketch
from raytensor.mechanisms.collab.store import Store
from raytensor.mechanisms.constraints import constrain
from raytensor.mechanisms.evidence import Evidence, State, number, numbers
from raytensor.types import Failure, Reason, Score, Submission, Task, Value

KIND = "update"
# Where the median update makes random text worse, an update this many deviations (MAD) below the median is excluded
# from the shared model.
SLACK = 4.0
MAD = 1.4826  # standard deviation of a normal distribution / its median absolute deviation


@dataclass(frozen=True, slots=True)
class Window:
    """The private part of a task: it stays with the validator.

    own           int32 [n, T + 1]: rows of the miner's text. random: as many rows that no miner was assigned.
    secret        seed of the sketch.
    committed_at  block of the miner's commitment to its update; 0 where commitments are not used.
    """

    task_id: str
    folder: str
    window: int
    own: np.ndarray
    random: np.ndarray
    secret: str
    committed_at: int = 0


class Findings(NamedTuple):
    """The evidence of one round by hotkey: scores, gains on (random, own) text, offences, gains without an offence."""

    scores: dict[str, Score]
    gains: dict[str, tuple[float, float]]
    offences: dict[str, str]
    clean: dict[str, float]


class CollabMechanism(Mechanism):
    """See `Mechanism`; the settings are `cfg.collab`. `cfg.collab.folder` holds the shared model (see `store`)."""

    miner = "raytensor.miners.collaborator.CollaboratingMiner"
    behaviours = tuple(name for name, row in BEHAVIOURS.items() if row.mechanism == "collab")

    def __init__(
        self, cfg: config.Mechanism, log_unigram: np.ndarray, vocab_size: int, *, deadline_s: float = 60.0
    ) -> None:
        self.cfg = cfg
        self.rule = cfg.collab
        self.codec = Codec(self.rule.k)
        self._vocab_size = vocab_size
        self._deadline_s = deadline_s
        self._judge: Any = None  # a `Judge`, constructed for the first update: it needs torch

    @classmethod
    def shared_state(cls, cfg: config.Mechanism, folder: str | None) -> config.Mechanism:
        """`cfg` with the folder of the shared model: the configured one, else the folder that the job offers."""
        if cfg.collab.folder is not None:
            return cfg
        if folder is None:
            raise ConfigError(
                "mechanism.collab.folder=null: miners train one shared model, so it needs a folder that they see\n"
                "  fix: set mechanism.collab.folder to the folder of the subnet's shared model"
            )
        return replace(cfg, collab=replace(cfg.collab, folder=folder))

    def start(self, seed: int, first_round: int) -> None:
        """Create the first model if the store does not exist; see `Mechanism.start`."""
        folder, first_model = self._folder(), _judge_module().first_model
        store = Store.create(folder, *first_model(self.rule, self._vocab_size, seed), first=first_round)
        if store.newest() < first_round:
            raise DataError(
                f"the shared model in {folder} is as of round {store.newest()}, and round {first_round} comes next\n"
                "  fix: the folder that belongs to this validator's evidence, or another name for the job"
            )
        store.before(first_round)

    def _folder(self) -> str:
        assert self.rule.folder is not None, "`shared_state` sets the folder before the mechanism is constructed"
        return self.rule.folder

    def tasks(self, ask: Ask, state: State, text: Text) -> list[tuple[Task, Window]]:
        rule, width, folder = self.rule, self.rule.seq_len + 1, self._folder()
        rows, end = rule.inner_steps * rule.batch_size, len(text.train) - width
        # All validators assign a miner the same text. A validator judges all miners on the same random text.
        drawn = ask.draw("collab", "random", ask.validator).integers(0, end, rule.judge_rows)
        random = _windows(text.train, drawn, width)
        asked = (np.full(rows, width, np.int32), 1, self._deadline_s, KIND, rule.inner_steps)
        secret = f"{ask.seed}/{ask.netuid}/{ask.round}/{ask.validator}"
        made = []
        for hotkey in ask.hotkeys:
            given = _windows(text.train, ask.draw("collab", "given", hotkey).integers(0, end, rows), width)
            chosen = ask.draw("collab", "judged", ask.validator, hotkey).permutation(rows)[: rule.judge_rows]
            task = ask.task(hotkey, given, *asked)
            committed = ask.commits[hotkey].block if hotkey in ask.commits else 0
            made.append((task, Window(task.task_id, folder, ask.round, given[chosen], random, secret, committed)))
        return made

    def score(self, items: Sequence[Item]) -> list[Score | Failure]:
        return [self._score(*item) for item in items]

    def _score(self, task: Task, sealed: Window, answer: Any) -> Score | Failure:
        judge = self._judge_of(sealed)
        if not isinstance(answer, Submission):
            return malformed(task, "an update is a submission")
        try:
            update = self.codec.decode(answer.payload, judge.size)
        except ValueError as error:
            return malformed(task, str(error))
        own, random = judge.measure(sealed, update, self.rule.judge_share)
        norm = float(np.linalg.norm(update.values.astype(np.float64)))
        values: dict[str, Value] = {"own_before": own[0], "own_after": own[1]}
        values |= {"random_before": random[0], "random_after": random[1], "norm": norm}
        values |= {"bytes": float(len(answer.payload)), "digest": answer.digest}
        values |= {"committed_at": float(sealed.committed_at)}
        return scored(task, values | {"sketch": sketch(update, assign.generator(sealed.secret, "sketch"))})

    def _judge_of(self, sealed: Window) -> Any:
        if self._judge is None or self._judge.folder != sealed.folder:
            self._judge = _judge_module().Judge(sealed.folder)
        return self._judge

    def reduce(self, state: State, evidence: Evidence) -> State:
        """Rate the updates without an offence by their gains, then update the entry of each miner (see `rating`)."""
        found, gains, offences, clean = self._findings(state, evidence)
        old = {hotkey: _entry(state, hotkey) for hotkey in {*found, *offences}}
        rated = rating.rate({hotkey: (old[hotkey]["mu"], old[hotkey]["sigma"]) for hotkey in clean}, clean)
        worth, ema = rating.relative(clean), self.rule.gain_ema
        miners: dict[str, dict[str, Any]] = {hotkey: dict(values) for hotkey, values in state.miners.items()}
        for hotkey in sorted(old):
            if hotkey in clean:
                gain, own_gain = gains[hotkey]
                values = rating.judged(old[hotkey], own_gain > gain, worth[hotkey], rated[hotkey], ema)
            elif offences[hotkey] == "copy" and old[hotkey]["copied"] + 1.0 < rating.COPY_GRACE:
                values = rating.undecided(old[hotkey])
            elif hotkey in state.miners or hotkey in found:
                values = rating.offended(old[hotkey], offences[hotkey], ema)
            else:
                continue  # it never submitted an update, so it has no score to lower
            kept = {name: value for name, value in miners.get(hotkey, {}).items() if isinstance(value, str)}
            miners[hotkey] = {**kept, **values}
            if hotkey in found:
                seen = {"digest": found[hotkey].values["digest"], "loss": number(found[hotkey].values, "random_after")}
                miners[hotkey] |= seen | {"edge": rating.edge(old[hotkey], *gains[hotkey])}
        return State(state.round, miners, dict(state.common))

    def _findings(self, state: State, evidence: Evidence) -> Findings:
        found = {score.hotkey: score for score in evidence.scores}
        gains = {hotkey: (_gain(score, "random"), _gain(score, "own")) for hotkey, score in found.items()}
        offences = {}
        for failure in evidence.failures:
            offences[failure.hotkey] = "invalid" if failure.reason is Reason.MALFORMED else "missing"
        for hotkey, score in found.items():
            if state.miners.get(hotkey, {}).get("digest") == score.values["digest"]:
                offences[hotkey] = "repeated"  # the same bytes as its last update
        # The author among similar updates: the earliest commitment; else the best fit to its own text so far.
        claim = {}
        for hotkey, (gain, own_gain) in gains.items():
            block = number(found[hotkey].values, "committed_at")
            claim[hotkey] = (block if block > 0 else np.inf, -rating.edge(_entry(state, hotkey), gain, own_gain))
        sketches = {hotkey: numbers(score.values, "sketch") for hotkey, score in found.items()}
        for hotkey in copies(sketches, claim, self.rule.copy_cosine) if sketches else {}:
            offences.setdefault(hotkey, "copy")
        clean = {hotkey: gain for hotkey, (gain, _) in gains.items() if hotkey not in offences}
        return Findings(found, gains, offences, clean)

    def weights(self, state: State) -> dict[str, float]:
        standings = {hotkey: rating.standing(_entry(state, hotkey)) for hotkey in state.miners}
        bonus = rating.bonus({hotkey: rated for hotkey, (rated, _) in standings.items()})
        factor = {hotkey: 1.0 + self.rule.rating_bonus * bonus[hotkey] for hotkey in standings}
        paid = {hotkey: value * factor[hotkey] for hotkey, (_, value) in sorted(standings.items())}
        return constrain(paid, self.cfg) if any(paid.values()) else {}

    def after_round(self, state: State, evidence: Evidence, answers: Mapping[str, Submission]) -> None:
        """Compute the shared model of the next window from the answers of this one.

        Equal arguments give the same model, bit for bit. See `Mechanism.after_round`.
        """
        rule, store = self.rule, Store(self._folder())
        chosen, layout = self.chosen(state, evidence), store.layout
        updates = {hotkey: self.codec.decode(answers[hotkey].payload, layout.size) for hotkey in chosen}
        outer = Outer(rule.outer_lr, rule.outer_momentum, layout.size)
        _, outer.velocity = store.before(evidence.round)
        change = outer.step(robust_mean(updates, layout, rule.peer_cap))
        is_checkpoint = (evidence.round + 1) % rule.checkpoint_every == 0
        store.append(evidence.round, change, outer.velocity, checkpoint=is_checkpoint)

    def chosen(self, state: State, evidence: Evidence) -> tuple[str, ...]:
        """Hotkeys whose updates enter the shared model: no offence, and a gain not far below the others'."""
        clean = self._findings(state, evidence).clean
        if not clean:
            return ()
        middle = float(np.median(list(clean.values())))
        spread = MAD * float(np.median([abs(gain - middle) for gain in clean.values()]))
        # On the same text honest updates gain or lose together. Where most gain, an update that does not is excluded.
        least = 0.0 if middle > 0 else middle - SLACK * spread
        return tuple(sorted(hotkey for hotkey, gain in clean.items() if gain > least))


def _windows(tokens: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    return np.ascontiguousarray(tokens[np.asarray(starts)[:, None] + np.arange(width)], np.int32)


def _gain(score: Score, name: str) -> float:
    """Relative decrease of the loss by an update; negative when the loss increases."""
    before = number(score.values, f"{name}_before")
    return (before - number(score.values, f"{name}_after")) / before


def _entry(state: State, hotkey: str) -> dict[str, float]:
    """The numbers of a miner's state, with the initial value of each that is missing."""
    known = state.miners.get(hotkey, {})
    return {**rating.START, **{name: value for name, value in known.items() if isinstance(value, float)}}


def _judge_module() -> Any:
    """collab/judge.py."""
    from raytensor.mechanisms.collab import judge  # needs torch, which the pure parts do not import

    return judge
