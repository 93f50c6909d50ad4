"""The whole network, by the command that a user types: small models, real chain, real Ray, real processes."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_digests import digests, recorded

from raytensor import cli
from raytensor.chain.rpc.client import ChainClient
from raytensor.telemetry.event_log import read_events
from raytensor.telemetry.events import EpochSeen, ReceiptSeen, RoundDone, WeightsMade
from raytensor.validators.evidence_log import replay
from raytensor.validators.segments import closed, log_of

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "seed=5",
    "rounds=4",
    "data.tokenizer=bytes",
    "data.max_documents=200",
    "miners.num_miners=4",
    "miners.num_hosts=2",
    "validators.num_validators=2",
    (
        "miners.profiles=[{hidden: 32, layers: 1, heads: 2, lr: 0.005, steps: 60}, "
        "{hidden: 32, layers: 1, heads: 2, lr: 0.005, steps: 30}, {behaviour: constant}, {behaviour: silent}]"
    ),
    "mechanism.query.rows=128",
    "chain.tempo=6",
    "chain.block_time_s=0.25",
    "miners.checkpoint_every=1",
    "cluster.num_cpus=4",
]


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return clean | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1"}


def arguments(name: str, runs: Path, *more: str) -> list[str]:
    return ["run", f"name={name}", f"paths.runs={runs}", f"paths.cache={os.environ['TEXT_CACHE']}", *SMALL, *more]


def start(name: str, runs: Path, *more: str, env: dict[str, str] | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "raytensor", *arguments(name, runs, *more)],
        cwd=runs,
        env=env or environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, timeout_s: float = 240) -> str:
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return output


def processes_of(session: int) -> list[str]:
    """Command lines of the processes that belong to a session, by its leader's pid, and of what they started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(command)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(runs, joining):
    """A run from the first to the last round: its folder and what it printed."""
    process = start("whole", runs, env=joining())
    output = finish(process)
    assert process.returncode == 0, output
    return runs / "whole", output


def history(folder: Path) -> dict:
    """Everything of a run that must not depend on timing: losses and weights, round by round, every bit."""
    events = read_events(folder / "events.jsonl")
    return {
        "losses": {event.round: event.losses for event in events if isinstance(event, RoundDone)},
        "weights": {(event.round, event.hotkey): event.values for event in events if isinstance(event, WeightsMade)},
    }


def test_a_run_leaves_its_folder(whole):
    folder, output = whole
    summary = json.loads((folder / "summary.json").read_text())
    assert {"name", "rounds", "netuid", "wall_s", "chain", "extrinsics", "neurons"} <= summary.keys()
    assert (summary["name"], summary["rounds"], summary["stopped"]) == ("whole", 4, "finished")
    assert {"endpoint", "spec_version", "last_block"} <= summary["chain"].keys()
    counts = summary["extrinsics"]
    assert counts["failed"] == 0 and counts["submitted"] == counts["included"] >= 1
    keys = {
        "uid",
        "hotkey",
        "role",
        "behaviour",
        "heldout_loss",
        "score",
        "weight",
        "incentive",
        "dividends",
        "emission_rao",
    }
    assert len(summary["neurons"]) == 7 and all(keys <= neuron.keys() for neuron in summary["neurons"])
    assert "seed: 5" in (folder / "config.yaml").read_text()
    report = (folder / "report.html").read_text()
    assert "<svg" in report and "http://" not in report.replace("http://www.w3.org", "") and "https://" not in report
    assert any((folder / "checkpoints").iterdir())
    assert str(folder) in output and "round 4/4" in output


def test_evidence_and_weights_are_equal_to_the_bit(whole):
    """What this run computed when its digests were recorded."""
    assert digests(whole[0] / "evidence") == recorded("small-5")


def test_better_models_earn_more_and_cheats_nothing(whole):
    neurons = json.loads((whole[0] / "summary.json").read_text())["neurons"]
    good, weak, constant, silent = (n for n in sorted(neurons, key=lambda n: n["name"]) if n["role"] == "miner")
    assert good["heldout_loss"] < weak["heldout_loss"] < constant["heldout_loss"]
    assert good["incentive"] > weak["incentive"] and constant["incentive"] == 0
    assert silent["heldout_loss"] is None and not silent["incentive"]
    assert all(n["dividends"] > 0 and n["emission_rao"] > 0 for n in neurons if n["role"] == "validator")


