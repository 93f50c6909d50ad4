"""Trials without Tune: what they train, what is on file, how a host brings them back, what they would earn."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from raytensor import config
from raytensor.data import text as texts
from raytensor.data.text import Text, unigram
from raytensor.errors import ConfigError
from raytensor.jobs.sweep import outcome
from raytensor.jobs.sweep.host import TrialHost
from raytensor.jobs.sweep.incentive import epoch_shares, incentives
from raytensor.jobs.sweep.rank import TrialRank
from raytensor.jobs.sweep.store import Store, key_of
from raytensor.jobs.sweep.trial_data import TrialData

V = 64
BASE = [
    "profile.hidden=32",
    "profile.layers=1",
    "profile.steps=6",
    "profile.batch_size=4",
    "miners.seq_len=16",
    "miners.heldout_rows=64",
    "mechanism.query.rows=64",
    "mechanism.query.context=12",
    "mechanism.query.shortest=4",
    "mechanism.query.top_k=16",
]


def lineage(*overrides: str):
    return ((0, overrides),)


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    """Text with something to learn: each token follows from the one before in three cases of four."""
    draw = np.random.default_rng(0)

    def words(n: int) -> np.ndarray:
        out = np.zeros(n, np.uint16)
        for i in range(1, n):
            out[i] = (out[i - 1] * 7 + 3) % V if draw.random() < 0.75 else draw.integers(V)
        return out

    train, heldout = words(6000), words(3000)
    path = tmp_path_factory.mktemp("text") / "text.npz"
    texts.save(path, Text(train, heldout, np.array([0, 6000]), np.array([0, 3000]), unigram(train, V), V, 1.0))
    return path


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def at_once(host: TrialHost, lineages, round: int) -> list[dict]:
    """As Tune asks: every trial for its next round, at the same time."""
    found: list = [None] * len(lineages)

    def ask(place: int) -> None:
        found[place] = host.advance(lineages[place], round)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(lineages))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return found


def test_a_trial_is_its_override_list(text_file, tmp_path):
    """Beside others or alone, in one process or in two lives: the same numbers, bit for bit."""
    trials = [
        lineage(f"profile.lr={lr}", f"profile.layers={layers}")
        for lr, layers in ((0.003, 1), (0.01, 1), (0.03, 1), (0.01, 2))
    ]
    host = TrialHost(BASE, text_file, tmp_path / "one")
    together = [at_once(host, trials, round) for round in (1, 2, 3)]
    assert together[2][1]["heldout_loss"] < together[0][1]["heldout_loss"] < np.log(V) + 0.3
    first = TrialHost(BASE, text_file, tmp_path / "two")
    alone = [first.advance(trials[1], round) for round in (1, 2)]
    again = TrialHost(BASE, text_file, tmp_path / "two")  # as after kill -9
    alone.append(again.advance(trials[1], 3))
    for round in range(3):
        assert {k: v for k, v in alone[round].items() if k != "wall_s"} == {
            k: v for k, v in together[round][1].items() if k != "wall_s"
        }


def test_what_is_on_file_is_not_trained_again(text_file, tmp_path, monkeypatch):
    trial = lineage("profile.lr=0.01")
    host = TrialHost(BASE, text_file, tmp_path)
    known = [host.advance(trial, round) for round in (1, 2)]
    again = TrialHost(BASE, text_file, tmp_path)
    monkeypatch.setattr(again, "_train_group", lambda group: pytest.fail("trained again"))
    assert [again.advance(trial, round) for round in (1, 2)] == known


def test_a_lost_checkpoint_is_made_again(text_file, tmp_path):
    trial = lineage("profile.lr=0.01")
    host = TrialHost(BASE, text_file, tmp_path / "a")
    whole = [host.advance(trial, round)["heldout_loss"] for round in (1, 2, 3, 4)]
    store = Store(tmp_path / "a")
    assert sorted(p.name for p in store.checkpoint(trial, 1).parent.glob("round-*")) == ["round-00003", "round-00004"]
    other = TrialHost(BASE, text_file, tmp_path / "b")
    assert other.advance(trial, 1)["heldout_loss"] == whole[0]
    for path in store.folder.parent.joinpath("b", key_of(trial)).glob("round-*"):
        path.rename(path.with_name("gone"))
    fresh = TrialHost(BASE, text_file, tmp_path / "b")
    assert fresh.advance(trial, 2)["heldout_loss"] == whole[1]


def test_a_damaged_checkpoint_is_told_and_its_rounds_are_trained_again(text_file, tmp_path):
    trial = lineage("profile.lr=0.01")
    whole = [TrialHost(BASE, text_file, tmp_path / "a").advance(trial, round)["heldout_loss"] for round in (1, 2, 3)]
    host = TrialHost(BASE, text_file, tmp_path / "b")
    host.advance(trial, 1), host.advance(trial, 2)
    file = Store(tmp_path / "b").checkpoint(trial, 2) / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 16
    file.write_bytes(data)
    result = TrialHost(BASE, text_file, tmp_path / "b").advance(trial, 3)
    assert result["heldout_loss"] == whole[2]
    assert result["setback"] == (
        f"the checkpoint {file.parent} can't be loaded: model.safetensors is damaged: "
        "its hash is not the one that was written; "
        "what it held was trained again"
    )
    for path in file.parent.parent.glob("round-*/optimizer.safetensors"):  # none is whole: from the start
        path.unlink()
    result = TrialHost(BASE, text_file, tmp_path / "b").advance(trial, 4)
    assert result["setback"].count("can't be loaded") == 2
    assert result["heldout_loss"] == TrialHost(BASE, text_file, tmp_path / "a").advance(trial, 4)["heldout_loss"]


def test_a_trial_goes_on_from_another_with_changed_settings(text_file, tmp_path):
    """Population based training: the child continues the parent's model with its own rate; the parent keeps its own."""
    parent = lineage("profile.lr=0.003")
    child = (*parent, (2, ("profile.lr=0.03",)))
    host = TrialHost(BASE, text_file, tmp_path, keep_all=True)
    straight = [host.advance(parent, round)["heldout_loss"] for round in (1, 2, 3)]
    changed = host.advance(child, 3)["heldout_loss"]
    assert changed != straight[2]
    store = Store(tmp_path, keep_all=True)
    assert [r["heldout_loss"] for r in store.results(child).values()] == [*straight[:2], changed]
    same = (*parent, (2, ("profile.lr=0.003",)))
    assert host.advance(same, 3)["heldout_loss"] == straight[2]
    again = TrialHost(
        BASE, text_file, tmp_path / "other"
    )  # nothing on file: parent and child are trained from the start
    assert again.advance(child, 3)["heldout_loss"] == changed


