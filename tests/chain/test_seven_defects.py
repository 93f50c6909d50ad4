"""The seven defects of the subnet template that everyone forked, each shown not to be here.

Named after what went wrong there (opentensor/bittensor-subnet-template, `neurons/validator.py` and `base/`).
"""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from faults import FaultProxy

from raytensor import config
from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.calls import Call
from raytensor.chain.intents import AddStake
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.weights import weights_intent
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.commands.weights import weights_main
from raytensor.mechanisms.evidence import Evidence
from raytensor.mechanisms.query import QueryMechanism
from raytensor.types import Fate, Score, Weights
from raytensor.validators.scoreboard import ScoreBoard

RAO, TEMPO = 10**9, 6
ALICE = DevKey("//Alice")
VALIDATORS = [DevKey(f"//seven//validator{n}//hot") for n in (0, 1)]
MINER, STRANGER = DevKey("//seven//miner//hot"), DevKey("//seven//stranger//hot")
COLD = DevKey("//seven//validator0//cold")


@pytest.fixture(scope="module")
def netuid(node, shared_blocks):
    neurons = [
        Neuron(f"v{n}", "validator", key, DevKey(f"//seven//validator{n}//cold"), (500 - 100 * n) * RAO)
        for n, key in enumerate(VALIDATORS)
    ]
    neurons.append(Neuron("m", "miner", MINER, DevKey("//seven//miner//cold")))
    with ChainClient(node, timeout_s=60) as client:
        made = make_subnet(client, SubnetSpec(neurons, tempo=TEMPO))
        shared_blocks.up_to(read_metagraph(client, made.netuid).next_epoch_block + TEMPO + 1)
    return made.netuid


@pytest.fixture
def write(node, tmp_path):
    made = []

    def new(*keys, endpoint=node, **more):
        refs = {key.ss58: key for key in keys or VALIDATORS}
        made.append(ChainWriter(endpoint, refs, tmp_path / "j.db", WriterSettings(**more)))
        return made[-1]

    yield new
    for writer in made:
        writer.close()


def opinion(netuid, validator=VALIDATORS[0], value=1.0, **more):
    return Weights(netuid, validator.ss58, {MINER.ss58: value, validator.ss58: 1.0}, **more)


def test_defect_1_what_the_pool_took_is_not_reported_as_success(client, netuid, write):
    """There: wait_for_inclusion=False, then "set_weights on chain successfully!"."""
    writer = write(COLD, VALIDATORS[0])
    before = client.head().number
    set_, failed = writer.submit(
        [
            weights_intent(opinion(netuid)),
            AddStake(signer=COLD.ss58, hotkey=VALIDATORS[0].ss58, netuid=netuid, amount_staked=10),  # the pool takes it
        ]
    )
    assert (failed.fate, failed.error) == (Fate.FAILED, "AmountTooLow") and failed.block is not None
    assert set_.fate is Fate.INCLUDED and set_.block > before
    uid = read_metagraph(client, netuid).uid(VALIDATORS[0].ss58)
    updated = client.query("SubtensorModule", "LastUpdate", [netuid], client.block_hash(set_.block))
    assert int(updated[uid]) == set_.block, "the block that the receipt names has them"


def test_defect_2_an_exception_does_not_end_the_loop_unseen(netuid, write, monkeypatch):
    """There: the first exception ended the thread, and main went on printing "Validator running…"."""
    writer, tick, times = write(), None, []
    tick = writer._pipeline.tick

    def broken():
        if len(times) < 2:
            times.append(1)
            raise RuntimeError("a bug of ours")
        tick()

    monkeypatch.setattr(writer._pipeline, "tick", broken)
    (receipt,) = writer.set_weights([opinion(netuid)])
    assert receipt.fate is Fate.INCLUDED and len(times) == 2
    assert writer.state()["errors"] == 2 and writer.state()["trouble"] == ""


def test_defect_3_an_unregistered_hotkey_is_told_and_stops_nobody(node, netuid, write, tmp_path, capsys):
    """There: check_registered() called exit(): status 0, and only its thread ended."""
    writer = write(STRANGER, *VALIDATORS)
    gone, here = writer.set_weights([opinion(netuid, STRANGER), opinion(netuid, VALIDATORS[1])])
    assert (gone.fate, gone.error) == (Fate.NOT_SENT, "HotKeyNotRegisteredInSubNet")
    assert gone.action.startswith("fix: register the hotkey") and here.fate is Fate.INCLUDED
    status = ["status", "--hotkey", STRANGER.ss58, "--netuid", str(netuid), "-n", node]
    assert weights_main([*status, "--journal", str(tmp_path / "j.db"), "--state", str(tmp_path / "none")]) == 1
    assert "weights overdue, none, because the hotkey is not registered" in capsys.readouterr().out


def board():
    rules, size = config.Mechanism(), 16
    mechanism = QueryMechanism(rules, np.full(size, -np.log(size), np.float32), size)
    return ScoreBoard(1, "v", mechanism, rules.path)


def evidence(number, **losses):
    scores = (Score(f"1/{number}/v/{name}", number, 1, "v", name, {"loss": loss}) for name, loss in losses.items())
    return Evidence(1, "v", number, tuple(scores))


