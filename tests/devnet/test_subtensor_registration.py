"""Registration: prices, uids, pruning, root; and the creation, start and end of subnets."""

from __future__ import annotations

import pytest
from subnetkit import ALICE, BOB, CHARLIE, RAO, Kit, account

from raytensor.devnet.pallets.commitments import CommitmentInfo

HOT = account(1)


@pytest.fixture
def kit():
    kit = Kit()
    kit.netuid = kit.subnet(hotkey=HOT)
    return kit


def test_a_neuron_gets_the_next_uid_and_every_vector_grows(kit):
    module, netuid = kit.module, kit.netuid
    assert kit.neuron(netuid, BOB, account(20)) == 1
    assert kit.neuron(netuid, BOB, account(21)) == 2
    assert module.SubnetworkN[netuid] == 3
    vectors = "Active Emission Consensus Dividends ValidatorTrust ValidatorPermit Incentive LastUpdate".split()
    for name in vectors:
        assert len(getattr(module, name)[netuid]) == 3, name
    assert module.LastUpdate[netuid][2] == module.BlockAtRegistration[netuid, 2] == kit.runtime.block_number
    assert module.Keys[netuid, 2] == account(21) and module.Owner[account(21)] == BOB
    assert kit.events("NeuronRegistered")[-1] == (netuid, 2, account(21))


def test_the_price_is_paid_into_the_pool_and_its_alpha_destroyed(kit):
    module, netuid = kit.module, kit.netuid
    price, pool, out = module.Burn[netuid], module.SubnetTAO[netuid], module.SubnetAlphaOut[netuid]
    balance = kit.runtime.Balances.free(BOB)
    kit.neuron(netuid, BOB, account(20))
    fee = price * 33 // 65_535
    assert balance - kit.runtime.Balances.free(BOB) == price
    assert module.SubnetTAO[netuid] == pool + price - fee and module.SubnetAlphaOut[netuid] == out
    kit.assert_books_balance()


