"""King of the hill by the command that a user types: real commitments on a chain, files, duels, weights, resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raytensor.chain.reads.commitments import read_commits
from raytensor.chain.rpc.client import ChainClient
from raytensor.telemetry.event_log import read_events
from raytensor.telemetry.events import ReceiptSeen, RoundDone
from raytensor.training.single_file import digest
from raytensor.types import FileCommit
from raytensor.validators.evidence_log import replay

ROOT = Path(__file__).resolve().parents[2]
GOOD, COPY, WEAK, SILENT = "miner-0", "miner-1", "miner-2", "miner-3"
SMALL = [
    "mechanism=model_eval",
    "seed=5",
    "data.tokenizer=bytes",
    "data.max_documents=200",
    "miners.num_miners=4",
    "miners.num_hosts=2",
    "validators.num_validators=2",
    (
        "miners.profiles=[{hidden: 32, layers: 1, heads: 2, lr: 0.005, steps: 100}, {behaviour: copy}, "
        "{hidden: 32, layers: 1, heads: 2, lr: 0.003, steps: 30}, {behaviour: silent}]"
    ),
    "miners.commit_every=6",
    "chain.tempo=6",
    "chain.block_time_s=0.25",
]


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return clean | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1"}


def run(runs: Path, env: dict[str, str], *more: str) -> str:
    command = [
        sys.executable,
        "-m",
        "raytensor",
        "run",
        "name=kings",
        f"paths.runs={runs}",
        f"paths.cache={os.environ['TEXT_CACHE']}",
        *SMALL,
        *more,
    ]
    done = subprocess.run(command, cwd=runs, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on_chain(folder: Path) -> tuple[dict[str, FileCommit], dict[int, dict[int, int]]]:
    """Commitments by hotkey, and weights {validator uid: {miner uid: u16}}, from the chain's own state."""
    command = [
        sys.executable,
        "-m",
        "raytensor.devnet",
        "--port",
        "0",
        "--block-time",
        "manual",
        "--exit-with-stdin",
        "--quiet",
        "--state",
        str(folder / "chain"),
    ]
    node = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        with ChainClient(json.loads(node.stdout.readline())["endpoint"]) as client:
            weights = client.query_map("SubtensorModule", "Weights", [2])
            return read_commits(client, 2, client.head().hash), {
                int(uid): {int(u): int(w) for u, w in row} for uid, row in weights.items()
            }
    finally:
        node.stdin.close()
        node.wait(timeout=60)


def neurons(folder: Path) -> dict[str, dict]:
    return {neuron["name"]: neuron for neuron in json.loads((folder / "summary.json").read_text())["neurons"]}


@pytest.fixture(scope="module")
def played(tmp_path_factory, joining):
    """Files of rounds 1 and 7 of eleven, where the copier takes in round 7 what the chain shows by then."""
    runs = tmp_path_factory.mktemp("runs")
    return runs / "kings", run(runs, joining(), "rounds=11")


def test_the_best_is_king_and_a_copy_is_paid_nothing(played):
    folder, output = played
    found = neurons(folder)
    good, copy, weak, silent = (found[name] for name in (GOOD, COPY, WEAK, SILENT))
    assert good["heldout_loss"] < weak["heldout_loss"] and good["standing"] == "king" and f"king {GOOD}" in output
    assert copy["standing"] == "copy" and silent["standing"] == ""
    commits, weights = on_chain(folder)
    assert commits.keys() == {good["hotkey"], copy["hotkey"], weak["hotkey"]}
    rows = [row for row in weights.values() if row]
    assert len(rows) == 2
    for row in rows:  # the validators' own, as the chain has them
        assert (
            row[good["uid"]] == 65535 > row.get(weak["uid"], 0)
            and not row.get(copy["uid"])
            and not row.get(silent["uid"])
        )
    assert good["incentive"] > 0.5 > weak["incentive"] and copy["incentive"] == silent["incentive"] == 0


def test_what_is_committed_is_a_file_and_each_commitment_has_a_receipt(played):
    folder, _ = played
    found, (commits, _) = neurons(folder), on_chain(folder)
    for hotkey, commit in commits.items():
        assert digest((folder / "files" / hotkey / f"{commit.digest}.safetensors").read_bytes()) == commit.digest
    events = read_events(folder / "events.jsonl")
    receipts = [
        event for event in events if isinstance(event, ReceiptSeen) and event.call == "Commitments.set_commitment"
    ]
    assert {event.fate for event in receipts} == {"included"}
    assert {hotkey: max(e.block for e in receipts if e.signer == hotkey) for hotkey in commits} == {
        h: c.block for h, c in commits.items()
    }
    signed = [event.signer for event in receipts]
    assert (
        signed.count(found[GOOD]["hotkey"]) == signed.count(found[WEAK]["hotkey"]) == 2
        and signed.count(found[COPY]["hotkey"]) == 1
    )
    rounds = [event for event in events if isinstance(event, RoundDone)]
    assert rounds[0].standings == {} and not any(event.failures for event in rounds)
    assert rounds[-1].losses[found[GOOD]["hotkey"]] < rounds[-1].losses[found[WEAK]["hotkey"]]


def test_the_evidence_gives_the_same_weights_again(played):
    for log in sorted((played[0] / "evidence").glob("*.jsonl")):
        result = replay(log)
        assert (
            result.rounds == 11
            and result.weights_checked == 11
            and result.difference == ""
            and len(result.weights) >= 1
        )


def test_a_run_that_is_gone_on_with_keeps_king_and_commitments(played, joining):
    """In round 12 nothing new is handed in: files, commitments and the throne are those of before."""
    folder, _ = played
    before, (commits, _) = neurons(folder), on_chain(folder)
    files = sorted(path.relative_to(folder) for path in (folder / "files").rglob("*.safetensors"))
    run(folder.parent, joining(), "rounds=12", "resume=auto", "miners.num_hosts=1")
    after, (now, weights) = neurons(folder), on_chain(folder)
    assert (
        now == commits
        and sorted(path.relative_to(folder) for path in (folder / "files").rglob("*.safetensors")) == files
    )
    assert {name: after[name]["standing"] for name in after} == {name: before[name]["standing"] for name in before}
    rows = [row for row in weights.values() if row]
    assert len(rows) == 2 and all(
        row[before[GOOD]["uid"]] == 65535 and not row.get(before[COPY]["uid"]) for row in rows
    )
    for log in sorted((folder / "evidence").glob("*.jsonl")):
        result = replay(log)
        assert result.rounds == 12 and result.difference == ""
