"""Staking calls: what they move, to the rao, and every error that a coldkey can meet."""

from __future__ import annotations

import pytest
from subnetkit import ALICE, BOB, RAO, Kit, account

from raytensor.devnet.subtensor import amm

HOT, OTHER_HOT, COLD = account(1), account(2), account(3)


@pytest.fixture
def kit():
    kit = Kit()
    kit.netuid = kit.subnet(hotkey=HOT)
    return kit


def free(kit, who):
    return kit.runtime.Balances.free(who)


def test_adding_stake_trades_at_the_pools_price(kit):
    module, netuid = kit.module, kit.netuid
    tao, alpha = module.SubnetTAO[netuid], module.SubnetAlphaIn[netuid]
    before, author = free(kit, BOB), free(kit, kit.runtime.author)
    kit.ok(BOB, "add_stake", HOT, netuid, 100 * RAO)
    fee = 100 * RAO * 33 // 65_535
    bought = alpha * (100 * RAO - fee) // (tao + 100 * RAO - fee)
    assert before - free(kit, BOB) == 100 * RAO
    assert free(kit, kit.runtime.author) - author == fee
    assert module.stake_of(HOT, BOB, netuid) == bought
    assert module.SubnetTAO[netuid] == tao + 100 * RAO - fee and module.SubnetAlphaIn[netuid] == alpha - bought
    assert kit.events("StakeAdded") == [(BOB, HOT, 100 * RAO, bought, netuid, fee)]
    kit.assert_books_balance()


def test_adding_and_removing_gives_back_a_little_less(kit):
    before = free(kit, BOB)
    kit.ok(BOB, "add_stake", HOT, kit.netuid, 50 * RAO)
    kit.ok(BOB, "remove_stake", HOT, kit.netuid, 2**64 - 1)
    assert kit.module.stake_of(HOT, BOB, kit.netuid) == 0
    lost = before - free(kit, BOB)
    assert 0 < lost < 50 * RAO * 2 * 34 // 65_535
    kit.assert_books_balance()


def test_stake_is_not_drawn_twice(kit):
    kit.ok(BOB, "add_stake", HOT, kit.netuid, 50 * RAO)
    kit.ok(BOB, "remove_stake", HOT, kit.netuid, 2**64 - 1)
    kit.refused(BOB, "AmountTooLow", "remove_stake", HOT, kit.netuid, 10 * RAO)
    kit.refused(BOB, "NotEnoughStakeToWithdraw", "move_stake", HOT, HOT, kit.netuid, 0, 1)


@pytest.mark.parametrize(
    "error, hotkey, netuid, amount",
    [
        ("SubnetNotExists", HOT, 77, 10 * RAO),
        ("SubtokenDisabled", HOT, 1, 10 * RAO),
        ("AmountTooLow", HOT, 2, 1_999_999),
        ("AmountTooLow", HOT, 2, 2_000_000),  # the fee comes on top of the minimum
        ("HotKeyAccountNotExists", OTHER_HOT, 2, 10 * RAO),
        ("InsufficientLiquidity", HOT, 2, 10**6 * RAO + 1),
    ],
)
def test_adding_is_refused(kit, error, hotkey, netuid, amount):
    kit.refused(BOB, error, "add_stake", hotkey, netuid, amount)


def test_adding_more_than_one_has_is_refused(kit):
    kit.runtime.Balances.deposit(COLD, 5 * RAO)
    kit.refused(COLD, "NotEnoughBalanceToStake", "add_stake", HOT, kit.netuid, 5 * RAO)
    kit.ok(COLD, "add_stake", HOT, kit.netuid, 4 * RAO)


