"""Weights that stay alive while a mechanism makes none, and a chain that was started anew."""

import time

import pytest

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.renewal import PREFIX
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.devnet.launch import EmbeddedChain
from raytensor.errors import ConfigError
from raytensor.types import Fate, Weights

RAO, TEMPO = 10**9, 2  # a cutoff of 27 blocks
OWNER, VALIDATOR, MINER = (DevKey(f"//renewal//{role}//hot") for role in ("owner", "validator", "miner"))


@pytest.fixture(scope="module")
def netuid(node):
    neurons = [
        Neuron("o", "owner", OWNER, DevKey("//renewal//owner")),
        Neuron("v", "validator", VALIDATOR, DevKey("//renewal//validator"), 500 * RAO),
        Neuron("m", "miner", MINER, DevKey("//renewal//miner")),
    ]
    with ChainClient(node, timeout_s=20) as client:
        made = make_subnet(client, SubnetSpec(neurons, tempo=TEMPO))
        client.wait_for_block(read_metagraph(client, made.netuid).next_epoch_block + TEMPO + 1, timeout_s=60)
    return made.netuid


def renewed(writer, client, until):
    """The receipts of renewed weights, once there is one or that block is over."""
    while client.head().number < until:
        found = [r for r in writer.receipts_since(0)[1] if r.intent_id.startswith(PREFIX) and r.fate is Fate.INCLUDED]
        if found:
            return found
        time.sleep(0.05)
    return []


@pytest.mark.parametrize("mode, row", [("renew", (65535, 32768)), ("burn", (0, 65535)), ("hold", None)])
def test_the_last_good_weights_are_set_again_before_the_cutoff(
    node, shared_blocks, client, netuid, tmp_path, mode, row
):
    settings = WriterSettings(renewal=mode)
    writer = ChainWriter(node, {VALIDATOR.ss58: VALIDATOR}, tmp_path / "j.db", settings)
    (receipt,) = writer.set_weights([Weights(netuid, VALIDATOR.ss58, {MINER.ss58: 2.0, OWNER.ss58: 1.0})])
    assert receipt.fate is Fate.INCLUDED
    shared_blocks.up_to(receipt.block + 16)
    found = renewed(writer, client, receipt.block + 28)
    if not found:
        shared_blocks.up_to(receipt.block + 38)
        found = renewed(writer, client, receipt.block + 40)
    writer.close()
    if row is None:
        assert found == []
        return
    assert receipt.block + 20 <= found[0].block <= receipt.block + 27
    graph = read_metagraph(client, netuid)
    set_ = dict(graph.weights[graph.uid(VALIDATOR.ss58)])
    assert (set_.get(graph.uid(MINER.ss58), 0), set_.get(graph.uid(OWNER.ss58), 0)) == row


def test_an_unknown_way_of_renewal_is_refused():
    with pytest.raises(ConfigError, match="'renew', 'hold' or 'burn'"):
        WriterSettings(renewal="never")


def test_a_chain_that_was_started_anew_is_another_chain(tmp_path):
    key = DevKey("//Alice")
    for number in range(2):
        chain = EmbeddedChain(tmp_path / f"state{number}", 0.1, tmp_path / f"log{number}")
        try:
            with ChainClient(chain.endpoint) as client:
                client.wait_for_block(3, timeout_s=30)
            if number == 0:
                ChainWriter(chain.endpoint, {key.ss58: key}, tmp_path / "j.db").close()
                ChainWriter(chain.endpoint, {key.ss58: key}, tmp_path / "j.db").close()
            else:
                with pytest.raises(ConfigError, match="started anew.*mv .*j.db"):
                    ChainWriter(chain.endpoint, {key.ss58: key}, tmp_path / "j.db")
        finally:
            chain.close()
