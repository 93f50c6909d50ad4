"""The model_eval mechanism: miners submit checkpoints; the best is king, and challengers must beat it.

In: commitments, held-out text, submitted files, evidence. Out: requests for files, evidence, state, weights. Pure: the
forward pass is the class that `model_eval.forward` names, loaded in scorers only.

A miner commits to a file's digest; the sequences of a round are drawn from a block hash that was unknown at the commit.
Each round evaluates the king and the open challengers on the same sequences: one pass of the king serves all of them.
`sequential` decides when a duel is clear; `ranking` makes weights. Copies are found before anything is rated: by
digest, and by the probabilities that models give to the same tokens at secret places of the text (noise, permuted heads
and rescaled norms hardly move those); of two such models the later commit is paid nothing and never crowned. When a
miner commits to another file, the fingerprint of the old one is kept: resubmitting an abandoned file still counts as
copying, and copies of it are no evidence against the miner's newer files.

Evidence of one file: "losses" (nats per token, by sequence), "fingerprint", "digest", "block" of the commit, "now".
State of a miner: "digest", "status" (king, open, turned down, copy, invalid, missing), "block", "fingerprint", the
duel's sums, "level" (nats per token above the first king; lower is better), "loss" (nats per token of the newest
sequences), "misses"; "past_digest", "past_block", "past_fingerprint" of its file before; "of", whom a copy copied; with
`epsilon` also "weight".
State of all: "king", "probe_seed" (the places of the fingerprint stay the same).
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raytensor import config
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.errors import ConfigError, DataError
from raytensor.mechanisms import ranking
from raytensor.mechanisms.base import Ask, Item, Mechanism, malformed, scored
from raytensor.mechanisms.constraints import constrain
from raytensor.mechanisms.evidence import Evidence, State, number, numbers
from raytensor.mechanisms.sequential import CROWNED, OPEN, TURNED_DOWN, Duel, for_crown, for_turning_down, verdict
from raytensor.types import Failure, Reason, Response, Score, Submission, Task, Value

KING, COPY, INVALID, MISSING = "king", "copy", "invalid", "missing"
RANKED = (KING, OPEN, TURNED_DOWN)
FREQUENT = 3  # tokens compared at each probe beside the one that follows: the most frequent of the text
PRINT = ("digest", "block", "fingerprint")  # by which a file is recognised

Entry = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Trial:
    """The validator's part of a request for a file: the committed file, and the data that it is evaluated on.

    sequences int32 [N, T]; probes int32 [P, T]; probe_tokens int32 [P, K]; now: block of the round.
    """

    task_id: str
    digest: str
    block: int
    now: int
    sequences: np.ndarray
    probes: np.ndarray
    probe_tokens: np.ndarray
    probe_seed: str


class ModelEvalMechanism(Mechanism):
    """Checkpoints. Constructed as `base.Mechanism` says; its settings are `cfg.model_eval`."""

    asks_for_files = True
    longest_sequence = "model_eval.seq_len"

    def __init__(
        self, cfg: config.Mechanism, log_unigram: np.ndarray, vocab_size: int, *, deadline_s: float = 60.0
    ) -> None:
        self.cfg = cfg
        self.rule = cfg.model_eval
        self._vocab_size = vocab_size
        self._deadline_s = deadline_s
        self._frequent = np.argsort(-log_unigram, kind="stable")[:FREQUENT].astype(np.int32)
        self._forward: Any = None

    def tasks(self, ask: Ask, state: State, text: Text) -> list[tuple[Task, Trial]]:
        rule, asked = self.rule, self.asked_about(ask, state)
        if not asked:
            return []
        # By round, not by validator: all validators of a subnet see the same sequences and agree.
        end, within = len(text.heldout) - rule.seq_len + 1, np.arange(rule.seq_len)
        starts = ask.draw("model_eval", "sequences").integers(0, end, rule.sequences)
        probe_seed = str(state.common.get("probe_seed", f"{ask.seed}/{ask.netuid}/{ask.validator}/{ask.round}"))
        places = assign.generator(0, "model_eval", "probes", probe_seed).integers(0, end, rule.probes)
        sequences, probes = (text.heldout[s[:, None] + within].astype(np.int32) for s in (starts, places))
        probe_tokens = np.concatenate([probes[:, -1:], np.tile(self._frequent, (rule.probes, 1))], axis=1)
        drawn = (sequences, probes, probe_tokens, probe_seed)
        nothing, made = (np.zeros((1, 1), np.int32), np.ones(1, np.int32)), []
        for hotkey in asked:
            commit = ask.commits[hotkey]
            task = ask.task(hotkey, *nothing, 1, self._deadline_s, "file", digest=commit.digest)
            made.append((task, Trial(task.task_id, commit.digest, commit.block, ask.block, *drawn)))
        return made

    def asked_about(self, ask: Ask, state: State) -> list[str]:
        """The king and the challengers of this round; empty when there is nothing to decide.

        A king that commits to another file becomes a challenger: the best of the other ranked miners is asked in its
        place, so that challengers are measured against a model whose level is known.
        """
        rule = self.rule
        fresh, unclear, king, settled = [], [], [], []
        for hotkey in ask.hotkeys:
            commit, entry = ask.commits.get(hotkey), state.miners.get(hotkey, {})
            if commit is None:
                continue
            if entry.get("digest") != commit.digest:
                fresh.append(hotkey)
            elif entry["status"] == KING:
                king.append(hotkey)
            elif entry["status"] == OPEN or (rule.rule == "epsilon" and entry["status"] in RANKED):
                unclear.append(hotkey)
            elif entry["status"] in RANKED and "level" in entry:
                settled.append(hotkey)
        if not king and settled:
            king = [min(settled, key=lambda hotkey: (number(state.miners[hotkey], "level"), hotkey))]
        fresh.sort(key=lambda hotkey: (ask.commits[hotkey].block, hotkey))
        duels = {hotkey: _duel(state.miners[hotkey]) for hotkey in unclear}
        clarity = {hotkey: max(for_crown(duel, rule), for_turning_down(duel, rule)) for hotkey, duel in duels.items()}
        unclear.sort(key=lambda hotkey: (-clarity[hotkey], hotkey))
        if rule.rule == "epsilon":
            return sorted(king + fresh + unclear)
        challengers = (fresh + unclear)[: rule.challengers]
        return sorted(king + challengers) if challengers else []

    def score(self, items: Sequence[Item]) -> list[Score | Failure]:
        return [self._score(*item) for item in items]

    def _score(self, task: Task, trial: Trial, answer: Response | Submission) -> Score | Failure:
        assert trial.task_id == task.task_id
        if not isinstance(answer, Submission) or (answer.hotkey, answer.task_id) != (task.hotkey, task.task_id):
            return malformed(task, "not the file that was asked for")
        if answer.digest != trial.digest:
            return malformed(task, "another file than the one that was committed to")
        try:
            forward = self._loaded_forward()
            losses, fingerprint = forward.evaluate(answer, trial.sequences, trial.probes, trial.probe_tokens)
        except DataError as error:
            return malformed(task, str(error))
        if not (np.isfinite(losses).all() and np.isfinite(fingerprint).all()):
            return malformed(task, "the model's losses are not finite")
        values: Entry = {"digest": trial.digest, "block": float(trial.block), "now": float(trial.now)}
        values |= {"probe_seed": trial.probe_seed, "losses": tuple(losses.tolist())}
        return scored(task, values | {"fingerprint": tuple(fingerprint.tolist())})

    def _loaded_forward(self) -> Any:
        if self._forward is None:
            module, _, name = self.rule.forward.rpartition(".")
            try:
                self._forward = getattr(importlib.import_module(module), name)(self.rule, self._vocab_size)
            except (ImportError, AttributeError, ValueError) as error:
                raise ConfigError(f"mechanism.model_eval.forward={self.rule.forward!r}: {error}") from error
        return self._forward

    def reduce(self, state: State, evidence: Evidence) -> State:
        rule = self.rule
        miners: dict[str, Entry] = {hotkey: dict(entry) for hotkey, entry in state.miners.items()}
        common = dict(state.common)
        scores = {score.hotkey: score for score in evidence.scores}
        for failure in evidence.failures:
            self._failed(miners, failure)
        for hotkey, score in scores.items():
            entry = _entry(miners.get(hotkey), str(score.values["digest"]))
            entry |= {name: score.values[name] for name in ("block", "fingerprint")}
            miners[hotkey] = entry | {"misses": 0.0, "loss": float(np.mean(numbers(score.values, "losses")))}
            common["probe_seed"] = score.values["probe_seed"]
        _mark_copies(miners, scores, rule.copy_nats)
        king = _king(miners, scores)
        common["king"] = king
        if rule.rule == "epsilon":
            self._epsilon(miners, scores)
        elif king in scores:
            common["king"] = self._duels(miners, scores, king)
        return replace(state, miners=miners, common=common)

    def _failed(self, miners: dict[str, Entry], failure: Failure) -> None:
        """A file that breaks its bounds is invalid; a missing one is asked for again, up to `patience` times."""
        entry = _entry(miners.get(failure.hotkey), failure.item_id.rpartition("/")[2])
        misses = number(entry, "misses") + 1.0
        status = MISSING if misses >= self.rule.patience else entry["status"]
        status = INVALID if failure.reason is Reason.MALFORMED else status
        miners[failure.hotkey] = entry | {"misses": misses, "status": status}

    def _duels(self, miners: dict[str, Entry], scores: dict[str, Score], king: str) -> str:
        """Continue the duel of every open challenger. Returns the king afterwards."""
        rule = self.rule
        losses, level = numbers(scores[king].values, "losses"), number(miners[king], "level")
        crowned: dict[str, float] = {}
        for hotkey, score in scores.items():
            entry = miners[hotkey]
            if hotkey == king or entry["status"] != OPEN:
                continue
            duel = _duel(entry).after(losses, numbers(score.values, "losses"), rule.dead_zone)
            found = verdict(duel, rule)
            entry.update(duel._asdict(), level=level - duel.gap, status=TURNED_DOWN if found == TURNED_DOWN else OPEN)
            if found == CROWNED:
                crowned[hotkey] = duel.gap
        if not crowned:
            return king
        new = max(crowned, key=lambda hotkey: (crowned[hotkey], hotkey))
        miners[king]["status"], miners[new]["status"] = TURNED_DOWN, KING
        for entry in miners.values():  # sums against the old king are no evidence against the new one
            if entry["status"] == OPEN:
                entry.update(Duel()._asdict())
        return new

    def _epsilon(self, miners: dict[str, Entry], scores: dict[str, Score]) -> None:
        rated = {hotkey: score for hotkey, score in scores.items() if miners[hotkey]["status"] in RANKED}
        if not rated:
            return
        losses = {hotkey: float(np.mean(numbers(score.values, "losses"))) for hotkey, score in rated.items()}
        blocks = {hotkey: number(miners[hotkey], "block") for hotkey in rated}
        now = max(number(score.values, "now") for score in rated.values())
        shares = ranking.softmax(ranking.win_rates(losses, blocks, now, self.rule), self.rule.temperature)
        for hotkey in rated:
            old = number(miners[hotkey], "weight", shares.get(hotkey, 0.0))
            miners[hotkey]["weight"] = (1.0 - self.rule.ema) * old + self.rule.ema * shares.get(hotkey, 0.0)
            miners[hotkey]["level"] = losses[hotkey]

    def weights(self, state: State) -> dict[str, float]:
        ranked = {key: entry for key, entry in state.miners.items() if entry["status"] in RANKED and "level" in entry}
        if self.rule.rule == "epsilon":
            return constrain({hotkey: number(entry, "weight", 0.0) for hotkey, entry in ranked.items()}, self.cfg)
        king = str(state.common.get("king", ""))
        if king not in ranked:
            return {}
        best = number(ranked[king], "level")
        # An open challenger may look better than the king by chance: until its duel is decided it is paid as an equal.
        behind = {hotkey: max(0.0, number(entry, "level") - best) for hotkey, entry in ranked.items() if hotkey != king}
        return constrain(ranking.graded({king: 0.0} | behind, self.rule, first=king), self.cfg)


def _entry(old: Entry | None, digest: str) -> Entry:
    """A miner's entry for a file: the old entry if the file is the same, else a new one."""
    if old is not None and old["digest"] == digest:
        return dict(old)
    new = {"digest": digest, "status": OPEN, "misses": 0.0, **Duel()._asdict()}
    if old is not None and "fingerprint" in old and old["status"] in RANKED:
        return new | {f"past_{name}": old[name] for name in PRINT}
    return new | {name: value for name, value in (old or {}).items() if name.startswith("past_")}


