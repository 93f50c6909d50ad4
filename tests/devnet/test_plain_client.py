"""Plain substrate-interface, in a process of its own, on a running chain with a subnet.

From an environment of its own too, where RAYTENSOR_BITTENSOR_PYTHON names its interpreter, as in
`python -m venv clients && clients/bin/pip install 'bittensor==11.3.*' 'substrate-interface==1.8.*'`; .ci/run makes one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.rpc.client import ChainClient
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
        python = os.environ.get("RAYTENSOR_BITTENSOR_PYTHON") or sys.executable
        command = [
            python,
            str(script),
            instant.endpoint,
            str(subnet.netuid),
            "//plain//validator//hot",
            str(uids["miner"]),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        saw = json.loads(done.stdout)

    assert saw["received"] == 123_456_789 + 3_000 and saw["accounts"] >= 9
    assert saw["transfer"]["success"] and "Balances.Transfer" in saw["transfer"]["events"]
    assert saw["set_weights"]["success"] and "SubtensorModule.WeightsSet" in saw["set_weights"]["events"]
    assert saw["batch"]["success"] and saw["batch"]["events"].count("Balances.Transfer") == 3
    assert saw["batch"]["block"] <= saw["finalized"] and saw["batch"]["fee"] > 0
    assert not saw["failed"]["success"] and saw["failed"]["error"] == "HotKeyNotRegisteredInSubNet"
    assert saw["refused"]["code"] == 1010 and saw["refused"]["data"].startswith("Inability to pay some fees")
    assert saw["hotkeys"] == {str(subnet.uids[n.hotkey.ss58]): n.hotkey.ss58 for n in neurons}
    assert (saw["uid"], saw["stored"]) == (uids["validator"], [[uids["miner"], 65535]])
    assert saw["last_update"] == saw["set_weights"]["block"]
