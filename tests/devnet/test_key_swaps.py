"""Hotkeys and coldkeys replaced: what moves, what it costs, when it is refused, what is frozen meanwhile."""

from __future__ import annotations

import pytest
from subnetkit import ALICE, BOB, CHARLIE, MINERS, RAO, VALIDATORS, Kit, account, epochs, laptop

from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import DispatchError, Origin
from raytensor.devnet.subtensor.hotkey_swap import KEY_SWAP_COST, KEY_SWAP_ON_SUBNET_COST, SWAP_INTERVAL_BLOCKS

OLD, NEW, OWNER_HOT = MINERS[0], account(600), account(1)
NEW_COLD = account(700)


@pytest.fixture
def kit():
    """The laptop's network, with an axon, an auto-stake destination and a certificate of the first miner."""
    kit = Kit()
    kit.netuid = netuid = kit.subnet(hotkey=OWNER_HOT)
    laptop(kit)
    kit.ok(OLD, "serve_axon_tls", netuid, 1, 16_909_060, 9_000, 4, 4, 0, 0, b"\1" * 33)
    kit.ok(CHARLIE, "set_coldkey_auto_stake_hotkey", netuid, OLD)
    epochs(kit, netuid, 2)
    return kit


def stake(kit, hotkey, coldkey, netuid=None):
    return kit.module.stake_of(hotkey, coldkey, kit.netuid if netuid is None else netuid)


# --- hotkeys


def test_on_one_subnet_the_neuron_and_its_stake_become_the_new_keys(kit):
    module, netuid = kit.module, kit.netuid
    uid, axon, held = module.Uids[netuid, OLD], module.Axons[netuid, OLD], stake(kit, OLD, CHARLIE)
    free, issuance = kit.runtime.Balances.free(CHARLIE), module.TotalIssuance.get()
    assert held and axon
    kit.ok(CHARLIE, "swap_hotkey", OLD, NEW, netuid)
    assert module.Uids[netuid, NEW] == uid and module.Uids[netuid, OLD] is None and module.Keys[netuid, uid] == NEW
    assert (module.IsNetworkMember[OLD, netuid], module.IsNetworkMember[NEW, netuid]) == (False, True)
    assert module.Axons[netuid, NEW] == axon and (netuid, OLD) not in module.Axons
    assert module.NeuronCertificates[netuid, NEW] is not None
    assert (stake(kit, OLD, CHARLIE), stake(kit, NEW, CHARLIE)) == (0, held)
    assert module.AutoStakeDestination[CHARLIE, netuid] == NEW
    assert module.AutoStakeDestinationColdkeys[NEW, netuid] == (CHARLIE,)
    assert module.Owner[NEW] == module.Owner[OLD] == CHARLIE, "on one subnet the old key stays owned"
    assert kit.events("HotkeySwappedOnSubnet") == [(CHARLIE, OLD, NEW, netuid)]
    assert free - kit.runtime.Balances.free(CHARLIE) == KEY_SWAP_ON_SUBNET_COST
    assert issuance - module.TotalIssuance.get() == KEY_SWAP_ON_SUBNET_COST, "the cost is recycled"
    assert module.LastHotkeySwapOnNetuid[netuid, CHARLIE] == kit.runtime.block_number
    kit.assert_books_balance()
    epochs(kit, netuid)
    assert module.Incentive[netuid][uid] and stake(kit, NEW, CHARLIE) > held, "it goes on earning"


def test_everywhere_the_old_key_is_gone(kit):
    module, netuid = kit.module, kit.netuid
    validator = VALIDATORS[1]
    kit.ok(ALICE, "add_stake", validator, netuid, 5 * RAO)
    kit.ok(BOB, "decrease_take", validator, 1_000)
    held = {who: stake(kit, validator, who) for who in (ALICE, BOB)}
    dividends = module.AlphaDividendsPerSubnet[netuid, validator]
    kit.ok(BOB, "swap_hotkey", validator, NEW, None)
    assert kit.events("HotkeySwapped") == [(BOB, validator, NEW)]
    assert module.Owner.get(validator) is None and module.Owner[NEW] == BOB
    assert NEW in module.OwnedHotkeys[BOB] and validator not in module.OwnedHotkeys[BOB]
    assert module.Delegates[NEW] == 1_000 and validator not in module.Delegates
    for who in (ALICE, BOB):
        assert abs(stake(kit, NEW, who) - held[who]) <= 1 and stake(kit, validator, who) == 0
        assert NEW in module.StakingHotkeys[who] and validator not in module.StakingHotkeys[who]
    assert module.AlphaDividendsPerSubnet[netuid, NEW] == dividends
    kit.assert_books_balance()
    assert module.TotalBurned.get() >= KEY_SWAP_COST


