"""Money moves once, whatever a node answers and whatever raises: on a real node, by the chain's word alone."""

import sqlite3
import threading
import time

import pytest
from faults import Fault, FaultProxy

from raytensor.chain.intents import Transfer
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.policy import Policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.devnet.launch import EmbeddedChain
from raytensor.types import Fate

RAO = 10**9
ALICE = DevKey("//Alice")
ERA = 8  # blocks of the node's 0.25 s: a refusal is judged after two seconds
SETTINGS = WriterSettings(timeout_s=5, era_blocks=ERA, policy=Policy(transfers=True))


def fund(client, ref, rao):
    client.send(Transfer(signer=ALICE.ss58, dest=ref.ss58, value=rao).call(), ALICE.open(), timeout_s=30)


@pytest.fixture
def payer(client, fresh):
    """An account with 100 TAO that only this test uses."""
    ref = fresh("payer")
    fund(client, ref, 100 * RAO)
    return ref


@pytest.fixture
def write(node, tmp_path):
    """Makes writers on one journal; closes what is open at the end."""
    made = []

    def new(*refs, endpoint=node, settings=SETTINGS):
        made.append(ChainWriter(endpoint, {ref.ss58: ref for ref in refs}, tmp_path / "j.db", settings))
        return made[-1]

    yield new
    for writer in made:
        writer.close()


def pay(payer, dest, value=5 * RAO, **more):
    return Transfer(signer=payer.ss58, dest=dest.ss58, value=value, **more)


