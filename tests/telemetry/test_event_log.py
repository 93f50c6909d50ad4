"""Events: one line each, read back equal, whatever happens to the process that writes them."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from raytensor.errors import DataError
from raytensor.telemetry import events as ev
from raytensor.telemetry import miner_events
from raytensor.telemetry.event_log import EventLog, from_line, read_events, to_line
from raytensor.types import Fate, Receipt

OLD = Path(__file__).parent / "old_events"
ALL = [
    ev.Started(name="demo", rounds=12, seed=3, version="0.1.0", t=1.0),
    ev.Phase(text="starting Ray", t=1.5),
    ev.NetworkUp(
        endpoint="ws://127.0.0.1:9944",
        netuid=1,
        spec_version=318,
        tempo=20,
        t=2.0,
        neurons=(ev.NeuronInfo(0, "5Owner", "owner"), ev.NeuronInfo(1, "5Min", "miner", "honest", "miner-0")),
    ),
    ev.RoundDone(
        round=1,
        rounds=12,
        wall_s=4.0,
        train_s=2.0,
        ask_s=0.5,
        score_s=1.0,
        chain_s=0.25,
        idle_s=0.25,
        scored=24,
        failures={"silent": 3},
        losses={"5Min": 5.5},
        values={"5Min": 0.25},
        t=3.0,
    ),
    ev.WeightsMade(round=1, hotkey="5Val", values={"5Min": 1.0}, t=3.5),
    ev.ReceiptSeen(
        call="SubtensorModule.set_weights",
        signer="5Val",
        fate="failed",
        block=7,
        error="NotRegistered",
        action="register",
        t=4.0,
    ),
    ev.BlockSeen(block=7, tempo=20, blocks_until_epoch=13, t=4.5),
    ev.EpochSeen(
        block=20, incentive={"5Min": 1.0}, dividends={"5Val": 1.0}, emission_rao={"5Min": 41_000_000_001}, t=5.0
    ),
    ev.Extrinsics(submitted=3, included=2, failed=1, t=5.5),
    ev.TrainStep(
        step=10, steps=40, loss=5.5, rate=3e-3, tokens_per_s=4000.0, eta_s=30.5, ranks=2, epoch=1, heldout=5.75, t=5.75
    ),
    ev.ValidatorUp(name="v", network="test", netuids=(1, 3), hotkeys={"5Val": "cold/hot"}, version="0.1.0", t=5.8),
    ev.SubnetFault(netuid=3, cause="RuntimeError: x", rest_s=20.0, t=5.85),
    ev.WeightsOverdue(netuid=3, hotkey="5Val", overdue=True, age_tempos=2.5, sentence="subnet 3: overdue", t=5.9),
    miner_events.MinerUp(
        name="m", network="test", netuids=(1,), hotkeys={"5Min": "c/h"}, addresses={"5Min": "[::2]:1"}, t=5.91
    ),
    miner_events.MinerRound(round=3, wall_s=2.5, losses={"5Min": 3.5}, t=5.92),
    miner_events.StandingSeen(
        netuid=1, hotkey="5Min", block=9, uid=4, rank=1, num_miners=2, incentive=0.5, replaced_in=3, t=5.93
    ),
    miner_events.TrafficSeen(outcomes={"ok": 3, "Refused": 1}, callers={"5Val": 3}, t=5.94),
    miner_events.MinerAlarm(about="axon", on=True, sentence="subnet 1: no axon", netuid=1, hotkey="5Min", t=5.95),
    ev.Warned(text="slow", fix="buy", t=6.0),
    ev.Stopped(reason="finished", t=7.0),
]


def test_every_kind_is_covered_here():
    assert {event.kind for event in ALL} == set(ev.KINDS)


@pytest.mark.parametrize("event", ALL, ids=lambda event: event.kind)
def test_a_line_gives_the_event_back(event):
    line = to_line(event)
    assert "\n" not in line
    assert json.loads(line)["kind"] == event.kind
    assert from_line(line) == event


def test_the_line_of_an_event_is_exact():
    assert to_line(ALL[6]) == '{"kind":"block_seen","t":4.5,"block":7,"tempo":20,"blocks_until_epoch":13}'


def test_text_with_line_ends_stays_on_one_line():
    event = ev.Warned(text="a\nb\u2028c", fix="…", t=1.0)
    assert to_line(event).count("\n") == 0
    assert from_line(to_line(event)) == event


def test_numpy_scalars_and_numbers_that_are_not_finite():
    event = ev.RoundDone(
        round=np.int64(1), rounds=2, wall_s=math.inf, losses={"a": np.float32(0.5), "b": math.nan}, t=1.0
    )
    body = json.loads(to_line(event))
    assert body["round"] == 1 and body["wall_s"] is None and body["losses"] == {"a": 0.5, "b": None}
    back = from_line(to_line(event))
    assert back.losses["a"] == 0.5 and math.isnan(back.losses["b"]) and math.isnan(back.wall_s)


def test_optional_fields_stay_none():
    event = ev.ReceiptSeen(call="a", signer="b", fate="unknown", t=1.0)
    assert from_line(to_line(event)) == event and from_line(to_line(event)).block is None


def test_a_receipt_becomes_an_event():
    receipt = Receipt(
        "id",
        "SubtensorModule.set_weights",
        "5Val",
        Fate.NOT_SENT,
        error="SettingWeightsTooFast",
        action="wait",
        fee_rao=5,
    )
    event = ev.ReceiptSeen.of(receipt)
    assert (event.fate, event.error, event.action, event.fee_rao, event.block) == (
        "not_sent",
        "SettingWeightsTooFast",
        "wait",
        5,
        None,
    )


def test_a_login_in_the_endpoint_is_never_written():
    event = ev.NetworkUp(
        endpoint="wss://bob:hunter2@node.example/x?api_key=abc", netuid=1, spec_version=1, tempo=2, neurons=()
    )
    assert "hunter2" not in to_line(event) and "abc" not in to_line(event)
    assert event.endpoint == "wss://[redacted]@node.example/x?api_key=[redacted]"


def test_newer_kinds_are_skipped_and_newer_fields_dropped(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"kind":"from_the_future","t":1}\n{"kind":"phase","t":2,"text":"x","more":1}\n')
    assert read_events(path) == [ev.Phase(text="x", t=2)]


def test_a_log_of_a_run_of_version_0_1_is_read():
    """Lines that the first version wrote, hotkeys shortened."""
    found = read_events(OLD / "run.jsonl")
    assert [event.kind for event in found] == [
        "started", "phase", "network_up", "block_seen", "epoch_seen", "weights_made", "round_done", "receipt_seen",
        "extrinsics", "stopped",
    ]  # fmt: skip
    rounds = [event for event in found if isinstance(event, ev.RoundDone)]
    assert (rounds[0].round, rounds[0].rounds, rounds[0].scored, rounds[0].netuid) == (1, 4, 24, 0)
    assert round(rounds[0].scored_per_s, 6) == 19.089138  # as the line says, which has it as a field
    assert rounds[0].losses["5CAq"] == 5.697883413248566
    assert [event.fee_rao for event in found if isinstance(event, ev.ReceiptSeen)] == [177908273]
    epoch = next(event for event in found if isinstance(event, ev.EpochSeen))
    assert (epoch.block, epoch.emission_rao["5C7z"], dict(epoch.emission_alpha_rao)) == (105, 7238336452, {})


def test_a_log_of_validate_of_version_0_1_is_read():
    found = read_events(OLD / "validate.jsonl")
    assert [event.kind for event in found] == [
        "validator_up", "round_done", "weights_made", "receipt_seen", "receipt_seen", "subnet_fault", "weights_overdue",
    ]  # fmt: skip
    played, made, included, failed = found[1:5]
    assert (played.netuid, played.round, played.block, played.asked, played.answered, played.scored) == (
        1,
        4,
        77,
        6,
        5,
        4,
    )
    assert dict(played.failures) == {"timeout": 1, "error": 1} and played.miners == 3
    assert (made.netuid, made.hotkey, made.block, dict(made.values)) == (1, "5GrwvaEF", 77, {})
    assert (included.signer, included.call, included.fate, included.block) == ("5GrwvaEF", "weights", "included", 80)
    assert (failed.netuid, failed.error, failed.action) == (1, "Banned", "wait: x")


def test_log_appends_over_sessions(tmp_path):
    path = tmp_path / "events.jsonl"
    for event in ALL:
        with EventLog(path) as log:
            log.append(event)
    assert read_events(path) == ALL


def test_a_torn_last_line_is_left_out_and_cut_off_on_opening(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append(ALL[0])
    with path.open("a") as file:
        file.write('{"kind":"phase","t":2,"te')
    assert read_events(path) == ALL[:1]
    with EventLog(path) as log:
        log.append(ALL[1])
    assert read_events(path) == ALL[:2]


@pytest.mark.parametrize("line", ["{", "[]", '{"t":1}', '{"kind":"phase","t":1}', "\xff"])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "events.jsonl"
    path.write_bytes((to_line(ALL[1]) + "\n").encode() + line.encode("latin-1") + b"\n")
    with pytest.raises(DataError, match="events.jsonl, line 2: not an event"):
        read_events(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="no events to read"):
        read_events(tmp_path / "events.jsonl")


def test_kill_9_loses_no_event_that_was_appended(tmp_path):
    path = tmp_path / "events.jsonl"
    program = (
        "import sys; from pathlib import Path; from raytensor.telemetry.event_log import EventLog\n"
        "from raytensor.telemetry.events import Phase\n"
        "log = EventLog(Path(sys.argv[1]))\n"
        "n = 0\n"
        "while True:\n"
        "    log.append(Phase(text=str(n))); n += 1; print(n, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    reported = 0
    while reported < 200 and time.monotonic() < deadline:
        reported = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    reported = int((process.stdout.read().split() or [reported])[-1])
    process.wait(timeout=60)
    texts = [event.text for event in read_events(path)]
    assert reported >= 200
    assert len(texts) >= reported and texts == [str(n) for n in range(len(texts))]
