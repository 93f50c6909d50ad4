"""Stake and money calls: every intent is a call of the metadata, and the commands that swap, give and unstake it."""

import dataclasses
import json
import typing

import pytest

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.intents import (
    IncreaseTake,
    MoveStake,
    MoveStakeLimit,
    RemoveProxy,
    SetChildkeyTake,
    SetChildren,
    SetCommitment,
    SetIdentity,
    SetWeights,
    SwapStakeLimit,
    Transfer,
    UnstakeAllAlpha,
    intent_from_json,
    kinds,
)
from raytensor.chain.reads.quotes import ratio, slippage, stakes
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.policy import Policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.commands.stake import stake_main
from raytensor.types import Fate, Weights

RAO, ALICE = 10**9, DevKey("//Alice")
HOT, MINER = DevKey("//st//owner//hot"), DevKey("//st//miner//hot")
COLD, MINER_COLD = DevKey("//st//owner//cold"), DevKey("//st//miner//cold")
SECOND, SECOND_COLD = DevKey("//st//second//hot"), DevKey("//st//second//cold")


@pytest.fixture(scope="module")
def node(blocks):
    """A node of these tests alone, whose blocks they may hold up."""
    return blocks.endpoint


@pytest.fixture
def still(blocks):
    """Blocks come with extrinsics only: each block moves the price of a pool."""
    with blocks.on_demand():
        yield


@pytest.fixture(scope="module")
def netuids(node):
    """Two subnets with pools; the miner's hotkey is on the first."""
    with ChainClient(node, timeout_s=60) as client:
        neurons = [Neuron("o", "owner", HOT, COLD), Neuron("m", "miner", MINER, MINER_COLD, 50 * RAO)]
        # No epoch falls into this module: one would pay dividends and round the shares of a stake.
        first = make_subnet(client, SubnetSpec(neurons, tempo=10_000))
        second = make_subnet(client, SubnetSpec([Neuron("s", "owner", SECOND, SECOND_COLD)], tempo=10_000))
        client.send(
            Transfer(signer=ALICE.ss58, dest=MINER_COLD.ss58, value=100 * RAO).call(), ALICE.open(), timeout_s=120
        )
    return first.netuid, second.netuid


@pytest.fixture
def ask(ask, node, tmp_path, monkeypatch):
    """`ask` of `stake`, on this node."""
    monkeypatch.setenv("RAYTENSOR_HOME", str(tmp_path / "home"))
    return lambda *argv, wallet=MINER_COLD: ask(stake_main, *argv, "-w", wallet.uri, "-n", node)


def held(client, coldkey=MINER_COLD, hotkey=MINER):
    return {s.netuid: s.alpha_rao for s in stakes(client, coldkey.ss58) if s.hotkey == hotkey.ss58}


def example(kind):
    """An intent of this kind with some value in every field."""
    made = {"signer": HOT.ss58}
    values = {int: 1, str: HOT.ss58, bool: False, int | None: None, tuple[tuple[int, str], ...]: ((1, HOT.ss58),)}
    values[tuple[tuple[str, typing.Any], ...]] = ()
    for name, hint in typing.get_type_hints(kind).items():
        if name in {f.name for f in dataclasses.fields(kind)} - {"signer", "intent_id", "ip", "proxy_type", "text"}:
            made[name] = values[hint]
    own = {"ServeAxon": {"ip": "10.0.0.1"}, "SetCommitment": {"text": "x"}}
    own["SetHyperparameter"] = {"function": "AdminUtils.sudo_set_kappa", "values": (("kappa", 7),)}
    own["NamedCall"] = {"call_json": json.dumps(Transfer(signer=HOT.ss58, dest=COLD.ss58, value=1).call().to_json())}
    return kind(**made | own.get(kind.__name__, {}))


@pytest.mark.parametrize(
    "kind", [kind for kind in kinds().values() if kind is not SetWeights], ids=lambda k: k.__name__
)
def test_every_intent_is_a_call_of_the_metadata(client, kind):
    intent = example(kind)
    call = intent.call()
    if kind is MoveStakeLimit:  # newer than the embedded chain
        assert list(call.args) == [*example(MoveStake).call().args, "limit_price", "allow_partial"]
        return
    assert sorted(call.args) == sorted(client.runtime.call_fields(call.module, call.function))
    client.runtime.encode_call(call)
    assert intent_from_json(json.loads(json.dumps(intent.to_json()))) == intent
    fee, _ = client.fee(call, HOT.open().public_key)
    assert (fee == 0) is intent.free, "the chain and the intent agree on who pays"


