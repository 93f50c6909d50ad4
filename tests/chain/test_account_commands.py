"""New keys in the place of old ones, and where rewards go, by the commands; judged by the chain."""

from __future__ import annotations

import pytest

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.calls import Call
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.commands.stake import stake_main
from raytensor.commands.wallet import wallet_main

RAO, PALLET, ALICE = 10**9, "SubtensorModule", DevKey("//Alice")
OWNER, COLD = DevKey("//ac//owner//hot"), DevKey("//ac//owner//cold")
MINER, MINER_COLD = DevKey("//ac//miner//hot"), DevKey("//ac//miner//cold")
pytestmark = pytest.mark.usefixtures("no_wallet")


@pytest.fixture(scope="module")
def node(blocks):
    return blocks.endpoint


@pytest.fixture(scope="module")
def netuid(node):
    with ChainClient(node, timeout_s=60) as client:
        neurons = [Neuron("o", "owner", OWNER, COLD), Neuron("m", "miner", MINER, MINER_COLD, 50 * RAO)]
        return make_subnet(client, SubnetSpec(neurons, tempo=10_000)).netuid


@pytest.fixture
def client(node):
    with ChainClient(node, timeout_s=60) as client:
        yield client


@pytest.fixture
def ask(ask, node, netuid):
    return lambda command, *argv, by=MINER_COLD: ask(command, *argv, "-w", by.uri, "-n", node)


def sudo(client, name, **args):
    client.send(Call("Sudo", "sudo", {"call": Call(*name.split("."), args)}), ALICE.open(), timeout_s=120)


def test_a_hotkey_is_swapped_on_a_subnet_and_on_all(ask, client, netuid):
    second, third = (DevKey(f"//ac//miner//{name}") for name in ("second", "third"))
    uid = client.query(PALLET, "Uids", [netuid, MINER.ss58])
    swap = ("swap-hotkey", second.uri, "--hotkey", MINER.uri, "--netuid", netuid)
    planned = ask(wallet_main, *swap, "--dry-run")[1]["plan"]
    before = client.balance(MINER_COLD.ss58)
    status, told = ask(wallet_main, *swap, "--yes")
    assert status == 0 and planned["effect"]["price_rao"] == 1_000_000
    assert before - client.balance(MINER_COLD.ss58) == planned["effect"]["price_rao"] + told["receipt"]["fee_rao"]
    assert client.query(PALLET, "Uids", [netuid, second.ss58]) == uid
    assert client.query(PALLET, "Uids", [netuid, MINER.ss58]) is None
    status, told = ask(wallet_main, "swap-hotkey", third.uri, "--hotkey", second.uri, "--yes")
    assert (status, told["receipt"]["error"]) == (1, "HotKeySwapOnSubnetIntervalNotPassed")
    status, told = ask(wallet_main, "swap-hotkey", third.uri, "--hotkey", OWNER.uri, "--yes")
    assert (status, told["error"]["name"]) == (1, "NonAssociatedColdKey") and COLD.ss58 in told["error"]["message"]
    everywhere = ("swap-hotkey", third.uri, "--hotkey", OWNER.uri, "--keep-stake", "--yes")
    status, told = ask(wallet_main, *everywhere, by=COLD)
    assert status == 0 and told["plan"]["effect"]["price_rao"] == 100_000_000
    assert client.query(PALLET, "SubnetOwnerHotkey", [netuid]) == third.ss58


def test_a_coldkey_is_swapped_once_its_time_has_come(ask, client, fresh, fund):
    old, new = fresh("old"), fresh("new")
    fund(old, 10 * RAO)
    sudo(client, "AdminUtils.sudo_set_coldkey_swap_announcement_delay", duration=400)

    def step(name, *more):
        return ask(wallet_main, "swap-coldkey", name, *more, "--yes", by=old)

    assert step("status")[1]["from_block"] is None
    assert step("execute", new.uri)[1]["error"]["name"] == "ColdkeySwapAnnouncementNotFound"
    assert step("dispute")[1]["error"]["name"] == "ColdkeySwapAnnouncementNotFound"
    assert step("announce")[0] == 2
    status, told = step("announce", new.uri)
    assert status == 0 and told["plan"]["effect"]["price_rao"] == 100_000_000
    due = step("status")[1]["from_block"]
    assert due == told["receipt"]["block"] + 400
    assert step("execute", new.uri)[1]["error"]["name"] == "ColdkeySwapTooEarly"
    assert step("execute", fresh("other").uri)[1]["error"]["name"] == "ColdkeySwapAnnouncementNotFound"
    assert step("clear")[1]["error"]["name"] == "ColdkeySwapClearTooEarly"
    client.rpc("dev_newBlock", [{"to": due}])
    left = client.balance(old.ss58)
    status, told = step("execute", new.uri)
    assert status == 0 and client.balance(old.ss58) == 0
    assert client.balance(new.ss58) == left - told["receipt"]["fee_rao"]


