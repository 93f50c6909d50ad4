"""Weights of many subnets from one validator on a real node: one bad row holds back no other; a second program."""

import time

import pytest

from raytensor import config
from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.calls import Call
from raytensor.chain.intents import ServeAxon, Transfer
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.runtime import Era
from raytensor.chain.wallet import DevKey
from raytensor.chain.weights import intent_of
from raytensor.chain.writer.actor import writer_actor
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.commands.weights import weights_main
from raytensor.errors import ChainRefused, ConfigError
from raytensor.jobs.handover import Handover
from raytensor.mechanisms.base import Mechanism, needs
from raytensor.telemetry import events
from raytensor.types import Fate, Weights

RAO, TEMPO = 10**9, 6
ALICE, VALIDATOR, MINER = DevKey("//Alice"), DevKey("//rows//validator//hot"), DevKey("//rows//miner//hot")


@pytest.fixture(scope="module")
def netuids(node):
    """Two subnets where the validator has its permit."""
    made = []
    with ChainClient(node, timeout_s=20) as client:
        cold = DevKey("//rows//validator//cold").ss58  # it stakes on both
        client.send(Transfer(signer=ALICE.ss58, dest=cold, value=2000 * RAO).call(), ALICE.open(), timeout_s=30)
        for number in range(2):
            neurons = [
                Neuron(f"o{number}", "owner", DevKey(f"//rows//owner{number}//hot"), DevKey(f"//rows//owner{number}")),
                Neuron("v", "validator", VALIDATOR, DevKey("//rows//validator//cold"), 500 * RAO),
                Neuron("m", "miner", MINER, DevKey("//rows//miner//cold")),
            ]
            made.append(make_subnet(client, SubnetSpec(neurons, tempo=TEMPO)).netuid)
        client.wait_for_block(read_metagraph(client, made[-1]).next_epoch_block + TEMPO + 1, timeout_s=60)
    return made


@pytest.fixture
def write(node, tmp_path):
    made = []

    def new(**more):
        made.append(ChainWriter(node, {VALIDATOR.ss58: VALIDATOR}, tmp_path / "j.db", WriterSettings(**more)))
        return made[-1]

    yield new
    for writer in made:
        writer.close()


def weights(netuid, value=1.0, **more):
    return Weights(netuid, VALIDATOR.ss58, {MINER.ss58: value, VALIDATOR.ss58: 1.0}, **more)


def settled(writer, intent_ids, timeout_s=60):
    """The last receipt of each intent, once all have one that is not held."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = {r.intent_id: r for r in writer.receipts_since(0)[1] if r.fate is not Fate.HELD}
        if set(intent_ids) <= set(found):
            return [found[i] for i in intent_ids]
        time.sleep(0.1)
    raise AssertionError(f"no receipts of {intent_ids} after {timeout_s} s")


@pytest.mark.parametrize("bad", [-1e-12, float("nan"), None])
def test_one_bad_row_holds_back_no_other(client, netuids, write, bad):
    writer = write()
    good, wrong = weights(netuids[0], 2.0), weights(netuids[1], bad)
    stranger = Weights(netuids[1], MINER.ss58, {MINER.ss58: 1.0})  # its key is not here
    ids = writer.hold([wrong, good, stranger])
    receipts = settled(writer, ids)
    assert [(r.fate, r.error) for r in receipts] == [
        (Fate.NOT_SENT, "InvalidWeights"),
        (Fate.INCLUDED, None),
        (Fate.NOT_SENT, "NoKey"),
    ]
    assert MINER.ss58 in receipts[0].action and receipts[0].action.startswith("fix: ")
    row = read_metagraph(client, netuids[0]).weights
    graph = read_metagraph(client, netuids[0])
    assert dict(row[graph.uid(VALIDATOR.ss58)])[graph.uid(MINER.ss58)] == 65535
    again = writer.submit([intent_of(wrong), intent_of(good)])
    assert again[0].error == "InvalidWeights" and again[1].fate in (Fate.INCLUDED, Fate.NOT_SENT)


def test_a_version_below_the_subnets_is_refused_and_no_other_is_sent(client, netuids, write):
    sudo(client, "sudo_set_weights_version_key", netuids[0], 7)
    try:
        writer = write()
        old, new = writer.set_weights([weights(netuids[0], version_key=6), weights(netuids[1], version_key=6)])
        assert (old.fate, old.error) == (Fate.NOT_SENT, "IncorrectWeightVersionKey") and "upgrade" in old.action
        assert new.fate is Fate.INCLUDED
        (own,) = writer.set_weights([weights(netuids[0], version_key=9)])
        assert own.fate is Fate.INCLUDED
    finally:
        sudo(client, "sudo_set_weights_version_key", netuids[0], 0)


def sudo(client, name, *values):
    call = Call("AdminUtils", name, dict(zip(client.runtime.call_fields("AdminUtils", name), values)))
    client.send(Call("Sudo", "sudo", {"call": call}), ALICE.open(), timeout_s=30)


def test_lists_that_the_writer_refuses_are_not_handed_over_for_ever(ray_session, node, netuids, tmp_path):
    actor = writer_actor(node, {VALIDATOR.ss58: VALIDATOR}, tmp_path / "j.db", name="rows")
    assert ray_session.get(actor.ready.remote(), timeout=60)
    shown = []
    handover = Handover(actor, shown.append, receipts_every_s=0.1)
    handover.hand_over([weights(netuids[0], -1.0, made_at_block=3)])
    handover.settle(timeout_s=60)
    assert handover.idle
    (warned,) = [event for event in shown if isinstance(event, events.Warned)]
    assert "finite and at least 0" in warned.text and warned.fix.startswith("correct them")
    # A disk that is full for the events holds up no weights; zeros are told.
    tiny = Weights(netuids[1], VALIDATOR.ss58, {MINER.ss58: 1e-9, VALIDATOR.ss58: 1.0}, made_at_block=4)
    handover.hand_over([tiny])
    assert any("1 positive weights" in e.text and MINER.ss58 in e.text for e in shown if isinstance(e, events.Warned))
    full = Handover(actor, lambda event: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    full.hand_over([weights(netuids[0], 3.0, made_at_block=5)])
    full.settle(timeout_s=60)
    assert full.idle and full.unshown >= 1
    ray_session.kill(actor)


# A second program on the same key


def foreign(client, call):
    """Another program sends a call with the validator's key."""
    client.send(call, VALIDATOR.open(), timeout_s=30)


