"""The writer when things go wrong, on a real node: nothing is applied twice, nothing is lost unseen."""

import threading
import time

import pytest
from blocks import Blocks
from faults import Fault, FaultProxy

from raytensor.chain.intents import Transfer
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.runtime import Era
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.batcher import Limits
from raytensor.chain.writer.journal import Extrinsic, Journal, Sent
from raytensor.chain.writer.policy import Policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.devnet.launch import EmbeddedChain
from raytensor.errors import ConfigError
from raytensor.types import Fate

RAO = 10**9
ALICE = DevKey("//Alice")
PAYS = Policy(transfers=True)


def pay(payer, dest, value=RAO, **more):
    return Transfer(signer=payer.ss58, dest=dest.ss58, value=value, **more)


def test_a_submission_without_an_answer_is_found_on_the_chain(node, client, payer, fresh, tmp_path):
    dest = fresh("dest")
    with FaultProxy(node) as proxy:
        writer = ChainWriter(
            [proxy.endpoint, node], {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(timeout_s=1, policy=PAYS)
        )
        mute_submissions(writer, proxy)
        (receipt,) = writer.submit([pay(payer, dest)])
        assert receipt.fate is Fate.INCLUDED, receipt
        writer.close()
    assert client.balance(dest.ss58) == RAO and client.account_nonce(payer.ss58) == 1


def test_a_submission_that_was_lost_is_sent_again_as_the_same_bytes(node, client, payer, fresh, tmp_path):
    dest = fresh("dest")
    with FaultProxy(node) as proxy:
        writer = ChainWriter(
            [proxy.endpoint, node], {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(timeout_s=1, policy=PAYS)
        )
        mute_submissions(writer, proxy, mode="stall")
        (receipt,) = writer.submit([pay(payer, dest)])
        assert receipt.fate is Fate.INCLUDED, receipt
        writer.close()
    assert client.balance(dest.ss58) == RAO and client.account_nonce(payer.ss58) == 1
    assert Journal(tmp_path / "j.db").count() == {"included": 1}


def mute_submissions(writer, proxy, mode="mute"):
    """From the next submission on, the first endpoint misbehaves."""
    submit = writer._client.submit

    def first(data):
        proxy.mode = mode
        writer._client.submit = submit
        return submit(data)

    writer._client.submit = first


def test_without_any_endpoint_intents_are_reported_and_can_be_handed_in_again(node, client, payer, fresh, tmp_path):
    dest, intent = fresh("dest"), pay(payer, fresh("dest"))
    with FaultProxy(node) as proxy:
        times = {"timeout_s": 20, "inclusion_timeout_s": 3}
        writer = ChainWriter(
            proxy.endpoint, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(**times, policy=PAYS)
        )
        proxy.mode = "shut"
        (receipt,) = writer.submit([intent])
        assert (receipt.fate, receipt.error) == (Fate.NOT_SENT, "ChainUnavailable")
        proxy.mode = "open"
        assert until_included(writer, client, intent).fate is Fate.INCLUDED
        writer.close()
    assert client.balance(dest.ss58) == RAO and client.account_nonce(payer.ss58) == 1


def test_a_writer_that_died_after_the_send_finds_its_extrinsic(node, client, payer, fresh, tmp_path):
    dest, intent = fresh("dest"), pay(payer, fresh("dest"), intent_id="once")
    born = client.finalized()
    era = Era.mortal(born.number, 64)
    signed = client.sign(intent.call(), payer.open(), nonce=0, era=era)
    journal = Journal(tmp_path / "j.db", client.genesis)
    journal.add_intents([intent])
    shape = '{"call": "Balances.transfer_keep_alive", "args": {}}'
    journal.add_extrinsic(
        Extrinsic(signed.hash, payer.ss58, 0, era.birth, era.death, signed.data, shape, ("once",), Sent.WRITTEN)
    )
    journal.close()
    assert client.submit(signed.data) is None  # ... and here the writer died, before it could note that
    client.find(signed.hash, era, timeout_s=120)
    writer = ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(policy=PAYS))
    (receipt,) = writer.submit([intent])
    assert receipt.fate is Fate.INCLUDED and receipt.extrinsic_hash == signed.hash
    assert writer.counters() == {"submitted": 1, "included": 1, "failed": 0}  # taken over from the dead one
    writer.close()
    assert client.balance(dest.ss58) == RAO and client.account_nonce(payer.ss58) == 1


def test_a_writer_that_died_before_the_send_sends_the_same_bytes(node, client, payer, fresh, tmp_path):
    dest, intent = fresh("dest"), pay(payer, fresh("dest"), intent_id="once")
    era = Era.mortal(client.finalized().number, 64)
    signed = client.sign(intent.call(), payer.open(), nonce=0, era=era)
    journal = Journal(tmp_path / "j.db", client.genesis)
    journal.add_intents([intent])
    shape = '{"call": "Balances.transfer_keep_alive", "args": {}}'
    journal.add_extrinsic(Extrinsic(signed.hash, payer.ss58, 0, era.birth, era.death, signed.data, shape, ("once",)))
    journal.close()
    writer = ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(policy=PAYS))
    (receipt,) = writer.submit([intent])
    assert receipt.fate is Fate.INCLUDED and receipt.extrinsic_hash == signed.hash
    writer.close()
    assert client.balance(dest.ss58) == RAO and client.account_nonce(payer.ss58) == 1