def test_the_price_rises_with_each_registration_and_halves_in_its_half_life(kit):
    module, netuid = kit.module, kit.netuid
    kit.admin("max_burn", netuid, 100 * RAO)
    price = module.Burn[netuid]
    kit.neuron(netuid, BOB, account(20))
    assert module.Burn[netuid] == (price * ((126 << 64) // 100)) >> 64
    risen = module.Burn[netuid]
    kit.admin("burn_half_life", netuid, 20)
    kit.blocks(20)
    assert abs(module.Burn[netuid] - risen // 2) < 1_000
    kit.blocks(600)
    assert module.Burn[netuid] == module.MinBurn[netuid] == 500_000


@pytest.mark.parametrize(
    "error, netuid, hotkey",
    [
        ("RegistrationNotPermittedOnRootSubnet", 0, account(20)),
        ("SubnetNotExists", 77, account(20)),
        ("HotKeyAlreadyRegisteredInSubNet", 2, HOT),
        ("NonAssociatedColdKey", 2, account(30)),
    ],
)
def test_registration_is_refused(kit, error, netuid, hotkey):
    kit.ok(CHARLIE, "try_associate_hotkey", account(30))
    kit.refused(BOB, error, "burned_register", netuid, hotkey)


def test_registration_needs_the_price_an_open_subnet_and_a_limit(kit):
    netuid = kit.netuid
    kit.runtime.Balances.deposit(account(3), RAO // 10)
    kit.refused(account(3), "NotEnoughBalanceToStake", "burned_register", netuid, account(20))
    price = kit.module.Burn[netuid]
    kit.refused(BOB, "RegistrationPriceLimitExceeded", "register_limit", netuid, account(20), price - 1)
    kit.ok(BOB, "register_limit", netuid, account(20), price)
    kit.ok(BOB, "register", netuid, 0, 0, b"", account(21), account(99))
    assert kit.module.Owner[account(21)] == BOB, "the signer pays and owns, whatever coldkey is named"
    kit.admin("network_registration_allowed", netuid, False)
    kit.refused(BOB, "SubNetRegistrationDisabled", "burned_register", netuid, account(22))


# --- pruning


def full_subnet(kit, size: int = 4) -> int:
    netuid = kit.netuid
    kit.root("AdminUtils.sudo_set_min_allowed_uids", netuid, 0)
    kit.admin("immunity_period", netuid, 5)
    kit.admin("min_non_immune_uids", netuid, 0)
    for i in range(1, size):
        kit.neuron(netuid, BOB, account(20 + i))
        kit.blocks(1)
    kit.admin("max_allowed_uids", netuid, size)
    return netuid


def test_the_oldest_neuron_without_emission_is_replaced_and_leaves_nothing(kit):
    module, netuid = kit.module, full_subnet(kit)
    kit.blocks(10)
    kit.ok(account(21), "serve_axon", netuid, 1, 16_909_060, 9_000, 4, 4, 0, 0)
    module.Weights[netuid, 1] = module.Weights[netuid, 3]
    uid = kit.neuron(netuid, BOB, account(40))
    assert uid == 1 and module.SubnetworkN[netuid] == 4
    assert module.Keys[netuid, 1] == account(40) and module.Uids[netuid, account(21)] is None
    assert module.Axons[netuid, account(21)] is None and (netuid, 1) not in module.Weights
    assert not module.IsNetworkMember[account(21), netuid]
    assert module.BlockAtRegistration[netuid, 1] == kit.runtime.block_number == module.LastUpdate[netuid][1]
    assert kit.neuron(netuid, BOB, account(41)) == 2, "the new one is immune, the next oldest goes"


def test_emission_protects_and_so_does_the_owner(kit):
    module, netuid = kit.module, full_subnet(kit)
    kit.blocks(10)
    emission = module.Emission[netuid].copy()
    emission[:] = [0, 5, 3, 9]
    module.Emission[netuid] = emission
    assert module.neuron_to_prune(netuid) == 2, "uid 0 is the owner's and has no emission at all"


def test_immune_neurons_go_only_when_nobody_else_is_left(kit):
    module, netuid = kit.module, full_subnet(kit)
    kit.admin("immunity_period", netuid, 10_000)
    assert module.neuron_to_prune(netuid) == 1
    kit.admin("min_non_immune_uids", netuid, 3)
    kit.admin("immunity_period", netuid, 1)
    kit.blocks(5)
    assert module.neuron_to_prune(netuid) is None, "three are past immunity, and more than three must be"
    kit.refused(BOB, "NoNeuronIdAvailable", "burned_register", netuid, account(50))


# --- root


def test_root_admits_one_a_block_three_times_the_target_an_interval(kit):
    module = kit.module
    kit.blocks(1)
    kit.ok(BOB, "root_register", account(60))
    assert module.Keys[0, 0] == account(60) and module.Delegates[account(60)] == 11_796
    kit.refused(BOB, "TooManyRegistrationsThisBlock", "root_register", account(61))
    kit.blocks(1)
    kit.refused(BOB, "HotKeyAlreadyRegisteredInSubNet", "root_register", account(60))
    kit.refused(BOB, "NonAssociatedColdKey", "root_register", HOT)
    kit.ok(BOB, "root_register", account(61))
    kit.blocks(1)
    kit.ok(BOB, "root_register", account(62))
    kit.blocks(1)
    kit.refused(BOB, "TooManyRegistrationsThisInterval", "root_register", account(63))
    kit.until(lambda: module.RegistrationsThisInterval[0] == 0)
    kit.ok(BOB, "root_register", account(63))


def test_a_full_root_evicts_the_lowest_stake(kit):
    module = kit.module
    kit.blocks(1)
    kit.ok(BOB, "root_register", account(60))
    kit.ok(BOB, "add_stake", account(60), 0, 5 * RAO)
    kit.blocks(1)
    module.MaxAllowedUids[0] = 1
    kit.ok(BOB, "try_associate_hotkey", account(61))
    kit.refused(BOB, "StakeTooLowForRoot", "root_register", account(61))
    kit.ok(BOB, "add_stake", account(61), 0, 6 * RAO)
    kit.ok(BOB, "root_register", account(61))
    assert module.Keys[0, 0] == account(61) and module.Uids[0, account(60)] is None


# --- subnets


def test_a_new_subnet_has_the_chains_defaults(kit):
    module = kit.module
    kit.blocks(1)
    balance = kit.runtime.Balances.free(CHARLIE)
    cost = module.lock_cost_rao()
    kit.ok(CHARLIE, "register_network", account(70))
    netuid = 3
    assert balance - kit.runtime.Balances.free(CHARLIE) == cost
    assert module.SubnetOwner[netuid] == CHARLIE and module.Keys[netuid, 0] == account(70)
    assert (module.Tempo[netuid], module.MaxAllowedUids[netuid], module.MaxAllowedValidators[netuid]) == (360, 256, 64)
    assert (module.MinAllowedWeights[netuid], module.ImmunityPeriod[netuid], module.Burn[netuid]) == (1, 5_000, RAO)
    assert module.Yuma3On[netuid] and module.CommitRevealWeightsEnabled[netuid]
    assert not module.SubnetEmissionEnabled[netuid] and not module.SubtokenEnabled[netuid]
    assert module.LastEpochBlock[netuid] == kit.runtime.block_number - netuid
    assert module.alpha_price_rao(netuid) == RAO
    assert module.TokenSymbol[netuid] == "γ".encode()
    kit.refused(BOB, "SubtokenDisabled", "add_stake", account(70), netuid, 10 * RAO)
    kit.refused(BOB, "BadOrigin", "start_call", netuid)
    kit.ok(CHARLIE, "start_call", netuid)
    assert module.FirstEmissionBlockNumber[netuid] == kit.runtime.block_number + 1
    kit.refused(CHARLIE, "FirstEmissionBlockNumberAlreadySet", "start_call", netuid)
    kit.assert_books_balance()


def test_subnet_creation_is_refused(kit):
    kit.blocks(1)
    kit.ok(CHARLIE, "try_associate_hotkey", account(80))
    kit.refused(BOB, "NonAssociatedColdKey", "register_network", account(80))
    kit.admin("network_rate_limit", 100)
    kit.refused(BOB, "NetworkTxRateLimitExceeded", "register_network", account(81))
    kit.admin("network_rate_limit", 0)
    kit.admin("network_min_lock_cost", 10**18)
    kit.refused(BOB, "CannotAffordLockCost", "register_network", account(81))
    kit.admin("network_min_lock_cost", RAO)
    kit.admin("subnet_limit", 2)
    kit.refused(BOB, "SubnetLimitReached", "register_network", account(81))
    kit.admin("start_call_delay", 50)
    kit.admin("subnet_limit", 3)
    kit.ok(BOB, "register_network", account(81))
    kit.refused(BOB, "NeedWaitingMoreBlocksToStarCall", "start_call", 3)


def test_the_lock_cost_doubles_and_what_is_above_the_pool_is_burned(kit):
    module = kit.module
    kit.admin("lock_reduction_interval", 10**9)
    cost = module.lock_cost_rao()
    assert cost == 2 * module.NetworkLastLockCost.get()
    burned = module.TotalBurned.get()
    kit.ok(CHARLIE, "register_network", account(70))
    assert module.TotalBurned.get() - burned == cost - module.SubnetTAO[3] == cost - 1_000 * RAO
    kit.assert_books_balance()


def test_beyond_the_limit_the_cheapest_subnet_makes_room_and_its_tao_goes_home(kit):
    module = kit.module
    kit.ok(BOB, "add_stake", HOT, kit.netuid, 100 * RAO)
    kit.admin("network_immunity_period", 0)
    kit.admin("subnet_limit", 2)
    kit.blocks(40)
    assert module.SubnetMovingPrice[kit.netuid] > 0
    module.SubnetMovingPrice[1] = module.SubnetMovingPrice[kit.netuid] + 1
    balance, pool = kit.runtime.Balances.free(BOB), module.SubnetTAO[kit.netuid]
    kit.ok(CHARLIE, "register_network", account(70))
    assert ("SubtensorModule", "NetworkRemoved", (kit.netuid,)) in kit.runtime.event_names()
    assert module.SubnetOwner[kit.netuid] == CHARLIE, "the netuid is used again"
    assert module.stake_of(HOT, BOB, kit.netuid) == 0 and module.TotalHotkeyAlpha[HOT, kit.netuid] == 0
    assert 0 < kit.runtime.Balances.free(BOB) - balance <= pool
    assert module.hotkeys(kit.netuid) == [account(70)]
    kit.assert_books_balance()


def test_owner_names_the_subnet_and_picks_a_free_symbol(kit):
    module, netuid = kit.module, kit.netuid
    identity = (b"mine", b"", b"", b"", b"", b"", b"", b"")
    kit.refused(BOB, "NotSubnetOwner", "set_subnet_identity", netuid, *identity)
    kit.refused(ALICE, "SubnetNotExists", "set_subnet_identity", 77, *identity)
    kit.ok(ALICE, "set_subnet_identity", netuid, *identity)
    assert module.SubnetIdentitiesV3[netuid].subnet_name == b"mine"
    kit.ok(ALICE, "set_subnet_identity", netuid, *[b""] * 8)
    assert module.SubnetIdentitiesV3[netuid].subnet_name == b"", "an empty identity is one"
    kit.refused(ALICE, "InvalidIdentity", "set_subnet_identity", netuid, b"x" * 257, *identity[1:])
    kit.refused(ALICE, "SymbolDoesNotExist", "update_symbol", netuid, b"zz")
    kit.refused(ALICE, "SymbolAlreadyInUse", "update_symbol", netuid, "α".encode())
    kit.ok(ALICE, "update_symbol", netuid, "ω".encode())


def test_nothing_of_a_dissolved_subnet_is_left_in_storage(kit):
    """What its keys, children, commitments and swaps stored; but for the stakers' list of hotkeys and clocks."""
    module, netuid, hot = kit.module, kit.netuid, account(20)
    kit.root("SubtensorModule.set_pending_childkey_cooldown", 0)
    kit.ok(BOB, "burned_register", netuid, hot)
    kit.ok(BOB, "add_stake", hot, netuid, 100 * RAO)
    kit.ok(BOB, "set_children", hot, netuid, ((2**62, account(90)),))
    kit.ok(BOB, "set_childkey_take", hot, netuid, 100)
    kit.ok(BOB, "set_coldkey_auto_stake_hotkey", netuid, hot)
    kit.ok(hot, "Commitments.set_commitment", netuid, CommitmentInfo((("Raw1", b"x"),)))
    kit.ok(ALICE, "set_subnet_identity", netuid, b"mine", *[b""] * 7)
    kit.ok(BOB, "swap_hotkey", hot, account(91), netuid)
    kit.until(lambda: module.ChildKeys[account(91), netuid])
    kit.root("SubtensorModule.root_dissolve_network", netuid)
    assert kit.events("SubnetIdentityRemoved") == kit.events("NetworkRemoved") == [(netuid,)]
    left = []
    for item in kit.runtime.store.items.values():
        at = [i for i, (_, type_) in enumerate(item.decl.keys) if type_ == "u16"]
        if at and item.name != "RegisteredSubnetCounter":
            keys = item.current if item.single else {key[at[0]] for key in item.current}
            left += [f"{item.pallet}.{item.name}"] * (netuid in keys)
    assert left == []
    kit.assert_books_balance()