def test_kept_stake_stays_with_the_old_key(kit):
    module, netuid = kit.module, kit.netuid
    validator = VALIDATORS[0]
    held = stake(kit, validator, BOB)
    kit.ok(BOB, "swap_hotkey_v2", validator, NEW, None, True)
    assert module.Uids[netuid, NEW] == 1 and stake(kit, validator, BOB) == held and stake(kit, NEW, BOB) == 0
    assert module.Owner[validator] == module.Owner[NEW] == BOB
    kit.ok(BOB, "remove_stake", validator, netuid, held)


def test_the_owners_hotkey_commits_and_family_move_along(kit):
    module, netuid = kit.module, kit.netuid
    parent, child = VALIDATORS[0], VALIDATORS[1]
    kit.root("SubtensorModule.set_pending_childkey_cooldown", 0)
    kit.ok(BOB, "set_children", VALIDATORS[1], netuid, ((2**62, MINERS[5]),))
    epochs(kit, netuid)
    kit.ok(BOB, "set_children", parent, netuid, ((2**63, child),))
    assert (netuid, parent) in module.PendingChildKeys
    kit.admin("commit_reveal_weights_enabled", netuid, True)
    kit.ok(child, "commit_weights", netuid, bytes(32))
    kit.ok(BOB, "swap_hotkey", child, NEW, netuid)
    assert module.PendingChildKeys[netuid, parent][0] == ((2**63, NEW),)
    assert module.ChildKeys[NEW, netuid] == ((2**62, MINERS[5]),) and not module.ChildKeys[child, netuid]
    assert module.ParentKeys[MINERS[5], netuid] == ((2**62, NEW),)
    assert module.WeightCommits[netuid, NEW][0][0] == bytes(32) and module.WeightCommits[netuid, child] is None
    kit.ok(ALICE, "swap_hotkey", OWNER_HOT, account(601), netuid)
    assert module.SubnetOwnerHotkey[netuid] == account(601) and module.owner_uid(netuid) == 0
    assert kit.events("SubnetOwnerHotkeySet") == [(netuid, account(601))]


def test_a_key_can_not_become_its_own_child(kit):
    kit.root("SubtensorModule.set_pending_childkey_cooldown", 0)
    kit.ok(BOB, "set_children", VALIDATORS[0], kit.netuid, ((2**63, NEW),))
    epochs(kit, kit.netuid)
    kit.refused(BOB, "InvalidChild", "swap_hotkey", VALIDATORS[0], NEW, kit.netuid)


def test_refusals_of_a_hotkey_swap(kit):
    netuid = kit.netuid
    kit.refused(CHARLIE, "SubnetNotExists", "swap_hotkey", OLD, NEW, 77)
    kit.refused(BOB, "NonAssociatedColdKey", "swap_hotkey", OLD, NEW, netuid)
    kit.refused(CHARLIE, "NonAssociatedColdKey", "swap_hotkey", OLD, VALIDATORS[0], netuid)
    kit.refused(CHARLIE, "NewHotKeyIsSameWithOld", "swap_hotkey", OLD, OLD, netuid)
    kit.refused(CHARLIE, "HotKeyAlreadyRegisteredInSubNet", "swap_hotkey", OLD, MINERS[1], netuid)
    kit.refused(CHARLIE, "HotKeyAlreadyRegisteredInSubNet", "swap_hotkey", OLD, MINERS[1], None)
    kit.ok(CHARLIE, "try_associate_hotkey", NEW)
    kit.ok(CHARLIE, "add_stake", NEW, 0, RAO)
    kit.refused(CHARLIE, "NewHotKeyNotCleanForRootSwap", "swap_hotkey", OLD, NEW, None)
    kit.ok(CHARLIE, "swap_hotkey", OLD, NEW, netuid)
    kit.refused(CHARLIE, "HotKeySwapOnSubnetIntervalNotPassed", "swap_hotkey", MINERS[1], account(601), netuid)
    kit.refused(CHARLIE, "HotKeySwapOnSubnetIntervalNotPassed", "swap_hotkey", MINERS[1], account(601), None)
    poor = account(800)
    kit.ok(ALICE, "Balances.transfer_allow_death", ("Id", poor), 2_000)
    kit.ok(poor, "try_associate_hotkey", account(801))
    kit.refused(poor, "NotEnoughBalanceToPaySwapHotKey", "swap_hotkey", account(801), account(802), netuid)
    kit.refused(poor, "NotEnoughBalanceToPaySwapHotKey", "swap_hotkey", account(801), account(802), None)


