"""The operator, by the command that a user types: three subnets, two hotkeys, one subnet's rules broken, kill -9 of the
writer and of the whole job."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import netkit
import pytest
from hookkit import Hook
from operatorkit import Operator, facts_of, messages

from raytensor import cli
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.telemetry import events
from raytensor.validators.evidence_log import read_log, replay
from raytensor.validators.segments import closed


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    with ExitStack() as stack:
        yield netkit.start(tmp_path_factory.mktemp("net"), stack)


def operator(net, runs: Path, hook: str, env: dict[str, str]) -> Operator:
    """Two good subnets and one whose rules are broken. hook: address of a webhook."""
    good, bad = net.netuids[:-1], net.netuids[-1]
    return Operator(
        net,
        runs,
        f"netuids=[{','.join(map(str, good))}]",
        f"subnets=[{{netuid: {bad}, mechanism: {{path: faulty_rules.Faulty}}}}]",
        "backoff_s=2",
        "watch.overdue_tempos=2",
        "validators.evidence_rounds=2",
        f"watch.command=\"sh -c 'cat >> {runs}/alarms.jsonl'\"",
        "watch.webhook_env=MY_HOOK",
        env=env | {"MY_HOOK": hook},
    )


@pytest.fixture
def hanging():
    with Hook(lambda number: "hang") as hook:
        yield hook


def told(path: Path) -> list:
    """What an evidence log holds, over all its segments."""
    return [(entry.kind, entry.round, entry.body) for entry in read_log(path) if entry.kind in ("evidence", "weights")]


def test_subnets_side_by_side_a_broken_one_and_a_kill(net, tmp_path, capsys, hanging, joining):
    """All the while the webhook answers nobody: it hears of the alarm, and holds up neither rounds nor the command."""
    good, bad = net.netuids[:-1], net.netuids[-1]
    everyone = {(netuid, key.ss58) for netuid in good for key in net.validators}
    first = operator(net, tmp_path, hanging.url, joining())
    first.wait_for("weights of every hotkey on the good subnets", lambda: first.included() >= everyone)
    writer, killed_at = first.writer_pid(), max(event["block"] for event in first.events("receipt_seen"))
    os.kill(writer, signal.SIGKILL)
    first.wait_for("second fault of the broken subnet", lambda: len(first.events("subnet_fault")) >= 2)
    alarms = tmp_path / "alarms.jsonl"
    first.wait_for(
        "alarm about the broken subnet", lambda: alarms.exists() and f'"netuid": {bad}' in alarms.read_text()
    )
    first.wait_for(
        "words about every hotkey on the broken subnet",
        lambda: (
            {e["hotkey"] for e in first.events("weights_overdue") if e["overdue"] and e["netuid"] == bad}
            == {key.ss58 for key in net.validators}
        ),
    )
    first.wait_for("weights after the writer's process was killed", lambda: first.included(since=killed_at) >= everyone)
    assert first.writer_pid() != writer and "weights take-over" not in first.events_text()
    rounds = len(first.events("round_done"))
    told_first = hanging.wait(1)[0]
    first.wait_for("rounds behind the webhook's back", lambda: len(first.events("round_done")) > rounds)
    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait()

    faults = first.events("subnet_fault")
    assert {fault["netuid"] for fault in faults} == {bad} and faults[1]["rest_s"] == 2 * faults[0]["rest_s"]
    assert "RuntimeError: the author of these rules made a mistake (" in faults[0]["cause"]
    assert "faulty_rules.py, line 12, in reduce)" in faults[0]["cause"]
    late = [event for event in first.events("weights_overdue") if event["overdue"] and event["netuid"] == bad]
    assert {event["hotkey"] for event in late} == {key.ss58 for key in net.validators} and late[0]["age_tempos"] > 2
    said = {facts["sentence"] for facts in facts_of(told_first) if "netuid" in facts}
    assert said <= {event["sentence"] for event in first.events("weights_overdue")}
    assert "verysecret" not in Path(first.log.name).read_text() + first.events_text(), (
        "the webhook's address is told nowhere"
    )
    assert "tempos" in late[0]["sentence"] and "no weights were handed to the writer" in late[0]["sentence"]
    heard = [facts for message in messages(alarms.read_text()) for facts in facts_of(message)]
    assert {one["sentence"] for one in heard if one.get("netuid") == bad} <= {event["sentence"] for event in late}
    assert {netuid for netuid, _ in first.included()} == set(good), "an error's weights never go on the chain"
    with ChainClient(net.endpoint, 20.0) as client:
        head = client.head().number
        for netuid in net.netuids:
            metagraph = read_metagraph(client, netuid)
            best, worse, silent = (metagraph.uid(hotkey) for hotkey in net.miners[netuid])
            for key in net.validators:
                row = dict(metagraph.weights.get(metagraph.uid(key.ss58), ()))
                if netuid == bad:
                    assert row == {}
                else:
                    assert row[best] > row.get(worse, 0) and silent not in row

    before = {path: told(path) for path in first.folder.rglob("evidence.jsonl")}
    states = {path: replay(path).state for path in before if f"netuid{bad}/" not in str(path)}
    assert len(states) == 4
    second = operator(net, tmp_path, hanging.url, joining())
    second.wait_for("weights after the restart", lambda: second.included(since=head) >= everyone)
    assert second.stop() == 130
    assert second.events("stopped")[-1]["reason"] == "interrupted"
    for path, state in states.items():
        assert replay(path, until=state.round).state == state, "a restart resets nobody"
        assert told(path)[: len(before[path])] == before[path], "the log is only ever added to"
        whole = replay(path)
        assert whole.state.round > state.round and not whole.difference
        assert [entry.kind for entry in read_log(path)].count("rules") == 1 + len(closed(path)) > 1
    assert cli.main(["replay", *[str(first.folder / f"netuid{good[0]}")]]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    kinds = {events.RoundDone.kind, events.WeightsMade.kind, events.Stopped.kind}
    assert kinds <= {
        json.loads(line)["kind"] for line in (tmp_path / "output.txt").read_text().splitlines() if line.startswith("{")
    }
