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
from raytensor.consensus.forecast import forecast
from raytensor.consensus.whatif import PARTS
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
NEIGHBOUR = Neuron("other", "owner", DevKey("//what-if//other//hot"), DevKey("//what-if//other//cold"))
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
            enrich(client, subnet.netuid, uids)
            yield client, subnet.netuid
    finally:
        node.stdin.close()
        node.wait(timeout=60)


def enrich(client: ChainClient, netuid: int, uids: dict[str, int]) -> None:
    """A second mechanism with a quarter of the emission, root stake, and a validator with a child, all in force."""
    sudo = DevKey("//Alice").open()
    other = make_subnet(client, SubnetSpec(neurons=[NEIGHBOUR])).netuid
    for call in (
        Call("AdminUtils", "sudo_set_max_allowed_uids", {"netuid": netuid, "max_allowed_uids": 128}),
        Call("AdminUtils", "sudo_set_mechanism_count", {"netuid": netuid, "mechanism_count": 2}),
        Call("AdminUtils", "sudo_set_mechanism_emission_split", {"netuid": netuid, "maybe_split": [49151, 16384]}),
        Call(PALLET, "set_pending_childkey_cooldown", {"cooldown": 0}),
        # moving prices reach the prices at once, so that their sum is above 1 and root's part is paid, not recycled
        Call("AdminUtils", "sudo_set_subnet_moving_alpha", {"alpha": {"bits": 1 << 32}}),
        *(
            Call("AdminUtils", "sudo_set_ema_price_halving_period", {"netuid": n, "ema_halving": 1})
            for n in (netuid, other)
        ),
    ):
        client.send(Call("Sudo", "sudo", {"call": call}), sudo)
    best, child, owner = NEURONS[1], NEURONS[2], NEURONS[0]
    for neuron, amount in ((best, 5 * 10**9), (owner, 10**9)):
        stake = {"hotkey": neuron.hotkey.ss58, "netuid": 0, "amount_staked": amount}
        client.send(Call(PALLET, "add_stake", stake), neuron.coldkey.open())
    children = {"hotkey": best.hotkey.ss58, "netuid": netuid, "children": [(2**62, child.hotkey.ss58)]}
    client.send(Call(PALLET, "set_children", children), best.coldkey.open())
    for validator, weights in ((best, [20000, 65535]), (child, [50000, 10000])):
        row = {"netuid": netuid, "mecid": 1, "dests": [uids["miner-0"], uids["miner-2"]], "weights": weights}
        client.send(Call(PALLET, "set_mechanism_weights", row | {"version_key": 0}), validator.hotkey.open())
    run_to_epoch(client, netuid)
    run_to_epoch(client, netuid)
    assert client.query(PALLET, "ParentKeys", [child.hotkey.ss58, netuid]), "the child has its parent"


def run_to_epoch(client: ChainClient, netuid: int) -> None:
    """Make blocks until consensus ran once more."""
    before = client.query(PALLET, "LastEpochBlock", [netuid])
    while client.query(PALLET, "LastEpochBlock", [netuid]) == before:
        client.rpc("dev_newBlock", [{"count": 1}])


def blocks_until_epoch(client: ChainClient, netuid: int) -> int:
    last, tempo = (client.query(PALLET, name, [netuid]) for name in ("LastEpochBlock", "Tempo"))
    return last + tempo - client.head().number


def ask(netuid: int, client: ChainClient, capsys, *arguments: str) -> dict:
    assert consensus_main(["--netuid", str(netuid), "--endpoint", client.endpoint, "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def paid_in(client: ChainClient, netuid: int, block: int, hotkeys: list[str]) -> dict[str, int]:
    """Rao of alpha that this block added to each hotkey's stake and to its root claims."""
    before, after = (client.block_hash(number) for number in (block - 1, block))
    keys = [(PALLET, "TotalHotkeyAlpha", [hotkey, netuid]) for hotkey in hotkeys]
    claims = [(PALLET, "RootAlphaDividendsPerSubnet", [netuid, hotkey]) for hotkey in hotkeys]
    old, new, claimed = (client.query_many(*read) for read in ((keys, before), (keys, after), (claims, after)))
    return {h: b - a + (c or 0) for h, a, b, c in zip(hotkeys, old, new, claimed, strict=True)}


HOTKEYS = [neuron.hotkey.ss58 for neuron in NEURONS]


def test_what_if_is_what_the_next_epoch_pays(chain, capsys):
    """Asked at any block of the tempo: two mechanisms, owner's cut, root's part, a parent and its child, to the rao."""
    client, netuid = chain
    for _ in range(2):
        said = []
        for left in (39, 20, 1):
            client.rpc("dev_newBlock", [{"count": blocks_until_epoch(client, netuid) - left}])
            said.append(ask(netuid, client, capsys))
            assert said[-1]["epoch_blocks"] == [client.head().number + left] and said[-1]["num_mechanisms"] == 2
        assert said[0]["neurons"] == said[1]["neurons"] == said[2]["neurons"]
        snapshot = fetch_snapshot(netuid, client.endpoint)
        predicted, exact = (
            forecast(snapshot.subnet, lambda one, how=how: epoch(one, implementation=how))[0]
            for how in ("fast", "reference")
        )
        assert predicted.payout == exact.payout
        run_to_epoch(client, netuid)
        block = client.head().number
        assert [block] == said[0]["epoch_blocks"]
        paid = paid_in(client, netuid, block, HOTKEYS)
        rows = {row["hotkey"]: row for row in said[0]["neurons"]}
        assert {hotkey: rows[hotkey]["before_rao"] for hotkey in HOTKEYS} == paid
        assert sum(paid.values()) == said[0]["paid_before_rao"]
        stored = predicted.stored
        for name, expected in [
            ("Incentive", predicted.mechanisms[0].incentive),
            ("Dividends", stored.dividends),
            ("Consensus", stored.consensus),
            ("Emission", stored.emission),
        ]:
            assert list(client.query(PALLET, name, [netuid])) == expected.tolist(), name
        assert sum(client.query(PALLET, "Incentive", [netuid])) > 65000
        # each part is at work
        total = {part: sum(row[f"{part}_rao"][0] for row in rows.values()) for part in PARTS}
        assert all(total.values()), total
    bonds = client.query_map(PALLET, "Bonds", [netuid + 4096])
    mechanism = predicted.mechanisms[1].bonds.to_lists()
    assert predicted.mechanisms[1].incentive.any() and any(mechanism)
    assert {uid: [tuple(entry) for entry in row] for uid, row in bonds.items() if row} == {
        uid: row for uid, row in enumerate(mechanism) if row
    }


def test_several_epochs_with_growing_stake(chain, capsys):
    client, netuid = chain
    client.rpc("dev_newBlock", [{"count": 7}])
    said = ask(netuid, client, capsys, "--epochs", "3")
    paid = dict.fromkeys(HOTKEYS, 0)
    for block in said["epoch_blocks"]:
        run_to_epoch(client, netuid)
        assert client.head().number == block
        for hotkey, amount in paid_in(client, netuid, block, HOTKEYS).items():
            paid[hotkey] += amount
    assert {row["hotkey"]: row["before_rao"] for row in said["neurons"]} == paid


def test_a_change_moves_pay(chain, capsys):
    client, netuid = chain
    client.rpc("dev_newBlock", [{"count": 10}])  # something must have piled up since the last epoch
    best = NEURONS[1].hotkey.ss58
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
