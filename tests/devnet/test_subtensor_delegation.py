"""Takes, child hotkeys, identities, commitments and the owner's hyper-parameters."""

from __future__ import annotations

import pytest
from subnetkit import ALICE, BOB, CHARLIE, RAO, Kit, account

from raytensor.devnet.pallets.commitments import CommitmentInfo

U64_MAX = 2**64 - 1
OWNER_HOT, PARENT, CHILD, MINER = account(1), account(2), account(3), account(4)


@pytest.fixture
def kit():
    kit = Kit()
    kit.netuid = netuid = kit.subnet(hotkey=OWNER_HOT)
    kit.neuron(netuid, BOB, PARENT, stake_tao=100)
    kit.neuron(netuid, CHARLIE, CHILD)
    kit.neuron(netuid, CHARLIE, MINER)
    return kit


def test_takes_rise_rarely_and_fall_freely(kit):
    kit.ok(BOB, "decrease_take", PARENT, 5_000)
    kit.ok(BOB, "increase_take", PARENT, 6_000)
    assert kit.module.Delegates[PARENT] == 6_000 and kit.events("TakeIncreased") == [(BOB, PARENT, 6_000)]
    kit.refused(BOB, "DelegateTxRateLimitExceeded", "increase_take", PARENT, 7_000)
    kit.root("AdminUtils.sudo_set_tx_delegate_take_rate_limit", 0)
    kit.ok(BOB, "increase_take", PARENT, 11_796)
    kit.refused(BOB, "DelegateTakeTooHigh", "increase_take", PARENT, 11_797)
    kit.refused(ALICE, "NonAssociatedColdKey", "decrease_take", PARENT, 1)


def test_child_take_has_bounds_and_a_clock(kit):
    kit.refused(CHARLIE, "InvalidChildkeyTake", "set_childkey_take", CHILD, kit.netuid, 11_797)
    kit.refused(BOB, "NonAssociatedColdKey", "set_childkey_take", CHILD, kit.netuid, 1)
    kit.ok(CHARLIE, "set_childkey_take", CHILD, kit.netuid, 5_000)
    kit.refused(CHARLIE, "TxChildkeyTakeRateLimitExceeded", "set_childkey_take", CHILD, kit.netuid, 6_000)
    kit.ok(CHARLIE, "set_childkey_take", CHILD, kit.netuid, 100)


@pytest.mark.parametrize(
    "error, children",
    [
        ("TooManyChildren", [(1, account(50 + i)) for i in range(6)]),
        ("InvalidChild", [(1, PARENT)]),
        ("DuplicateChild", [(1, CHILD), (2, CHILD)]),
        ("ProportionOverflow", [(U64_MAX, CHILD), (1, MINER)]),
    ],
)
def test_children_are_refused(kit, error, children):
    kit.refused(BOB, error, "set_children", PARENT, kit.netuid, tuple(children))


def test_children_need_the_owner_a_subnet_and_stake(kit):
    one = ((1, CHILD),)
    kit.refused(ALICE, "NonAssociatedColdKey", "set_children", PARENT, kit.netuid, one)
    kit.refused(BOB, "RegistrationNotPermittedOnRootSubnet", "set_children", PARENT, 0, one)
    kit.refused(BOB, "SubnetNotExists", "set_children", PARENT, 77, one)
    kit.admin("stake_threshold", 10**6 * RAO)
    kit.refused(BOB, "NotEnoughStakeToSetChildkeys", "set_children", PARENT, kit.netuid, one)


