"""A subnet larger than the chain's default of 256 seats: everyone keeps theirs."""

from __future__ import annotations

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey


def test_a_seat_for_each_of_270_neurons(node):
    roles = ["owner", "validator", *["miner"] * 268]
    neurons = [
        Neuron(f"n{n}", role, DevKey(f"//many//{n}//hot"), DevKey(f"//many//{n}//cold")) for n, role in enumerate(roles)
    ]
    with ChainClient(node, timeout_s=60) as client:
        made = make_subnet(client, SubnetSpec(neurons=neurons))
        assert sorted(made.uids.values()) == list(range(270))
        assert client.query("SubtensorModule", "MaxAllowedUids", [made.netuid]) == 271
        again = make_subnet(client, SubnetSpec(neurons=neurons))
    assert again.uids == made.uids