def test_defect_4_a_restart_keeps_scores_and_opinions(node, client, netuid, write, tmp_path):
    """There: the constructor saved zero scores before anything was loaded."""
    kept = board()
    kept.update(evidence(0, a=1.0, b=2.0))
    kept.save(tmp_path / "board.json", saved_at=1.0)
    fresh = board()  # a constructor touches no file
    assert fresh.restore(tmp_path / "board.json", now=2.0)
    assert fresh.state == kept.state and fresh.weights() == kept.weights() and fresh.weights()["a"] > 0
    # And what the writer was told to set is set by its successor.
    settings(client, netuid, sudo_set_weights_set_rate_limit=20)
    try:
        writer = write()
        writer.set_weights([opinion(netuid, value=2.0)])
        (held,) = writer.set_weights([opinion(netuid, value=5.0)])
        assert held.fate is Fate.HELD and held.until > client.head().number
        writer.close()
        again = write()
        told = wait_until(
            lambda: [r for r in again.receipts_since(0)[1] if r.intent_id == held.intent_id and r.fate.final]
        )
        assert told[0].fate is Fate.INCLUDED and told[0].block >= held.until
    finally:
        settings(client, netuid, sudo_set_weights_set_rate_limit=0)
    graph = read_metagraph(client, netuid)
    assert dict(graph.weights[graph.uid(VALIDATORS[0].ss58)])[graph.uid(MINER.ss58)] == 65535


def test_defect_5_a_miner_that_was_not_asked_keeps_its_score():
    """There: scores of uids that were not sampled were averaged with zero at every step."""
    scores = board()
    scores.update(evidence(0, a=1.0, b=1.5))
    before = scores.state.miners["b"]
    for number in range(1, 50):
        scores.update(evidence(number, a=1.0))
    assert scores.state.miners["b"] == before and scores.weights()["b"] > 0


def test_defect_6_weights_that_fail_are_no_flood_of_requests(node, client, netuid, write):
    """There: while weights failed, every step read the whole metagraph and tried again."""
    settings(client, None, sudo_set_stake_threshold=10**18)  # the pool refuses every weight for want of stake
    try:
        with FaultProxy(node) as proxy:
            writer = write(VALIDATORS[0], endpoint=proxy.endpoint)
            begin, before = client.head().number, dict(proxy.requests)
            while (number := client.head().number) < begin + 24:
                writer.hold([opinion(netuid, value=1.0 + number)])  # a validator that hands in at every block
                client.wait_for_block(number + 1, timeout_s=120)
            asked = {name: count - before.get(name, 0) for name, count in proxy.requests.items()}
            blocks = client.head().number - begin
            tried = asked.get("author_submitExtrinsic", 0)
            # Pauses of 1, 1, 2, 4, ... blocks; then the next epoch has taken the permit: it waits for the one after.
            assert tried <= 7, f"{tried} tries in {blocks} blocks"
            assert asked.get("state_queryStorageAt", 0) <= blocks, "the subnet is read where that can change something"
            held = {r.error for r in writer.receipts_since(0)[1] if r.fate is Fate.HELD}
            assert held and held <= {"StakeAmountTooLow", "NeuronNoValidatorPermit"}
    finally:
        settings(client, None, sudo_set_stake_threshold=0)


def test_defect_7_time_outs_and_one_failure_harms_no_other(node, netuid, write, tmp_path):
    """There: no time-outs, one bad uid ended the step, and one thing was done at a time."""
    with FaultProxy(node) as proxy:
        times = {"timeout_s": 3.0, "inclusion_timeout_s": 4.0}
        writer = write(*VALIDATORS, STRANGER, endpoint=proxy.endpoint, **times)
        proxy.mode = "stall"  # a half-dead socket: connected, and nothing comes
        threads = [threading.Thread(target=writer.hold, args=([opinion(netuid, key)],)) for key in VALIDATORS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in threads), "handing in never waits for the chain"
        (late,) = writer.set_weights([opinion(netuid)])
        assert late.fate in (Fate.HELD, Fate.UNKNOWN) and not late.fate.done
        proxy.mode = "open"
        bad = Weights(60_000, VALIDATORS[0].ss58, {MINER.ss58: 1.0})
        more = writer.set_weights(
            [opinion(netuid, value=2.0), bad, opinion(netuid, STRANGER), opinion(netuid, VALIDATORS[1])]
        )
        done = wait_until(
            lambda: [
                r
                for r in writer.receipts_since(0)[1]
                if r.fate is Fate.INCLUDED and r.intent_id in {more[0].intent_id, more[3].intent_id}
            ],
            2,
        )
        assert {r.signer for r in done} == {key.ss58 for key in VALIDATORS}
        refused = wait_until(
            lambda: {
                r.error
                for r in writer.receipts_since(0)[1]
                if r.fate is Fate.NOT_SENT and r.intent_id in {more[1].intent_id, more[2].intent_id}
            },
            2,
        )
        assert refused == {"MechanismDoesNotExist", "HotKeyNotRegisteredInSubNet"}


def settings(client, netuid, **values):
    for name, value in values.items():
        args = [value] if netuid is None else [netuid, value]
        call = Call("AdminUtils", name, dict(zip(client.runtime.call_fields("AdminUtils", name), args)))
        client.send(Call("Sudo", "sudo", {"call": call}), ALICE.open(), timeout_s=120)


def wait_until(find, count=1, timeout_s=240):
    """What `find` returns, once it is that many."""
    deadline = time.monotonic() + timeout_s
    while len(found := find()) < count:
        assert time.monotonic() < deadline, f"waited {timeout_s} s: {found}"
        time.sleep(0.1)
    return found
