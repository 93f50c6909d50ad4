"""Several epochs, several mechanisms, snapshots, what-if and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import random_network

from raytensor.commands.consensus import consensus_main
from raytensor.consensus import Rows, epoch, epoch_with_mechanisms, epochs, split_emissions
from raytensor.consensus.snapshot import SCALARS, Snapshot, read_snapshot, write_snapshot
from raytensor.consensus.whatif import apply_changes, compare, read_weights
from raytensor.errors import ConfigError, DataError

VECTORS = Path(__file__).parent / "vectors"


@pytest.fixture
def snapshot():
    inputs = replace(random_network(53), emission=10**12, kappa=32767)
    names = [f"5Hot{uid}" for uid in range(inputs.n)]
    return Snapshot(3, 0, tuple(names), tuple(name.replace("Hot", "Cold") for name in names), inputs, "a test")


@pytest.fixture
def file(snapshot, tmp_path):
    path = tmp_path / "metagraph.parquet"
    write_snapshot(snapshot, path)
    return str(path)


def test_epochs_carry_permits_and_bonds(differing):
    inputs = random_network(53)
    outputs = epochs(inputs, 3)
    second = replace(
        inputs,
        block=inputs.block + max(inputs.tempo, 1),
        last_mechanism_step_block=inputs.block,
        validator_permit=outputs[0].validator_permit,
        bonds=outputs[0].bonds,
    )
    assert differing(outputs[0], epoch(inputs)) == []
    assert differing(outputs[1], epoch(second)) == []
    reference = epochs(inputs, 3, implementation="reference")
    assert [differing(a, b) for a, b in zip(outputs, reference, strict=True)] == [[], [], []]


def test_without_resubmitting_everyone_turns_inactive():
    inputs = replace(random_network(53), activity_cutoff=100, tempo=99)
    inputs = replace(inputs, last_update=np.full(inputs.n, inputs.block - 1, np.uint64))
    setters = np.diff(inputs.weights.indptr) > 0
    assert not epochs(inputs, 4)[-1].active.any()
    assert np.array_equal(epochs(inputs, 4, resubmit=True)[-1].active, setters)


def test_between_changes_later_epochs_only():
    inputs = random_network(53)
    plain, changed = epochs(inputs, 2), epochs(inputs, 2, between=lambda i, number: replace(i, emission=7))
    assert changed[0].emission.sum() == plain[0].emission.sum() and changed[1].emission.sum() <= 7
    with pytest.raises(ConfigError, match="num_epochs"):
        epochs(inputs, 0)


def test_split_emissions():
    assert split_emissions(1001, 2) == [501, 500]
    assert split_emissions(1000, 2, [16383, 49152]) == [250, 750]  # floors of 249.98 and 750.01; the rest goes to 0
    assert split_emissions(1000, 3, [65535]) == [1000, 0, 0]
    assert split_emissions(0, 2) == [0, 0]


def test_one_mechanism_is_the_epoch_itself():
    inputs = random_network(53)
    alone, together = epoch(inputs), epoch_with_mechanisms([inputs])
    for name in ("dividends", "consensus", "validator_trust", "stake_weight", "emission", "server_emission", "active"):
        assert np.array_equal(getattr(alone, name), getattr(together, name)), name


def test_two_mechanisms_are_weighted_by_their_emission():
    first, second = replace(random_network(53), emission=300), replace(random_network(53), emission=100, kappa=1)
    outputs = [epoch(first), epoch(second)]
    together = epoch_with_mechanisms([first, second])
    weights = [(300 << 64) // 400, (100 << 64) // 400]
    for uid in range(first.n):
        expected = 0
        for output, weight in zip(outputs, weights, strict=True):
            expected += int(output.consensus[uid]) * weight >> 64
        assert together.consensus[uid] == expected
        paid = [int(output.server_emission[uid]) for output in outputs]
        assert together.server_emission[uid] == sum(paid)
    with pytest.raises(ConfigError, match="mechanisms"):
        epoch_with_mechanisms([])


def test_resetting_bonds_takes_every_entry_towards_a_miner():
    rows = Rows.from_lists([[(1, 5), (2, 0)], [(0, 3)], [(2, 9), (1, 1)]])
    reset = rows.without_column(2)
    assert reset.to_lists() == [[(1, 5)], [(0, 3)], [(1, 1)]]


def test_a_snapshot_survives_the_file(snapshot, file):
    again = read_snapshot(file)
    assert again.hotkeys == snapshot.hotkeys and again.source == "a test" and again.netuid == 3
    assert all(getattr(again.inputs, name) == getattr(snapshot.inputs, name) for name in SCALARS)
    for name in ("stake", "stake_frac", "validator_permit", "last_update", "block_at_registration", "commit_block"):
        assert np.array_equal(getattr(again.inputs, name), getattr(snapshot.inputs, name)), name
    assert again.inputs.weights.same_as(snapshot.inputs.weights) and again.inputs.bonds.same_as(snapshot.inputs.bonds)


def test_a_file_of_the_first_format_opens(tmp_path, snapshot, file):
    """Format 1 has no previous consensus, no modes and one mechanism; its answer stays the one of then."""
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    meta = json.loads(table.schema.metadata[b"raytensor.consensus"])
    later = ("last_yuma_step_block", "liquid_alpha_mode", "epoch_kind", "pots")
    meta = {key: value for key, value in meta.items() if key not in later} | {"format": 1}
    old = table.drop_columns(["previous_consensus"])
    old = old.replace_schema_metadata({b"raytensor.consensus": json.dumps(meta).encode()})
    pq.write_table(old, tmp_path / "old.parquet")
    again = read_snapshot(tmp_path / "old.parquet")
    assert again.subnet is None and len(again.inputs.previous_consensus) == 0
    assert compare(again, ["set.kappa=65535"], epoch).rows() == compare(snapshot, ["set.kappa=65535"], epoch).rows()


def test_a_broken_snapshot_is_refused(tmp_path, snapshot, file):
    import pyarrow.parquet as pq

    other = tmp_path / "other.parquet"
    other.write_text("{}")
    with pytest.raises(DataError, match="not a readable Parquet"):
        read_snapshot(other)
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({}), other)
    with pytest.raises(DataError, match="metadata"):
        read_snapshot(other)
    pq.write_table(table.drop_columns(["stake_rao"]), other)
    with pytest.raises(DataError, match="stake_rao"):
        read_snapshot(other)
    pq.write_table(table.slice(1), other)
    with pytest.raises(DataError):
        read_snapshot(other)


def test_changes_reach_the_input(snapshot, tmp_path):
    weights = tmp_path / "mine.json"
    weights.write_text(json.dumps({"5Hot1": 2.0, "uid:2": 1, "5Hot3": 0}))
    changed = apply_changes(
        snapshot,
        [
            "set.kappa=0.5",
            "set.bonds_penalty=7",
            "set.yuma3=true",
            "set.owner_uid=none",
            "set.stake.5Hot0=2.5alpha",
            "set.stake.uid:1=77",
            "set.permit.5Hot2=true",
            "set.last_update.5Hot2=12",
            f"set.weights.5Hot4={weights}",
        ],
    )
    assert changed.kappa == 32767 and changed.bonds_penalty == 7 and changed.yuma3 and changed.owner_uid is None
    assert changed.stake[0] == 2_500_000_000 and changed.stake_frac[0] == 0 and changed.stake[1] == 77
    assert changed.validator_permit[2] and changed.last_update[2] == 12
    assert changed.weights.row(4) == [(1, 65535), (2, 32768), (3, 0)]
    assert changed.last_update[4] == changed.block
    assert snapshot.inputs.weights.row(4) != changed.weights.row(4)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("kappa=1", "write set.FIELD"),
        ("set.kapa=1", 'no field "kapa"'),
        ("set.kappa=x", "integer that the chain stores"),
        ("set.kappa=70000", "kappa: 70000 is outside"),
        ("set.kappa=1.5", "kappa: 98302 is outside"),
        ("set.yuma3=1", "true or false"),
        ("set.stake=1", "write the neuron too"),
        ("set.stake.nobody=1", 'no neuron "nobody"'),
        ("set.stake.uid:99999=1", "no neuron"),
        ("set.stake.5Hot1=1.5", "alpha with its name"),
        ("set.stake.5Hot1=99999999999999999999", "64 bits"),
        ("set.weights.5Hot1=/nowhere/w.json", "not a readable JSON"),
        ("set.permit.5Hot1=yes", "true or false"),
    ],
)
def test_a_wrong_change_says_what_to_write(snapshot, change, match):
    with pytest.raises(ConfigError, match=match):
        apply_changes(snapshot, [change])


def test_a_wrong_weights_file_is_refused(snapshot, tmp_path):
    path = tmp_path / "w.json"
    for content, match in [
        ("[]", "write"),
        ('{"5Hot1": -1}', "number of at least 0"),
        ('{"5Hot1": 0}', "each weight is 0"),
        ('{"5Hot1": NaN}', "number of at least 0"),
        ('{"no": 1}', "no neuron"),
    ]:
        path.write_text(content)
        with pytest.raises(ConfigError, match=match):
            read_weights(path, snapshot)


def test_the_comparison_is_two_epochs(snapshot):
    result = compare(snapshot, ["set.kappa=65535"], epoch)
    before, after = epoch(snapshot.inputs), epoch(replace(snapshot.inputs, kappa=65535))
    rows = {row["uid"]: row for row in result.rows()}
    for uid in range(snapshot.inputs.n):
        paid = [int(o.server_emission[uid]) + int(o.validator_emission[uid]) for o in (before, after)]
        assert [rows[uid]["before_rao"], rows[uid]["after_rao"]] == paid
    assert any(row["change_rao"] for row in result.rows())


def test_the_command_prints_who_gains(file, capsys):
    assert consensus_main(["--netuid", "3", "--from", file, "set.kappa=65535", "--top", "4"]) == 0
    text = capsys.readouterr().out
    assert "gain" in text and "lose" in text and "5Hot" in text
    assert consensus_main(["--netuid", "3", "--from", file, "--epochs", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["paid_before_rao"] == answer["paid_after_rao"] > 0 and answer["num_epochs"] == 2


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--netuid", "4", "--from", "FILE"], "the snapshot is of subnet 3"),
        (["--netuid", "3", "--from", "FILE", "--network", "ws://127.0.0.1:1"], "--from and --network"),
        (["--netuid", "3", "--from", "FILE", "consensus=gpu"], "give consensus=local or consensus=ray"),
        (["--netuid", "3", "--from", "FILE", "--epochs", "0"], "--epochs: '0': give a whole number from 1"),
        (["--netuid", "3", "--from", "FILE", "--top", "nan"], "--top: 'nan': give a whole number from 1"),
        (["--netuid", "-1", "--from", "FILE"], "--netuid: '-1': give a whole number from 0 to 65535"),
        (["--netuid", "3", "--form", "FILE"], "no option --form; did you mean --from?"),
    ],
)
def test_mistakes_in_the_command_line_are_refused_with_the_fix(file, capsys, argv, message):
    assert consensus_main([file if text == "FILE" else text for text in argv]) == 2
    assert message in capsys.readouterr().err


def test_check_ends_with_1_where_something_differs(tmp_path, capsys):
    good = str(VECTORS / "random_00.json")
    assert consensus_main(["check", good, str(VECTORS / "math.json")]) == 0
    assert "2 of 2 files equal" in capsys.readouterr().out
    content = json.loads((VECTORS / "random_00.json").read_text())
    content["steps"][0]["expect"]["emission"][0] += 1
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(content))
    for flags in ([], ["--reference"]):
        assert consensus_main(["check", good, str(bad), *flags]) == 1
        text = capsys.readouterr().out
        assert "step 0: expect.emission[0]: expected 500000001, got 500000000" in text and "1 of 2 files" in text
    assert consensus_main(["check", str(bad), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["num_differing_files"] == 1
