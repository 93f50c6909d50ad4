"""A neuron is replaced between the first send of weights and their block: no weight stays with who took its uid."""

import time

import pytest
from faults import Fault, FaultProxy

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.calls import Call
from raytensor.chain.intents import BurnedRegister
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.runtime import Era
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.uids import PREFIX, uids_of
from raytensor.chain.writer.writer import ChainWriter
from raytensor.types import Fate, Weights

ALICE, OWNER = DevKey("//Alice"), DevKey("//uids//owner//hot")  # an owner sets weights without a permit
RAO = 10**9


@pytest.fixture(scope="module")
def netuid(node):
    """A subnet that is full with its owner and two miners: the next registration takes the uid of the older one."""
    miners = [Neuron(f"m{n}", "miner", DevKey(f"//uids//m{n}//hot"), DevKey(f"//uids//m{n}")) for n in range(2)]
    with ChainClient(node, timeout_s=60) as client:
        neurons = [Neuron("o", "owner", OWNER, DevKey("//uids//owner")), *miners]
        made = make_subnet(client, SubnetSpec(neurons, tempo=360)).netuid
        sudo(client, "sudo_set_min_allowed_uids", made, 2)
        sudo(client, "sudo_set_max_allowed_uids", made, 3)
    return made


def sudo(client, name, *values):
    call = Call("AdminUtils", name, dict(zip(client.runtime.call_fields("AdminUtils", name), values)))
    client.send(Call("Sudo", "sudo", {"call": call}), ALICE.open(), timeout_s=60)


@pytest.fixture
def newcomer(client, netuid, fresh, payer):
    """Returns a signed registration of a hotkey that is not registered yet, as bytes."""
    hotkey = fresh("newcomer").ss58
    call = BurnedRegister(signer=payer.ss58, netuid=netuid, hotkey=hotkey).call()
    era = Era.mortal(client.finalized().number, 64)
    return client.sign(call, payer.open(), nonce=client.account_next_index(payer.ss58), era=era), era


@pytest.fixture
def write(node, tmp_path):
    made = []

    def new(endpoints):
        settings = WriterSettings(timeout_s=2)
        made.append(ChainWriter(endpoints, {OWNER.ss58: OWNER}, tmp_path / "j.db", settings))
        return made[-1]

    yield new
    for writer in made:
        writer.close()


def miners_of(client, netuid):
    return [hotkey for hotkey in read_metagraph(client, netuid).hotkeys if hotkey != OWNER.ss58]


def weights(netuid, miners):
    return Weights(netuid, OWNER.ss58, {hotkey: float(n) for n, hotkey in enumerate(miners, 1)}, made_at_block=1)


def row_of(client, netuid):
    """hotkey -> u16 above 0 of the row that is in force."""
    graph = read_metagraph(client, netuid)
    return {graph.hotkeys[uid]: value for uid, value in graph.weights[graph.uid(OWNER.ss58)] if value}


def wait_for(find, what, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not (found := find()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)
    return found


def included(writer):
    return [receipt for receipt in writer.receipts_since(0)[1] if receipt.fate is Fate.INCLUDED]


def test_weights_that_were_lost_are_signed_anew_after_a_neuron_was_replaced(
    node, shared_blocks, client, netuid, newcomer, write
):
    before, lose = miners_of(client, netuid), [Fault.DROP_REQUEST]
    rule = lambda method: lose.pop() if method == "author_submitExtrinsic" and lose else None  # noqa: E731
    with FaultProxy(node, rule) as proxy:
        writer = write(proxy.endpoint)
        with shared_blocks.on_demand():
            writer.hold([weights(netuid, before)])
            wait_for(lambda: proxy.faults[Fault.DROP_REQUEST], "the first submission, which is lost")
            signed, era = newcomer
            assert client.submit(signed.data) is None
            client.find(signed.hash, era, timeout_s=60)
        after = miners_of(client, netuid)
        (stays,) = set(before) & set(after)
        (receipt,) = wait_for(lambda: included(writer), "the weights")
        assert proxy.requests["author_submitExtrinsic"] == 2
    assert row_of(client, netuid) == {stays: 65535}, "and nothing for who took the uid"
    assert not receipt.intent_id.startswith(PREFIX) and client.account_nonce(OWNER.ss58) == 1


def test_weights_that_landed_after_a_neuron_was_replaced_are_set_again(
    node, shared_blocks, client, netuid, newcomer, write
):
    before = miners_of(client, netuid)
    writer = write(node)
    with shared_blocks.held():  # both are in one block
        writer.hold([weights(netuid, before)])
        wait_for(lambda: client.rpc("author_pendingExtrinsics"), "the weights in the pool")
        assert client.submit(newcomer[0].data) is None
    first, again = wait_for(lambda: (found := included(writer))[1:] and found, "the weights, twice")
    (stays,) = set(before) & set(miners_of(client, netuid))
    assert row_of(client, netuid) == {stays: 65535}
    assert again.intent_id.startswith(f"{PREFIX}{first.block}-{netuid}-0-")
    assert again.block > first.block


def test_the_uids_of_rows_are_found_within_batches_and_proxies():
    one = Call("SubtensorModule", "set_weights", {"netuid": 3, "dests": [1, 2], "weights": [0, 5], "version_key": 0})
    rows = [[(4, 65535)], [(5, 0), (6, 1)]]
    native = Call("SubtensorModule", "batch_set_weights", {"netuids": [7, 8], "weights": rows, "version_keys": [0, 0]})
    proxied = Call("Proxy", "proxy", {"real": OWNER.ss58, "force_proxy_type": None, "call": native})
    batch = Call("Utility", "force_batch", {"calls": [one, proxied]})
    assert uids_of(batch) == {(3, 2), (7, 4), (8, 6)}


def test_a_call_with_calls_in_it_is_read_from_signed_bytes(client):
    one = Call("SubtensorModule", "set_weights", {"netuid": 3, "dests": [1], "weights": [5], "version_key": 0})
    real = {"Id": OWNER.ss58}
    proxied = Call("Proxy", "proxy", {"real": real, "force_proxy_type": None, "call": one})
    batch = Call("Utility", "force_batch", {"calls": [one, proxied]})
    signed = client.sign(batch, OWNER.open(), nonce=0, era=Era())
    assert client.runtime.call_of(signed.data) == batch
    encoded = client.runtime.encode_call(Call("Utility", "batch", {"calls": [one]}))
    head = signed.data[: signed.data.index(client.runtime.encode_call(batch))]
    nested = encoded[:3] * 100_000 + client.runtime.encode_call(one)  # batches in batches, deeper than anybody reads
    assert client.runtime.call_of(head + nested) is None
