"""What-if on a running chain: what the command says now is what the chain pays in its next epoch, to the rao."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from test_run import environment

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.calls import Call
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.commands.consensus import consensus_main
from raytensor.commands.consensus_chain import fetch_snapshot
from raytensor.consensus import epoch
from raytensor.errors import ChainError

PALLET = "SubtensorModule"
NEURONS = [
    Neuron(
        f"{role}-{number}",
        role,
        DevKey(f"//what-if//{role}//{number}//hot"),
        DevKey(f"//what-if//{role}//{number}//cold"),
        stake_rao=stake,
    )
    for role, number, stake in [
        ("owner", 0, 0),
        ("validator", 0, 10**11),
        ("validator", 1, 7 * 10**10),
        ("miner", 0, 0),
        ("miner", 1, 0),
        ("miner", 2, 0),
    ]
]
ROWS = {0: [(3, 65535), (4, 30000), (5, 1000)], 1: [(3, 20000), (4, 65535), (5, 400)]}


@pytest.fixture(scope="module")
def chain():
    """A chain with a subnet whose two validators have set weights; blocks come when asked, from then on."""
    command = [
        sys.executable,
        "-m",
        "raytensor.devnet",
        "--port",
        "0",
        "--block-time",
        "instant",
        "--exit-with-stdin",
        "--quiet",
    ]
    node = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        with ChainClient(json.loads(node.stdout.readline())["endpoint"]) as client:
            subnet = make_subnet(client, SubnetSpec(neurons=NEURONS, tempo=40))
            uids = {neuron.name: subnet.uids[neuron.hotkey.ss58] for neuron in NEURONS}
            run_to_epoch(client, subnet.netuid)  # permits
            for number, row in ROWS.items():
                dests = [uids[f"miner-{uid - 3}"] for uid, _ in row]
                weights = {
                    "netuid": subnet.netuid,
                    "dests": dests,
                    "weights": [value for _, value in row],
                    "version_key": 0,
                }
                client.send(Call(PALLET, "set_weights", weights), NEURONS[1 + number].hotkey.open())
            yield client, subnet.netuid
    finally:
        node.stdin.close()
        node.wait(timeout=60)


def run_to_epoch(client: ChainClient, netuid: int) -> None:
    """Make blocks until consensus ran once more."""
    before = client.query(PALLET, "LastEpochBlock", [netuid])
    while client.query(PALLET, "LastEpochBlock", [netuid]) == before:
        client.rpc("dev_newBlock", [{"count": 1}])


def test_what_if_is_what_the_next_epoch_pays(chain, capsys):
    client, netuid = chain
    for _ in range(2):  # once without bonds, once with
        while (
            client.query(PALLET, "LastEpochBlock", [netuid]) + client.query(PALLET, "Tempo", [netuid])
            > client.head().number + 1
        ):
            client.rpc("dev_newBlock", [{"count": 1}])
        inputs = fetch_snapshot(netuid, client.endpoint).inputs
        predicted = epoch(inputs, implementation="fast")
        assert epoch(inputs, implementation="reference").incentive.tolist() == predicted.incentive.tolist()
        assert consensus_main(["--netuid", str(netuid), "--endpoint", client.endpoint, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        run_to_epoch(client, netuid)
        for name, expected in (
            ("Incentive", predicted.incentive),
            ("Dividends", predicted.dividends),
            ("Consensus", predicted.consensus),
        ):
            assert list(client.query(PALLET, name, [netuid])) == expected.tolist(), name
        assert sum(client.query(PALLET, "Incentive", [netuid])) > 65000
        assert said["neurons"] and said["paid_before_rao"] == sum(
            (predicted.server_emission + predicted.validator_emission).tolist()
        )


def test_a_change_moves_pay(chain, capsys):
    client, netuid = chain
    client.rpc("dev_newBlock", [{"count": 10}])  # something must have piled up since the last epoch
    best = NEURONS[3].hotkey.ss58
    poor = NEURONS[2].hotkey.ss58
    assert (
        consensus_main(["--netuid", str(netuid), "--endpoint", client.endpoint, "--json", f"set.stake.{poor}=0"]) == 0
    )
    rows = {row["hotkey"]: row for row in json.loads(capsys.readouterr().out)["neurons"]}
    assert rows[poor]["change_rao"] < 0 < rows[best]["change_rao"]


def test_a_snapshot_file_answers_as_the_chain_does(chain, capsys, tmp_path):
    client, netuid = chain
    client.rpc("dev_newBlock", [{"count": 3}])
    file = str(tmp_path / "subnet.parquet")
    assert consensus_main(["snapshot", "--netuid", str(netuid), "--endpoint", client.endpoint, file]) == 0
    assert f"subnet {netuid}, 6 neurons" in capsys.readouterr().out
    outputs = []
    for source in (["--endpoint", client.endpoint], ["--from", file]):
        assert consensus_main(["--netuid", str(netuid), *source, "--json", "set.kappa=65535"]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0] == outputs[1]


def test_consensus_on_ray_gives_the_same(chain, capsys, ray_session):
    client, netuid = chain
    client.rpc("dev_newBlock", [{"count": 3}])
    outputs = []
    for where in ("consensus=local", "consensus=ray"):
        assert consensus_main(["--netuid", str(netuid), "--endpoint", client.endpoint, "--json", where]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0] == outputs[1] and outputs[0]["paid_before_rao"] > 0


def test_no_such_subnet(chain):
    with pytest.raises(ChainError, match="there is no subnet 77"):
        fetch_snapshot(77, chain[0].endpoint)
