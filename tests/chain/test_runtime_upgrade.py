"""A runtime upgrade while the writer, readers and open extrinsics live on: nothing stops, nothing is misread."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import Fault, FaultProxy

from raytensor.chain.intents import Transfer
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.versions import BlockEvents, decode_events, runtime_at
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.policy import Policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.devnet.launch import EmbeddedChain
from raytensor.types import Fate

RAO = 10**9
ALICE = DevKey("//Alice")
SUBMISSIONS = ("author_submitExtrinsic", "author_submitAndWatchExtrinsic")


@pytest.fixture
def chain(tmp_path):
    """A chain of this test alone, which makes blocks when asked."""
    own = EmbeddedChain(tmp_path / "state", 3600.0, tmp_path / "log")
    yield own.endpoint
    own.close()


def writer_of(chain, tmp_path, **more):
    settings = WriterSettings(timeout_s=10, policy=Policy(transfers=True), **more)
    return ChainWriter([chain], {ALICE.ss58: ALICE}, tmp_path / "j.db", settings)


def test_an_order_that_was_open_at_an_upgrade_is_settled_by_the_runtime_of_its_block(chain, tmp_path, fresh):
    order = Transfer(signer=ALICE.ss58, dest=fresh("dest").ss58, value=RAO)
    with ChainClient(chain) as client:
        writer = writer_of(chain, tmp_path, inclusion_timeout_s=0.5)
        (receipt,) = writer.submit([order])
        assert receipt.fate is Fate.UNKNOWN, receipt
        writer.close()
        border = client.rpc("dev_upgradeRuntime")
        for _ in range(3):  # the first one includes the order, and its state has the new runtime
            client.rpc("dev_newBlock")
        writer = writer_of(chain, tmp_path, inclusion_timeout_s=30.0)  # starts on the new runtime
        (receipt,) = writer.submit([order])
        assert (receipt.fate, receipt.block, receipt.error) == (Fate.INCLUDED, border, None)
        assert receipt.fee_rao > 0 and client.balance(order.dest) == RAO
        writer.close()


def test_a_writer_goes_on_through_an_upgrade(chain, tmp_path, fresh):
    with ChainClient(chain) as client:
        writer = writer_of(chain, tmp_path, inclusion_timeout_s=60.0)
        stop = threading.Event()
        blocks = threading.Thread(target=make_blocks, args=(chain, stop))
        blocks.start()
        try:
            for number in range(4):
                if number == 2:
                    border = client.rpc("dev_upgradeRuntime")
                    client.wait_for_block(border + 1, timeout_s=30)
                order = Transfer(signer=ALICE.ss58, dest=fresh(str(number)).ss58, value=RAO)
                (receipt,) = writer.submit([order])
                assert (receipt.fate, receipt.error) == (Fate.INCLUDED, None)
                assert client.balance(order.dest) == RAO
            assert writer.state()["errors"] == 0 and writer.state()["trouble"] == ""
        finally:
            stop.set()
            blocks.join()
            writer.close()


def test_an_order_that_the_new_runtime_does_not_decode_is_signed_again(node, payer, tmp_path, fresh):
    """1001, as of a node that was upgraded between signing and sending: it ended the order for good before."""
    answers = [Fault.BAD_FORMAT]
    with FaultProxy(node, lambda method: answers.pop() if method in SUBMISSIONS and answers else None) as proxy:
        settings = WriterSettings(timeout_s=10, policy=Policy(transfers=True), inclusion_timeout_s=60.0)
        writer = ChainWriter([proxy.endpoint], {payer.ss58: payer}, tmp_path / "j.db", settings)
        (receipt,) = writer.submit([Transfer(signer=payer.ss58, dest=fresh("dest").ss58, value=RAO)])
        assert (receipt.fate, receipt.error) == (Fate.INCLUDED, None) and proxy.faults[Fault.BAD_FORMAT] == 1
        writer.close()


def test_metadata_are_decoded_once_whoever_reads_the_new_runtime(client):
    """It takes a second of a core, in a process with many readers."""
    raw, both = client.rpc("state_getMetadata"), threading.Barrier(2)

    def rpc(method, params):
        if method == "state_getRuntimeVersion":
            return {"specVersion": 10**6, "transactionVersion": 1}
        both.wait(60)
        return raw

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda _: runtime_at(rpc, lambda: "0x00"), range(2))
    assert one is other and one.spec_version == 10**6


def make_blocks(chain, stop):
    with ChainClient(chain) as client:
        while not stop.wait(0.1):
            client.rpc("dev_newBlock")


def test_a_reader_takes_the_new_runtime_with_the_heads(chain):
    with ChainClient(chain) as client, ChainClient(chain) as owner:
        assert client.next_head(20) is not None
        spec = client.spec_version
        owner.rpc("dev_upgradeRuntime")
        owner.rpc("dev_newBlock")
        last = owner.rpc("dev_newBlock")
        while client.next_head(20).hash != last:
            pass
        assert client.next_head(0.2) is None  # what was pushed behind the head is taken, too
        assert client.spec_version == spec + 1


def test_undecodable_events_are_unreadable_for_their_extrinsics_alone(client):
    runtime = client.runtime
    key = runtime.key(runtime.storage("System", "Events"))
    raw = client.query_raw([key], client.head().hash)[0]
    whole = decode_events(runtime, raw)
    assert not whole.unreadable and whole.of(0)
    cut = decode_events(runtime, raw[:-1])
    assert "event" in cut.unreadable and len(cut.events) == len(whole.events) - 1
    assert cut.events == whole.events[:-1]
    lost = decode_events(runtime, raw[:1] + b"\x00\x00\x00\x00\x00\xfe" + raw[1:])
    assert lost.events == () and lost.of(0) is None
    call = Transfer(signer=ALICE.ss58, dest=ALICE.ss58, value=1).call()
    assert [(item.ok, item.error) for item in lost.outcomes(call, 0)] == [(True, "OutcomeUnreadable")]
    assert [item.error for item in BlockEvents((), runtime).outcomes(call, 0)] == ["OutcomeUnreadable"]