def test_alpha_is_swapped_given_and_unstaked(client, netuids, ask, fresh):
    first, second = netuids
    who = ["--netuid", first, "--hotkey", MINER.ss58]
    before = held(client)[first]
    status, told = ask("swap", "2", *who, "--to-netuid", second, "--slippage", "3%", "--dry-run")
    effect = told["plan"]["effect"]
    assert status == 0 and effect["price_limit_alpha_rao"] == effect["price_alpha_rao"] * 97 // 100
    assert 0 < effect["gets_alpha_rao"] < 2.1 * effect["price_alpha_rao"] and effect["stake_alpha_rao"] >= before
    status, told = ask("swap", "2", *who, "--to-netuid", second, "--yes")
    assert status == 0 and told["plan"]["call"] == "SubtensorModule.swap_stake_limit", told
    assert held(client)[second] > 0
    status, told = ask("swap", "40", *who, "--to-netuid", second, "--slippage", "0.01%", "--yes")
    assert (status, told["error"]["name"]) == (1, "SlippageTooHigh"), "refused before anything is sent"
    friend = fresh("friend")
    status, told = ask("transfer", "1.5", *who, "--to-coldkey", friend.ss58, "--yes")
    assert status == 0 and held(client, friend) == {first: 1_500_000_000}
    status, told = ask("unstake-all", "--hotkey", MINER.ss58, "--dry-run", "--slippage", "60%")
    assert status == 0 and sorted(told["plan"]["effect"]["netuids"]) == [first, second]
    for row in told["plan"]["effect"]["positions"]:
        assert row["price_limit_rao"] == row["price_rao"] * 40 // 100 < row["price_after_rao"] < row["price_rao"]
    status, told = ask("unstake-all", "--hotkey", MINER.ss58, "--yes", "--slippage", "0.001%")
    assert (status, told["error"]["name"]) == (1, "SlippageTooHigh") and "--slippage" in told["error"]["action"]
    free = client.balance(MINER_COLD.ss58)
    everything = ("unstake-all", "--hotkey", MINER.ss58, "--yes", "--id", "all", "--slippage", "60%")
    status, told = ask(*everything)
    assert told["plan"]["call"] == "SubtensorModule.remove_stake_full_limit" and len(told["receipts"]) == 2
    assert len({receipt["extrinsic_hash"] for receipt in told["receipts"]}) == 1
    assert ask(*everything)[1]["receipts"] == told["receipts"], "carried out once"
    assert status == 0 and client.balance(MINER_COLD.ss58) > free + told["plan"]["effect"]["gets_rao"] * 9 // 10
    assert held(client) == {}
    assert ask("unstake-all", "--hotkey", friend.ss58, "--yes")[1]["error"]["name"] == "NotEnoughStake"
    assert ask("swap", "1", *who, "--to-netuid", first)[0] == 2


def nonce(client):
    return client.account_nonce(MINER_COLD.ss58)


@pytest.mark.parametrize(
    "order",
    [
        lambda first, second: ("add", "9", "--netuid", first),
        lambda first, second: ("remove", "4", "--netuid", first),
        lambda first, second: ("swap", "3", "--netuid", first, "--to-netuid", second),
        lambda first, second: ("move", "3", "--netuid", first, "--to-netuid", second),
    ],
    ids=["add", "remove", "swap", "move"],
)
def test_the_slippage_that_is_shown_is_the_one_that_is_limited(client, netuids, ask, order, still):
    """Just below it the order is refused and nothing is sent, just above it the chain carries it out, whole."""
    who = ("--hotkey", MINER.ss58, "--yes")
    if order(1, 2)[0] != "add":
        assert ask("add", "9", "--netuid", netuids[0], *who, "--no-limit")[0] == 0
    order = (*order(*netuids), *who)
    effect = ask(*order, "--dry-run", "--no-limit")[1]["plan"]["effect"]
    shown, before = float(effect["slippage"].rstrip("%")), nonce(client)
    assert 0.1 < shown < 90
    status, told = ask(*order, "--slippage", f"{shown * 0.9:.3f}%")
    assert (status, told["error"]["name"]) == (1, "SlippageTooHigh") and nonce(client) == before
    said = told["error"]["message"].removeprefix("the order changes the price by ").split("%")[0]
    assert float(said) == pytest.approx(shown, rel=0.05), "the pool changes a little from block to block"
    fix = told["error"]["action"].split("--slippage ")[1].split(",")[0]
    status, told = ask(*order, "--slippage", fix)
    assert status == 0 and told["receipt"]["fate"] == "included", (fix, told)


def test_what_has_no_limit_price_is_refused_or_asked_for(client, netuids, ask, fresh):
    first, second = netuids
    who = ["--netuid", first, "--hotkey", MINER.ss58, "--yes"]
    assert ask("add", "5", *who, "--no-limit")[0] == 0
    before, friend = nonce(client), fresh("friend").ss58
    status, told = ask("transfer", "1", "--to-coldkey", friend, "--to-netuid", second, *who)
    assert (status, told["error"]["name"]) == (1, "NoLimitPrice") and "--no-limit" in told["error"]["action"]
    assert nonce(client) == before
    status, told = ask("transfer", "1", "--to-coldkey", friend, "--to-netuid", second, *who, "--no-limit")
    assert status == 0 and told["plan"]["effect"]["gets_alpha_rao"] > 0, told
    status, told = ask("move", "1", "--to-hotkey", HOT.ss58, "--to-netuid", second, *who, "--slippage", "60%")
    assert status == 0 and told["plan"]["call"] == "SubtensorModule.move_stake_limit", told


