"""Model evaluation without models, on given losses: who is crowned, who is a copy, who is asked, what is paid."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raytensor import config
from raytensor.data.text import Text, unigram
from raytensor.errors import ConfigError, DataError
from raytensor.mechanisms.base import Ask, Item
from raytensor.mechanisms.evidence import State, advance, gather
from raytensor.mechanisms.model_eval import ModelEvalMechanism
from raytensor.mechanisms.sequential import CROWNED, OPEN, TURNED_DOWN, Duel, for_crown, for_turning_down, verdict
from raytensor.types import Failure, FileCommit, Reason, Score, Submission

RULE = config.ModelEval(sequences=64, seq_len=16, challengers=3, probes=8)
N = RULE.sequences


@pytest.fixture(scope="module")
def text():
    tokens = np.random.default_rng(0).integers(0, 20, 3000).astype(np.uint16)
    ends = np.array([0, 3000])
    return Text(tokens, tokens, ends, ends, unigram(tokens, 20), 20, 1.0)


def made(rule: config.ModelEval = RULE, **more) -> ModelEvalMechanism:
    return ModelEvalMechanism(config.Mechanism(model_eval=rule, **more), np.zeros(20, np.float32), 20)


class Stage:
    """Plays rounds: each model has a quality (nats below 3.0), a block and its own fingerprint."""

    def __init__(self, mechanism: ModelEvalMechanism) -> None:
        self.mechanism, self.state, self.number = mechanism, State(), 0

    def play(
        self,
        models: dict[str, tuple[float, int]],
        rounds: int = 1,
        *,
        prints: dict | None = None,
        failing: dict | None = None,
    ) -> None:
        for _ in range(rounds):
            draw = np.random.default_rng(self.number)
            hard, results = draw.normal(3.0, 0.3, N), {}
            for hotkey, (better, block) in models.items():
                task_id = f"1/{self.number}/v/{hotkey}/{hotkey}-{block}"
                if reason := (failing or {}).get(hotkey):
                    results[task_id] = Failure(task_id, hotkey, reason)
                    continue
                losses = (
                    hard - better + np.random.default_rng([zlib.crc32(hotkey.encode()), self.number]).normal(0, 0.02, N)
                )
                name = (prints or {}).get(hotkey, hotkey)
                fingerprint = np.random.default_rng(zlib.crc32(name.encode())).normal(-3, 1, 32)
                values = {"digest": f"{hotkey}-{block}", "block": float(block), "now": 0.0, "probe_seed": "s"}
                values |= {"losses": tuple(losses.tolist()), "fingerprint": tuple(fingerprint.tolist())}
                results[task_id] = Score(task_id, self.number, 1, "v", hotkey, values)
            answered = [task_id for task_id, result in results.items() if isinstance(result, Score)] or ["other"]
            self.state = advance(self.mechanism, self.state, gather(1, "v", self.number, results, answered=answered))
            self.number += 1

    def statuses(self) -> dict[str, str]:
        return {hotkey: entry["status"] for hotkey, entry in self.state.miners.items()}


def ask(number: int = 0, block: int = 0, **commits: tuple[str, int]) -> Ask:
    return Ask(
        3, 1, "v", number, tuple(commits), {hotkey: FileCommit(*commit) for hotkey, commit in commits.items()}, block
    )


def test_copies_are_never_crowned_in_a_thousand_trials_and_always_recognised(bench):
    rule = config.ModelEval(sequences=64)
    for name, copy in bench.COPIES.items():
        crowned, flagged, sequences = bench.duels(rule, [0.0] * 1000, copy=copy)
        assert (crowned, flagged, sequences) == (0.0, 1.0, 64.0), name
    for copy in (
        bench.COPIES["copy with noise"],
        bench.COPIES["permuted heads"],
    ):  # the margin alone keeps them out too
        crowned, flagged, _ = bench.duels(replace(rule, copy_nats=0.0), [0.0] * 1000, copy=copy)
        assert (crowned, flagged) == (0.0, 0.0)


def test_twice_the_margin_wins_and_few_sequences_are_used(bench):
    rule = config.ModelEval()
    crowned, flagged, sequences = bench.duels(rule, [2 * rule.margin] * 200)
    assert crowned >= 0.95 and flagged == 0.0 and sequences <= 0.2 * rule.max_sequences
    gaps = np.random.default_rng(0).exponential(0.0094 / math.log(2), 200) * np.random.default_rng(1).choice(
        [-1, 1], 200
    )
    assert bench.duels(rule, gaps.tolist())[2] <= 0.2 * bench.sequential.fixed_size(bench.DEVIATION, rule)
    assert bench.duels(rule, [0.0] * 300)[0] == 0.0


def density(x: np.ndarray, mean: np.ndarray | float, variance: float) -> np.ndarray:
    return -((x - mean) ** 2) / (2 * variance)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(10, 60), st.floats(-0.01, 0.02))
def test_e_values_are_the_likelihood_ratios_that_they_are_said_to_be(seed, n, gap):
    draw = np.random.default_rng(seed)
    king = draw.normal(3.0, 0.3, n)
    challenger = king - draw.normal(gap, 0.02, n)
    d, m = king - challenger, RULE.margin
    duel = Duel().after(king.tolist(), challenger.tolist(), RULE.dead_zone)
    assert duel.won == (d > 0.01).sum() and duel.lost == (d < -0.01).sum() and duel.gap == pytest.approx(d.mean())
    variance = d.var(ddof=1)
    grid = (np.arange(20_000) + 0.5) / 20_000 * 4.0  # effects up to 8 standard deviations of the prior
    prior = 2 * np.exp(-(grid**2) / (2 * 0.5**2)) / math.sqrt(2 * math.pi) / 0.5 * (grid[1] - grid[0])
    for found, sign, null in ((for_crown(duel, RULE), 1.0, m), (for_turning_down(duel, RULE), -1.0, -2 * m)):
        against = sum(density(x, null, variance) for x in sign * d)
        simple = math.exp(sum(density(x, null + m, variance) for x in sign * d) - against)
        means = null + grid * math.sqrt(variance)
        each = density((sign * d)[None, :], means[:, None], variance).sum(axis=1)
        mixed = float((prior * np.exp(each - against)).sum())
        assert found == pytest.approx(math.log((simple + mixed) / 2), abs=1e-3)


def test_verdicts():
    same = Duel().after([3.0] * 64, [3.0] * 64, 0.01)
    assert verdict(same, RULE) == TURNED_DOWN and for_crown(same, RULE) == -math.inf
    assert verdict(Duel().after([3.0] * 64, [2.9] * 64, 0.01), RULE) == CROWNED
    assert verdict(Duel().after([3.0] * 63, [2.9] * 63, 0.01), RULE) == OPEN  # too little was seen
    for gap in (0.01, 0.1, 1.0, 10.0):  # clear cases stay clear, however wide the gap
        spread = [3.0 + 0.02 * math.sin(i) for i in range(128)]
        assert verdict(Duel().after(spread, [3.0 - gap] * 128, 0.01), RULE) == CROWNED
        assert verdict(Duel().after(spread, [3.0 + gap] * 128, 0.01), RULE) == TURNED_DOWN
    # A better mean that a few sequences make, against most of the others, is no crown.
    few = Duel().after([3.0] * 384, [2.97] * 180 + [3.011] * 204, 0.01)
    assert (
        few.gap > 4 * RULE.margin
        and verdict(few, RULE) == OPEN
        and verdict(few, replace(RULE, win_rate=0.0)) == CROWNED
    )
    assert verdict(few, replace(RULE, max_sequences=384)) == TURNED_DOWN


def test_the_first_commit_is_king_until_a_better_one_comes():
    stage = Stage(made())
    stage.play({"b": (0.0, 5), "a": (0.0, 9), "worse": (-0.05, 6)}, 40)
    assert stage.statuses() == {"b": "king", "a": "turned down", "worse": "turned down"}
    assert stage.state.common["king"] == "b"
    stage.play({"b": (0.0, 5), "better": (0.05, 20)}, 2)
    assert stage.statuses() == {"b": "turned down", "a": "turned down", "worse": "turned down", "better": "king"}
    weights = stage.mechanism.weights(stage.state)
    assert sum(weights.values()) == pytest.approx(1.0) and weights["better"] > weights["b"] > weights["worse"] > 0
    # 0.05 nats behind is a share of exp(-1), on the ramp from 2 to 1 over 20 places.
    assert weights["b"] / weights["better"] == pytest.approx(math.exp(-1) * (2 - 1 / 19) / 2, rel=0.1)


def test_of_two_that_are_better_the_best_is_crowned_and_the_other_starts_again():
    stage = Stage(made())
    stage.play({"king": (0.0, 1), "good": (0.05, 2), "best": (0.08, 3)})
    assert stage.statuses() == {"king": "turned down", "good": "open", "best": "king"}
    assert stage.state.miners["good"]["n"] == 0.0
    stage.play({"best": (0.08, 3), "good": (0.05, 2)})
    assert stage.statuses()["good"] == "turned down"


def test_a_copy_is_paid_nothing_whoever_came_first_to_the_validator():
    stage = Stage(made())
    stage.play({"thief": (0.0, 8), "king": (-0.1, 1)}, 3)
    assert stage.statuses() == {"thief": "king", "king": "turned down"}  # the original has not been seen yet
    models = {"thief": (0.0, 8), "original": (0.0, 4)}
    stage.play(models, prints={"original": "thief"})
    assert stage.statuses() == {"thief": "copy", "king": "turned down", "original": "king"}
    weights = stage.mechanism.weights(stage.state)
    assert "thief" not in weights and weights["original"] > weights["king"]
    assert not stage.mechanism.asked_about(
        ask(thief=("thief-8", 8), original=("original-4", 4)), stage.state
    )  # nothing is left to decide


def test_the_victim_of_a_copier_loses_nothing():
    alone, copied = Stage(made()), Stage(made())
    models = {"king": (0.0, 1), "weak": (-0.02, 2)}
    alone.play(models, 3)
    copied.play(models | {"copier": (0.0, 3)}, 3, prints={"copier": "king"})
    assert copied.mechanism.weights(copied.state) == alone.mechanism.weights(alone.state)


def test_files_that_do_not_come_and_files_that_are_bad():
    stage = Stage(made())
    stage.play({"king": (0.0, 1), "other": (-0.01, 2), "bad": (0.0, 3)}, failing={"bad": Reason.MALFORMED})
    assert stage.statuses()["bad"] == "invalid"
    for _ in range(2):
        stage.play({"king": (0.0, 1), "other": (-0.01, 2)}, failing={"king": Reason.SILENT})
        assert stage.statuses()["king"] == "king"
    stage.play({"king": (0.0, 1), "other": (-0.01, 2)}, failing={"king": Reason.SILENT})
    assert stage.statuses()["king"] == "missing" and stage.statuses()["other"] == "king"
    assert set(stage.mechanism.weights(stage.state)) == {"other"}


def test_the_order_and_the_company_of_results_make_no_difference():
    one, other = Stage(made()), Stage(made())
    models = {"a": (0.0, 1), "b": (0.05, 2), "c": (0.01, 3)}
    one.play(models, 3)
    other.play(dict(reversed(models.items())), 3)
    assert one.state == other.state


def test_who_is_asked_for_what(text):
    mechanism, stage = made(), Stage(made())
    commits = {name: (f"{name}-{block}", block) for name, block in (("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5))}
    first = mechanism.tasks(ask(**commits), State(), text)
    assert [task.hotkey for task, _ in first] == ["a", "b", "c"]  # three at a time, the earliest first
    for task, trial in first:
        assert task.kind == "file" and task.tokens.tolist() == [
            [0]
        ]  # the miner sees nothing of what it is evaluated on
        assert (
            trial.digest == commits[task.hotkey][0]
            and trial.sequences.shape == (N, 16)
            and trial.probes.shape == (8, 16)
        )
        assert trial.probe_tokens.shape == (8, 4) and (trial.probe_tokens[:, 0] == trial.probes[:, -1]).all()
    stage.play({"a": (0.0, 1), "b": (0.0, 2), "c": (-0.2, 3)})
    second = mechanism.tasks(ask(1, **commits), stage.state, text)
    assert [task.hotkey for task, _ in second] == ["a", "b", "d", "e"]  # the king, the new ones, and b is still open
    assert not np.array_equal(first[0][1].sequences, second[0][1].sequences)
    third = made().tasks(replace(ask(1, **commits), validator="w"), stage.state, text)
    assert np.array_equal(third[0][1].sequences, second[0][1].sequences)  # validators agree
    assert mechanism.tasks(ask(), State(), text) == []


def test_a_new_commit_starts_afresh(text):
    stage = Stage(made())
    stage.play({"king": (0.0, 1), "a": (-0.2, 2)})
    assert stage.statuses()["a"] == "turned down"
    commits = {"king": ("king-1", 1), "a": ("a-2", 2)}
    assert stage.mechanism.tasks(ask(1, **commits), stage.state, text) == []
    asked = stage.mechanism.tasks(ask(1, **commits | {"a": ("a-7", 7)}), stage.state, text)
    assert [task.hotkey for task, _ in asked] == ["a", "king"]
    stage.play({"king": (0.0, 1), "a": (0.2, 7)})
    assert stage.statuses() == {"king": "turned down", "a": "king"}


def test_a_copy_of_a_file_that_was_overtaken_is_a_copy_and_costs_its_author_nothing():
    """The author and the copier of its earlier file commit anew in one block, which is when a copier can act."""
    stage = Stage(made())
    stage.play({"author": (0.0, 1), "other": (-0.02, 2)})
    stage.play(
        {"author": (0.1, 9), "other": (-0.02, 2), "copier": (0.0, 9)},
        2,
        prints={"author": "second", "copier": "author"},
    )
    assert stage.statuses()["copier"] == "copy" and stage.state.miners["copier"]["of"] == "author"
    assert stage.statuses()["author"] == "king"
    # What it does next is close to its first file, which the copier holds: that is no evidence against it.
    stage.play({"author": (0.2, 20), "other": (-0.02, 2)}, prints={"author": "author"})
    assert stage.statuses() == {"author": "king", "other": "turned down", "copier": "copy"}
    assert stage.state.miners["author"]["past_block"] == 9.0
    # A thief of the copy is the author's copy.
    stage.play({"author": (0.2, 20), "thief": (0.0, 30)}, prints={"author": "author", "thief": "author"})
    assert stage.state.miners["thief"]["of"] == "author" and stage.mechanism.weights(stage.state).keys() == {
        "author",
        "other",
    }


def test_the_throne_of_a_king_that_commits_anew(text):
    """The best that stays where it is takes its place for the round, so that all keep one scale of levels."""
    stage = Stage(made())
    stage.play({"king": (0.0, 1), "second": (-0.05, 2), "third": (-0.2, 3)})
    assert stage.statuses() == {"king": "king", "second": "turned down", "third": "turned down"}
    commits = {"king": ("king-9", 9), "second": ("second-2", 2), "third": ("third-3", 3)}
    assert [task.hotkey for task, _ in stage.mechanism.tasks(ask(1, **commits), stage.state, text)] == [
        "king",
        "second",
    ]
    stage.play({"king": (0.1, 9), "second": (-0.05, 2)})
    assert stage.statuses() == {"king": "king", "second": "turned down", "third": "turned down"}
    levels = stage.state.floats("level")
    assert levels["king"] == pytest.approx(-0.1, abs=0.02) and levels["third"] == pytest.approx(0.2, abs=0.02)
    # All commit to new files: no known model is left as a reference, so the scale of levels starts again.
    stage.play({"king": (0.1, 30), "second": (0.2, 31), "third": (0.0, 32)})
    assert stage.statuses()["second"] == "king" and stage.state.miners["king"]["level"] == 0.0


class GivenLosses:
    """A forward pass that reads its losses from the payload."""

    def __init__(self, rule, vocab_size) -> None:
        self.vocab_size = vocab_size

    def evaluate(self, submission, sequences, probes, probe_tokens):
        if submission.payload == b"bad":
            raise DataError("3 bytes are no model")
        value = float(submission.payload)
        return np.full(len(sequences), value), np.full(probe_tokens.size, value)


def test_what_a_file_shows_and_what_is_refused(text):
    mechanism = made(replace(RULE, forward=f"{__name__}.GivenLosses"))
    task, trial = mechanism.tasks(ask(7, a=("digest", 4)), State(), text)[0]
    good = Submission(task.task_id, "a", "digest", payload=b"2.5")
    score = mechanism.score([Item(task, trial, good)])[0]
    assert (
        isinstance(score, Score) and score.values["losses"] == (2.5,) * N and score.values["fingerprint"] == (2.5,) * 32
    )
    assert (score.values["digest"], score.values["block"]) == ("digest", 4.0)
    wrong = {
        "other file": replace(good, digest="other"),
        "other miner": replace(good, hotkey="b"),
        "other task": replace(good, task_id="t"),
        "no model": replace(good, payload=b"bad"),
        "not finite": replace(good, payload=b"nan"),
        "no file": "text",
    }
    for name, submission in wrong.items():
        result = mechanism.score([Item(task, trial, submission)])[0]
        assert isinstance(result, Failure) and result.reason is Reason.MALFORMED and result.detail, name
    with pytest.raises(ConfigError, match="model_eval.forward="):
        made(replace(RULE, forward="no.such.Class")).score([Item(task, trial, good)])


def test_the_epsilon_rule_pays_the_earlier_of_equals_and_smooths(text):
    rule = replace(RULE, rule="epsilon")
    stage = Stage(made(rule))
    models = {"early": (0.0, 1), "late": (0.0001, 9), "bad": (-0.5, 2)}
    stage.play(models)
    weights = stage.mechanism.weights(stage.state)
    assert weights["early"] == pytest.approx(1.0) and weights.get("bad", 0.0) == 0.0
    assert [
        t.hotkey for t, _ in stage.mechanism.tasks(ask(1, early=("early-1", 1), bad=("bad-2", 2)), stage.state, text)
    ] == ["bad", "early"]
    stage.play({"early": (0.0, 1), "winner": (0.5, 20)})
    assert stage.state.miners["early"]["weight"] == pytest.approx(
        0.5, abs=1e-6
    )  # half of the newest round, which it lost