def test_a_limit_price_cuts_or_refuses(kit):
    module, netuid = kit.module, kit.netuid
    price = module.alpha_price_rao(netuid)
    limit = price * 105 // 100
    kit.refused(BOB, "SlippageTooHigh", "add_stake_limit", HOT, netuid, 1_000 * RAO, limit, False)
    kit.refused(BOB, "SlippageTooHigh", "add_stake_limit", HOT, netuid, 1_000 * RAO, price - 1, True)
    before = free(kit, BOB)
    kit.ok(BOB, "add_stake_limit", HOT, netuid, 1_000 * RAO, limit, True)
    spent = before - free(kit, BOB)
    assert 20 * RAO < spent < 30 * RAO, "5 % more price takes about 2.5 % of the pool"
    assert abs(module.alpha_price_rao(netuid) - limit) < limit // 10**6
    kit.ok(BOB, "remove_stake_limit", HOT, netuid, 2**64 - 1, price * 102 // 100, True)
    # The fee is sold as well, for the author, a hair below the limit.
    assert 0 < price * 102 // 100 - module.alpha_price_rao(netuid) < price // 10**4
    assert module.stake_of(HOT, BOB, netuid) > 0
    kit.refused(BOB, "SlippageTooHigh", "remove_stake_full_limit", HOT, netuid, price * 2)
    kit.ok(BOB, "remove_stake_full_limit", HOT, netuid, None)
    assert module.stake_of(HOT, BOB, netuid) == 0
    kit.assert_books_balance()


def test_root_takes_tao_one_to_one_and_only_at_its_price(kit):
    kit.ok(BOB, "add_stake", HOT, 0, 7 * RAO)
    assert kit.module.stake_of(HOT, BOB, 0) == 7 * RAO == kit.module.SubnetTAO[0]
    kit.refused(BOB, "SlippageTooHigh", "add_stake_limit", HOT, 0, 7 * RAO, RAO - 1, True)
    kit.ok(BOB, "add_stake_limit", HOT, 0, 7 * RAO, RAO, False)
    before = free(kit, BOB)
    kit.ok(BOB, "remove_stake", HOT, 0, 14 * RAO)
    assert free(kit, BOB) - before == 14 * RAO
    kit.assert_books_balance()


def test_a_small_rest_can_only_leave_whole(kit):
    kit.ok(BOB, "add_stake", HOT, kit.netuid, 10 * RAO)
    kit.refused(BOB, "AmountTooLow", "remove_stake", HOT, kit.netuid, 1_000)
    kit.ok(BOB, "remove_stake", HOT, kit.netuid, kit.module.stake_of(HOT, BOB, kit.netuid) - 1_000)
    kit.ok(BOB, "remove_stake", HOT, kit.netuid, 1_000)
    assert kit.module.stake_of(HOT, BOB, kit.netuid) == 0


def test_unstake_all_leaves_nothing_and_skips_what_refuses(kit):
    second = kit.subnet(BOB, account(9))
    for netuid in (0, kit.netuid, second):
        kit.ok(BOB, "add_stake", HOT, netuid, 20 * RAO)
    kit.admin("subtoken_enabled", second, False)
    kit.ok(BOB, "unstake_all", HOT)
    assert [kit.module.stake_of(HOT, BOB, n) for n in (0, kit.netuid)] == [0, 0]
    assert kit.module.stake_of(HOT, BOB, second) > 0, "a subnet that may not trade keeps its stake"
    kit.assert_books_balance()


def test_unstake_all_alpha_restakes_to_root(kit):
    second = kit.subnet(BOB, account(9))
    for netuid in (kit.netuid, second):
        kit.ok(BOB, "add_stake", HOT, netuid, 20 * RAO)
    balance = free(kit, BOB)
    kit.ok(BOB, "unstake_all_alpha", HOT)
    assert kit.module.stake_of(HOT, BOB, kit.netuid) == kit.module.stake_of(HOT, BOB, second) == 0
    assert 39.9 * RAO < kit.module.stake_of(HOT, BOB, 0) < 40 * RAO
    assert free(kit, BOB) == balance
    kit.assert_books_balance()


# --- moves


def test_moving_inside_a_subnet_is_free(kit):
    module, netuid = kit.module, kit.netuid
    kit.neuron(netuid, ALICE, OTHER_HOT)
    kit.ok(BOB, "add_stake", HOT, netuid, 20 * RAO)
    alpha, pool = module.stake_of(HOT, BOB, netuid), module.SubnetTAO[netuid]
    kit.ok(BOB, "move_stake", HOT, OTHER_HOT, netuid, netuid, alpha)
    assert (module.stake_of(HOT, BOB, netuid), module.stake_of(OTHER_HOT, BOB, netuid)) == (0, alpha)
    assert module.SubnetTAO[netuid] == pool
    kit.ok(BOB, "transfer_stake", COLD, OTHER_HOT, netuid, netuid, alpha)
    assert (module.stake_of(OTHER_HOT, BOB, netuid), module.stake_of(OTHER_HOT, COLD, netuid)) == (0, alpha)


def test_swapping_between_subnets_pays_one_fee(kit):
    module, netuid = kit.module, kit.netuid
    second = kit.subnet(BOB, account(9))
    kit.ok(BOB, "add_stake", HOT, netuid, 20 * RAO)
    alpha = module.stake_of(HOT, BOB, netuid)
    sold = module.quote_sell(netuid, alpha)
    bought = amm.buy(module.SubnetTAO[second], module.SubnetAlphaIn[second], sold.out)
    kit.ok(BOB, "swap_stake", HOT, netuid, second, alpha)
    assert module.stake_of(HOT, BOB, second) == bought.out and module.stake_of(HOT, BOB, netuid) == 0
    assert kit.events("StakeSwapped") == [(BOB, HOT, netuid, second, sold.out)]
    kit.assert_books_balance()


def test_a_limited_swap_stops_at_its_ratio(kit):
    module, netuid = kit.module, kit.netuid
    second = kit.subnet(BOB, account(9))
    kit.ok(BOB, "add_stake", HOT, netuid, 200 * RAO)
    alpha = module.stake_of(HOT, BOB, netuid)
    ratio = module.alpha_price_rao(netuid) * RAO // module.alpha_price_rao(second)
    limit = ratio * 95 // 100
    kit.refused(BOB, "SlippageTooHigh", "swap_stake_limit", HOT, netuid, second, alpha, limit, False)
    kit.ok(BOB, "swap_stake_limit", HOT, netuid, second, alpha, limit, True)
    assert 0 < module.stake_of(HOT, BOB, netuid) < alpha
    after = module.alpha_price_rao(netuid) * RAO // module.alpha_price_rao(second)
    assert limit - limit // 10**4 <= after < ratio
    kit.assert_books_balance()


@pytest.mark.parametrize(
    "error, call, args",
    [
        ("SameNetuid", "swap_stake", (HOT, 2, 2, RAO)),
        ("SubnetNotExists", "swap_stake", (HOT, 2, 77, RAO)),
        ("SubtokenDisabled", "swap_stake", (HOT, 2, 1, RAO)),
        ("HotKeyAccountNotExists", "move_stake", (HOT, OTHER_HOT, 2, 2, RAO)),
        ("NotEnoughStakeToWithdraw", "swap_stake", (HOT, 2, 0, 100 * RAO)),
        ("AmountTooLow", "swap_stake", (HOT, 2, 0, 1_000)),
        ("TransferDisallowed", "transfer_stake", (COLD, HOT, 2, 2, RAO)),
    ],
)
def test_moves_are_refused(kit, error, call, args):
    kit.ok(BOB, "add_stake", HOT, kit.netuid, 20 * RAO)
    kit.admin("toggle_transfer", kit.netuid, False)
    kit.refused(BOB, error, call, *args)


def test_recycled_alpha_leaves_the_issuance_and_burned_alpha_stays(kit):
    module, netuid = kit.module, kit.netuid
    kit.ok(BOB, "add_stake", HOT, netuid, 20 * RAO)
    out = module.SubnetAlphaOut[netuid]
    kit.ok(BOB, "burn_alpha", HOT, RAO, netuid)
    assert module.SubnetAlphaOut[netuid] == out
    kit.ok(BOB, "recycle_alpha", HOT, RAO, netuid)
    assert module.SubnetAlphaOut[netuid] == out - RAO
    kit.refused(BOB, "CannotBurnOrRecycleOnRootSubnet", "burn_alpha", HOT, RAO, 0)


def test_dust_and_burns_are_in_the_books(kit):
    kit.ok(ALICE, "Balances.transfer_allow_death", ("Id", COLD), 5_000)
    kit.ok(COLD, "Balances.transfer_allow_death", ("Id", BOB), 4_700)  # 300 rao are left: the account dies
    kit.ok(BOB, "Balances.burn", 12_345, True)
    kit.assert_books_balance()
    assert kit.module.TotalBurned.get() >= 300 + 12_345
    kit.root("Balances.force_set_balance", ("Id", COLD), RAO)
    kit.assert_books_balance()