def wait_for(find, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not (found := find()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s"
        time.sleep(0.05)
    return found


def test_a_harmless_call_of_another_program_is_told_and_weights_go_on(client, netuids, write):
    writer = write()
    assert writer.set_weights([weights(netuids[0], 4.0)])[0].fate is Fate.INCLUDED
    foreign(client, ServeAxon(signer=VALIDATOR.ss58, netuid=netuids[0], ip="10.1.2.3", port=8091).call())
    told = wait_for(lambda: writer.state()["foreign"])
    assert "SubtensorModule.serve_axon" in told[VALIDATOR.ss58] and writer.state()["stopped"] == {}
    assert writer.set_weights([weights(netuids[0], 5.0)])[0].fate is Fate.INCLUDED


def competing(netuid, uid):
    args = {"netuid": netuid, "dests": [uid], "weights": [65535], "version_key": 0}
    return Call("SubtensorModule", "set_weights", args)


def test_competing_weights_stop_the_key_until_it_is_taken_over(node, client, netuids, write, tmp_path, capsys):
    writer = write()
    assert writer.set_weights([weights(netuids[0], 6.0)])[0].fate is Fate.INCLUDED
    foreign(client, competing(netuids[0], read_metagraph(client, netuids[0]).uid(MINER.ss58)))
    wait_for(lambda: writer.state()["stopped"])
    assert "weights take-over" in writer.state()["stopped"][VALIDATOR.ss58]
    (held,) = writer.set_weights([weights(netuids[0], 7.0)])
    assert (held.fate, held.error) == (Fate.HELD, "KeyInUse")
    who = ["--hotkey", VALIDATOR.ss58, "--journal", str(tmp_path / "j.db"), "-n", node]
    assert weights_main(["take-over", *who]) == 0 and "is taken over" in capsys.readouterr().out
    (done,) = settled(writer, [held.intent_id])
    assert done.fate is Fate.INCLUDED and writer.state()["stopped"] == {}


def test_a_start_beside_a_program_that_sets_weights_is_refused_with_the_way_out(node, client, netuids, write, tmp_path):
    foreign(client, competing(netuids[1], read_metagraph(client, netuids[1]).uid(MINER.ss58)))
    with pytest.raises(ChainRefused, match="set_weights.*which this writer did not send") as refused:
        write(look_back_blocks=8)
    assert refused.value.name == "KeyInUse" and "weights take-over" in refused.value.action
    who = ["--hotkey", VALIDATOR.ss58, "--journal", str(tmp_path / "j.db"), "-n", node]
    assert weights_main(["take-over", *who]) == 0
    assert write(look_back_blocks=8).set_weights([weights(netuids[1], 8.0)])[0].fate is Fate.INCLUDED


def test_the_call_of_a_signed_extrinsic_is_read(client):
    call = competing(3, 1)
    for era in (Era(), Era.mortal(client.head().number, 8)):
        signed = client.sign(call, VALIDATOR.open(), nonce=300, era=era)
        assert client.runtime.call_of(signed.data) == call
    assert client.runtime.call_of(signed.data[:60]) is None


class Versioned(Mechanism):
    """The third version of some rules."""

    version_key = 3


def test_a_mechanism_declares_the_version_of_its_weights():
    path = f"{__name__}.Versioned"
    assert needs(config.Mechanism(path=path)).version_key == 3
    assert needs(config.Mechanism(path=path, version_key=4)).version_key == 4
    assert needs(config.Mechanism(path=path, version_key=0)).version_key == 0
    assert needs(config.Mechanism()).version_key == 0
    with pytest.raises(ConfigError, match="version_key = 18446744073709551616"):
        needs(config.Mechanism(path=path, version_key=2**64))


def test_weights_go_on_while_the_disk_is_full(client, node, netuids, small_disk):
    settings = WriterSettings(audit_path=small_disk.folder / "audit.jsonl", lease_s=3)
    writer = ChainWriter(node, {VALIDATOR.ss58: VALIDATOR}, small_disk.folder / "j.db", settings)
    deadline = time.monotonic() + 60
    while not writer.state()["has_reserve"]:
        assert time.monotonic() < deadline, writer.state()
        time.sleep(0.05)
    small_disk.fill()
    for value in (3.0, 4.0):  # the second waits for the rate limit
        receipts = settled(writer, writer.hold([weights(netuid, 1 / value) for netuid in netuids]))
        assert [receipt.fate for receipt in receipts] == [Fate.INCLUDED] * 2, receipts
        for netuid in netuids:
            graph = read_metagraph(client, netuid)
            row = dict(graph.weights[graph.uid(VALIDATOR.ss58)])
            assert row[graph.uid(MINER.ss58)] == round(65535 / value)
    state = writer.state()
    assert (state["errors"], state["stopped"]) == (0, {}) and state["unwritten"] > 0
    assert state["trouble"].startswith("audit log: ")
    writer.close()
