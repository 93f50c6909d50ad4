"""A chain that loses its last blocks, as in a reorganisation: state, pool, watchers and disk go back with it."""

from __future__ import annotations

import pytest
from nodes import Node
from signing import ALICE, BOB, CHARLIE, signed, to_hex, transfer_call
from test_restored_state import busy_subnet, state

from raytensor.devnet.chain_spec import build_runtime

TAO = 10**9


@pytest.fixture
def lagging(tmp_path):
    """A manual node that finalizes three blocks behind, with its state on disk."""
    node = Node("--block-time", "manual", "--finality-lag", "3", "--state", str(tmp_path / "state"))
    yield node
    node.kill()


def transfer(node, nonce, key=ALICE, amount=TAO):
    genesis = bytes.fromhex(node.ready["genesis"][2:])
    return to_hex(signed(transfer_call(bytes([nonce + 1]) * 32, amount), key, nonce, genesis))


def test_the_state_is_that_of_the_block_to_the_byte_and_the_chain_goes_on_the_same():
    straight, forked = build_runtime(check=True), build_runtime(check=True)
    for runtime in (straight, forked):
        busy_subnet(runtime)
    kept, at, time_ms = state(forked), forked.block_number, forked.timestamp_ms
    for _ in range(7):  # an epoch is among them
        forked.next_block()
    assert state(forked) != kept
    forked.store.revert(at)
    forked.block_number, forked.timestamp_ms = at, time_ms
    assert state(forked) == kept
    assert state_at(forked, at - 3) == state_at(straight, at - 3)
    for _ in range(7):
        straight.next_block()
        forked.next_block()
    assert state(forked) == state(straight)


def state_at(runtime, block):
    return {raw: runtime.store.read_raw(raw, block) for raw in runtime.store.raw_keys(b"", None, None, block)}


@pytest.mark.parametrize("keep", [True, False])
def test_extrinsics_come_back_into_the_pool_or_are_lost(lagging, raw, keep):
    client = raw(lagging)
    client.call("dev_newBlock", [{"count": 4}])
    watched = client.call("author_submitAndWatchExtrinsic", [transfer(lagging, 0)])
    client.call("author_submitExtrinsic", [transfer(lagging, 1)])
    block = client.call("dev_newBlock")
    parent = client.call("chain_getHeader", [block])["parentHash"]
    late = transfer(lagging, 2)
    client.call("author_submitExtrinsic", [late])
    assert client.call("dev_rollBack", [{"count": 1, "keep": keep}]) == parent
    assert client.call("chain_getBlockHash") == parent
    assert client.call("chain_getHeader", [block]) is None
    assert [client.note(watched) for _ in range(3)] == ["ready", {"inBlock": block}, {"retracted": block}]
    assert len(client.call("author_pendingExtrinsics")) == (3 if keep else 0)  # 2 waits for the nonces before it
    assert client.call("account_nextIndex", [ALICE.ss58_address]) == (3 if keep else 0)
    again = client.call("dev_newBlock")
    body = client.call("chain_getBlock", [again])["block"]["extrinsics"]
    assert len(body) == (4 if keep else 1)
    if keep:
        assert client.note(watched) == {"inBlock": again}
    else:
        assert client.request("author_submitExtrinsic", [late])["error"]["code"] == 1013
        client.call("author_submitExtrinsic", [transfer(lagging, 0)])
        client.call("author_submitExtrinsic", [transfer(lagging, 1)])
        client.call("dev_newBlock")
        assert client.call("account_nextIndex", [ALICE.ss58_address]) == 3


def test_a_final_block_never_leaves(lagging, raw):
    client = raw(lagging)
    client.call("dev_newBlock", [{"count": 5}])
    reply = client.request("dev_rollBack", [{"count": 4}])
    assert "is final" in reply["error"]["message"]
    for bad in ({"count": 0}, {"count": "1"}, {"keep": 1}, {"count": 99}):
        assert client.request("dev_rollBack", [bad])["error"]["code"] == -32602
    assert int(client.call("chain_getHeader")["number"], 16) == 5


def test_the_disk_goes_back_too(lagging, raw, tmp_path):
    client = raw(lagging)
    client.call("dev_newBlock", [{"count": 3}])
    client.call("author_submitExtrinsic", [transfer(lagging, 0, BOB)])
    client.call("dev_newBlock", [{"count": 2}])
    client.call("dev_rollBack", [{"count": 2, "keep": False}])
    client.call("author_submitExtrinsic", [transfer(lagging, 0, CHARLIE)])
    head = client.call("dev_newBlock")
    lagging.kill()
    node = Node("--finality-lag", "3", "--block-time", "manual", "--state", str(tmp_path / "state"))
    client = raw(node)
    assert client.call("chain_getBlockHash") == head
    assert client.call("account_nextIndex", [BOB.ss58_address]) == 0
    assert client.call("account_nextIndex", [CHARLIE.ss58_address]) == 1
    node.kill()
