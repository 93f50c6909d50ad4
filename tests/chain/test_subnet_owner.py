"""The commands of a subnet's owner, on a real node: create, start, show and set, and publishing an address."""

from __future__ import annotations

import pytest

from raytensor.chain.calls import Call
from raytensor.chain.intents import Transfer
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.wallet import DevKey
from raytensor.commands.serve import serve_main
from raytensor.commands.subnets import subnets_main

RAO, PALLET = 10**9, "SubtensorModule"
ALICE = DevKey("//Alice")


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("RAYTENSOR_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def node(blocks):
    """A node of these tests alone: each new subnet doubles the price of the next one."""
    return blocks.endpoint


@pytest.fixture
def ask(ask, node):
    """`ask` on this node."""
    return lambda command, *argv: ask(command, *argv, "-n", node)


@pytest.fixture
def owner(client, fresh):
    """A coldkey that can pay for a subnet, on a chain that lets one be created at any time."""
    free = Call("Sudo", "sudo", {"call": Call("AdminUtils", "sudo_set_network_rate_limit", {"rate_limit": 0})})
    client.send(free, ALICE.open(), timeout_s=30)
    cold = fresh("owner")
    funds = Transfer(signer=ALICE.ss58, dest=cold.ss58, value=10**5 * RAO)
    client.send(funds.call(), ALICE.open(), timeout_s=30)
    return cold


def test_a_subnet_is_created_started_shown_and_set(node, client, owner, fresh, ask, capsys):
    hot = fresh("hot")
    order = ["create", "-w", owner.uri, "-H", hot.uri]
    before = client.query_map(PALLET, "SubnetOwner")
    status, told = ask(subnets_main, *order, "--dry-run")
    cost = told["plan"]["effect"]["cost_rao"]
    assert status == 0 and cost > 0 and told["receipt"] is None and client.query_map(PALLET, "SubnetOwner") == before
    status, told = ask(subnets_main, *order, "--max-cost", "0.5", "--yes")
    assert (status, told["error"]["name"]) == (1, "NetworkCostExceeded")
    status, told = ask(subnets_main, *order, "--yes")
    assert status == 0 and told["receipt"]["fate"] == "included"
    (netuid,) = [number for number, who in client.query_map(PALLET, "SubnetOwner").items() if who == owner.ss58]

    assert ask(subnets_main, "start", netuid, "-w", "//Bob", "--yes")[1]["error"]["name"] == "NotSubnetOwner"
    assert ask(subnets_main, "start", netuid, "-w", owner.uri, "--yes")[0] == 0
    status, told = ask(subnets_main, "start", netuid, "-w", owner.uri, "--yes")
    assert (status, told["error"]["name"]) == (1, "FirstEmissionBlockNumberAlreadySet")

    status, told = ask(subnets_main, "show", netuid)
    rows = {row["name"]: row for row in told["hyperparameters"]}
    assert status == 0 and rows["tempo"] == {"name": "tempo", "value": 360, "takes": "360 to 50400"}
    assert rows["commit_reveal_weights_enabled"]["takes"] == "true or false"
    assert subnets_main(["show", str(netuid), "-n", node]) == 0
    assert "burn_increase_mult" in capsys.readouterr().out
    assert ask(subnets_main, "show", 777)[0] == 1

    change = ["set", netuid, "immunity_period", "321", "-w", owner.uri]
    status, told = ask(subnets_main, *change, "--dry-run")
    assert status == 0 and told["plan"]["effect"]["call"] == "AdminUtils.sudo_set_immunity_period"
    assert ask(subnets_main, *change, "--yes")[0] == 0
    assert client.query(PALLET, "ImmunityPeriod", [netuid]) == 321


def test_what_sudo_may_an_owner_may_not(client, owner, fresh, ask):
    assert ask(subnets_main, "create", "-w", owner.uri, "-H", fresh("hot").uri, "--yes")[0] == 0
    (netuid,) = [number for number, who in client.query_map(PALLET, "SubnetOwner").items() if who == owner.ss58]
    status, told = ask(subnets_main, "set", netuid, "tempo", "20", "-w", owner.uri, "--yes")
    assert status == 2 and "it takes 360 to 50400" in told["error"]["message"]
    status, told = ask(subnets_main, "set", netuid, "tempo", "20", "-w", owner.uri, "--sudo", "--yes")
    assert (status, told["error"]["name"]) == (1, "RequireSudo")
    for name, *values in (("tempo", "20"), ("burn_increase_mult", "1.5"), ("subnet_emission_enabled", "true")):
        assert ask(subnets_main, "set", netuid, name, *values, "-w", "//Alice", "--sudo", "--yes")[0] == 0
    read = [(PALLET, name, [netuid]) for name in ("Tempo", "BurnIncreaseMult", "SubnetEmissionEnabled")]
    assert client.query_many(read) == [20, {"bits": 3 << 63}, True]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("kapa", "1"), "did you mean kappa?"),
        (("kappa", "65536"), "it takes 0 to 65535"),
        (("kappa", "-1"), "it takes 0 to 65535"),
        (("kappa", "1", "2"), "takes 1 values, not 2"),
        (("alpha_values", "1638"), "give alpha_low and alpha_high"),
        (("toggle_transfer", "yes"), "it takes true or false"),
        (("recycle_or_burn", "Keep"), "it takes Burn or Recycle"),
        (("mechanism_emission_split", "1"), "can't be given on a command line"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_taken(ask, values, said):
    status, told = ask(subnets_main, "set", 1, *values, "-w", "//Bob", "--yes")
    assert status == 2 and said in told["error"]["message"], told


def test_an_address_is_published_where_the_chain_takes_it(client, owner, fresh, ask):
    hot = fresh("hot")
    assert ask(subnets_main, "create", "-w", owner.uri, "-H", hot.uri, "--yes")[0] == 0
    (netuid,) = [number for number, who in client.query_map(PALLET, "SubnetOwner").items() if who == owner.ss58]
    order = ["--netuid", netuid, "-H", hot.uri, "--yes"]
    status, told = ask(serve_main, "[2001:db8::7]:8091", *order)
    assert status == 0 and told["plan"]["fee_rao"] == 0
    assert read_metagraph(client, netuid).axons[0] == "[2001:db8::7]:8091"
    status, told = ask(serve_main, "127.0.0.2:8091", *order)  # 50 blocks have to pass
    assert (status, told["error"]["name"]) == (1, "ServingRateLimitExceeded")
    status, told = ask(serve_main, "127.0.0.2:8091", "--netuid", netuid, "-H", fresh("other").uri, "--yes")
    assert (status, told["error"]["name"]) == (1, "HotKeyNotRegisteredInSubNet")
    for wrong in ("127.0.0.1:80", "0.0.0.0:80", "8091", "10.0.0.1:0", "10.0.0.1:65536", "2001:db8::7:80", "host:80"):
        assert ask(serve_main, wrong, *order)[0] == 2


def test_neurons_are_trimmed_and_mechanisms_changed(client, owner, fresh, ask):
    assert ask(subnets_main, "create", "-w", owner.uri, "-H", fresh("hot").uri, "--yes")[0] == 0
    (netuid,) = [number for number, who in client.query_map(PALLET, "SubnetOwner").items() if who == owner.ss58]
    by, sudo = ("-w", owner.uri, "--yes"), ("-w", ALICE.uri, "--sudo", "--yes")

    status, told = ask(subnets_main, "mechanisms", netuid)
    assert (status, told["mechanisms"], told["shares"]) == (0, 1, [1.0])
    assert ask(subnets_main, "mechanisms", netuid, "--count", "2", "-w", "//Bob", "--yes")[1]["error"]["name"] == (
        "NotSubnetOwner"
    )
    assert ask(subnets_main, "mechanisms", netuid, "--count", "2", *sudo)[1]["receipt"]["error"] == (
        "TooManyUIDsPerMechanism"
    )
    status, told = ask(subnets_main, "trim", netuid, "128", *sudo)
    assert status == 0 and told["plan"]["effect"]["most_then"] == 128 == client.query(
        PALLET, "MaxAllowedUids", [netuid]
    )
    assert ask(subnets_main, "trim", netuid, "129", *by)[1]["error"]["name"] == "InvalidValue"
    assert ask(subnets_main, "mechanisms", netuid, "--count", "2", *by)[0] == 0
    assert ask(subnets_main, "mechanisms", netuid, "--split", "0.7", "0.2", *by)[0] == 2
    assert ask(subnets_main, "mechanisms", netuid, "--split", "1", *by)[0] == 2
    assert ask(subnets_main, "mechanisms", netuid, "--split", "0.7", "0.3", *by)[0] == 0
    assert ask(subnets_main, "mechanisms", netuid)[1]["split_u16"] == [45875, 19660]
    assert ask(subnets_main, "mechanisms", netuid, "--split", "even", *sudo)[0] == 0
    assert ask(subnets_main, "mechanisms", netuid)[1]["shares"] == [0.5, 0.5]