def with_child(kit, proportion=U64_MAX // 2):
    kit.module.PendingChildKeyCooldown.set(3)
    kit.ok(BOB, "set_children", PARENT, kit.netuid, ((proportion, CHILD),))
    assert not kit.module.ChildKeys[PARENT, kit.netuid]
    kit.until(lambda: bool(kit.module.ChildKeys[PARENT, kit.netuid]))
    assert kit.module.LastEpochBlock[kit.netuid] == kit.runtime.block_number, "children come with an epoch"


def test_a_child_uses_its_parents_stake(kit):
    module, netuid = kit.module, kit.netuid
    alpha = module.TotalHotkeyAlpha[PARENT, netuid]
    with_child(kit)
    alpha = module.TotalHotkeyAlpha[PARENT, netuid]
    assert module.ParentKeys[CHILD, netuid] == ((U64_MAX // 2, PARENT),)
    assert abs(module.total_stake_weight(CHILD, netuid) - alpha // 2) < alpha // 10**6
    assert abs(module.total_stake_weight(PARENT, netuid) - alpha // 2) < alpha // 10**6
    kit.refused(BOB, "TxRateLimitExceeded", "set_children", PARENT, netuid, ())
    kit.refused(CHARLIE, "ChildParentInconsistency", "set_children", CHILD, netuid, ((1, PARENT),))


def test_a_parent_earns_through_its_child_less_the_childs_take(kit):
    module, netuid = kit.module, kit.netuid
    kit.ok(CHARLIE, "set_childkey_take", CHILD, netuid, 6_553)  # 10 %
    with_child(kit, U64_MAX)
    assert module.split_with_parents(MINER, netuid, 1_000) == [(MINER, 1_000)]
    parts = dict(module.split_with_parents(CHILD, netuid, 10**9))
    assert abs(parts[PARENT] - 9 * 10**8) < 10**5 and abs(parts[CHILD] - 10**8) < 10**5
    assert sum(parts.values()) <= 10**9
    kit.until(lambda: module.ValidatorPermit[netuid][2])
    kit.ok(CHILD, "set_weights", netuid, (3,), (1,), 0)
    # The owner's hotkey holds stake too; without its vote only the child's counts.
    before = module.TotalHotkeyAlpha[PARENT, netuid]
    epoch = module.SubnetEpochIndex[netuid]
    kit.until(lambda: module.SubnetEpochIndex[netuid] == epoch + 2)
    assert module.TotalHotkeyAlpha[PARENT, netuid] > before + RAO
    assert module.TotalHotkeyAlpha[CHILD, netuid] > 0


def test_an_identity_needs_a_registered_hotkey(kit):
    fields = (b"name", b"url", b"", b"", b"", b"", b"")
    kit.refused(ALICE, "InvalidIdentity", "set_identity", b"x" * 257, *fields[1:])
    kit.ok(BOB, "set_identity", *fields)
    assert kit.module.IdentitiesV2[BOB].name == b"name"
    kit.runtime.Balances.deposit(account(77), RAO)
    kit.refused(account(77), "HotKeyNotRegisteredInNetwork", "set_identity", *fields)


@pytest.mark.parametrize(
    "error, ip, port, ip_type",
    [
        ("InvalidIpType", 16_909_060, 1, 5),
        ("InvalidIpAddress", 0x7F000001, 1, 4),
        ("InvalidIpAddress", 2**32 - 1, 1, 4),
        ("InvalidIpAddress", 1, 1, 6),
        ("InvalidIpAddress", 2**128 - 1, 1, 6),
        ("InvalidPort", 16_909_060, 0, 4),
    ],
)
def test_endpoints_are_refused(kit, error, ip, port, ip_type):
    kit.refused(MINER, error, "serve_axon", kit.netuid, 1, ip, port, ip_type, 0, 0, 0)


def test_endpoints_are_served_and_rate_limited(kit):
    ten = 10 * 2**24 + 1  # 10.0.0.1: private addresses are allowed
    kit.ok(MINER, "serve_axon_tls", kit.netuid, 7, ten, 9_000, 4, 1, 2, 3, b"\x01" + b"k" * 32)
    assert kit.module.Axons[kit.netuid, MINER] == (kit.runtime.block_number, 7, ten, 9_000, 4, 1, 2, 3)
    assert kit.module.NeuronCertificates[kit.netuid, MINER] == (b"k" * 32, 1)
    kit.refused(MINER, "ServingRateLimitExceeded", "serve_axon", kit.netuid, 7, ten, 9_000, 4, 0, 0, 0)
    kit.refused(MINER, "HotKeyNotRegisteredInNetwork", "serve_axon", 1, 7, ten, 9_000, 4, 0, 0, 0)
    kit.refused(MINER, "InvalidIpAddress", "serve_prometheus", kit.netuid, 7, 0, 9_000, 4)
    kit.ok(MINER, "serve_prometheus", kit.netuid, 7, ten, 9_001, 4)
    kit.blocks(50)
    kit.ok(MINER, "serve_axon", kit.netuid, 8, 0, 9_000, 4, 0, 0, 0)


# --- commitments


def commitment(*fields) -> CommitmentInfo:
    return CommitmentInfo(tuple(fields))


def test_commitments_are_kept_and_their_space_counted(kit):
    netuid, commitments = kit.netuid, kit.runtime.Commitments
    raw = ("Raw5", b"hello")
    kit.refused(account(9), "HotKeyNotRegisteredInSubNet", "Commitments.set_commitment", netuid, commitment(raw))
    kit.ok(MINER, "Commitments.set_commitment", netuid, commitment(raw))
    assert commitments.CommitmentOf[netuid, MINER].info.fields == (raw,)
    for _ in range(30):
        kit.ok(MINER, "Commitments.set_commitment", netuid, commitment(raw))
    kit.refused(MINER, "SpaceLimitExceeded", "Commitments.set_commitment", netuid, commitment(raw))
    epoch = kit.module.SubnetEpochIndex[netuid]
    kit.until(lambda: kit.module.SubnetEpochIndex[netuid] > epoch)
    kit.ok(MINER, "Commitments.set_commitment", netuid, commitment(("BigRaw", b"x" * 512)))


def test_a_miner_resets_the_bonds_toward_it(kit):
    module, netuid = kit.module, kit.netuid
    kit.until(lambda: module.ValidatorPermit[netuid][1])
    kit.ok(PARENT, "set_weights", netuid, (2, 3), (1, 1), 0)
    epoch = module.SubnetEpochIndex[netuid]
    kit.until(lambda: module.SubnetEpochIndex[netuid] == epoch + 1)
    assert module.Bonds[netuid, 1][:, 0].tolist() == [2, 3]
    kit.ok(MINER, "Commitments.set_commitment", netuid, commitment("ResetBondsFlag"))
    assert module.Bonds[netuid, 1][:, 0].tolist() == [2, 3], "the subnet has to allow it"
    kit.admin("bonds_reset_enabled", netuid, True)
    kit.ok(MINER, "Commitments.set_commitment", netuid, commitment("ResetBondsFlag"))
    assert module.Bonds[netuid, 1][:, 0].tolist() == [2]


# --- hyper-parameters


def test_owner_sets_once_in_two_tempos_root_as_it_likes(kit):
    module, netuid = kit.module, kit.netuid
    kit.admin("tempo", netuid, 100)
    kit.ok(ALICE, "AdminUtils.sudo_set_kappa", netuid, 40_000)
    assert module.Kappa[netuid] == 40_000 and kit.events("KappaSet")[-1] == (netuid, 40_000)
    kit.refused(ALICE, "TxRateLimitExceeded", "AdminUtils.sudo_set_kappa", netuid, 1)
    kit.ok(ALICE, "AdminUtils.sudo_set_rho", netuid, 5)
    kit.admin("kappa", netuid, 2)
    kit.admin("kappa", netuid, 3)
    kit.refused(BOB, "BadOrigin", "AdminUtils.sudo_set_kappa", netuid, 1)
    kit.refused(ALICE, "BadOrigin", "AdminUtils.sudo_set_weights_set_rate_limit", netuid, 1)
    kit.refused(ALICE, "BadOrigin", "AdminUtils.sudo_set_network_rate_limit", 1)
    kit.blocks(95)
    kit.refused(ALICE, "AdminActionProhibitedDuringWeightsWindow", "AdminUtils.sudo_set_bonds_penalty", netuid, 1)
    kit.blocks(110)
    kit.ok(ALICE, "AdminUtils.sudo_set_kappa", netuid, 4)


@pytest.mark.parametrize(
    "error, name, args",
    [
        ("SubnetDoesNotExist", "kappa", (77, 1)),
        ("MaxValidatorsLargerThanMaxUIds", "max_allowed_validators", (2, 257)),
        ("MaxAllowedUidsLessThanMinAllowedUids", "max_allowed_uids", (2, 63)),
        ("MaxAllowedUidsGreaterThanDefaultMaxAllowedUids", "max_allowed_uids", (2, 4_097)),
        ("ActivityCutoffTooLow", "activity_cutoff", (2, 359)),
        ("ValueNotInBounds", "min_burn", (2, 100 * RAO)),
        ("ValueNotInBounds", "max_burn", (2, 1)),
        ("LiquidAlphaDisabled", "alpha_values", (2, 2_000, 3_000)),
        ("RevealPeriodTooLarge", "commit_reveal_weights_interval", (2, 101)),
        ("RevealPeriodTooSmall", "commit_reveal_weights_interval", (2, 0)),
        ("InvalidValue", "mechanism_count", (2, 3)),
        ("TooManyUIDsPerMechanism", "mechanism_count", (2, 2)),
        ("InvalidValue", "mechanism_emission_split", (2, (1, 2))),
        ("InvalidValue", "max_epochs_per_block", (0,)),
    ],
)
def test_values_out_of_bounds_are_refused(kit, error, name, args):
    kit.refused(None, error, f"AdminUtils.sudo_set_{name}", *args)


def test_liquid_alpha_values_have_their_order(kit):
    netuid = kit.netuid
    kit.admin("liquid_alpha_enabled", netuid, True)
    kit.refused(None, "AlphaHighTooLow", "AdminUtils.sudo_set_alpha_values", netuid, 1_637, 1_637)
    kit.refused(None, "AlphaLowOutOfRange", "AdminUtils.sudo_set_alpha_values", netuid, 1_637, 2_000)
    kit.refused(None, "AlphaLowOutOfRange", "AdminUtils.sudo_set_alpha_values", netuid, 3_000, 2_000)
    kit.admin("alpha_values", netuid, 2_000, 3_000)
    assert kit.module.AlphaValues[netuid] == (2_000, 3_000)


def test_trimming_keeps_those_who_earn(kit):
    module, netuid = kit.module, kit.netuid
    for i in range(6):
        kit.neuron(netuid, BOB, account(60 + i))
    kit.root("AdminUtils.sudo_set_min_allowed_uids", netuid, 2)
    kit.admin("immunity_period", netuid, 1)
    kit.until(lambda: module.ValidatorPermit[netuid][1])
    kit.ok(PARENT, "set_weights", netuid, (3, 8, 5), (1, 2, 3), 0)
    epoch = module.SubnetEpochIndex[netuid]
    kit.until(lambda: module.SubnetEpochIndex[netuid] == epoch + 1)
    kit.root("AdminUtils.sudo_trim_to_max_allowed_uids", netuid, 5)
    assert module.hotkeys(netuid) == [OWNER_HOT, PARENT, MINER, account(61), account(64)]
    assert [tuple(e) for e in module.Weights[netuid, 1].tolist()] == [(2, 21_845), (4, 43_690), (3, 65_535)]
    assert module.Uids[netuid, account(64)] == 4 and module.Uids[netuid, CHILD] is None
    assert len(module.Emission[netuid]) == len(module.LastUpdate[netuid]) == module.SubnetworkN[netuid] == 5
    kit.blocks(15)
    kit.assert_books_balance()


def test_root_validators_lend_their_stake_on_a_new_subnet_to_its_owner(kit):
    module, root_key, reserved_key = kit.module, account(40), account(41)
    for hotkey in (root_key, reserved_key):
        kit.ok(BOB, "try_associate_hotkey", hotkey)
        kit.ok(BOB, "add_stake", hotkey, 0, 10 * RAO)
        kit.ok(BOB, "root_register", hotkey)
        kit.blocks()
    kit.refused(CHARLIE, "NonAssociatedColdKey", "set_auto_parent_delegation_enabled", reserved_key, False)
    kit.ok(BOB, "set_auto_parent_delegation_enabled", reserved_key, False)
    assert kit.events("AutoParentDelegationEnabledSet") == [(reserved_key, False)]
    netuid = kit.subnet(CHARLIE, account(42))
    assert module.ChildKeys[root_key, netuid] == ((U64_MAX, account(42)),)
    assert module.ParentKeys[account(42), netuid] == ((U64_MAX, root_key),)
    assert not module.ChildKeys[reserved_key, netuid]
    _, tao = module.stake_parts(netuid, [account(42), root_key])
    assert tao == [10 * RAO, 0]
    kit.ok(BOB, "swap_hotkey", root_key, account(43), None)
    assert module.ParentKeys[account(42), netuid] == ((U64_MAX, account(43)),)
    assert module.ChildKeys[account(43), netuid] == ((U64_MAX, account(42)),)