def pass_blocks(blocks, client, writer, count):
    """So many blocks, at once: half of them, and the others when the writer has looked at those."""
    for part in (count // 2, count - count // 2):
        number, end = client.head().number + part, time.monotonic() + 60
        blocks.up_to(number)
        while writer.state()["block"] < number:
            assert time.monotonic() < end, "the writer does not follow"
            time.sleep(0.02)


def test_an_order_that_failed_is_never_sent_again(shared_blocks, client, fresh, write):
    """An account without funds: the node refuses; funded later for something else, it pays nothing of the order."""
    poor, dest = fresh("poor"), fresh("dest")
    writer = write(poor)
    order = pay(poor, dest, 7 * RAO, intent_id="order-1")
    (receipt,) = writer.submit([order])
    assert (receipt.fate, receipt.error) == (Fate.FAILED, "Payment") and receipt.action.startswith("fix: fund")
    sent = writer.counters()
    fund(client, poor, 50 * RAO)
    pass_blocks(shared_blocks, client, writer, 2 * ERA)
    assert client.balance(dest.ss58) == 0 and client.account_nonce(poor.ss58) == 0
    assert writer.submit([order]) == [receipt], "an id that was handed in again gets the first one's receipt"
    writer.close()
    again = write(poor)
    assert again.submit([order]) == [receipt] and again.counters()["submitted"] == 0
    assert sent["submitted"] == 0 and client.balance(dest.ss58) == 0
    # Under a new id the money moves.
    assert again.submit([pay(poor, dest, 7 * RAO)])[0].fate is Fate.INCLUDED
    assert client.balance(dest.ss58) == 7 * RAO


def lying(method, left):
    return left.pop() if method == "author_submitExtrinsic" and left else None


@pytest.mark.parametrize(
    "answer", [Fault.BAD_SIGNATURE_AFTER, Fault.PAYMENT_AFTER, Fault.CUSTOM_AFTER, Fault.STALE_AFTER, Fault.FULL_AFTER]
)
def test_a_refusal_of_what_another_backend_took_pays_once(node, shared_blocks, client, payer, fresh, write, answer):
    dest, order = fresh("dest"), None
    with FaultProxy(node, lambda method: answer if method == "author_submitExtrinsic" else None) as proxy:
        writer = write(payer, endpoint=proxy.endpoint)
        order = pay(payer, dest)
        (receipt,) = writer.submit([order])
        assert receipt.fate is Fate.INCLUDED, receipt
        assert writer.submit([order]) == [receipt]
        pass_blocks(shared_blocks, client, writer, 2 * ERA)
        writer.close()
    assert client.balance(dest.ss58) == 5 * RAO and client.account_nonce(payer.ss58) == 1


@pytest.mark.parametrize("answer", [Fault.NONSENSE_AFTER, Fault.WORDS_AFTER, Fault.NO_BLOCK_AFTER, Fault.LIST_AFTER])
def test_an_answer_that_means_nothing_leaves_the_fate_open(node, shared_blocks, client, payer, fresh, write, answer):
    dest = fresh("dest")
    with FaultProxy(node, lambda method: answer if method == "author_submitExtrinsic" else None) as proxy:
        writer = write(payer, endpoint=proxy.endpoint)
        (receipt,) = writer.submit([pay(payer, dest)])
        assert receipt.fate is Fate.INCLUDED, receipt
        pass_blocks(shared_blocks, client, writer, ERA)
        writer.close()
    assert client.balance(dest.ss58) == 5 * RAO and client.account_nonce(payer.ss58) == 1


def test_what_a_node_refuses_for_good_has_failed_once_its_era_is_over(node, shared_blocks, client, payer, fresh, write):
    dest = fresh("dest")
    with FaultProxy(node, lambda method: Fault.PAYMENT if method == "author_submitExtrinsic" else None) as proxy:
        writer = write(payer, endpoint=proxy.endpoint)
        first = client.head().number
        with shared_blocks.following(writer):
            (receipt,) = writer.submit([pay(payer, dest)])
        assert (receipt.fate, receipt.error) == (Fate.FAILED, "Payment")
        assert client.head().number >= first + ERA - 2, "before that, another node may have had it"
        writer.close()
    assert client.account_nonce(payer.ss58) == 0


def test_a_caller_who_does_not_wait_is_told_that_the_fate_is_unknown_and_until_when(node, client, payer, fresh, write):
    settings = WriterSettings(timeout_s=5, inclusion_timeout_s=0.5, policy=Policy(transfers=True))
    with FaultProxy(node, lambda method: Fault.PAYMENT if method == "author_submitExtrinsic" else None) as proxy:
        writer = write(payer, endpoint=proxy.endpoint, settings=settings)
        (receipt,) = writer.submit([pay(payer, fresh("dest"))])
        assert (receipt.fate, receipt.error) == (Fate.UNKNOWN, "Payment")
        assert receipt.until > client.head().number and f"up to block {receipt.until}" in receipt.action
        writer.close()


def test_the_next_order_takes_the_nonce_of_a_refused_one_and_so_decides_it(node, client, payer, fresh, write):
    first, second, left = fresh("first"), fresh("second"), [Fault.PAYMENT]
    with FaultProxy(node, lambda method: lying(method, left)) as proxy:
        writer = write(payer, endpoint=proxy.endpoint, settings=WriterSettings(timeout_s=5, policy=SETTINGS.policy))
        found = []
        thread = threading.Thread(target=lambda: found.extend(writer.submit([pay(payer, first)])))
        thread.start()
        deadline = time.monotonic() + 20
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
        (done,) = writer.submit([pay(payer, second)])
        assert done.fate is Fate.INCLUDED
        thread.join(timeout=30)  # long before the era of 64 blocks is over
        assert [(r.fate, r.error) for r in found] == [(Fate.FAILED, "Payment")]
        writer.close()
    assert client.account_nonce(payer.ss58) == 1
    assert (client.balance(first.ss58), client.balance(second.ss58)) == (0, 5 * RAO)


def test_a_retry_takes_the_same_nonce(node, shared_blocks, client, payer, fresh, write, tmp_path):
    dest, left = fresh("dest"), [Fault.BAD_SIGNATURE_AFTER]
    with FaultProxy(node, lambda method: lying(method, left)) as proxy:
        writer = write(payer, endpoint=proxy.endpoint)
        (receipt,) = writer.submit([pay(payer, dest)])
        assert receipt.fate is Fate.INCLUDED, receipt
        pass_blocks(shared_blocks, client, writer, ERA + 2)
        writer.close()
    rows = Journal(tmp_path / "j.db").rows("SELECT DISTINCT nonce FROM extrinsics")
    assert rows == [(0,)] and client.account_nonce(payer.ss58) == 1 and client.balance(dest.ss58) == 5 * RAO


def test_a_journal_that_another_process_holds_pays_nothing_twice(shared_blocks, client, payer, fresh, write, tmp_path):
    """The journal is locked from the moment that the extrinsic was sent, for longer than SQLite waits."""
    dest = fresh("dest")
    writer = write(payer)
    writer._journal._db.execute("PRAGMA busy_timeout = 200")
    other = sqlite3.connect(tmp_path / "j.db", isolation_level=None, check_same_thread=False)
    submit = writer._client.submit

    def then_locked(data):
        answer = submit(data)
        if not other.in_transaction:
            other.execute("BEGIN IMMEDIATE")
            threading.Timer(3.0, lambda: other.execute("ROLLBACK")).start()
        writer._client.submit = submit
        return answer

    writer._client.submit = then_locked
    (receipt,) = writer.submit([pay(payer, dest)])
    assert receipt.fate is Fate.INCLUDED, receipt
    pass_blocks(shared_blocks, client, writer, ERA)
    assert writer.state()["errors"] >= 1
    writer.close()
    assert client.balance(dest.ss58) == 5 * RAO and client.account_nonce(payer.ss58) == 1
    other.close()


def test_a_full_disk_stops_the_record_and_not_the_order(node, client, payer, fresh, write, tmp_path):
    """The audit log can't be written: the order is carried out, and the state says what is missing."""
    settings = WriterSettings(timeout_s=5, policy=SETTINGS.policy, audit_path="/dev/full")
    writer = write(payer, settings=settings)
    (receipt,) = writer.submit([pay(payer, fresh("dest"))])
    assert receipt.fate is Fate.INCLUDED
    state = writer.state()
    assert state["unwritten"] >= 2 and "No space left" in state["trouble"] and state["errors"] == 0


def test_a_receipt_is_the_same_for_another_process_on_the_same_journal(node, client, payer, fresh, write):
    dest = fresh("dest")
    writer = write(payer)
    order = pay(payer, dest, intent_id="once")
    (receipt,) = writer.submit([order])
    writer.close()
    with ChainClient(node, timeout_s=10) as other:
        nonce = other.account_nonce(payer.ss58)
    again = write(payer)
    assert again.submit([order]) == [receipt]
    assert client.account_nonce(payer.ss58) == nonce == 1


@pytest.mark.parametrize("lag", [100, 1100])
def test_money_moves_although_finality_is_far_behind(fresh, tmp_path, lag):
    """Eras of 64 blocks from the final block would be over before they begin."""
    chain = EmbeddedChain(tmp_path / "state", 3600.0, tmp_path / "log", 60.0, finality_lag=lag)
    payer, dest, stop = ALICE, fresh("dest"), threading.Event()
    try:
        with ChainClient(chain.endpoint, timeout_s=60) as client:
            client.rpc("dev_newBlock", [{"count": lag + 50}], timeout_s=60)

            def make_blocks():
                with ChainClient(chain.endpoint, timeout_s=20) as own:
                    while not stop.wait(0.1):
                        own.rpc("dev_newBlock")

            thread = threading.Thread(target=make_blocks)
            thread.start()
            try:
                writer = ChainWriter(chain.endpoint, {payer.ss58: payer}, tmp_path / "lag.db", SETTINGS)
                receipts = writer.submit([pay(payer, dest), pay(payer, dest, 2 * RAO)])
                writer.close()
            finally:
                stop.set()
                thread.join()
            assert [r.fate for r in receipts] == [Fate.INCLUDED] * 2
            assert client.balance(dest.ss58) == 7 * RAO
    finally:
        chain.close()
