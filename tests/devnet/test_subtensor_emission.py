"""Emission: minted TAO, its split over subnets, root claims, mechanisms; the coinbase's published vectors."""

from __future__ import annotations

import pytest
from subnetkit import ALICE, BOB, CHARLIE, OWNER_HOT, RAO, VALIDATORS, Kit, account, epochs, laptop

from raytensor.devnet.subtensor import issuance

ONE32, U64_MAX = 1 << 32, 2**64 - 1


@pytest.fixture
def kit():
    kit = Kit()
    kit.netuid = kit.subnet(hotkey=OWNER_HOT)
    return kit


def test_minted_tao_follows_the_schedule(kit):
    """An account of the emission kept apart from the pallet: one block_emission(issuance) a block."""
    netuid = laptop(kit)
    minted, start = kit.module.TotalMinted.get(), kit.runtime.block_number
    expected = 0
    for _ in range(60):
        expected += issuance.block_emission_rao(kit.module.TotalIssuance.get())
        kit.blocks(1)
    assert kit.module.TotalMinted.get() - minted == expected == (kit.runtime.block_number - start) * RAO
    assert kit.module.SubnetTAO[netuid] > 1_000 * RAO
    kit.assert_books_balance()


def test_without_enabled_subnets_the_emission_is_recycled(kit):
    kit.admin("subnet_emission_enabled", kit.netuid, False)
    kit.blocks(20)
    issued, out = kit.module.TotalIssuance.get(), kit.module.SubnetAlphaOut[kit.netuid]
    kit.blocks(10)
    assert kit.module.TotalIssuance.get() == issued
    assert kit.module.SubnetAlphaOut[kit.netuid] > out, "alpha is emitted all the same"


def test_tao_goes_by_moving_price(kit):
    """coinbase.rs, test_coinbase_tao_issuance_different_prices: prices 0.1 and 0.2 share 1 to 2."""
    module = kit.module
    second = kit.subnet(BOB, account(50))
    module.SubnetMovingPrice[kit.netuid], module.SubnetMovingPrice[second] = ONE32 // 10, ONE32 // 5
    module.EmissionGateBar.set(1)  # far below both: the gate passes all of it
    shares = module.tao_emissions32([kit.netuid, second], RAO)
    assert abs(shares[kit.netuid] / ONE32 - RAO / 3) < 2 and abs(shares[second] / ONE32 - 2 * RAO / 3) < 2
    kit.admin("subnet_emission_enabled", second, False)
    shares = module.tao_emissions32([kit.netuid, second], RAO)
    assert shares[second] == 0 and RAO - 1 <= shares[kit.netuid] / ONE32 <= RAO
    kit.admin("subnet_emission_enabled", second, True)
    module.MinerBurned[kit.netuid] = ONE32
    assert module.tao_emissions32([kit.netuid, second], RAO)[kit.netuid] == 0


def test_moving_price_vectors(kit):
    """coinbase.rs: test_coinbase_moving_prices, test_update_moving_price_after_time(_initial); the price is 1."""
    module, netuid = kit.module, kit.netuid
    module.SubnetAlphaIn[netuid] = module.SubnetTAO[netuid]

    def updated(alpha: float, block: int, first: int, times: int) -> float:
        module.SubnetMovingAlpha.set(int(alpha * ONE32))
        module.FirstEmissionBlockNumber[netuid] = first
        module.SubnetMovingPrice[netuid] = 0
        kit.runtime.block_number = block
        for _ in range(times):
            module.update_moving_price(netuid)
        return module.SubnetMovingPrice[netuid] / ONE32

    assert abs(updated(0.1, 7_200 * 28, 1, 14) - 0.512325) < 0.001
    assert abs(updated(0.5, 144_000_000 + 1, 1, 1) - 0.5) < 0.001
    assert updated(0.5, 11, 1, 1) < 0.001


def test_pending_emission_vector(kit):
    """coinbase.rs, test_pending_emission: a quarter of the validators' half is root's."""
    module, netuid = kit.module, kit.netuid
    module.TaoWeight.set(U64_MAX)
    module.SubnetTAO[0] = RAO
    module.SubnetAlphaIn[netuid] = 2 * RAO
    module.SubnetAlphaOut[netuid] = 0
    module.SubnetAlphaOutEmission[netuid] = RAO
    module.SubnetOwnerCut.set(0)
    for item in (module.PendingServerEmission, module.PendingValidatorEmission, module.PendingRootAlphaDivs):
        item[netuid] = 0
    module._emit_alpha(netuid, root_sells=True)
    assert abs(module.PendingServerEmission[netuid] - 500_000_000) <= 1
    assert abs(module.PendingValidatorEmission[netuid] - 375_000_000) <= 1
    assert abs(module.PendingRootAlphaDivs[netuid] - 125_000_000) <= 1


