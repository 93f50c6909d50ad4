"""The evidence log: synced before it counts, cut where it is torn, replayed to the bit, and nobody reset by a kill."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import evidencekit
import pytest
from evidencekit import play

from raytensor import cli, config
from raytensor.errors import DataError
from raytensor.validators.evidence_log import EvidenceLog, read_log, replay

HERE = Path(__file__).parent


def test_replay_gives_the_same_weights_to_the_bit(tmp_path, capsys):
    board = play(tmp_path, 12)
    result = replay(tmp_path / "evidence.jsonl")
    assert (result.rounds, result.weights_checked, result.difference) == (12, 12, "")
    assert result.weights == board.weights() and result.state == board.state and max(result.weights.values()) > 0
    assert replay(tmp_path / "evidence.jsonl", until=5).state.round == 5
    assert cli.main(["replay", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == board.weights()


def test_the_first_difference_is_told(tmp_path, capsys):
    play(tmp_path, 6)
    path = tmp_path / "evidence.jsonl"
    lines = path.read_text().splitlines()
    place = next(n for n, line in enumerate(lines) if '"round":3' in line and "weights" in line)
    entry = json.loads(lines[place])
    before = entry["weights"]["m5"]
    entry["weights"]["m5"] = now = before * (1 + 2**-52)  # one unit in the last place
    lines[place] = json.dumps(entry)
    path.write_text("\n".join(lines) + "\n")
    assert cli.main(["replay", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"line {place + 1}, round 3: m5 had weight {now!r}, replay gives {before!r}" in out


def test_a_torn_last_line_is_cut_off_and_its_round_played_again(tmp_path):
    whole = play(tmp_path, 8)
    path = tmp_path / "evidence.jsonl"
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    for kept in (1, 40, len(lines[-2]) - 1):  # the evidence of round 7, torn anywhere, its weights not written
        path.write_bytes(b"".join(lines[:-2]) + lines[-2][:kept])
        (tmp_path / "board.json").unlink(missing_ok=True)
        assert list(read_log(path))[-1].round == 6
        assert play(tmp_path, 8).state == whole.state
        assert path.read_bytes() == data


def test_damage_elsewhere_is_refused(tmp_path):
    play(tmp_path, 3)
    path = tmp_path / "evidence.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{}\n" + b"".join(lines[2:]))
    with pytest.raises(DataError, match="line 2: is no line of an evidence log"):
        evidencekit.open_validator(tmp_path)
    with pytest.raises(DataError, match="is the evidence log of"):
        path.write_bytes(b"".join(lines))
        EvidenceLog(path, 2, "v", evidencekit.RULES)


def test_a_change_of_rules_and_a_cut_are_part_of_the_log(tmp_path):
    play(tmp_path, 6)
    path = tmp_path / "evidence.jsonl"
    rules = dataclasses.replace(evidencekit.RULES, mechanism=config.Mechanism(max_weight=0.4))
    log = EvidenceLog(path, 1, "v", rules)
    assert log.cut_after(4) == 2 and log.last_round == 4
    state = replay(path).state
    log.append_weights(4, rules.load().weights(state))
    log.close()
    result = replay(path)
    assert (
        result.difference == "" and max(result.weights.values()) == pytest.approx(0.4) and result.weights_checked == 6
    )


def test_kill_nine_resets_nobody(tmp_path):
    """A validator that is killed three times at work continues with exactly the scores of one that was not killed."""
    first = 0
    for kill_after in (7, 13, 22):
        command = [sys.executable, str(HERE / "evidence_writer.py"), str(tmp_path), str(first)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if int(line) >= kill_after:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
        board, log = evidencekit.open_validator(tmp_path)
        log.close()
        assert board.state.round >= kill_after
        unbroken = evidencekit.board()
        for number in range(board.state.round + 1):
            unbroken.update(evidencekit.evidence(number))
        assert board.state == unbroken.state and board.weights() == unbroken.weights()
        assert replay(tmp_path / "evidence.jsonl").difference == ""
        first = board.state.round + 1