def _duel(entry: Mapping[str, Value]) -> Duel:
    return Duel(*(number(entry, name) for name in Duel._fields))


def _mark_copies(miners: dict[str, Entry], scores: dict[str, Score], copy_nats: float) -> None:
    """Of two models with one digest, or with fingerprints closer than `copy_nats`, the later commit is a copy.

    Commits of one block are in the order of their hotkeys. A copy of a copy is a copy of the first.
    """
    files: list[tuple[Value, str, Value, Value, bool]] = []
    for hotkey, entry in miners.items():
        if "fingerprint" in entry and entry["status"] in (*RANKED, COPY):
            files.append((entry["block"], hotkey, entry["digest"], entry["fingerprint"], True))
            if "past_digest" in entry:
                files.append((entry["past_block"], hotkey, entry["past_digest"], entry["past_fingerprint"], False))
    files.sort(key=lambda file: file[:3])
    prints = np.array([fingerprint for *_, fingerprint, _ in files])
    for i, (_, hotkey, digest, _, is_newest) in enumerate(files):
        if i == 0 or not is_newest:
            continue
        # A file scored in this round is compared with all earlier ones, another only with those scored in this round.
        others = (j for j in range(i) if files[j][1] != hotkey and miners[files[j][1]].get("of") != hotkey)
        earlier = [j for j in others if hotkey in scores or files[j][1] in scores]
        if not earlier:
            continue
        near = np.sqrt(np.mean((prints[earlier] - prints[i]) ** 2, axis=1)) < copy_nats
        same = [files[j] for j, close in zip(earlier, near, strict=True) if close or files[j][2] == digest]
        if same:
            first, newest = same[0][1], same[0][4]
            miners[hotkey] |= {"status": COPY, "of": miners[first].get("of", first)}
            if "level" in miners[hotkey] and newest:  # a copy may have been scored before its original
                miners[first].setdefault("level", miners[hotkey]["level"])


def _king(miners: dict[str, Entry], scores: dict[str, Score]) -> str:
    """The king; without one the best by level, of this round's if there are any; before any miner has a level, the
    earliest commit. "" for none."""
    known = [hotkey for hotkey, entry in miners.items() if entry["status"] in RANKED and "fingerprint" in entry]
    kings = [hotkey for hotkey in known if miners[hotkey]["status"] == KING]
    if kings:
        return kings[0]
    if not known:
        return ""
    rated = [hotkey for hotkey in known if "level" in miners[hotkey]]
    if rated:
        new = min(rated, key=lambda hotkey: (hotkey not in scores, miners[hotkey]["level"], hotkey))
    else:
        new = min(known, key=lambda hotkey: (miners[hotkey]["block"], hotkey))
    miners[new].update(Duel()._asdict(), status=KING, level=miners[new].get("level", 0.0))
    for entry in miners.values():
        if entry["status"] == OPEN:
            entry.update(Duel()._asdict())
    return new
