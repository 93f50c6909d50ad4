"""Moves of stake that spec 475 has: to another hotkey and owner, with a price limit, all of it; and their limits."""

from __future__ import annotations

import pytest
from subnetkit import BOB, CHARLIE, RAO, Kit, account

from raytensor.devnet.subtensor.hotkey_swap import SWAP_INTERVAL_BLOCKS
from raytensor.devnet.subtensor.stake_book import MAX_STAKING_HOTKEYS

HOT, OTHER_HOT = account(1), account(2)
ALL = 2**64 - 1


@pytest.fixture
def kit():
    kit = Kit()
    kit.netuid, kit.other = kit.subnet(hotkey=HOT), kit.subnet(hotkey=OTHER_HOT)
    kit.ok(BOB, "add_stake", HOT, kit.netuid, 50 * RAO)
    return kit


def test_stake_goes_to_another_owner_and_hotkey_without_a_fee(kit):
    module, netuid = kit.module, kit.netuid
    held = module.stake_of(HOT, BOB, netuid)
    kit.ok(BOB, "transfer_stake_and_hotkey", CHARLIE, HOT, OTHER_HOT, netuid, netuid, 10 * RAO)
    assert module.stake_of(HOT, BOB, netuid) == held - 10 * RAO
    assert module.stake_of(OTHER_HOT, CHARLIE, netuid) == 10 * RAO
    worth = 10 * RAO * module.alpha_price_rao(netuid) // RAO
    assert kit.events("StakeAndHotkeyTransferred") == [(BOB, CHARLIE, HOT, OTHER_HOT, netuid, netuid, worth)]
    kit.admin("toggle_transfer", netuid, False)
    kit.refused(BOB, "TransferDisallowed", "transfer_stake_and_hotkey", CHARLIE, HOT, OTHER_HOT, netuid, netuid, RAO)
    kit.assert_books_balance()


@pytest.mark.parametrize("call", ["move_stake", "swap_stake", "transfer_stake", "transfer_stake_and_hotkey"])
def test_the_largest_amount_is_everything(kit, call):
    module, netuid = kit.module, kit.netuid
    arguments = {
        "move_stake": (HOT, OTHER_HOT, netuid, netuid),
        "swap_stake": (HOT, netuid, 0),
        "transfer_stake": (CHARLIE, HOT, netuid, netuid),
        "transfer_stake_and_hotkey": (CHARLIE, HOT, OTHER_HOT, netuid, netuid),
    }[call]
    held = module.stake_of(HOT, BOB, netuid)
    kit.refused(BOB, "NotEnoughStakeToWithdraw", call, *arguments, held + 1)
    kit.ok(BOB, call, *arguments, ALL)
    assert module.stake_of(HOT, BOB, netuid) == 0
    kit.assert_books_balance()


def test_a_limited_move_takes_what_the_price_allows(kit):
    module, netuid, other = kit.module, kit.netuid, kit.other
    held = module.stake_of(HOT, BOB, netuid)
    ratio = module.alpha_price_rao(netuid) * RAO // module.alpha_price_rao(other)
    limit = ratio * 98 // 100
    kit.refused(BOB, "SlippageTooHigh", "move_stake_limit", HOT, OTHER_HOT, netuid, other, ALL, limit, False)
    kit.ok(BOB, "move_stake_limit", HOT, OTHER_HOT, netuid, other, ALL, limit, True)
    moved = held - module.stake_of(HOT, BOB, netuid)
    assert 0 < moved < held and module.stake_of(OTHER_HOT, BOB, other) > 0
    assert abs(module.alpha_price_rao(netuid) * RAO // module.alpha_price_rao(other) - limit) < limit // 1_000
    kit.ok(BOB, "move_stake_limit", HOT, OTHER_HOT, netuid, netuid, ALL, ALL, False)  # within a subnet: no price
    assert module.stake_of(OTHER_HOT, BOB, netuid) == held - moved
    kit.assert_books_balance()


def test_a_coldkey_stakes_with_256_hotkeys_by_its_own_calls(kit):
    module, netuid = kit.module, kit.netuid
    for number in range(MAX_STAKING_HOTKEYS - len(module.StakingHotkeys[CHARLIE])):
        kit.ok(CHARLIE, "try_associate_hotkey", account(50_000 + number))
    assert len(module.StakingHotkeys[CHARLIE]) == 256
    new, error = account(60_000), "TooManyStakingHotkeys"
    kit.refused(CHARLIE, error, "try_associate_hotkey", new)
    kit.refused(CHARLIE, error, "burned_register", netuid, new)
    kit.refused(CHARLIE, error, "root_register", new)
    kit.refused(CHARLIE, error, "add_stake", HOT, netuid, RAO)
    kit.refused(BOB, error, "transfer_stake", CHARLIE, HOT, netuid, netuid, RAO)
    known = account(50_000)
    kit.ok(CHARLIE, "add_stake", known, netuid, 5 * RAO)
    kit.refused(CHARLIE, error, "move_stake", known, HOT, netuid, netuid, RAO)
    module.add_stake_to(HOT, CHARLIE, netuid, RAO)  # an epoch pays all the same
    assert len(module.StakingHotkeys[CHARLIE]) == 257


def test_stake_that_a_swap_moved_stays_with_the_new_hotkey_for_7200_blocks(kit):
    module, netuid = kit.module, kit.netuid
    hotkey, second, third = account(300), account(301), account(302)
    kit.neuron(netuid, BOB, hotkey, stake_tao=10)
    kit.ok(BOB, "swap_hotkey", hotkey, second, netuid)
    block = kit.runtime.block_number
    assert module.StakeMoveCooldownUntil[netuid, second] == block + 7_200
    del module.LastHotkeySwapOnNetuid[netuid, BOB]  # the interval of swaps is longer than the cooldown
    kit.refused(BOB, "HotKeySwapOnSubnetIntervalNotPassed", "swap_hotkey", second, third, netuid)
    module.StakeMoveCooldownUntil[netuid, second] = block
    kit.ok(BOB, "swap_hotkey", second, third, netuid)
    module.StakeMoveCooldownUntil[netuid, third] = 1
    module.drop_old_swap_records(module.netuids(), SWAP_INTERVAL_BLOCKS + netuid)
    assert (netuid, third) not in module.StakeMoveCooldownUntil