def test_records_of_swaps_are_dropped_after_the_interval(kit):
    kit.ok(CHARLIE, "swap_hotkey", OLD, NEW, kit.netuid)
    module, netuid = kit.module, kit.netuid
    key, at = (netuid, CHARLIE), module.LastHotkeySwapOnNetuid[netuid, CHARLIE]
    module.drop_old_swap_records([netuid], SWAP_INTERVAL_BLOCKS + netuid)
    assert key in module.LastHotkeySwapOnNetuid and at > netuid
    module.drop_old_swap_records([netuid], 2 * SWAP_INTERVAL_BLOCKS + netuid + 1)
    assert key in module.LastHotkeySwapOnNetuid, "not this subnet's block"
    module.drop_old_swap_records([netuid], 2 * SWAP_INTERVAL_BLOCKS + netuid)
    assert key not in module.LastHotkeySwapOnNetuid


def test_root_dividends_follow_the_hotkey(kit):
    module, netuid, validator = kit.module, kit.netuid, VALIDATORS[0]
    kit.ok(ALICE, "add_stake", validator, 0, 50 * RAO)
    module.add_root_claim(validator, netuid, 7 * RAO)
    owed = module.owed_root_alpha(validator, ALICE, netuid)
    assert owed > 6 * RAO
    kit.ok(BOB, "swap_hotkey", validator, NEW, None)
    assert module.RootClaimable[NEW] and not module.RootClaimable[validator]
    assert abs(module.owed_root_alpha(NEW, ALICE, netuid) - owed) <= 1
    assert stake(kit, NEW, ALICE, 0) == 50 * RAO


# --- coldkeys


def announce(kit, who=BOB, new=NEW_COLD, delay=20, again=5):
    kit.admin("coldkey_swap_announcement_delay", delay)
    kit.admin("coldkey_swap_reannouncement_delay", again)
    kit.ok(who, "announce_coldkey_swap", blake2_256(new))


def test_an_announced_swap_moves_everything_after_its_delay(kit):
    module, netuid = kit.module, kit.netuid
    kit.ok(BOB, "set_identity", b"Bob", b"", b"", b"", b"", b"", b"")
    kit.ok(BOB, "set_coldkey_auto_stake_hotkey", netuid, VALIDATORS[2])
    kit.ok(BOB, "add_stake", VALIDATORS[0], 0, 50 * RAO)
    module.add_root_claim(VALIDATORS[0], netuid, 7 * RAO)
    owed = module.owed_root_alpha(VALIDATORS[0], BOB, netuid)
    free = kit.runtime.Balances.free(BOB)
    announce(kit)
    when = kit.runtime.block_number + 20
    assert module.ColdkeySwapAnnouncements[BOB] == (when, blake2_256(NEW_COLD))
    assert kit.events("ColdkeySwapAnnounced") == [(BOB, blake2_256(NEW_COLD))]
    assert free - kit.runtime.Balances.free(BOB) == KEY_SWAP_COST
    kit.refused(BOB, "AnnouncedColdkeyHashDoesNotMatch", "swap_coldkey_announced", account(701))
    kit.refused(BOB, "ColdkeySwapTooEarly", "swap_coldkey_announced", NEW_COLD)
    kit.blocks(20)
    held = {hotkey: stake(kit, hotkey, BOB) for hotkey in VALIDATORS}
    total = kit.runtime.Balances.free(BOB)
    kit.ok(BOB, "swap_coldkey_announced", NEW_COLD)
    assert kit.events("ColdkeySwapped") == [(BOB, NEW_COLD)]
    assert kit.runtime.Balances.free(NEW_COLD) == total and not kit.runtime.System.Account[BOB].providers
    for hotkey in VALIDATORS:
        assert module.Owner[hotkey] == NEW_COLD and stake(kit, hotkey, BOB) == 0
        assert abs(stake(kit, hotkey, NEW_COLD) - held[hotkey]) <= 1
    assert set(module.OwnedHotkeys[NEW_COLD]) >= set(VALIDATORS) and not module.OwnedHotkeys[BOB]
    assert set(module.StakingHotkeys[NEW_COLD]) >= set(VALIDATORS) and not module.StakingHotkeys[BOB]
    assert module.IdentitiesV2[NEW_COLD].name == b"Bob" and module.IdentitiesV2[BOB] is None
    assert module.AutoStakeDestination[NEW_COLD, netuid] == VALIDATORS[2]
    assert module.AutoStakeDestinationColdkeys[VALIDATORS[2], netuid] == (NEW_COLD,)
    assert abs(module.owed_root_alpha(VALIDATORS[0], NEW_COLD, netuid) - owed) <= 1
    assert module.owed_root_alpha(VALIDATORS[0], BOB, netuid) == 0
    assert BOB not in module.ColdkeySwapAnnouncements
    kit.assert_books_balance()