def test_a_rank_and_a_host_train_the_same_trial(text_file, tmp_path):
    """The engine of its own that a larger trial has, to 1e-3 nats (AdamW enlarges the rounding of float32)."""
    trial = lineage("profile.lr=0.01")
    host = TrialHost(BASE, text_file, tmp_path / "host")
    rank = TrialRank(BASE, text_file, tmp_path / "rank", trial, 0, None)
    for round in (1, 2):
        assert rank.advance(trial, round)["heldout_loss"] == pytest.approx(
            host.advance(trial, round)["heldout_loss"], abs=1e-3
        )
    known = rank.advance(trial, 2)
    assert TrialRank(BASE, text_file, tmp_path / "rank", trial, 0, None).advance(trial, 2) == known


def test_a_model_that_diverges_says_so(text_file, tmp_path):
    result = TrialHost([*BASE, "profile.steps=20"], text_file, tmp_path).advance(lineage("profile.lr=1e30"), 1)
    assert result["heldout_loss"] is None
    assert outcome.outcome_of(1, lineage(), {1: result}, rounds=3, error="").status == outcome.DIVERGED


def test_a_mistake_reaches_its_caller_and_no_other(text_file, tmp_path):
    host = TrialHost(BASE, text_file, tmp_path)
    with pytest.raises(ConfigError, match="multiple of 2"):
        host.advance(lineage("profile.hidden=30", "profile.heads=4"), 1)
    assert host.advance(lineage("profile.lr=0.01"), 1)["round"] == 1


