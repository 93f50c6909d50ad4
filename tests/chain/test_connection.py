"""One connection over endpoints that misbehave in every way a proxy can think of, before a real node."""

import pytest
from faults import ERRORS, Fault, FaultProxy
from nodes import Node

from raytensor.chain.intents import Transfer
from raytensor.chain.rpc import connection, transport
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.connection import Connection, RpcError
from raytensor.chain.rpc.head import header_hash
from raytensor.chain.rpc.identity import ChainIdentity
from raytensor.chain.rpc.runtime import Era
from raytensor.chain.wallet import DevKey
from raytensor.devnet.launch import EmbeddedChain
from raytensor.errors import BlockUnknown, ChainUnavailable, FateUnknown

ALICE = DevKey("//Alice")
# Answers that are an error of the pool are the caller's to judge; all else is the connection's to get over.
TOLD = {fault for fault in ERRORS if fault is not Fault.LIMITED}
POOL = sorted(fault for fault in TOLD if fault.value[:4].isdigit())  # named by the pool's code


def once(fault, method):
    """A rule: the fault befalls the next request of this method, and no other."""
    left = [fault]
    return lambda asked: left.pop() if asked == method and left else None


# Faults after which nothing comes: only here is a short limit worth its risk on a busy machine.
SILENT = {Fault.DROP_REQUEST, Fault.DROP_ANSWER, Fault.DELAY, Fault.BLACK_HOLE}
SHORT_S = 1.5


def limit_s(fault):
    return SHORT_S if fault in SILENT else 60.0


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in TOLD])
def test_a_read_gets_its_answer_whatever_befalls_the_first_try(node, fault):
    with FaultProxy(node) as proxy, ChainClient(proxy.endpoint, timeout_s=limit_s(fault)) as client:
        proxy.delay_s = SHORT_S + 0.5  # later than the client waits
        first = client.head()
        proxy.rule = once(fault, "chain_getBlockHash")
        assert client.block_hash(first.number) == first.hash
        assert client.block_hash(0) == client.genesis  # no late or second answer is taken for another's
        assert client.block(first.hash)[0] == first
        assert proxy.faults == {fault: 1}


@pytest.mark.parametrize(
    "fault",
    [
        Fault.DROP_REQUEST,
        Fault.DROP_ANSWER,
        Fault.DELAY,
        Fault.HALF_CLOSE,
        Fault.RESET_AFTER,
        Fault.BLACK_HOLE,
        Fault.GARBAGE,
        Fault.CUT,
    ],
)
def test_a_submission_is_sent_once_whatever_befalls_it(node, client, fresh, fault):
    payer, dest = fresh("payer"), fresh("dest").ss58
    client.send(Transfer(signer=ALICE.ss58, dest=payer.ss58, value=10**9).call(), ALICE.open(), timeout_s=120)
    with FaultProxy(node) as proxy, ChainClient([proxy.endpoint, node], timeout_s=limit_s(fault)) as shaky:
        proxy.delay_s = SHORT_S + 0.5
        era = Era.mortal(shaky.finalized().number, 64)
        signed = shaky.sign(Transfer(signer=payer.ss58, dest=dest, value=10**6).call(), payer.open(), nonce=0, era=era)
        proxy.rule = once(fault, "author_submitExtrinsic")
        with pytest.raises(FateUnknown, match="sent and not answered"):
            shaky.submit(signed.data)
        assert proxy.requests["author_submitExtrinsic"] == 1 and shaky.endpoint == node
        if fault not in (Fault.DROP_REQUEST, Fault.BLACK_HOLE):
            client.find(signed.hash, era, timeout_s=120)
            assert client.balance(dest) == 10**6


def test_a_dead_line_is_found_by_a_probe_before_a_submission_is_trusted_to_it(node, fresh, monkeypatch):
    with FaultProxy(node) as proxy, ChainClient([proxy.endpoint, node], timeout_s=2) as client:
        call = Transfer(signer=ALICE.ss58, dest=fresh("dest").ss58, value=10**6).call()
        born = client.finalized()
        nonce = client.account_next_index(ALICE.ss58)
        signed = client.sign(call, ALICE.open(), nonce=nonce, era=Era.mortal(born.number, 64), birth_hash=born.hash)
        proxy.mode = "stall"
        monkeypatch.setattr(connection, "PROBE_AFTER_S", 0.0)
        assert client.submit(signed.data) is None  # not FateUnknown: it went to the other endpoint, and there alone
        assert client.endpoint == node and proxy.requests["author_submitExtrinsic"] == 0


def test_a_live_line_passes_the_probe(node, monkeypatch):
    monkeypatch.setattr(connection, "PROBE_AFTER_S", 0.0)
    with FaultProxy(node) as proxy, ChainClient(proxy.endpoint, timeout_s=60) as client:
        for _ in range(3):
            client.head()
        assert proxy.connections == 1


def test_a_submission_that_no_socket_could_take_tries_the_other_endpoints(node, fresh):
    with FaultProxy(node) as proxy, ChainClient([proxy.endpoint, node], timeout_s=60) as client:
        call = Transfer(signer=ALICE.ss58, dest=fresh("dest").ss58, value=10**6).call()
        born = client.finalized()
        nonce = client.account_next_index(ALICE.ss58)
        signed = client.sign(call, ALICE.open(), nonce=nonce, era=Era.mortal(born.number, 64), birth_hash=born.hash)
        client.close()
        proxy.mode = "shut"
        assert client.submit(signed.data) is None and client.endpoint == node


