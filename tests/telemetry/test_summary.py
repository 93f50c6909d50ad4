"""The fold of a run's events, and the summary made of it, number by number."""

from __future__ import annotations

import json
import math

import pytest

from raytensor.telemetry import events as ev
from raytensor.telemetry.history import History, ranked, shares
from raytensor.telemetry.summary import build_summary, disk_sentence, disk_use, this_machine, this_versions

NEURONS = (
    ev.NeuronInfo(2, "M1", "miner", "honest", "miner-0"),
    ev.NeuronInfo(0, "O", "owner", "", "owner"),
    ev.NeuronInfo(1, "V1", "validator", "", "validator-0"),
    ev.NeuronInfo(3, "M2", "miner", "silent", "miner-1"),
)


def small_run() -> list[ev.Event]:
    return [
        ev.Started(name="demo", rounds=2, seed=9, version="1", t=100.0),
        ev.Phase(text="starting", t=100.5),
        ev.NetworkUp(endpoint="ws://127.0.0.1:1", netuid=4, spec_version=318, tempo=10, neurons=NEURONS, t=103.0),
        ev.BlockSeen(block=9, tempo=10, blocks_until_epoch=1, t=104.0),
        ev.RoundDone(
            round=1,
            rounds=2,
            wall_s=4.0,
            train_s=2.0,
            ask_s=0.5,
            score_s=0.5,
            chain_s=1.0,
            idle_s=0.0,
            scored=1,
            failures={"silent": 1},
            losses={"M1": 6.0},
            values={"M1": 0.5},
            t=108.0,
        ),
        ev.EpochSeen(
            block=10, incentive={"M1": 1.0}, dividends={"V1": 1.0}, emission_rao={"M1": 41, "V1": 40}, t=108.5
        ),
        ev.WeightsMade(round=1, hotkey="V1", values={"M1": 3.0, "M2": 1.0}, t=109.0),
        ev.Extrinsics(submitted=5, included=4, failed=1, t=109.0),
        ev.RoundDone(
            round=2,
            rounds=2,
            wall_s=6.0,
            train_s=4.0,
            ask_s=0.5,
            score_s=0.5,
            chain_s=0.0,
            idle_s=1.0,
            scored=1,
            failures={"silent": 1},
            losses={"M1": 5.0, "M2": math.nan},
            values={"M1": 0.75},
            t=114.0,
        ),
        ev.EpochSeen(
            block=20,
            incentive={"M1": 0.75, "M2": 0.25},
            validator_trust={"V1": 0.5},
            emission_alpha_rao={"M1": 62, "M2": 20, "V1": 82},
            stake_alpha_rao={"V1": 100, "O": 5},
            dividends={"V1": 1.0},
            emission_rao={"M1": 31, "M2": 10, "V1": 41},
            t=114.5,
        ),
        ev.BlockSeen(block=21, tempo=10, blocks_until_epoch=9, t=115.0),
        ev.Stopped(reason="finished", t=116.0),
    ]


def neuron(uid: int, hotkey: str, name: str, role: str, behaviour: str = "", **known: object) -> dict[str, object]:
    """An entry of the summary: what is given, and null or "" for the rest."""
    names = "loss score weight validator_trust emission_alpha_rao stake_alpha_rao weights_block heldout_loss"
    unknown = dict.fromkeys(names.split())
    start = {
        "uid": uid,
        "hotkey": hotkey,
        "name": name,
        "role": role,
        "behaviour": behaviour,
        "standing": "",
        "unpaid": "",
    }
    return start | unknown | {"incentive": 0.0, "dividends": 0.0, "emission_rao": 0} | known


def test_every_number_of_the_summary():
    receipt = ev.ReceiptSeen(call="set_weights", signer="V1", fate="included", block=12, fee_rao=7, t=113.0)
    history = History([*small_run()[:9], receipt, *small_run()[9:]])
    summary = build_summary(
        history,
        machine={"cpus": 2},
        versions={"python": "3.11"},
        heldout={"M1": 4.5, "M2": math.inf},
        disk_bytes={"total": 9},
    )
    assert summary == {
        "name": "demo",
        "rounds": 2,
        "rounds_planned": 2,
        "netuid": 4,
        "seed": 9,
        "wall_s": 16.0,
        "stopped": "finished",
        "chain": {"endpoint": "ws://127.0.0.1:1", "spec_version": 318, "tempo": 10, "last_block": 21, "epochs": 2},
        "extrinsics": {"submitted": 5, "included": 4, "failed": 1},
        "fees_rao": {"set_weights": 7},
        "setup_rao": {},
        "unpaid": "",
        "neurons": [
            neuron(0, "O", "owner", "owner", stake_alpha_rao=5),
            neuron(
                1, "V1", "validator-0", "validator", dividends=1.0, emission_rao=81, emission_alpha_rao=82,
                stake_alpha_rao=100, validator_trust=0.5, weights_block=12,
            ),
            neuron(
                2, "M1", "miner-0", "miner", "honest", loss=5.0, heldout_loss=4.5, score=0.75, weight=0.75,
                incentive=0.75, emission_rao=72, emission_alpha_rao=62,
            ),
            neuron(
                3, "M2", "miner-1", "miner", "silent", weight=0.25, incentive=0.25, emission_rao=10,
                emission_alpha_rao=20,
            ),
        ],
        "responses": 2,
        "failures": {"silent": 2},
        "time_s": {"training": 6.0, "asking": 1.0, "scoring": 1.0, "chain": 1.0, "idle": 1.0, "outside": 6.0},
        "time_share": {"training": 0.6, "asking": 0.1, "scoring": 0.1, "chain": 0.1, "idle": 0.1},
        "disk_bytes": {"total": 9},
        "machine": {"cpus": 2},
        "versions": {"python": "3.11"},
    }  # fmt: skip
    json.dumps(summary, allow_nan=False)