def test_a_nonce_that_another_used_ends_the_extrinsic_and_the_intent_goes_anew(node, client, payer, fresh, tmp_path):
    dest, intent = fresh("dest"), pay(payer, fresh("dest"), intent_id="once")
    era = Era.mortal(client.finalized().number, 64)
    signed = client.sign(intent.call(), payer.open(), nonce=0, era=era)
    journal = Journal(tmp_path / "j.db", client.genesis)
    journal.add_intents([intent])
    shape = '{"call": "Balances.transfer_keep_alive", "args": {}}'
    journal.add_extrinsic(Extrinsic(signed.hash, payer.ss58, 0, era.birth, era.death, signed.data, shape, ("once",)))
    journal.close()
    client.send(pay(payer, fresh("other")).call(), payer.open(), timeout_s=120)  # takes nonce 0
    writer = ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(policy=PAYS))
    ended = Journal(tmp_path / "j.db").receipt("once")
    assert (ended.fate, ended.error) == (Fate.FAILED, "Stale")
    (receipt,) = writer.submit([intent])
    assert receipt.fate is Fate.INCLUDED and receipt.extrinsic_hash != signed.hash
    writer.close()
    assert client.balance(dest.ss58) == RAO and client.account_nonce(payer.ss58) == 2


def test_another_process_with_the_same_key_costs_a_retry_not_a_payment(node, client, payer, fresh, tmp_path):
    dest = fresh("dest")
    writer = ChainWriter(
        node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(policy=PAYS, stop_on_foreign=False)
    )
    assert writer.submit([pay(payer, dest)])[0].fate is Fate.INCLUDED
    client.send(pay(payer, dest).call(), payer.open(), timeout_s=120)  # its nonce is stale now
    (receipt,) = writer.submit([pay(payer, dest)])
    assert receipt.fate is Fate.INCLUDED, receipt
    writer.close()
    assert client.balance(dest.ss58) == 3 * RAO and client.account_nonce(payer.ss58) == 3


