"""Epochs: when they run, and who is paid from them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from subnetkit import ALICE, BOB, CHARLIE, MINERS, OWNER_HOT, RAO, VALIDATORS, Kit, account, epochs, laptop

from raytensor.devnet.subtensor import issuance
from raytensor.devnet.subtensor.epoch import weighted

ONE32 = 1 << 32


@pytest.fixture
def kit():
    kit = Kit()
    kit.netuid = kit.subnet(hotkey=OWNER_HOT)
    return kit


# --- the laptop network


def test_a_small_network_pays_better_miners_more(kit):
    module, netuid = kit.module, laptop(kit)
    epochs(kit, netuid, 3)
    incentive = module.Incentive[netuid].tolist()
    assert incentive[:4] == [0] * 4 and incentive[4:] == sorted(incentive[4:]) and incentive[4] > 0
    stake = [module.TotalHotkeyAlpha[hotkey, netuid] for hotkey in MINERS]
    assert stake == sorted(stake) and stake[0] > 0
    assert all(module.Dividends[netuid][1:4] > 0)
    kit.assert_books_balance()


def test_each_epoch_pays_out_the_tempos_alpha(kit):
    """Owner 18 %, half of the rest to miners, half to validators, to the truncation of a rao per share."""
    module, netuid = kit.module, laptop(kit)
    epochs(kit, netuid, 2)

    def held():
        keys = [OWNER_HOT], MINERS, VALIDATORS
        return [sum(module.TotalHotkeyAlpha[k, netuid] for k in group) for group in keys]

    before = held()
    epochs(kit, netuid)
    owner, miners, validators = (after - then for after, then in zip(held(), before))
    emitted = 10 * issuance.block_emission_rao(module.alpha_issuance(netuid))
    cut = emitted * 11_796 // 65_535
    assert abs(owner - cut) <= 10
    assert abs(miners - (emitted - cut) // 2) < 1_000
    assert abs(validators - (emitted - cut) // 2) < 1_000
    assert abs(sum(module.Emission[netuid].tolist()) - (emitted - cut)) < 1_000


def test_permits_lag_one_epoch(kit):
    module, netuid = kit.module, kit.netuid
    uid = kit.neuron(netuid, BOB, VALIDATORS[0], stake_tao=50)
    kit.neuron(netuid, CHARLIE, MINERS[0])
    kit.refused(VALIDATORS[0], "NeuronNoValidatorPermit", "set_weights", netuid, (2,), (1,), 0)
    # Even weights that are already stored do not count with the permit of the same epoch.
    module.Weights[netuid, uid] = module.Weights[netuid, uid].__class__((1, 2), "uint16", bytearray(b"\x02\0\xff\xff"))
    module.LastUpdate[netuid] = module.LastUpdate[netuid] + 1
    epochs(kit, netuid)
    assert module.ValidatorPermit[netuid][uid] and not module.Incentive[netuid].any()
    epochs(kit, netuid)
    assert module.Incentive[netuid][2] == 65_535


def test_a_reused_uid_inherits_nothing(kit):
    """Weights set toward the old neuron do not pay the new one; weights set after it came do."""
    module, netuid = kit.module, laptop(kit)
    epochs(kit, netuid, 2)
    kit.root("AdminUtils.sudo_set_min_allowed_uids", netuid, 1)
    kit.admin("max_allowed_uids", netuid, 12)
    kit.admin("min_non_immune_uids", netuid, 0)
    kit.admin("immunity_period", netuid, 1)
    kit.blocks(3)
    # uid 1 is spared by its dividends; the least paid miner is uid 4.
    assert kit.neuron(netuid, ALICE, account(90)) in (0, 4)
    uid = module.Uids[netuid, account(90)]
    assert uid == 4 and module.Bonds[netuid, 1][:, 0].tolist().count(4) == 1
    epochs(kit, netuid)
    assert module.Incentive[netuid][4] == 0 and module.Emission[netuid][4] == 0
    assert 4 not in module.Bonds[netuid, 1][:, 0]
    assert module.Incentive[netuid][5] > 0
    kit.blocks(1)
    for hotkey in VALIDATORS:
        kit.ok(hotkey, "set_weights", netuid, tuple(range(4, 12)), tuple(range(1, 9)), 0)
    epochs(kit, netuid)
    assert module.Incentive[netuid][4] > 0


def test_the_owners_own_miners_are_not_paid(kit):
    module, netuid = kit.module, kit.netuid
    kit.neuron(netuid, BOB, VALIDATORS[0], stake_tao=50)
    kit.neuron(netuid, ALICE, MINERS[0])  # Alice owns the subnet
    kit.neuron(netuid, CHARLIE, MINERS[1])
    kit.until(lambda: module.ValidatorPermit[netuid][1])
    kit.ok(VALIDATORS[0], "set_weights", netuid, (2, 3), (3, 1), 0)
    epochs(kit, netuid, 2)
    assert module.Incentive[netuid][2] > module.Incentive[netuid][3] > 0
    assert module.TotalHotkeyAlpha[MINERS[0], netuid] == 0 < module.TotalHotkeyAlpha[MINERS[1], netuid]
    assert abs(module.MinerBurned[netuid] / ONE32 - 0.75) < 1e-3
    kit.admin("subnet_emission_enabled", netuid, False)  # no purchases by the protocol: only epochs move AlphaOut
    kit.root("AdminUtils.sudo_set_recycle_or_burn", netuid, "Recycle")
    out = module.SubnetAlphaOut[netuid]
    epochs(kit, netuid)
    server = (10 * RAO - 10 * RAO * 11_796 // 65_535) // 2
    assert abs(module.SubnetAlphaOut[netuid] - (out + 10 * RAO - server * 3 // 4)) < server // 1_000


def test_an_idle_subnet_pays_validators_everything(kit):
    """Without incentive the miners' half goes to the validators; the weightless dividend is by stake."""
    module, netuid = kit.module, kit.netuid
    kit.neuron(netuid, BOB, VALIDATORS[0], stake_tao=50)
    epochs(kit, netuid, 2)

    def held():
        # The owner's hotkey has stake too, from the owner's cut.
        return module.TotalHotkeyAlpha[VALIDATORS[0], netuid] + module.TotalHotkeyAlpha[OWNER_HOT, netuid]

    before = held()
    epochs(kit, netuid)
    assert abs(held() - before - 10 * RAO) < 1_000
    assert module.TotalHotkeyAlpha[VALIDATORS[0], netuid] > 5 * module.TotalHotkeyAlpha[OWNER_HOT, netuid]