def test_a_disputed_swap_is_frozen(ask, client, fresh, fund):
    old, new = fresh("old"), fresh("new")
    fund(old, 10 * RAO)
    sudo(client, "AdminUtils.sudo_set_coldkey_swap_announcement_delay", duration=0)
    assert ask(wallet_main, "swap-coldkey", "announce", new.uri, "--yes", by=old)[0] == 0
    assert ask(wallet_main, "swap-coldkey", "dispute", "--yes", by=old)[0] == 0
    status, told = ask(wallet_main, "swap-coldkey", "execute", new.uri, "--yes", by=old)
    assert (status, told["error"]["name"]) == (1, "ColdkeySwapDisputed") and client.balance(old.ss58) > 9 * RAO


def test_rewards_are_staked_where_the_coldkey_says(ask, client, netuid):
    owner = client.query(PALLET, "SubnetOwnerHotkey", [netuid])
    assert ask(stake_main, "auto", "--netuid", netuid)[1]["hotkey"] is None
    assert ask(stake_main, "auto", owner, "--netuid", netuid, "--yes")[0] == 0
    assert client.query(PALLET, "AutoStakeDestination", [MINER_COLD.ss58, netuid]) == owner
    assert ask(stake_main, "auto", "--netuid", netuid)[1]["hotkey"] == owner
    again = ask(stake_main, "auto", owner, "--netuid", netuid, "--yes")
    assert again[1]["error"]["name"] == "SameAutoStakeHotkeyAlreadySet"
    nobody = ask(stake_main, "auto", "//ac//nobody", "--netuid", netuid, "--yes")
    assert nobody[1]["error"]["name"] == "HotKeyNotRegisteredInSubNet"


def test_root_dividends_are_shown_and_claimed(ask, client, netuid, fresh, fund):
    """2,000 TAO on root, to which a thousandth is owed in alpha of the subnet (RootClaimable, I96F32 by subnet)."""
    hot, cold = fresh("hot"), fresh("cold")
    fund(cold, 5_000 * RAO)
    for call in (
        Call(PALLET, "root_register", {"hotkey": hot.ss58}),
        Call(PALLET, "add_stake", {"hotkey": hot.ss58, "netuid": 0, "amount_staked": 2_000 * RAO}),
    ):
        client.send(call, cold.open(), timeout_s=120)
    assert ask(stake_main, "claim", by=cold)[1]["owed"] == []
    status, told = ask(stake_main, "claim", "--hotkey", hot.ss58, "--yes", by=cold)
    assert (status, told["error"]["name"]) == (1, "NothingOwed")
    storage = client.runtime.storage(PALLET, "RootClaimable")
    rates = b"\4" + netuid.to_bytes(2, "little") + (2**32 // 1000).to_bytes(16, "little")
    client.rpc("dev_setStorage", [[["0x" + client.runtime.key(storage, [hot.ss58]).hex(), "0x" + rates.hex()]]])
    client.rpc("dev_newBlock")
    ((owed),) = ask(stake_main, "claim", by=cold)[1]["owed"]
    assert owed["hotkey"] == hot.ss58 and owed["owed_rao"] > 0
    staked = client.query(PALLET, "TotalHotkeyAlpha", [hot.ss58, 0])
    status, told = ask(stake_main, "claim", "--hotkey", hot.ss58, "--yes", by=cold)
    assert status == 0 and told["plan"]["effect"]["about_rao"] == pytest.approx(owed["owed_rao"], rel=0.01)
    now = client.query(PALLET, "TotalHotkeyAlpha", [hot.ss58, 0])  # each block moves the price
    assert now - staked == pytest.approx(owed["owed_rao"], rel=0.01)
    assert ask(stake_main, "claim", by=cold)[1]["owed"] == []