def test_batches_are_cut_by_the_limit_and_pipelined_in_one_block(forking, fresh, tmp_path):
    payer, dest, receipts = fresh("payer"), fresh("dest"), []
    settings = WriterSettings(limits=Limits(max_items=3), inclusion_timeout_s=120, policy=PAYS)
    with ChainClient(forking, timeout_s=60) as client:
        fund(client, payer)
        writer = ChainWriter(forking, {payer.ss58: payer}, tmp_path / "j.db", settings)
        intents = [pay(payer, dest, RAO // 10) for _ in range(10)]
        submitting = threading.Thread(target=lambda: receipts.extend(writer.submit(intents)))
        submitting.start()
        end = time.monotonic() + 60
        while len(client.rpc("author_pendingExtrinsics")) < 4 and time.monotonic() < end:
            time.sleep(0.02)
        with Blocks(forking):
            submitting.join()
        assert [r.fate for r in receipts] == [Fate.INCLUDED] * 10
        assert len({r.extrinsic_hash for r in receipts}) == 4 and len({r.block for r in receipts}) == 1
        writer.close()
        assert client.balance(dest.ss58) == RAO


def fund(client, ref):
    """100 TAO on the node that makes no blocks by itself."""
    with Blocks(client.endpoint):
        client.send(Transfer(signer=ALICE.ss58, dest=ref.ss58, value=100 * RAO).call(), ALICE.open(), timeout_s=120)


def test_an_intent_that_is_still_on_its_way_is_unknown_and_watched(node, client, payer, fresh, tmp_path):
    dest, intent = fresh("dest"), pay(payer, fresh("dest"))
    writer = ChainWriter(
        node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(inclusion_timeout_s=0.01, policy=PAYS)
    )
    (receipt,) = writer.submit([intent])
    # Unknown or not even sent, unless a block came within that hundredth of a second.
    assert receipt.fate is Fate.INCLUDED or receipt.error == "Timeout"
    receipt = until_included(writer, client, intent)
    assert writer.counters() == {"submitted": 1, "included": 1, "failed": 0}
    writer.close()
    assert client.balance(dest.ss58) == RAO


def test_reads_do_not_wait_for_a_write(forking, fresh, tmp_path):
    payer = fresh("payer")
    with ChainClient(forking, timeout_s=60) as client:
        fund(client, payer)
    settings = WriterSettings(inclusion_timeout_s=120, policy=PAYS)
    writer = ChainWriter(forking, {payer.ss58: payer}, tmp_path / "j.db", settings)
    writing = threading.Thread(target=writer.submit, args=([pay(payer, fresh("dest"))],))
    writing.start()
    writer.head()
    assert writing.is_alive(), "there is no block yet that ends the write"
    with Blocks(forking):
        writing.join(timeout=60)
    assert not writing.is_alive()
    writer.close()


def test_a_journal_of_another_chain_is_refused(node, payer, tmp_path):
    Journal(tmp_path / "j.db", genesis="0x" + "00" * 32).close()
    with pytest.raises(ConfigError, match="another journal file"):
        ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(policy=PAYS))


@pytest.mark.parametrize("fault", [Fault.UPSTREAM_RETRY, Fault.BANNED_AFTER, Fault.TOO_LOW_AFTER, Fault.IMPORTED_AFTER])
def test_a_refusal_that_speaks_of_this_very_extrinsic_pays_nothing_twice(node, client, payer, fresh, tmp_path, fault):
    dest, left = fresh("dest"), [fault]
    with FaultProxy(node, lambda method: left.pop() if method == "author_submitExtrinsic" and left else None) as proxy:
        writer = ChainWriter(
            proxy.endpoint, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(timeout_s=60, policy=PAYS)
        )
        (receipt,) = writer.submit([pay(payer, dest)])
        assert receipt.fate is Fate.INCLUDED, receipt
        assert proxy.faults == {fault: 1}
        writer.close()
    assert client.balance(dest.ss58) == RAO and client.account_nonce(payer.ss58) == 1


@pytest.mark.parametrize("fault", [Fault.BANNED, Fault.TOO_LOW])
def test_a_refusal_of_what_never_arrived_is_got_over(node, client, payer, fresh, tmp_path, fault):
    dest, left = fresh("dest"), [fault]
    with FaultProxy(node, lambda method: left.pop() if method == "author_submitExtrinsic" and left else None) as proxy:
        writer = ChainWriter(
            proxy.endpoint, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(timeout_s=60, policy=PAYS)
        )
        receipts = writer.submit([pay(payer, dest)])
        assert [receipt.fate for receipt in receipts] == [Fate.INCLUDED]
        writer.close()
    assert client.balance(dest.ss58) == RAO


@pytest.fixture(scope="module")
def forking(tmp_path_factory):
    """A node that makes blocks on demand and finalizes three blocks behind."""
    folder = tmp_path_factory.mktemp("forking")
    chain = EmbeddedChain(folder / "state", 3600.0, folder / "log", finality_lag=3)
    yield chain.endpoint
    chain.close()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("restart", [True, False])
def test_what_a_lost_block_held_is_not_taken_for_done(forking, fresh, tmp_path, keep, restart):
    ref, dest = fresh("payer"), fresh("dest")
    with ChainClient(forking, timeout_s=60) as client:
        fund(client, ref)
        client.rpc("dev_newBlock", [{"count": 4}])
        writer = ChainWriter(forking, {ref.ss58: ref}, tmp_path / "j.db", WriterSettings(policy=PAYS))
        intent = pay(ref, dest)
        with Blocks(forking):
            (receipt,) = writer.submit([intent])
        assert receipt.fate is Fate.INCLUDED
        while client.head().number > receipt.block:  # the block with the payment is the last one
            client.rpc("dev_rollBack", [{"count": 1}])
        if restart:
            writer.close()
        client.rpc("dev_rollBack", [{"count": 1, "keep": keep}])
        assert client.balance(dest.ss58) == 0
        client.rpc("dev_newBlock", [{"count": 1 if keep else 2}])
        assert client.balance(dest.ss58) == (RAO if keep else 0)
        if restart:
            writer = ChainWriter(forking, {ref.ss58: ref}, tmp_path / "j.db", WriterSettings(policy=PAYS))
        with Blocks(forking):
            receipt = until_included(writer, client, intent)
        assert client.block(client.block_hash(receipt.block))[1].count(receipt.extrinsic_hash) == 1
        assert client.balance(dest.ss58) == RAO and client.account_nonce(ref.ss58) == 1
        writer.close()


def until_included(writer, client, intent):
    """Submits the intent until its block is on the chain: the writer has to look to notice that one is gone."""
    for _ in range(100):
        (receipt,) = writer.submit([intent])
        if receipt.fate is Fate.INCLUDED and client.balance(intent.dest) == intent.value:
            return receipt
        time.sleep(0.1)
    raise AssertionError(receipt)
