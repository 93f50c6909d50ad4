"""Two endpoints of which one lies: neither its blocks nor its silence about them decide what became of money."""

import json
import time

import pytest
from faults import FaultProxy

from raytensor.chain.intents import Transfer
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer import witness
from raytensor.chain.writer.extrinsic_table import Extrinsic
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.policy import Policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.devnet.launch import EmbeddedChain
from raytensor.errors import ChainUnavailable
from raytensor.types import Fate

RAO = 10**9


def hides(public_key):
    """Answers of an endpoint whose blocks lack the extrinsics of an account, and are true for the rest."""

    def alter(method, answer):
        if method != "chain_getBlock":
            return answer
        found = json.loads(answer)
        block = found["result"]["block"]
        block["extrinsics"] = [one for one in block["extrinsics"] if public_key.hex() not in one]
        return json.dumps(found)

    return alter


def fails(method, answer):
    """Answers of an endpoint that gives each block the events of one in which nothing was done."""
    return json.dumps(json.loads(answer) | {"result": []}) if method == "state_queryStorageAt" else answer


def pay(payer, dest):
    return Transfer(signer=payer.ss58, dest=dest.ss58, value=RAO, intent_id="once")


def wait_for(find, what, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not (found := find()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.05)
    return found


def written(folder):
    """How many extrinsics were ever signed."""
    journal = Journal(folder / "j.db")
    try:
        return sum(journal.count().values())
    finally:
        journal.close()


@pytest.mark.parametrize("first", ["lies", "is honest"])
def test_an_endpoint_that_hides_a_payment_does_not_get_it_paid_again(
    node, shared_blocks, client, payer, fresh, tmp_path, first
):
    dest = fresh("dest")
    settings = WriterSettings(timeout_s=20, inclusion_timeout_s=2, policy=Policy(transfers=True))
    with FaultProxy(node) as liar:
        liar.alter = hides(payer.open().public_key)
        endpoints = [liar.endpoint, node] if first == "lies" else [node, liar.endpoint]
        writer = ChainWriter(endpoints, {payer.ss58: payer}, tmp_path / "j.db", settings)
        (receipt,) = writer.submit([pay(payer, dest)])
        assert receipt.fate is Fate.UNKNOWN, receipt
        told = wait_for(lambda: writer.state()["trouble"], "the disagreement")
        assert "disagree on extrinsic" in told and liar.endpoint in told and "money waits" in told
        shared_blocks.up_to(client.head().number + 70)  # its era is over
        seen = client.head().number
        wait_for(lambda: writer.state()["block"] >= seen, "the writer")
        assert writer.submit([pay(payer, dest)])[0].fate is Fate.UNKNOWN
        assert client.balance(dest.ss58) == RAO and written(tmp_path) == 1
        liar.alter = lambda method, answer: answer  # it is put right
        if first == "is honest":  # (the one in use is not read again)
            done = wait_for(lambda: [r for r in writer.receipts_since(0)[1] if r.fate is Fate.INCLUDED], "the receipt")
            assert done[0].block and writer.state()["trouble"] == ""
        writer.close()
    assert client.balance(dest.ss58) == RAO and client.account_nonce(payer.ss58) == 1


def test_outcomes_are_compared_too(node, client, payer, fresh, tmp_path):
    dest = fresh("dest")
    settings = WriterSettings(timeout_s=20, inclusion_timeout_s=2, policy=Policy(transfers=True))
    with FaultProxy(node) as liar:
        writer = ChainWriter([node, liar.endpoint], {payer.ss58: payer}, tmp_path / "j.db", settings)
        liar.alter = fails
        (receipt,) = writer.submit([pay(payer, dest)])
        assert receipt.fate is Fate.UNKNOWN, receipt
        writer.close()
    assert client.balance(dest.ss58) == RAO and written(tmp_path) == 1


@pytest.fixture
def pair(tmp_path):
    """Two chains of the same genesis: what one does, the other does not know."""
    chains = [EmbeddedChain(tmp_path / name, 3600.0, tmp_path / "log") for name in ("a", "b")]
    yield [chain.endpoint for chain in chains]
    for chain in chains:
        chain.close()


def test_a_payment_in_blocks_of_one_endpoint_only_is_not_applied(pair, fresh, tmp_path):
    alice, dest = DevKey("//Alice"), fresh("dest")
    settings = WriterSettings(timeout_s=20, inclusion_timeout_s=2, policy=Policy(transfers=True))
    writer = ChainWriter(pair, {alice.ss58: alice}, tmp_path / "j.db", settings)
    with ChainClient(pair[0]) as mine, ChainClient(pair[1]) as other:
        other.rpc("dev_newBlock", [{"to": 3}])
        (receipt,) = writer.submit([pay(alice, dest)])  # the pool has it
        assert receipt.fate is Fate.UNKNOWN and mine.rpc("author_pendingExtrinsics")
        mine.rpc("dev_newBlock")
        assert mine.balance(dest.ss58) == RAO and other.balance(dest.ss58) == 0
        wait_for(lambda: "disagree" in writer.state()["trouble"], "the disagreement")
        assert writer.submit([pay(alice, dest)])[0].fate is Fate.UNKNOWN
        assert not [r for r in writer.receipts_since(0)[1] if r.fate.done]
    writer.close()


def test_a_second_endpoint_that_is_away_holds_up_no_success(node, client, payer, fresh, tmp_path):
    dest = fresh("dest")
    settings = WriterSettings(timeout_s=20, policy=Policy(transfers=True))
    with FaultProxy(node) as away:
        endpoint = away.endpoint
    writer = ChainWriter([node, endpoint], {payer.ss58: payer}, tmp_path / "j.db", settings)
    (receipt,) = writer.submit([pay(payer, dest)])
    assert receipt.fate is Fate.INCLUDED and client.balance(dest.ss58) == RAO
    writer.close()


def test_a_failure_waits_long_for_a_second_endpoint_that_is_away(node, client, payer, monkeypatch):
    found = witness.Witness(client, [node, "ws://127.0.0.1:9"], 5.0)
    final = client.finalized()
    extrinsic = Extrinsic("0x00", payer.ss58, 0, final.number - 2, final.number - 1, b"", "{}", ("x",))
    assert not found.has_ended(extrinsic, final) and not found.has_ended(extrinsic, final)
    monkeypatch.setattr(witness, "PATIENCE_S", 0.0)
    assert found.has_ended(extrinsic, final)
    alone = witness.Witness(client, node, 5.0)
    assert alone.has_ended(extrinsic, final) and alone.disagreement == ""


def test_the_second_connection_of_a_writer_reads_the_same_chain_as_the_first(pair, fresh, tmp_path):
    """A gateway passes connections on to two chains with the same block 0."""
    alice = DevKey("//Alice")
    with ChainClient(pair[0]) as mine, ChainClient(pair[1]) as other, FaultProxy(pair[0]) as gateway:
        for client in (mine, other):
            client.rpc("dev_newBlock", [{"to": 3}])
        writer = ChainWriter(gateway.endpoint, {alice.ss58: alice}, tmp_path / "j.db", WriterSettings(timeout_s=20))
        gateway.target = pair[1]  # of the next connection
        with pytest.raises(ChainUnavailable, match="another block"):
            writer.head()
        gateway.target = pair[0]
        assert writer.head() == 3
        writer.close()