def test_a_subnet_changes_hands_with_its_owner(kit):
    kit.root("SubtensorModule.swap_coldkey", ALICE, NEW_COLD, RAO)
    assert kit.module.SubnetOwner[kit.netuid] == NEW_COLD and kit.module.Owner[OWNER_HOT] == NEW_COLD
    kit.assert_books_balance()


def test_meanwhile_the_coldkey_may_do_nothing_else(kit):
    announce(kit)
    for name, args in (
        ("Balances.transfer_all", (("Id", ALICE), False)),
        ("add_stake", (VALIDATORS[0], kit.netuid, RAO)),
        ("System.remark", (b"",)),
    ):
        kit.refused(BOB, "ColdkeySwapAnnounced", name, *args)
    inner = kit.call("Balances.transfer_all", ("Id", ALICE), False)
    kit.ok(CHARLIE, "Balances.transfer_keep_alive", ("Id", ALICE), RAO)
    with pytest.raises(DispatchError, match="ColdkeySwapAnnounced"):
        kit.runtime.precheck(Origin.signed(BOB), inner)
    kit.refused(BOB, "ColdkeySwapReannouncedTooEarly", "announce_coldkey_swap", bytes(32))
    kit.refused(BOB, "ColdkeySwapClearTooEarly", "clear_coldkey_swap_announcement")
    kit.blocks(25)
    kit.ok(BOB, "announce_coldkey_swap", blake2_256(account(701)))
    assert kit.module.ColdkeySwapAnnouncements[BOB][1] == blake2_256(account(701)), "anew, without another fee"
    kit.blocks(25)
    kit.ok(BOB, "clear_coldkey_swap_announcement")
    assert kit.events("ColdkeySwapCleared") == [(BOB,)]
    kit.ok(BOB, "System.remark", b"")


def test_a_dispute_freezes_until_root_resets(kit):
    kit.refused(BOB, "ColdkeySwapAnnouncementNotFound", "dispute_coldkey_swap")
    announce(kit)
    kit.ok(BOB, "dispute_coldkey_swap")
    assert kit.events("ColdkeySwapDisputed") == [(BOB,)]
    kit.blocks(30)
    for name, args in (
        ("swap_coldkey_announced", (NEW_COLD,)),
        ("dispute_coldkey_swap", ()),
        ("System.remark", (b"",)),
    ):
        kit.refused(BOB, "ColdkeySwapDisputed", name, *args)
    kit.refused(ALICE, "BadOrigin", "reset_coldkey_swap", BOB)
    kit.root("SubtensorModule.reset_coldkey_swap", BOB)
    assert kit.events("ColdkeySwapReset") == [(BOB,)]
    kit.ok(BOB, "System.remark", b"")


def test_refusals_of_a_coldkey_swap(kit):
    kit.refused(BOB, "ColdkeySwapAnnouncementNotFound", "swap_coldkey_announced", NEW_COLD)
    kit.refused(BOB, "ColdkeySwapAnnouncementNotFound", "clear_coldkey_swap_announcement")
    kit.refused(BOB, "Deprecated", "schedule_swap_coldkey", NEW_COLD)
    kit.refused(BOB, "BadOrigin", "swap_coldkey", BOB, NEW_COLD, 0)
    kit.refused(None, "ColdKeyAlreadyAssociated", "swap_coldkey", BOB, CHARLIE, 0)
    kit.refused(None, "NotEnoughBalanceToPaySwapColdKey", "swap_coldkey", BOB, NEW_COLD, 10**18)
    unstaked = account(810)
    kit.module.Owner[unstaked] = CHARLIE
    kit.refused(None, "NewColdKeyIsHotkey", "swap_coldkey", BOB, unstaked, 0)
    poor = account(800)
    kit.refused(poor, "NotEnoughBalanceToPaySwapColdKey", "announce_coldkey_swap", bytes(32))
