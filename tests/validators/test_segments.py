"""Segments of an evidence log: closed when full, bounded in number, replayed to the bit, whole after any kill."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from pathlib import Path

import evidencekit
import pytest
from evidencekit import open_validator, play

from raytensor import cli, disk
from raytensor.errors import DataError
from raytensor.mechanisms.evidence import State
from raytensor.validators import evidence_log as evidence_module
from raytensor.validators import segments
from raytensor.validators.evidence_log import Keep, read_log, replay

THREES = Keep(segment_rounds=3, segments=None)
# Whatever changes files: the log's methods and the functions of segments.py.
STEPS = {(evidence_module.__file__, name) for name in ("append", "append_weights", "roll", "cut_after", "_write")} | {
    (segments.__file__, name) for name in ("restore", "close")
}
STEPS |= {(disk.__file__, name) for name in ("write_bytes", "replace", "cut_torn_line", "sync", "sync_folder")}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".json")


@functools.cache
def unbroken(rounds: int) -> State:
    board = evidencekit.board()
    for number in range(rounds):
        board.update(evidencekit.evidence(number))
    return board.state


def test_a_full_segment_is_closed_and_all_are_replayed_in_order(tmp_path, capsys):
    board = play(tmp_path, 11, THREES)
    path = tmp_path / "evidence.jsonl"
    assert names(tmp_path) == [
        "evidence-000001.jsonl",
        "evidence-000002.jsonl",
        "evidence-000003.jsonl",
        "evidence.jsonl",
    ]
    kinds = [(entry.path.name, entry.kind, entry.round) for entry in read_log(path)]
    three = [(kind, number) for number in range(3) for kind in ("evidence", "weights")]
    assert kinds[:7] == [("evidence-000001.jsonl", "rules", -1)] + [
        ("evidence-000001.jsonl", kind, number) for kind, number in three
    ]
    assert kinds[7:9] == [("evidence-000002.jsonl", "rules", -1), ("evidence-000002.jsonl", "state", 2)]
    assert kinds[-6:] == [("evidence.jsonl", "rules", -1), ("evidence.jsonl", "state", 8)] + [
        ("evidence.jsonl", kind, number) for number in (9, 10) for kind in ("evidence", "weights")
    ]
    result = replay(path)
    assert (result.rounds, result.weights_checked, result.difference) == (11, 11, "")
    assert result.state == board.state == unbroken(11) and result.weights == board.weights()
    assert replay(path, until=4).state == unbroken(5)
    assert cli.main(["replay", str(tmp_path), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["log"] == str(path) and json.loads(line)["rounds"] == 11


def test_a_closed_segment_is_replayed_by_itself(tmp_path):
    play(tmp_path, 11, THREES)
    result = replay(tmp_path / "evidence-000002.jsonl")
    # The state that it begins with, then its own three rounds; their weights and those that are made are the same.
    assert (result.rounds, result.weights_checked, result.difference) == (3, 3, "")
    assert result.state == unbroken(6)


def test_by_size(tmp_path):
    play(tmp_path, 12, Keep(segment_bytes=4000, segments=None))
    closed = segments.closed(tmp_path / "evidence.jsonl")
    assert len(closed) >= 2 and all(file.stat().st_size >= 4000 for file in closed)
    assert replay(tmp_path / "evidence.jsonl").state == unbroken(12)
    # A bound below the size of the head itself closes after each round, not for ever.
    play(tmp_path / "small", 4, Keep(segment_bytes=1, segments=None))
    assert len(segments.closed(tmp_path / "small" / "evidence.jsonl")) == 4


def test_the_number_of_closed_segments_is_bounded_and_weights_stay_the_same_to_the_bit(tmp_path):
    keep = Keep(segment_rounds=2, segments=2)
    board = play(tmp_path, 13, keep, save=True)
    assert names(tmp_path) == ["evidence-000005.jsonl", "evidence-000006.jsonl", "evidence.jsonl"]
    result = replay(tmp_path / "evidence.jsonl")
    assert (result.rounds, result.weights_checked, result.difference) == (5, 5, "")
    assert result.state == board.state == unbroken(13)
    assert play(tmp_path, 15, keep, save=True).state == unbroken(15)
    assert names(tmp_path) == ["evidence-000006.jsonl", "evidence-000007.jsonl", "evidence.jsonl"]


def test_what_comes_after_the_saved_state_is_kept_whatever_the_bound(tmp_path):
    keep = Keep(segment_rounds=2, segments=1)
    board, log = open_validator(tmp_path, keep)
    for number in range(8):
        one = evidencekit.evidence(number)
        log.append(one)
        board.update(one)
        log.append_weights(number, board.weights())
        log.roll(board.state, 4)  # the state on the disk is that of round 4
    log.close()
    # Rounds 0..1 and 2..3 lie before it; those of 4..5 are needed from round 5 on.
    assert names(tmp_path) == ["evidence-000003.jsonl", "evidence-000004.jsonl", "evidence.jsonl"]
    assert replay(tmp_path / "evidence.jsonl", state=unbroken(5)).state == unbroken(8)


def test_a_restart_reads_no_segment_that_ends_before_its_saved_state(tmp_path):
    play(tmp_path, 8, THREES, save=True)
    (tmp_path / "evidence-000001.jsonl").write_text("damaged\n")
    assert play(tmp_path, 9, THREES, save=True).state == unbroken(9)
    with pytest.raises(DataError, match=r"evidence-000001.jsonl, line 1: is no line of an evidence log"):
        replay(tmp_path / "evidence.jsonl")


def test_a_torn_last_line_of_the_newest_segment_only(tmp_path):
    play(tmp_path, 8, THREES)
    path = tmp_path / "evidence.jsonl"
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    for kept in (1, 40, len(lines[-2]) - 1):  # the evidence of round 7, torn anywhere, its weights not written
        path.write_bytes(b"".join(lines[:-2]) + lines[-2][:kept])
        assert replay(path).state == unbroken(7)
        assert play(tmp_path, 8, THREES).state == unbroken(8) and path.read_bytes() == data
    closed = tmp_path / "evidence-000001.jsonl"
    closed.write_bytes(closed.read_bytes()[:-1])
    with pytest.raises(
        DataError, match=r"evidence-000001.jsonl, line 7: the segment is closed, and ends within a line"
    ):
        replay(path)


def test_a_difference_in_a_closed_segment_is_told_with_its_name(tmp_path):
    play(tmp_path, 8, THREES)
    closed = tmp_path / "evidence-000002.jsonl"
    lines = closed.read_text().splitlines()
    entry = json.loads(lines[3])
    entry["weights"]["m5"] = now = entry["weights"]["m5"] * (1 + 2**-52)
    closed.write_text("\n".join([*lines[:3], json.dumps(entry), *lines[4:]]) + "\n")
    assert replay(tmp_path / "evidence.jsonl").difference.startswith(
        f"evidence-000002.jsonl, line 4, round 3: m5 had weight {now!r}"
    )
    # A state that somebody changed is not gone on from silently.
    entry = json.loads(lines[1])
    entry["state"]["miners"]["m5"] = {}
    closed.write_text("\n".join([lines[0], json.dumps(entry), *lines[2:]]) + "\n")
    assert (
        replay(tmp_path / "evidence.jsonl").difference
        == "evidence-000002.jsonl, line 2, round 2: replay gives another state"
    )


def test_rounds_are_cut_off_over_segments(tmp_path):
    play(tmp_path, 11, THREES)
    _, log = open_validator(tmp_path, THREES)
    gone = log.cut_after(4)
    assert gone == 6 + 8 + 2 and log.last_round == 4  # a segment is rules, state, three times two lines
    log.close()
    assert names(tmp_path) == ["evidence-000001.jsonl", "evidence.jsonl"]
    assert replay(tmp_path / "evidence.jsonl").state == unbroken(5)
    assert play(tmp_path, 11, THREES).state == unbroken(11)
    assert names(tmp_path) == [
        "evidence-000001.jsonl",
        "evidence-000002.jsonl",
        "evidence-000003.jsonl",
        "evidence.jsonl",
    ]
    result = replay(tmp_path / "evidence.jsonl")
    assert (result.rounds, result.difference) == (11, "")


def test_another_log_in_the_same_folder_is_another_log(tmp_path):
    for name in ("evidence-1.jsonl", "evidence-000001x.jsonl", "other-000001.jsonl", "evidence-000007.jsonl"):
        (tmp_path / name).touch()
    assert [path.name for path in segments.closed(tmp_path / "evidence.jsonl")] == ["evidence-000007.jsonl"]
    assert (
        segments.log_of(tmp_path / "evidence-000007.jsonl")
        == segments.log_of(tmp_path / "evidence.jsonl")
        == tmp_path / "evidence.jsonl"
    )


def test_a_reader_beside_the_writer_misses_nothing(tmp_path):
    """Segments are closed between any two lines that it reads."""
    play(tmp_path, 5, Keep(segment_rounds=2, segments=None))
    seen, rounds = [], 5
    for entry in read_log(tmp_path / "evidence.jsonl"):
        if entry.kind == "evidence":
            seen.append(entry.round)
            if rounds < 12:
                rounds += 1
                play(tmp_path, rounds, Keep(segment_rounds=2, segments=None))
    assert seen == list(range(12))


def killed_at(step: int, work) -> tuple[bool, bytes]:
    """Do `work` in a child that is killed when it comes to the step-th line of `STEPS`. (whether it came to its end,
    what it told)"""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        left = [step]

        def trace(frame, what, _):
            if (frame.f_code.co_filename, frame.f_code.co_name) not in STEPS:
                return None
            if what == "line":
                left[0] -= 1
                if left[0] <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            work(lambda number: os.write(into, bytes([number])))
        finally:
            sys.settrace(None)
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        told = pipe.read()
    return os.waitpid(child, 0)[1] == 0, told


def test_a_kill_between_any_two_steps_loses_no_evidence_and_no_score(tmp_path):
    keep, step, ended, half_closed = Keep(segment_rounds=2, segments=None), 0, False, 0
    play(tmp_path / "before", 3, keep)
    start = {path.name: path.read_bytes() for path in (tmp_path / "before").iterdir()}
    while not ended:
        step += 1
        folder = tmp_path / str(step)
        folder.mkdir()
        for name, data in start.items():
            (folder / name).write_bytes(data)
        ended, told = killed_at(step, lambda tell, folder=folder: play(folder, 5, keep, told=tell))
        path = folder / "evidence.jsonl"
        half_closed += not path.exists()
        on_disk = max([2, *told])
        seen = replay(path)
        assert seen.state == unbroken(seen.state.round + 1) and not seen.difference, (
            f"step {step}: a reader sees a whole log"
        )
        board, log = open_validator(folder, keep)
        log.close()
        assert board.state.round >= on_disk, f"step {step}: round {on_disk} was on the disk"
        assert board.state == unbroken(board.state.round + 1)
        assert play(folder, 6, keep).state == unbroken(6)
        result = replay(path)
        assert (result.rounds, result.difference, result.state) == (6, "", unbroken(6)), f"step {step}"
        assert not list(folder.glob(".*.tmp"))
    assert step > 60 and half_closed >= 1, "the step between two renames was among them"


def test_a_kill_while_rounds_are_cut_off(tmp_path):
    keep, step, ended = Keep(segment_rounds=2, segments=None), 0, False
    play(tmp_path / "before", 7, keep)
    start = {path.name: path.read_bytes() for path in (tmp_path / "before").iterdir()}

    def cut(folder):
        _, log = open_validator(folder, keep)
        log.cut_after(2)
        log.close()

    while not ended:
        step += 1
        folder = tmp_path / str(step)
        folder.mkdir()
        for name, data in start.items():
            (folder / name).write_bytes(data)
        ended, _ = killed_at(step, lambda tell, folder=folder: cut(folder))
        cut(folder)  # the next process begins with the same
        assert replay(folder / "evidence.jsonl").state == unbroken(3), f"step {step}"
        assert play(folder, 7, keep).state == unbroken(7)
        assert (replay(folder / "evidence.jsonl").rounds, replay(folder / "evidence.jsonl").difference) == (7, "")
    assert step > 20
