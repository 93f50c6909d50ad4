"""The client against a real node, also through a proxy that misbehaves."""

import time

import pytest
from faults import FaultProxy
from substrateinterface import Keypair, SubstrateInterface

from raytensor.chain.calls import Call
from raytensor.chain.intents import Transfer
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.connection import RpcError, endpoint_urls
from raytensor.chain.rpc.runtime import Era
from raytensor.chain.wallet import DevKey
from raytensor.errors import ChainError, ChainRefused, ChainUnavailable, ConfigError, FateUnknown

ALICE = DevKey("//Alice")


def transfer(dest, value):
    return Transfer(signer=ALICE.ss58, dest=dest, value=value).call()


def test_endpoints():
    assert endpoint_urls("finney") == ["wss://entrypoint-finney.opentensor.ai:443"]
    assert endpoint_urls(["local", "ws://h:1"]) == ["ws://127.0.0.1:9944", "ws://h:1"]
    for bad in ("http://x", [], "finny"):
        with pytest.raises(ConfigError):
            endpoint_urls(bad)


def test_heads_and_hashes_belong_together(client):
    head = client.wait_for_block(2, timeout_s=120)
    assert client.block_hash(head.number) == head.hash
    assert client.header(head.hash) == head
    assert client.block_hash(head.number - 1) == head.parent
    assert client.block_hash(0) == client.genesis
    with pytest.raises(ChainError, match="no block"):
        client.block_hash(10**6)
    later = client.wait_for_block(head.number + 2, timeout_s=120)
    assert later.number >= head.number + 2


def test_every_value_reads_as_plain_substrate_interface_reads_it(client, node):
    plain = SubstrateInterface(url=node, type_registry={"types": {"Balance": "u64"}})
    head = client.head()
    ours = client.query_map("System", "Account", block_hash=head.hash)
    theirs = {key.value: value.value for key, value in plain.query_map("System", "Account", block_hash=head.hash)}
    assert len(ours) >= 9 and ours == theirs
    deposit = plain.get_constant("Balances", "ExistentialDeposit").value
    assert client.constant("Balances", "ExistentialDeposit") == deposit == 500
    assert client.constant("System", "SS58Prefix") == 42
    assert client.query("Sudo", "Key") == ALICE.ss58
    events = [(e.value["module_id"], e.value["event_id"]) for e in plain.get_events(block_hash=head.hash)]
    assert [(event.module, event.name) for _, event in client.events(head.hash)] == events
    plain.close()


def test_calls_and_signatures_are_those_of_plain_substrate_interface(client, node, fresh):
    plain = SubstrateInterface(url=node, type_registry={"types": {"Balance": "u64"}})
    call = transfer(fresh("x").ss58, 123456789)
    theirs = plain.compose_call(call.module, call.function, {"dest": fresh("x").ss58, "value": 123456789})
    assert client.runtime.encode_call(call) == bytes(theirs.data.data)
    era = Era.mortal(client.finalized().number, 64)
    ours = client.sign(call, ALICE.open(), nonce=7, era=era)
    # sr25519 signatures differ each time: theirs is checked over their payload, and put into their encoding.
    signature = ours.data[2 + 2 + 32 + 1 :][:64]
    payload = plain.generate_signature_payload(theirs, era={"period": 64, "current": era.birth}, nonce=7)
    assert Keypair.create_from_uri("//Alice").verify(payload, signature)
    extrinsic = plain.create_signed_extrinsic(
        theirs,
        Keypair.create_from_uri("//Alice"),
        nonce=7,
        era={"period": 64, "current": era.birth},
        signature=signature,
    )
    assert bytes(extrinsic.data.data) == ours.data
    assert "0x" + extrinsic.extrinsic_hash.hex() == ours.hash
    plain.close()


def test_a_transfer_arrives_and_tells_its_fee(client, fresh):
    dest = fresh("dest").ss58
    fee, cost = client.fee(transfer(dest, 10**9), ALICE.open().public_key)
    assert fee > 0 and cost.ref_time > 0
    number, events = client.send(transfer(dest, 10**9), ALICE.open(), timeout_s=120)
    assert events[-1].name == "ExtrinsicSuccess"
    assert client.balance(dest) == 10**9
    assert client.head().number >= number