def test_a_torn_line_is_dropped(tmp_path):
    store, trial = Store(tmp_path), lineage("a=1")
    store.add(trial, {"round": 1, "heldout_loss": 2.0})
    file = tmp_path / key_of(trial) / "results.jsonl"
    file.write_text(file.read_text() + '{"round": 2, "held')
    assert list(store.results(trial)) == [1]
    store.add(trial, {"round": 2, "heldout_loss": 1.0})
    assert store.results(trial)[2]["heldout_loss"] == 1.0


def test_incentive_follows_the_models(text_file, tmp_path):
    """Side by side as miners: the better a trial's model, the more it earns; an untrained one earns nothing."""
    trials = {
        1: (lineage("profile.lr=0.02"), 6),
        2: (lineage("profile.lr=0.02"), 3),
        3: (lineage("profile.lr=1e-6"), 1),
    }
    host = TrialHost(BASE, text_file, tmp_path, keep_all=True)
    for trial, rounds in trials.values():
        for round in range(1, rounds + 1):
            host.advance(trial, round)
    data = TrialData(BASE, texts.load(text_file))
    found = incentives(
        data.settings(()), data.text, list(trials), lambda number, tasks: host.answer(*trials[number], tasks)
    )
    assert found[1] > found[2] > found[3] == 0.0 and sum(found.values()) == pytest.approx(1.0, abs=1e-6)


def test_shares_of_one_epoch_by_hand():
    """Validators that agree: incentive is what they all say. Nobody valued: nobody paid."""
    shares = epoch_shares([[3.0, 1.0, 0.0]] * 3, [100 * 10**9, 70 * 10**9, 49 * 10**9])
    assert shares == pytest.approx([0.75, 0.25, 0.0], abs=1e-4)
    assert epoch_shares([[0.0, 0.0]], [10**9]) == [0.0, 0.0]
    # One in three by stake says otherwise: the consensus clips it.
    clipped = epoch_shares([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [100 * 10**9, 70 * 10**9, 49 * 10**9])
    assert clipped[1] == 0.0


def test_the_best_is_a_file_that_run_takes(tmp_path):
    cfg = config.compose("sweep", [*BASE, "profile.lr=0.0042", "data.tokenizer=bytes"])
    trial = outcome.TrialOutcome(3, lineage("profile.lr=0.0042"), outcome.FINISHED, {1: 3.0, 2: 2.5}, {1: 3.1, 2: 2.4})
    command = outcome.write_best(tmp_path, cfg, trial)
    override = command.split("'")[1]
    run = config.compose("run", [override, "experiment=best"])
    (profile,) = run.miners.profiles
    assert (profile.lr, profile.hidden, profile.steps, run.miners.seq_len, run.data.tokenizer) == (
        0.0042,
        32,
        6,
        16,
        "bytes",
    )


def test_ranking():
    made = [
        outcome.TrialOutcome(1, lineage("a=1"), outcome.STOPPED, {1: 2.0}, {}, incentive=0.7),
        outcome.TrialOutcome(2, lineage("a=2"), outcome.FINISHED, {1: 3.0, 2: 1.0}, {}, incentive=0.3),
        outcome.TrialOutcome(3, lineage("a=3"), outcome.FAILED, {1: 0.5}, {}, error="boom"),
        outcome.TrialOutcome(4, lineage("a=4"), outcome.DIVERGED, {}, {}),
    ]
    assert [t.number for t in outcome.ranked(made, "heldout_loss")] == [2, 1, 3, 4]
    assert [t.number for t in outcome.ranked(made, "incentive")][:2] == [1, 2]
    head, best, *_ = outcome.table(outcome.ranked(made, "heldout_loss"), ["a"])
    assert dict(zip(head, best, strict=True)) == {
        "rank": "1",
        "trial": "2",
        "a": "2",
        "status": "finished",
        "rounds": "2",
        "heldout_loss": "1.0000",
        "train_loss": "",
        "incentive": "0.3000",
        "train_s": "0.0",
    }