def test_loss_and_heldout_loss_are_two_numbers():
    """`loss` is what the validators' scores say, everywhere; `heldout_loss` is measured at the end."""
    of = {
        n["hotkey"]: (n["loss"], n["heldout_loss"])
        for n in build_summary(History(small_run()), heldout={"M1": 4.5})["neurons"]
    }
    assert of == {"O": (None, None), "V1": (None, None), "M1": (5.0, 4.5), "M2": (None, None)}
    of = {n["hotkey"]: (n["loss"], n["heldout_loss"]) for n in build_summary(History(small_run()))["neurons"]}
    assert of["M1"] == (5.0, None)


def test_disk_use_by_part_and_the_setting_that_bounds_it(tmp_path):
    for name, size in (
        ("checkpoints/round-000001/a", 30_000_000), ("evidence/v.jsonl", 1_200_000), ("chain/log", 300_000),
        ("journal.sqlite-wal", 400_000), ("events.jsonl", 50_000), ("report.html", 999), ("neurons.csv", 999),
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    (tmp_path / "link").symlink_to(tmp_path / "checkpoints")
    used = disk_use(tmp_path)
    assert used == {
        "checkpoints": 30_000_000, "evidence": 1_200_000, "chain": 700_000, "other": 50_000, "total": 31_950_000,
    }  # fmt: skip
    assert disk_sentence(used) == (
        "32 MB: checkpoints 30 MB (miners.checkpoint_every), evidence 1.2 MB (validators.evidence_segments), "
        "chain 0.7 MB (rounds), other 0.1 MB"
    )
    assert disk_sentence({}) == ""


def test_a_run_without_any_event_has_a_summary():
    summary = build_summary(History(), name="x")
    assert summary["name"] == "x" and summary["rounds"] == 0 and summary["neurons"] == [] and summary["wall_s"] == 0.0
    assert set(summary["time_share"].values()) == {None}
    json.dumps(summary, allow_nan=False)


def test_a_resumed_run_counts_work_once_and_extrinsics_of_both_processes():
    first = small_run()[:9]  # killed 14 s after its start, without a word
    again = [
        ev.Started(name="demo", rounds=4, seed=9, t=1000.0),
        ev.NetworkUp(endpoint="ws://127.0.0.1:2", netuid=4, spec_version=318, tempo=10, neurons=NEURONS, t=1003.0),
        ev.BlockSeen(block=31, tempo=10, blocks_until_epoch=9, t=1004.0),
        ev.RoundDone(
            round=2, rounds=4, wall_s=5.0, train_s=5.0, scored=2, losses={"M1": 5.5}, values={"M1": 1.0}, t=1009.0
        ),
        ev.Extrinsics(submitted=3, included=3, failed=0, t=1010.0),
    ]
    history = History(first + again)
    assert history.sessions == 2 and history.wall_s == 24.0 and history.stopped is None
    assert [event.round for event in history.rounds] == [1, 2] and history.losses("M1") == [(1, 6.0), (2, 5.5)]
    assert history.counts() == {"submitted": 8, "included": 7, "failed": 1}
    assert history.blocks == [(4.0, 9), (18.0, 31)]
    assert history.eta_s() == 2 * 4.5
    assert history.endpoint == "ws://127.0.0.1:2"


def test_the_same_epoch_seen_twice_pays_once():
    epoch = ev.EpochSeen(block=10, incentive={"M1": 1.0}, dividends={}, emission_rao={"M1": 41}, t=3.0)
    history = History([*small_run()[:3], epoch, epoch])
    assert [row.emission_rao for row in history.rows()] == [0, 0, 41, 0]


def test_weights_are_the_mean_of_the_validators_shares():
    made = [
        ev.WeightsMade(round=1, hotkey="V1", values={"M1": 9.0, "M2": 1.0}),
        ev.WeightsMade(round=1, hotkey="V2", values={"M1": 1.0, "M2": 1.0}),
    ]
    assert History([*small_run()[:3], *made]).mean_weights() == pytest.approx({"M1": 0.7, "M2": 0.3}, abs=1e-15)


def test_shares_of_odd_values():
    assert shares({"a": 1.0, "b": -5.0, "c": math.nan, "d": 3.0, "e": None}) == {
        "a": 0.25,
        "b": 0.0,
        "c": 0.0,
        "d": 0.75,
        "e": 0.0,
    }
    assert shares({"a": 0.0}) == {"a": 0.0}


def test_ranking_goes_by_incentive_then_weight_then_loss():
    assert [row.hotkey for row in ranked(History(small_run()).rows())] == ["M1", "M2"]
    early = [*small_run()[:3], ev.RoundDone(round=1, rounds=2, wall_s=1.0, losses={"M1": 6.0, "M2": 5.0})]
    assert [row.hotkey for row in ranked(History(early).rows())] == ["M2", "M1"]


def test_machine_and_versions_are_this_ones():
    machine, versions = this_machine(), this_versions()
    assert machine["cpus"] >= 1 and machine["memory_bytes"] > 2**28 and machine["processor"]
    assert versions["raytensor"] == "0.1.0" and versions["numpy"].count(".") == 2