def test_a_refusal_has_a_name_and_an_action(client, fresh):
    with pytest.raises(ChainRefused) as caught:
        client.send(transfer(ALICE.ss58, 1), fresh("poor").open(), timeout_s=120)
    assert caught.value.name == "Payment" and "fund" in caught.value.action


def test_unknown_names_say_what_the_runtime_lacks(client):
    with pytest.raises(ChainError, match="no storage System.Nothing"):
        client.query("System", "Nothing")
    with pytest.raises(ChainError, match="no pallet"):
        client.query("Nothing", "Nothing")
    with pytest.raises(ChainError, match="System.nothing does not fit"):
        client.runtime.encode_call(Call("System", "nothing", {}))
    with pytest.raises(ChainError, match="does not fit"):
        client.runtime.encode_call(Call("Balances", "transfer_keep_alive", {"dest": ALICE.ss58, "value": -1}))
    with pytest.raises(RpcError):
        client.rpc("no_such_method")


def test_nonces_count_what_is_in_the_pool(client, fresh):
    signer = ALICE.open()
    first = client.account_next_index(signer.ss58)
    born = client.finalized()
    for nonce in (first, first + 1, first + 2):
        signed = client.sign(transfer(fresh("many").ss58, 10**6), signer, nonce=nonce, era=Era.mortal(born.number, 64))
        assert client.submit(signed.data) is None
    assert client.account_next_index(signer.ss58) == first + 3
    client.find(signed.hash, Era.mortal(born.number, 64), timeout_s=120)
    assert client.balance(fresh("many").ss58) == 3 * 10**6


def test_a_half_dead_socket_costs_one_time_out_then_the_next_endpoint_answers(node):
    with FaultProxy(node) as proxy, ChainClient([proxy.endpoint, node], timeout_s=2) as client:
        assert client.endpoint == proxy.endpoint
        proxy.mode = "stall"
        started = time.monotonic()
        assert client.head().number >= 0
        assert time.monotonic() - started > 1.9
        assert client.endpoint == node and proxy.connections == 1


def test_a_closed_connection_is_made_again(node):
    with FaultProxy(node) as proxy, ChainClient(proxy.endpoint, timeout_s=20) as client:
        proxy.mode = "shut"
        with pytest.raises(ChainUnavailable, match="no answer from"):
            client.head()
        proxy.mode = "open"
        assert client.head().number >= 0
        assert proxy.connections == 2


def test_errors_in_a_row_of_whatever_kind_change_the_endpoint(node):
    with FaultProxy(node) as proxy, ChainClient([proxy.endpoint, node], timeout_s=20) as client:
        for _ in range(3):
            with pytest.raises(RpcError):
                client.rpc("no_such_method")
        assert client.endpoint == node


def test_a_submission_is_never_sent_twice(node, fresh):
    dest, signer = fresh("once").ss58, fresh("payer")
    with FaultProxy(node) as proxy, ChainClient([proxy.endpoint, node], timeout_s=3) as client:
        client.send(transfer(signer.ss58, 10**9), ALICE.open(), timeout_s=120)
        born = client.finalized()
        era = Era.mortal(born.number, 64)
        signed = client.sign(transfer(dest, 10**6), signer.open(), nonce=0, era=era)
        proxy.mode = "mute"
        with pytest.raises(FateUnknown, match="not answered"):
            client.submit(signed.data)
        number, events = client.find(signed.hash, era, timeout_s=120)  # it had arrived all the same
        assert events[-1].name == "ExtrinsicSuccess"
        assert client.balance(dest) == 10**6 and client.account_nonce(signer.ss58) == 1


def test_a_submission_that_certainly_was_not_sent(node, fresh):
    with FaultProxy(node) as proxy, ChainClient(proxy.endpoint, timeout_s=20) as client:
        signed = client.sign(transfer(fresh("x").ss58, 1), ALICE.open(), nonce=0, era=Era())
        client._connection.close()
        proxy.mode = "shut"
        with pytest.raises(ChainUnavailable):
            client.submit(signed.data)


def test_nothing_listens():
    with pytest.raises(ChainUnavailable, match="127.0.0.1:9"):
        ChainClient("ws://127.0.0.1:9", timeout_s=1)
