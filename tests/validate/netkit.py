"""A chain with subnets, validators that have a permit, and miners that are served over the wire on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.bulk_submitter import BulkSubmitter
from raytensor.chain.calls import Call
from raytensor.chain.intents import ServeAxon
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.devnet.launch import EmbeddedChain

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHONPATH = f"{ROOT}{os.pathsep}{HERE}"
MAX_DOCUMENTS = 200
RAO = 10**9
SHARES = (0.9, 0.15)  # the miners of each subnet; the last one, beyond these, is silent


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return clean | {"PYTHONPATH": PYTHONPATH, "RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1"}


def uri(number: int, miner: int) -> str:
    """The development key of a miner of the subnet with that number."""
    return f"//validate//{number}//miner//{miner}"


@dataclass
class Net:
    """netuids in order; miners: netuid -> hotkeys, best first, the last silent; validators: hotkey references."""

    endpoint: str
    netuids: list[int]
    miners: dict[int, list[str]]
    validators: list[DevKey]
    cache: Path

    @property
    def hotkeys(self) -> str:
        return "[" + ",".join(key.uri for key in self.validators) + "]"


def start(
    folder: Path,
    stack: ExitStack,
    *,
    subnets: int = 3,
    validators: int = 2,
    tempo: int = 20,
    block_time_s: float = 0.25,
    served_by: Sequence[str] = (sys.executable, str(HERE / "served_miners.py")),
) -> Net:
    """Everything runs when this returns, and ends with `stack`. served_by: the program that serves the miners."""
    chain = EmbeddedChain(folder / "chain", block_time_s, folder / "chain.log")
    stack.callback(chain.close)
    keys = [DevKey(f"//validate//validator//{n}") for n in range(validators)]
    netuids, miners = [], {}
    with ChainClient(chain.endpoint, 20.0) as client:
        step = BulkSubmitter(client, 60.0)
        for key in keys:  # each stakes on every subnet
            funds = {"dest": DevKey(f"{key.uri}//cold").ss58, "value": 1000 * RAO}
            step.add(DevKey("//Alice").open(), Call("Balances", "transfer_keep_alive", funds))
        step.run()
        for number in range(subnets):
            mine = [DevKey(uri(number, n)) for n in range(len(SHARES) + 1)]
            neurons = [
                Neuron(
                    "owner",
                    "owner",
                    DevKey(f"//validate//{number}//owner//hot"),
                    DevKey(f"//validate//{number}//owner//cold"),
                )
            ]
            neurons += [Neuron(key.uri, "validator", key, DevKey(f"{key.uri}//cold"), 100 * RAO) for key in keys]
            neurons += [Neuron(key.uri, "miner", key, DevKey(f"{key.uri}//cold")) for key in mine]
            spec = SubnetSpec(neurons, tempo=tempo, hyperparameters={"sudo_set_serving_rate_limit": 0})
            netuids.append(make_subnet(client, spec).netuid)
            miners[netuids[-1]] = [key.ss58 for key in mine]
        asked = {
            "miners": [
                {"hotkey": hotkey, "uri": uri(number, n), "netuid": netuid, "share": share}
                for number, netuid in enumerate(netuids)
                for n, (hotkey, share) in enumerate(zip(miners[netuid], (*SHARES, -1.0)))
            ],
            "validators": [key.ss58 for key in keys],
            "cache": os.environ["TEXT_CACHE"],
            "max_documents": MAX_DOCUMENTS,
        }
        (folder / "miners.json").write_text(json.dumps(asked))
        served = subprocess.Popen(
            [*served_by, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
        )
        stack.callback(served.wait, 120)
        stack.callback(served.stdin.close)
        line = served.stdout.readline()
        assert line, "the miners did not start"
        ports = json.loads(line)
        step = BulkSubmitter(client, 60.0)
        for number, netuid in enumerate(netuids):
            for n, hotkey in enumerate(miners[netuid]):
                intent = ServeAxon(signer=hotkey, netuid=netuid, ip="127.0.0.2", port=ports[hotkey])
                step.add(DevKey(uri(number, n)).open(), intent.call())
        step.run()
    return Net(chain.endpoint, netuids, miners, keys, Path(os.environ["TEXT_CACHE"]))
