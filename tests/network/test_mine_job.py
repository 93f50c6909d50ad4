"""`raytensor mine` with keys of its own on a chain: what it refuses, what a kill costs, the script of the examples."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import bittensor_core
import pytest

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.reads.commitments import read_commits
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey, WalletKey, write_key
from raytensor.config.wire import MinersWire
from raytensor.devnet.launch import EmbeddedChain
from raytensor.errors import ConfigError, WalletError
from raytensor.jobs.mine.front import bracketed, own_ip
from raytensor.jobs.mine.job import mine_main

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "mine_and_validate" / "demo.sh"
BITTENSOR10 = os.environ.get("RAYTENSOR_BITTENSOR10_PYTHON", "")
ASKER = "//mine//asker"
MINERS = [DevKey(f"//mine//miner{number}") for number in (0, 1)]


@pytest.fixture(scope="module")
def subnet(tmp_path_factory):
    """(endpoint, netuid, client) of a chain with a subnet on which both miners are registered."""
    folder = tmp_path_factory.mktemp("chain")
    chain = EmbeddedChain(folder / "state", 0.25, folder / "log")
    with ChainClient(chain.endpoint) as client:
        keys = [("owner", DevKey("//mine//owner")), *(("miner", key) for key in MINERS)]
        neurons = [Neuron(key.uri, role, key, DevKey(key.uri + "//cold")) for role, key in keys]
        netuid = make_subnet(client, SubnetSpec(neurons=neurons, tempo=10)).netuid
        yield chain.endpoint, netuid, client
    chain.close()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("BT_NETWORK", "BT_CHAIN_ENDPOINT", "BT_WALLET_PATH"):
        monkeypatch.delenv(name, raising=False)


def arguments(endpoint: str, netuid: int, tmp_path: Path, *more: str) -> list[str]:
    base = [f"chain.network={endpoint}", f"netuids=[{netuid}]", f"paths.runs={tmp_path / 'runs'}"]
    return [*base, f"paths.cache={os.environ['TEXT_CACHE']}", "data=bytes", "data.max_documents=200", *more]


def test_what_can_not_work_is_refused_before_anything_starts(subnet, tmp_path):
    endpoint, netuid, _ = subnet
    hotkeys = f"hotkeys=[{MINERS[0].uri}]"
    with pytest.raises(ConfigError, match=rf"netuids=\[77\]: no such subnet on {endpoint} .*which has 1, {netuid}\n"):
        mine_main(arguments(endpoint, netuid, tmp_path, hotkeys, "netuids=[77]"))
    keypair = bittensor_core.Keypair.create_from_uri("//mine//unknown")
    write_key(WalletKey("w", "hot", str(tmp_path / "wallets")), keypair)
    mine = [f"wallet_path={tmp_path / 'wallets'}", "hotkeys=[w/hot]"]
    with pytest.raises(ConfigError) as caught:
        mine_main(arguments(endpoint, netuid, tmp_path, *mine))
    command = rf"raytensor register --netuid {netuid} -w w -H hot --wallet.path \S+/wallets -n {endpoint} --max-burn \d"
    assert re.search(rf"hotkey w/hot \(\w+\) is not registered on subnet {netuid}\n  fix: {command}", str(caught.value))
    write_key(WalletKey("w", None, str(tmp_path / "wallets")), keypair)
    with pytest.raises(WalletError, match="allow_coldkey=true"):
        mine_main(arguments(endpoint, netuid, tmp_path, *mine))
    with pytest.raises(ConfigError, match="no coldkey is needed"):
        mine_main(arguments(endpoint, netuid, tmp_path, *mine, "hotkeys=[w]", "allow_coldkey=true"))
    with pytest.raises(ConfigError, match="miners.wire.enabled=False"):
        mine_main(arguments(endpoint, netuid, tmp_path, hotkeys, "miners.wire.enabled=false"))
    assert not list((tmp_path / "runs").glob("*/events.jsonl")), "a refused start leaves no folder"


def test_a_dry_run_checks_the_chain_and_counts(subnet, tmp_path, capsys):
    endpoint, netuid, client = subnet
    both = f"hotkeys=[{MINERS[0].uri},{MINERS[1].uri}]"
    assert mine_main(arguments(endpoint, netuid, tmp_path, both, "--dry-run")) == 0
    told = capsys.readouterr().out
    uid = client.query("SubtensorModule", "Uids", [netuid, MINERS[1].ss58])
    assert f"{MINERS[1].uri} has uid {uid}" in told and "miner hosts" in told and "published: " in told


def test_only_an_address_that_listens_is_published():
    with pytest.raises(ConfigError, match="nothing outside can reach it"):
        own_ip(MinersWire(host="127.0.0.1"))
    assert own_ip(MinersWire(host="127.0.0.2")) == "127.0.0.2"
    assert own_ip(MinersWire(host="127.0.0.1", ip="203.0.113.7")) == "203.0.113.7"
    with pytest.raises(ConfigError, match="or set miners.wire.ip"):
        own_ip(MinersWire(ip_from="http://127.0.0.1:1/"))
    assert (bracketed("fd00::2"), bracketed("10.0.0.1")) == ("[fd00::2]", "10.0.0.1")


# ---------------------------------------------------------------------------------------------- the job as a process


class Job:
    """`raytensor mine` as a process, and the events that it prints."""

    def __init__(self, args: list[str], env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "raytensor", "mine", "--json", *args]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        self.events: list[dict] = []

    def until(self, kind: str, fits=lambda event: True, limit_s: float = 240.0, **fields) -> dict:
        """The next event of a kind that fits and has these fields."""
        end = time.monotonic() + limit_s
        assert self.process.stdout is not None
        while time.monotonic() < end and (line := self.process.stdout.readline()):
            self.events.append(json.loads(line))
            found = self.events[-1]
            if found["kind"] == kind and fits(found) and all(found[name] == value for name, value in fields.items()):
                return found
        raise AssertionError(f"no {kind} {fields}; the last events: {self.events[-5:]}")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


def second_job(args: list[str], env: dict[str, str]) -> subprocess.Popen:
    """`raytensor mine` beside another one with its keys; it does not wait for the end of a job that was killed."""
    code = "import sys; from raytensor.jobs import writer; writer.ENDS_S = 0.0; from raytensor.cli import main; "
    command = [sys.executable, "-c", code + "sys.exit(main(['mine', *sys.argv[1:]]))", *args]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def by_dendrite(uri: str, key: DevKey, address: str, netuid: int) -> dict:
    """What bittensor 10's dendrite gets from a miner, with the key of `uri`."""
    ip, _, port = address.rpartition(":")
    fields = {"task_id": "v10", "round": 1, "netuid": netuid, "tokens": [[65, 66, 67, 0], [68, 69, 0, 0]]}
    fields |= {"lengths": [3, 2], "top_k": 4, "deadline_s": 30.0}
    asked = {"uri": uri, "hotkey": key.ss58, "ip": ip, "port": int(port), "fields": fields}
    command = [BITTENSOR10, str(Path(__file__).with_name("bittensor10_dendrite.py")), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_kill_costs_no_more_than_the_rounds_since_the_checkpoint(joining, subnet, tmp_path):
    endpoint, netuid, client = subnet
    small = "miners.profiles=[{hidden: 32, layers: 1, heads: 2, steps: 2, batch_size: 4}]"
    more = [small, f"hotkeys=[{MINERS[0].uri},{MINERS[1].uri}]", "miners.wire.ip=127.0.0.2", "miners.wire.port=0"]
    more += ["miners.seq_len=16", "mechanism.query.context=16", "miners.heldout_rows=16", "miners.cpus_per_host=0.2"]
    more += ["miners.checkpoint_every=2", "miners.warmup_rounds=0", "pause_s=0.2"]
    more += ["miners.wire.protocols=[btauth,axon_v10]", f"miners.wire.policy.allow=[{DevKey(ASKER).ss58}]"]
    args, env = arguments(endpoint, netuid, tmp_path, *more), joining()
    first = Job([*args, "miners.num_hosts=2"], env)
    try:
        served = first.until("miner_up")
        assert len(set(served["addresses"].values())) == 1, "one port for both hotkeys"
        for key in MINERS:
            seen = first.until("standing_seen", hotkey=key.ss58)
            assert seen["uid"] == client.query("SubtensorModule", "Uids", [netuid, key.ss58])
        first.until("receipt_seen", call="SubtensorModule.serve_axon", fate="included")
        if BITTENSOR10:  # its dendrite is served as it is, and who may not ask is told so
            answer = by_dendrite(ASKER, MINERS[0], served["addresses"][MINERS[0].ss58], netuid)
            assert answer["status"] == [200, "Success"] and [len(row) for row in answer["ids"]] == [4, 4], answer
            assert all(0 < sum(row) <= 1.0001 for row in answer["probs"])
            refused = by_dendrite("//mine//nobody", MINERS[0], served["addresses"][MINERS[0].ss58], netuid)
            assert refused["status"][0] == 403 and refused["probs"] is None
        rival = second_job([*args, "name=rival"], env)
        first.until("miner_round", lambda event: event["round"] >= 5)
        told = rival.communicate(timeout=240)[0]
        assert rival.returncode not in (0, None), told
        assert "another job of this cluster writes with these keys" in told and "`ray job stop`" in told, told
        reached = first.events[-1]["round"]
        first.until("miner_round", lambda event: event["round"] > reached)  # the first goes on
    finally:
        first.kill()
    blocks = client.query_many([("SubtensorModule", "Axons", [netuid, key.ss58]) for key in MINERS])
    graph = read_metagraph(client, netuid)
    axons = dict(zip(graph.hotkeys, graph.axons, strict=True))
    assert {key.ss58: axons[key.ss58] for key in MINERS} == served["addresses"]

    port = served["addresses"][MINERS[0].ss58].rpartition(":")[2]
    # Now the subnet asks for files, too: each hotkey commits to its newest.
    files = ["mechanism=model_eval", "mechanism.model_eval.seq_len=16", "miners.commit_every=1"]
    second = Job([*args, "miners.num_hosts=1", f"miners.wire.port={port}", "rounds=3", *files], env)
    try:
        again = second.until("miner_up")
        text = next(event["text"] for event in second.events if "the miners continue" in event.get("text", ""))
        resumed = int(re.findall(r"round (\d+)", text)[0])
        assert resumed >= 4 and again["addresses"] == served["addresses"]
        assert second.until("miner_round")["round"] == resumed + 1
        second.until("miner_round", round=resumed + 3)
        assert second.process.wait(120) == 0
    finally:
        second.process.kill()
    again = client.query_many([("SubtensorModule", "Axons", [netuid, key.ss58]) for key in MINERS])
    assert again == blocks, "the same address is not published again"
    promised = read_commits(client, netuid, client.head().hash)
    handed_in = tmp_path / "runs/miner/files"
    for key in MINERS:
        assert (handed_in / key.ss58 / f"{promised[key.ss58].digest}.safetensors").is_file()
    kept = {path.name for path in (tmp_path / "runs/miner/checkpoints").glob(f"round-*{resumed + 3}/*.done")}
    assert kept == {f"{key.ss58}.done" for key in MINERS}


def test_the_market_of_the_documentation(joining, tmp_path):
    """The script of examples/, word for word: wallets to incentive by commands alone."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "raytensor").write_text(f'#!/bin/sh\nexec {sys.executable} -m raytensor "$@"\n')
    (bin_folder / "raytensor").chmod(0o755)
    path = os.pathsep.join([str(bin_folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = joining() | {"PATH": path}
    command = ["bash", str(DEMO), str(tmp_path / "market"), "0", "100"]
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        told, _ = process.communicate(timeout=450)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    logs = "".join(f"\n{log.name}:\n{log.read_text()}" for log in sorted((tmp_path / "market").glob("*e.log")))
    assert process.returncode == 0, told + logs
    rows = [line.split() for line in told.splitlines() if "127.0.0.2:" in line]
    assert len(rows) == 2 and any(float(row[3]) > 0 for row in rows), told
    assert "its own answer" in told