def test_everything_is_staked_on_root_at_limit_prices(client, netuids, ask):
    first, _ = netuids
    assert ask("add", "5", "--netuid", first, "--hotkey", MINER.ss58, "--yes", "--no-limit")[0] == 0
    status, told = ask("unstake-all", "--alpha", "--hotkey", MINER.ss58, "--yes", "--slippage", "60%")
    assert status == 0 and told["plan"]["call"] == "SubtensorModule.swap_stake_limit", told
    assert set(held(client)) == {0}


def test_take_and_children_are_shown_and_changed(client, netuids, ask):
    first, _ = netuids
    status, now = ask("take", "--hotkey", MINER.ss58)
    assert status == 0 and now["max_take"] == 11796
    status, told = ask("take", "5%", "--hotkey", MINER.ss58, "--yes")
    assert status == 0 and told["plan"]["call"] == "SubtensorModule.decrease_take", told
    assert ask("take", "--hotkey", MINER.ss58)[1]["take"] == 3276
    assert ask("take", "50%", "--hotkey", MINER.ss58, "--yes")[1]["error"]["name"] == "DelegateTakeTooHigh"
    who = ["--hotkey", MINER.ss58, "--netuid", first]
    status, told = ask("children", f"{HOT.ss58}=0.25", *who, "--yes")
    assert status == 0, told
    status, shown = ask("children", *who)
    assert [(row["hotkey"], row["share_u64"]) for row in shown["pending"]] == [(HOT.ss58, (2**64 - 1) // 4)]
    assert shown["children"] == [] and shown["pending_from_block"] > client.head().number
    for bad in ([f"{HOT.ss58}=1.5"], [HOT.ss58], [f"{HOT.ss58}=0.6", f"{SECOND.ss58}=0.6"]):
        assert ask("children", *bad, *who)[0] == 2


def test_the_rest_goes_through_the_writer(node, client, netuids, tmp_path):
    first, second = netuids
    keys = {COLD.ss58: COLD, HOT.ss58: HOT}
    writer = ChainWriter(node, keys, tmp_path / "j.db", WriterSettings(policy=Policy(unstaking=True), era_blocks=16))
    receipts = writer.submit(
        [
            SetIdentity(signer=COLD.ss58, title="A subnet", url="https://example.org"),
            SetCommitment(signer=HOT.ss58, netuid=first, text="a model"),
            SetChildkeyTake(signer=COLD.ss58, hotkey=HOT.ss58, netuid=first, take=1000),
            IncreaseTake(signer=COLD.ss58, hotkey=HOT.ss58, take=60_000),
            RemoveProxy(signer=HOT.ss58, delegate=ALICE.ss58),
        ]
    )
    assert [r.fate for r in receipts[:3]] == [Fate.INCLUDED] * 3, receipts
    assert bytes(client.query("SubtensorModule", "IdentitiesV2", [COLD.ss58])["name"]) == b"A subnet"
    assert receipts[3].error == "DelegateTakeTooHigh" and receipts[3].fate is Fate.FAILED
    assert receipts[4].fate is Fate.FAILED and receipts[4].action
    # What fits no runtime is told, and holds nothing up.
    wrong = (
        SetCommitment(signer=HOT.ss58, netuid=70_000, text="x"),
        SetCommitment(signer=HOT.ss58, netuid=1, text="x" * 200),
    )
    *bad, good = writer.submit([*wrong, SetCommitment(signer=HOT.ss58, netuid=first, text="another")])
    assert [(r.fate, r.error) for r in bad] == [(Fate.NOT_SENT, "BadRequest")] * 2 and good.fate is Fate.INCLUDED
    with pytest.raises(ValueError, match="finite and at least 0"):
        writer.hold([Weights(first, HOT.ss58, {MINER.ss58: -1.0})])
    writer.close()


def test_what_a_limit_may_lose(client, netuids):
    first, second = netuids
    now = ratio(client, first, second)
    swap = SwapStakeLimit(
        signer=COLD.ss58,
        hotkey=HOT.ss58,
        origin_netuid=first,
        destination_netuid=second,
        alpha_amount=RAO,
        limit_price=now * 9 // 10,
    )
    assert slippage(client, swap) == pytest.approx(0.1, abs=0.02)
    assert Policy().forbids(swap) == "the policy allows no unstaking (unstaking = false)"
    assert Policy().forbids(UnstakeAllAlpha(signer=COLD.ss58, hotkey=HOT.ss58)) is not None
    assert Policy().forbids(RemoveProxy(signer=COLD.ss58, delegate=ALICE.ss58)) is None
    assert Policy().forbids(SetChildren(signer=COLD.ss58, hotkey=HOT.ss58, netuid=1, children=())) is None