@pytest.mark.parametrize("fault", POOL)
def test_the_pools_words_are_handed_on_and_say_nothing_against_the_endpoint(node, fault):
    with FaultProxy(node) as proxy, Connection([proxy.endpoint, node], timeout_s=60) as asked:
        proxy.rule = lambda method: fault if method == "author_submitExtrinsic" else None
        for _ in range(4):
            with pytest.raises(RpcError) as caught:
                asked.rpc("author_submitExtrinsic", ["0x00"])
            assert caught.value.error["code"] == ERRORS[fault]["code"]
        assert asked.endpoint == proxy.endpoint


def test_an_endpoint_that_limits_is_left_for_reads_and_reported_for_submissions(node):
    with FaultProxy(node) as proxy, Connection([proxy.endpoint, node], timeout_s=60) as asked:
        asked.rpc("chain_getHeader")
        proxy.rule = lambda method: Fault.LIMITED
        with pytest.raises(RpcError, match="Rate limit"):
            asked.rpc("author_submitExtrinsic", ["0x00"])
        assert asked.rpc("system_chain") == "Bittensor" and asked.endpoint == node
        proxy.mode = "limit"  # HTTP 429 at the door
        with pytest.raises(ChainUnavailable, match="429"):
            Connection(proxy.endpoint, timeout_s=60).rpc("system_chain")


def test_an_endpoint_of_another_chain_is_never_taken(node, tmp_path):
    other = EmbeddedChain(tmp_path / "other", 3600.0, tmp_path / "log")  # the block time is part of the genesis
    with FaultProxy(node) as proxy, Connection([proxy.endpoint, other.endpoint, node], timeout_s=60) as asked:
        genesis = asked.rpc("chain_getBlockHash", [0])
        proxy.mode = "shut"
        assert asked.rpc("chain_getBlockHash", [0]) == genesis and asked.endpoint == node
        with Connection([proxy.endpoint, other.endpoint], timeout_s=60, identity=ChainIdentity(genesis)) as wrong:
            with pytest.raises(ChainUnavailable, match="another chain"):
                wrong.rpc("chain_getHeader")
    other.close()


def test_an_endpoint_that_lags_is_left_if_there_is_another(node, client, monkeypatch):
    monkeypatch.setattr(connection, "LAG_BLOCKS", 2)
    newest = client.wait_for_block(12, timeout_s=120)
    behind = Node("--block-time", "manual")  # the same genesis, and no block
    with FaultProxy(node) as proxy, Connection([proxy.endpoint, behind.endpoint, node], timeout_s=60) as asked:
        asked.saw(newest.number)
        asked.rpc("chain_getHeader")
        proxy.mode = "shut"
        asked.rpc("chain_getHeader")
        assert asked.endpoint == node
        with Connection(behind.endpoint, timeout_s=60) as alone:
            alone.saw(10**6)
            assert int(alone.rpc("chain_getHeader")["number"], 16) < 10**6  # better than none, and said in the log
    behind.stop()


def test_an_endpoint_without_new_blocks_is_left(tmp_path):
    still = EmbeddedChain(tmp_path / "still", 3600.0, tmp_path / "log")
    with FaultProxy(still.endpoint) as proxy:
        asked = Connection([proxy.endpoint, still.endpoint], timeout_s=60, heartbeat_s=0.2)
        number = int(asked.rpc("chain_getHeader")["number"], 16)
        for _ in range(1000):
            asked.saw(number)
            if asked.endpoint != proxy.endpoint:
                break
            transport.time.sleep(0.005)
        assert asked.endpoint == still.endpoint and asked.block_age_s >= 0.2
        asked.rpc("dev_newBlock")
        asked.saw(number + 1)
        assert asked.endpoint == still.endpoint and asked.block_age_s < 60
        asked.close()
    still.close()


def test_heads_are_told_without_a_request(node):
    with FaultProxy(node) as proxy, ChainClient(proxy.endpoint, timeout_s=60) as client:
        first = client.next_head(timeout_s=60)
        asked = proxy.requests.copy()
        heads = [client.next_head(timeout_s=60) for _ in range(3)]
        assert proxy.requests == asked
        assert [head.number for head in heads] == sorted({head.number for head in heads}) and heads[
            0
        ].number > first.number
        assert [client.block_hash(head.number) for head in heads] == [head.hash for head in heads]
        proxy.cut()
        with pytest.raises(ChainUnavailable):
            for _ in range(10):
                client.next_head(timeout_s=60)
        assert client.next_head(timeout_s=60).number >= heads[-1].number  # and goes on by itself
        proxy.mode = "stall"
        assert client.next_head(timeout_s=0.3) is None


def test_a_headers_hash_is_computed_as_the_chain_does(client):
    header = client.rpc("chain_getHeader")
    assert header_hash(header) == client.block_hash(int(header["number"], 16))


def test_blocks_that_are_not_known_have_an_error_of_their_own(client):
    nowhere = "0x" + "12" * 32
    for ask in (
        lambda: client.header(nowhere),
        lambda: client.block(nowhere),
        lambda: client.block_hash(10**7),
        lambda: client.query("System", "Number", [], nowhere),
    ):
        with pytest.raises(BlockUnknown):
            ask()
