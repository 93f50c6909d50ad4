"""Plain substrate-interface, in a process of its own, on a running chain with a subnet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.client import ChainClient
from raytensor.chain.wallet import DevKey


def test_maps_transfer_weights_and_events(instant):
    neurons = [
        Neuron(name, role, DevKey(f"//plain//{name}//hot"), DevKey(f"//plain//{name}//cold"), stake_rao=stake)
        for name, role, stake in [("owner", "owner", 0), ("validator", "validator", 10**11), ("miner", "miner", 0)]
    ]
    with ChainClient(instant.endpoint) as client:
        subnet = make_subnet(client, SubnetSpec(neurons=neurons, tempo=5))
        client.rpc("dev_newBlock", [{"count": 12}])  # an epoch gives the permit
        uids = {neuron.name: subnet.uids[neuron.hotkey.ss58] for neuron in neurons}
        script = Path(__file__).with_name("plain_client.py")
        command = [sys.executable, str(script), instant.endpoint, str(subnet.netuid), "//plain//validator//hot", str(uids["miner"])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        saw = json.loads(done.stdout)

    assert saw["received"] == 123_456_789 and saw["accounts"] >= 9
    assert saw["transfer"]["success"] and "Balances.Transfer" in saw["transfer"]["events"]
    assert saw["set_weights"]["success"] and "SubtensorModule.WeightsSet" in saw["set_weights"]["events"]
    assert saw["hotkeys"] == {str(subnet.uids[n.hotkey.ss58]): n.hotkey.ss58 for n in neurons}
    assert (saw["uid"], saw["stored"]) == (uids["validator"], [[uids["miner"], 65535]])
    assert saw["last_update"] == saw["set_weights"]["block"]