def test_weights_of_all_validators_share_an_extrinsic(whole):
    events = read_events(whole[0] / "events.jsonl")
    receipts = [event for event in events if isinstance(event, ReceiptSeen) and event.fate == "included"]
    blocks = {event.block for event in receipts}
    assert len(receipts) == 2 * len(blocks) and all("set_weights" in event.call for event in receipts)
    assert any(isinstance(event, EpochSeen) and sum(event.incentive.values()) > 0 for event in events)


def books(*more: str) -> dict[str, int]:
    """The books of an embedded chain that makes no block by itself: rao of TAO in all balances and pools, and more."""
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
        *more,
    ]
    node = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        with ChainClient(json.loads(node.stdout.readline())["endpoint"]) as client:
            accounts = client.query_map("System", "Account").values()
            pools = client.query_map("SubtensorModule", "SubnetTAO").values()
            return {
                "block": client.head().number,
                "total_rao": sum(a["data"]["free"] + a["data"]["reserved"] for a in accounts) + sum(pools),
                "issuance_rao": client.query("SubtensorModule", "TotalIssuance"),
                "made": client.query("SubtensorModule", "NetworkRegisteredAt", [2]),
                "started": client.query("SubtensorModule", "FirstEmissionBlockNumber", [2]),
            }
    finally:
        node.stdin.close()
        node.wait(timeout=60)


def first_minting_block(made: int, started: int) -> int:
    """The first block that mints TAO for a subnet that was made and started at these blocks, by the chain's rules.

    A subnet's share follows its moving price, which starts at 0 and moves in each block by 3e-6 * b / (b + 201,600) of
    the distance to the price (1 at most), b blocks after the start (after genesis before it); below 2^-32 that is 0.
    """
    for block in itertools.count(made + 1):
        b = block - started if block >= started else block
        if 3e-6 * b / (b + 201_600) * 2**32 >= 1:
            return max(started, block + 1)
    raise AssertionError


def test_tao_is_conserved_to_the_rao(whole):
    """All TAO equals genesis plus the schedule: one a block before the first halving, once the subnet has a share."""
    before, after = books(), books("--state", str(whole[0] / "chain"))
    blocks_paid = after["block"] - first_minting_block(after["made"], after["started"]) + 1
    assert blocks_paid > 10 and before["total_rao"] > 3 * 10**15
    assert after["total_rao"] == before["total_rao"] + blocks_paid * 10**9
    assert after["issuance_rao"] == after["total_rao"]


def test_ctrl_c_leaves_nothing_and_resume_goes_on_bit_for_bit(whole, runs, capsys, joining):
    """Stopped with a checkpoint, continued with other hosts and scorers on another Ray: the same scores and weights."""
    process = start("broken", runs, "miners.num_hosts=1", "validators.num_scorers=2", "validators.cpus_per_scorer=0.2")
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("round 2/4"):
            break
    endpoint = next(line for line in lines if line.startswith("network: ")).split()[1].rstrip(",")
    while not (runs / "broken" / "state.json").exists():  # the first checkpoint follows the line of the round
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    stopped_at = time.monotonic()
    rest = finish(process)
    assert time.monotonic() - stopped_at < 90  # promised: 10 s on a machine that has nothing else to do
    assert process.returncode == 130, "".join(lines) + rest
    assert "stopped: interrupted" in rest and "resume=auto" in rest
    assert json.loads((runs / "broken" / "summary.json").read_text())["stopped"] == "interrupted"
    deadline = time.monotonic() + 120  # a worker that was told to end may need a moment of a busy machine
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(process.pid) == []
    port = int(endpoint.rpartition(":")[2])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the chain's port is still open"

    assert cli.main(arguments("broken", runs, "miners.num_hosts=1")) == 1
    assert "resume=auto" in capsys.readouterr().err
    assert cli.main(arguments("broken", runs, "resume=auto", "mechanism.query.rows=17")) == 1
    assert "mechanism.query.rows=17 (was 128)" in capsys.readouterr().err

    again = start("broken", runs, "resume=auto", "validators.evidence_rounds=2", env=joining())
    output = finish(again)
    assert again.returncode == 0, output
    assert history(runs / "broken") == history(whole[0])
    logs = [path for path in (runs / "broken" / "evidence").glob("*.jsonl") if path == log_of(path)]
    assert len(logs) == 2 and all(closed(path) for path in logs), "evidence in segments"
    for path in logs:
        result = replay(path)
        assert (result.rounds, result.weights_checked, result.difference) == (4, 4, "")


def test_dry_run_starts_nothing(runs, capsys):
    assert cli.main(arguments("dry", runs, "dry_run=true")) == 0
    output = capsys.readouterr().out
    assert "num_miners: 4" in output and "miner hosts  2 x 0.6 CPU" in output
    assert not (runs / "dry").exists()
