"""A runtime upgrade: each block is made by one version, and state, metadata and versions are told by block."""

import pytest
from nodes import Node, RawClient

from raytensor.chain.intents import Transfer
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.runtime import Era
from raytensor.chain.rpc.versions import decode_events
from raytensor.chain.wallet import DevKey

ALICE = DevKey("//Alice")


def names(events):
    return [(index, event.module, event.name) for index, event in events]


def transfer(client: ChainClient) -> bytes:
    call = Transfer(signer=ALICE.ss58, dest=DevKey("//Bob").ss58, value=10**6).call()
    return client.sign(call, ALICE.open(), nonce=client.account_next_index(ALICE.ss58), era=Era()).data


def test_blocks_on_both_sides_are_decoded_by_their_own_runtime(manual, raw):
    line = raw(manual)
    with ChainClient(manual.endpoint) as client:
        old = client.runtime
        before = line.call("dev_newBlock")
        border = line.call("dev_upgradeRuntime")
        at_border = line.call("dev_newBlock")
        after = line.call("dev_newBlock")
        assert client.header(at_border).number == border
        expected = names(client.events(before))
        assert expected and names(client.events(at_border)) == names(client.events(after)) == expected
        assert client.runtime_at(before).spec_version == old.spec_version
        assert (
            client.runtime_at(at_border).spec_version == client.runtime_at(after).spec_version == old.spec_version + 1
        )
        # The metadata really differ: the wrong one misreads.
        key = old.key(old.storage("System", "Events"))
        wrong = decode_events(old, client.query_raw([key], after)[0])
        assert wrong.unreadable or names(wrong.events) != expected
        assert client.runtime is old and client.refresh_runtime().spec_version == old.spec_version + 1


def test_what_was_signed_for_the_old_version_leaves_the_pool(manual, raw):
    line = raw(manual)
    with ChainClient(manual.endpoint) as client:
        call = transfer(client)
        line.call("dev_upgradeRuntime")
        line.call("dev_newBlock")
        refused = client.submit(call)
        assert refused is not None and refused.code == 1001  # the call has moved
        client.refresh_runtime()
        assert client.submit(transfer(client)) is None
        events = client.events(line.call("dev_newBlock"))
        assert ("System", "ExtrinsicSuccess") in {(event.module, event.name) for _, event in events}


def test_subscribers_are_told_and_a_fork_undoes_it(raw):
    node = Node("--block-time", "manual", "--finality-lag", "5")
    try:
        line = RawClient(node.endpoint)
        subscription = line.call("state_subscribeRuntimeVersion")
        first = line.note(subscription)["specVersion"]
        line.call("dev_upgradeRuntime")
        line.call("dev_newBlock", [{"count": 2}])
        assert line.note(subscription)["specVersion"] == first + 1
        line.call("dev_rollBack", [{"count": 2}])
        assert line.call("state_getRuntimeVersion")["specVersion"] == first
        with ChainClient(node.endpoint) as client:
            assert names(client.events(line.call("dev_newBlock")))
        line.close()
    finally:
        node.stop()


@pytest.mark.parametrize("more", [0, 1, 2])
def test_an_upgraded_chain_is_continued_from_its_folder(tmp_path, more):
    state = str(tmp_path / "state")
    node = Node("--block-time", "manual", "--state", state)
    line = RawClient(node.endpoint)
    line.call("dev_newBlock")
    line.call("dev_upgradeRuntime")
    best = line.call("dev_newBlock")
    for _ in range(more):
        best = line.call("dev_newBlock")
    with ChainClient(node.endpoint) as client:
        spec, expected = client.spec_version, names(client.events(best))
    line.close()
    node.stop()
    again = Node("--block-time", "manual", "--state", state)
    try:
        with ChainClient(again.endpoint) as client:
            assert client.spec_version == spec
            assert more == 0 or names(client.events(best)) == expected  # the state of block 1 is discarded
            assert names(client.events(client.rpc("dev_newBlock"))) == expected
    finally:
        again.stop()