def test_nominators_share_dividends_after_the_take(kit):
    module, netuid = kit.module, laptop(kit)
    hotkey = VALIDATORS[0]
    kit.ok(BOB, "decrease_take", hotkey, 6_553)
    kit.ok(CHARLIE, "add_stake", hotkey, netuid, 50 * RAO)
    epochs(kit, netuid, 2)
    before = {who: module.stake_of(hotkey, who, netuid) for who in (BOB, CHARLIE)}
    total = sum(before.values())
    epochs(kit, netuid)
    gained = {who: module.stake_of(hotkey, who, netuid) - before[who] for who in before}
    dividend = sum(gained.values())
    take = dividend * 6_553 // 65_535
    # The take is staked first and shares in the rest.
    assert abs(gained[CHARLIE] - (dividend - take) * before[CHARLIE] // (total + take)) < 100
    assert abs(gained[BOB] - take - (dividend - take) * (before[BOB] + take) // (total + take)) < 100
    # Stored is what the nominators got; the stakes above include rounding of shares.
    assert abs(module.AlphaDividendsPerSubnet[netuid, hotkey] - (dividend - take)) < 100


def test_incentive_follows_auto_stake(kit):
    module, netuid = kit.module, laptop(kit)
    kit.refused(CHARLIE, "HotKeyNotRegisteredInSubNet", "set_coldkey_auto_stake_hotkey", netuid, account(99))
    kit.ok(CHARLIE, "set_coldkey_auto_stake_hotkey", netuid, VALIDATORS[2])
    kit.refused(CHARLIE, "SameAutoStakeHotkeyAlreadySet", "set_coldkey_auto_stake_hotkey", netuid, VALIDATORS[2])
    epochs(kit, netuid, 2)
    assert all(module.TotalHotkeyAlpha[hotkey, netuid] == 0 for hotkey in MINERS)
    assert module.stake_of(VALIDATORS[2], CHARLIE, netuid) > 0


# --- schedule


def test_epochs_run_every_tempo_blocks(kit):
    module, netuid = kit.module, kit.netuid
    fired = []
    for _ in range(35):
        kit.blocks(1)
        if module.LastEpochBlock[netuid] == kit.runtime.block_number:
            fired.append(kit.runtime.block_number)
            assert module.LastMechansimStepBlock[netuid] == kit.runtime.block_number
            assert module.BlocksSinceLastStep[netuid] == 0
    assert len(fired) == 3 and fired[1] - fired[0] == fired[2] - fired[1] == 10
    assert module.next_epoch_start(netuid) == fired[-1] + 10


def test_only_so_many_epochs_a_block_the_others_wait(kit):
    module = kit.module
    netuids = [kit.netuid, kit.subnet(BOB, account(50)), kit.subnet(BOB, account(51))]
    for netuid in netuids:
        kit.admin("tempo", netuid, 20)
    kit.admin("tempo", 1, 0)
    kit.until(lambda: module.LastEpochBlock[netuids[0]] == kit.runtime.block_number)
    block = kit.runtime.block_number
    assert [module.LastEpochBlock[n] == block for n in netuids] == [True, True, False]
    assert kit.events("EpochDeferred") == [(netuids[2], block, block + 1)]
    assert module.PendingEpochAt[netuids[2]] == block + 1
    kit.blocks(1)
    assert module.LastEpochBlock[netuids[2]] == block + 1 and module.PendingEpochAt[netuids[2]] == 0
    kit.admin("max_epochs_per_block", 3)
    kit.blocks(25)
    assert not kit.events("EpochDeferred")


def test_an_inconsistent_subnet_is_skipped_and_keeps_its_pending(kit):
    module, netuid = kit.module, kit.netuid
    kit.neuron(netuid, BOB, VALIDATORS[0])
    module.Keys[netuid, 1] = OWNER_HOT
    kit.until(lambda: bool(kit.events("EpochSkipped")))
    assert module.LastEpochBlock[netuid] == kit.runtime.block_number and module.PendingServerEmission[netuid] > 0


def test_owner_triggers_an_epoch_and_sets_the_tempo(kit):
    module, netuid = kit.module, kit.netuid
    kit.refused(ALICE, "TempoOutOfBounds", "set_tempo", netuid, 359)
    kit.refused(BOB, "BadOrigin", "set_tempo", netuid, 400)
    kit.blocks(1)
    kit.refused(ALICE, "AdminActionProhibitedDuringWeightsWindow", "set_tempo", netuid, 400)
    kit.admin("tempo", netuid, 100)
    kit.ok(ALICE, "set_tempo", netuid, 400)
    assert module.Tempo[netuid] == 400 and module.LastEpochBlock[netuid] == kit.runtime.block_number
    kit.refused(ALICE, "TxRateLimitExceeded", "set_tempo", netuid, 401)
    kit.ok(ALICE, "trigger_epoch", netuid)
    start = kit.runtime.block_number
    kit.refused(ALICE, "EpochTriggerAlreadyPending", "trigger_epoch", netuid)
    kit.refused(ALICE, "AdminActionProhibitedDuringWeightsWindow", "AdminUtils.sudo_set_kappa", netuid, 1)
    assert kit.until(lambda: module.LastEpochBlock[netuid] == kit.runtime.block_number) == 10
    assert module.LastEpochBlock[netuid] == start + 10
    kit.admin("commit_reveal_weights_enabled", netuid, True)
    kit.refused(ALICE, "DynamicTempoBlockedByCommitReveal", "trigger_epoch", netuid)
    kit.admin("commit_reveal_weights_enabled", netuid, False)
    kit.admin("tempo", netuid, 5)
    kit.refused(ALICE, "AutoEpochAlreadyImminent", "trigger_epoch", netuid)
    kit.refused(ALICE, "ActivityCutoffFactorMilliOutOfBounds", "set_activity_cutoff_factor", netuid, 999)


def test_a_validator_that_fell_silent_no_longer_counts(kit):
    module, netuid = kit.module, laptop(kit)
    kit.root("set_activity_cutoff_factor", netuid, 2_000)  # 20 blocks
    epochs(kit, netuid, 1)
    assert module.Active[netuid][1:4].all()
    epochs(kit, netuid, 3)
    assert not module.Active[netuid][1:4].any() and not module.Incentive[netuid].any()


# --- consensus


def chain_of(implementation: str, *, yuma3: bool, liquid_alpha: bool) -> dict[bytes, bytes]:
    """The whole state of a chain after epochs over random weights, epochs computed one way."""
    kit = Kit()
    kit.runtime.epoch_implementation = implementation
    kit.netuid = kit.subnet(hotkey=OWNER_HOT)
    netuid = laptop(kit)
    module, draw = kit.module, random.Random(7)
    module.Yuma3On[netuid], module.LiquidAlphaOn[netuid] = yuma3, liquid_alpha
    for _ in range(5):
        uids = list(range(module.SubnetworkN[netuid]))
        for validator in VALIDATORS:
            row = draw.sample(uids, 5)
            kit.ok(validator, "set_weights", netuid, tuple(row), tuple(draw.randrange(1, 65536) for _ in row), 0)
        epochs(kit, netuid, 1)
    assert sum(module.Incentive[netuid]) > 0 and sum(module.Dividends[netuid]) > 0
    store = kit.runtime.store
    return {raw: store.read_raw(raw) for raw in store.raw_keys(b"", None, None)}


@pytest.mark.parametrize("yuma3, liquid_alpha", [(False, False), (True, False), (True, True)])
def test_blocks_are_the_same_to_the_bit_with_the_fast_consensus_and_the_reference(yuma3, liquid_alpha):
    fast = chain_of("fast", yuma3=yuma3, liquid_alpha=liquid_alpha)
    assert fast == chain_of("reference", yuma3=yuma3, liquid_alpha=liquid_alpha)


# --- several mechanisms as one


def test_terms_of_mechanisms_are_weighted_by_emission_and_truncated_one_by_one():
    first, second = np.array([65_535, 3, 0], np.uint16), np.array([65_535, 3, 9], np.uint16)
    assert weighted([first, second], [50, 50]).tolist() == [65_534, 2, 4], "each half loses its fraction"
    assert weighted([first, second], [0, 0]).tolist() == first.tolist(), "without emission the first counts alone"
    assert weighted([first, second], [25, 75]).tolist() == [16_383 + 49_151, 0 + 2, 6]
    emission = [np.array([1_000], np.uint64), np.array([400], np.uint64)]
    assert weighted(emission, [750, 250]).tolist() == [750 + 100]


def test_two_mechanisms_are_stored_as_the_chain_aggregates_them(kit):
    netuid = kit.netuid
    laptop(kit)
    kit.admin("max_allowed_uids", netuid, 100)
    kit.admin("mechanism_count", netuid, 2)
    kit.admin("mechanism_emission_split", netuid, (49_151, 16_384))
    for hotkey in VALIDATORS:
        kit.ok(hotkey, "set_mechanism_weights", netuid, 1, (4,), (1,), 0)
    module = kit.module
    seen = {}
    original = module._store_subnet

    def watch(subnet, outputs, parts):
        seen.update(outputs=outputs, parts=parts)
        original(subnet, outputs, parts)

    module._store_subnet = watch
    epochs(kit, netuid)
    (a, b), (part_a, part_b) = seen["outputs"], seen["parts"]
    total = part_a + part_b
    weight_a, weight_b = (part_a << 64) // total, (part_b << 64) // total
    assert part_b == total * 16_384 // 65_535 > 0

    def acc(x, y):
        return (int(x) * weight_a >> 64) + (int(y) * weight_b >> 64)

    uid = 4
    assert module.Consensus[netuid][uid] == acc(a.consensus[uid], b.consensus[uid])
    assert module.Emission[netuid][uid] == acc(a.emission[uid], b.emission[uid]) > 0
    assert module.StakeWeight[netuid][1] == acc(a.stake_weight[1], b.stake_weight[1])
    assert module.Dividends[netuid][1] == acc(a.dividends[1], b.dividends[1])
    assert module.Active[netuid].tolist() == (a.active | b.active).tolist()
    assert module.Incentive[netuid + 4096][uid] == b.incentive[uid] == 65_535