def test_dividends_hand_out_the_whole_pot(kit):
    """coinbase.rs, test_calculate_dividend_distribution_total: nothing is lost but truncation."""
    module, netuid = kit.module, laptop(kit)
    kit.ok(BOB, "add_stake", VALIDATORS[1], 0, 500 * RAO)
    dividends = {hotkey: 10**9 * (i + 1) for i, hotkey in enumerate(VALIDATORS)}
    local, root = module.split_dividends(netuid, dividends, 10**12, 10**11)
    assert 10**12 - 1_000 <= sum(local.values()) >> 32 <= 10**12
    assert 10**11 - 1_000 <= sum(root.values()) >> 32 <= 10**11
    assert root[VALIDATORS[0]] == 0 < root[VALIDATORS[1]]


def test_root_dividends_are_claimed_once_by_those_who_earned_them(kit):
    module, netuid = kit.module, laptop(kit)
    hotkey = VALIDATORS[0]
    kit.ok(BOB, "add_stake", hotkey, 0, 1_000 * RAO)
    kit.ok(CHARLIE, "add_stake", hotkey, 0, 3_000 * RAO)
    module.SubnetMovingPrice[netuid] = 2 * ONE32  # root sells
    epochs(kit, netuid, 3)
    earned = module.owed_root_alpha(hotkey, CHARLIE, netuid)
    assert earned > 500_000
    assert abs(earned - 3 * module.owed_root_alpha(hotkey, BOB, netuid)) < 10
    kit.ok(ALICE, "add_stake", hotkey, 0, 1_000 * RAO)
    assert module.owed_root_alpha(hotkey, ALICE, netuid) == 0, "nobody claims for a time without stake"
    root, paid = module.stake_of(hotkey, CHARLIE, 0), module.quote_sell(netuid, earned).out
    assert paid > 0
    kit.ok(CHARLIE, "claim_root_with_hotkey", hotkey)  # sold for TAO, staked on root
    assert abs(module.stake_of(hotkey, CHARLIE, 0) - root - paid) <= 1
    assert kit.events("RootClaimed") == [(CHARLIE, paid)]
    kit.ok(CHARLIE, "claim_root", (77,))  # whatever subnets it names
    assert (
        abs(module.stake_of(hotkey, CHARLIE, 0) - root - paid) <= 1
        and module.owed_root_alpha(hotkey, CHARLIE, netuid) == 0
    )
    kit.refused(CHARLIE, "HotKeyAccountNotExists", "claim_root_with_hotkey", account(77_777))
    root = module.stake_of(hotkey, BOB, 0)
    kit.ok(BOB, "claim_root", ())
    assert module.stake_of(hotkey, BOB, 0) > root
    kit.assert_books_balance()


# --- mechanisms


def test_two_mechanisms_share_the_emission_and_keep_their_weights_apart(kit):
    module, netuid = kit.module, laptop(kit)
    kit.root("AdminUtils.sudo_set_min_allowed_uids", netuid, 1)
    kit.admin("max_allowed_uids", netuid, 64)
    kit.root("AdminUtils.sudo_set_mechanism_count", netuid, 2)
    kit.root("AdminUtils.sudo_set_mechanism_emission_split", netuid, (16_384, 49_151))
    for hotkey in VALIDATORS:
        kit.ok(hotkey, "set_mechanism_weights", netuid, 0, (4,), (1,), 0)
        kit.ok(hotkey, "set_mechanism_weights", netuid, 1, (5,), (1,), 0)
    epochs(kit, netuid, 2)
    second = 4_096 + netuid
    assert module.Incentive[netuid][4] == 65_535 == module.Incentive[second][5]
    emission = module.Emission[netuid]
    # Each mechanism's emission is in proportion to its part, and weighted by that part once more.
    assert abs(int(emission[5]) - 9 * int(emission[4])) < emission[4] // 100
    kit.root("AdminUtils.sudo_set_mechanism_count", netuid, 1)
    assert not list(module.Weights.keys(second)) and len(module.Incentive[second]) == 0
