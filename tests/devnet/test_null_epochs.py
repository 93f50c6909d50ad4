"""Null consensus on the embedded chain: the switch, its payouts to the rao, weights, commits, the schedule, pruning."""

from __future__ import annotations

import numpy as np
import pytest
from subnetkit import ALICE, BOB, RAO, Kit, account

from raytensor.devnet.pallet import DispatchError, Origin
from raytensor.devnet.subtensor.coinbase import Pending
from raytensor.devnet.subtensor.subnet_storage import frozen

HOTKEYS = [account(10 + number) for number in range(4)]


@pytest.fixture
def kit():
    return Kit()


def null_subnet(kit: Kit, stakes: list[int], *, owner: bytes = account(99)) -> int:
    """A Null subnet of four uids with these stakes; the owner's hotkey has none of them, and nothing is pending."""
    netuid = kit.subnet(tempo=500)
    kit.module.SubnetOwnerHotkey[netuid] = owner
    kit.module.trim_neurons(netuid, [])
    for hotkey, stake in zip(HOTKEYS, [*stakes, 0, 0, 0, 0]):
        kit.module.own_hotkey(BOB, hotkey)
        kit.module.append_neuron(netuid, hotkey)
        kit.module.BlockAtRegistration[netuid, kit.module.Uids[netuid, hotkey]] = 0
        kit.module.add_stake_to(hotkey, BOB, netuid, stake)
    kit.admin("epoch_consensus", netuid, "Null")
    kit.module.LastUpdate[netuid] = frozen(np.full(4, 1, np.uint64))
    return netuid


def row(kit: Kit, netuid: int, uid: int, weights: dict[int, int]) -> None:
    kit.module.Weights[netuid, uid] = frozen(np.array(list(weights.items()), np.uint16).reshape(-1, 2))


def paid(kit: Kit, netuid: int, emission: int = 10**6) -> tuple[list[int], list[int]]:
    shares = kit.module.run_epoch(netuid, emission)
    stored = kit.module.Emission[netuid].tolist()
    assert stored == [a + b for a, b in zip(shares.incentive.tolist(), shares.dividend.tolist())]
    return shares.incentive.tolist(), shares.dividend.tolist()


@pytest.mark.parametrize(
    ("stakes", "rows", "server", "validator"),
    [
        ([300 * 10**6, 100 * 10**6], {0: {2: 3, 3: 1}}, [0, 0, 375_000, 125_000], [375_000, 125_000, 0, 0]),  # N1
        ([10**8, 10**8], {0: {2: 1}, 1: {3: 1}}, [0, 0, 500_000, 0], [250_000, 250_000, 0, 0]),  # N2
        ([10**8, 0], {1: {2: 1}}, [125_000] * 4, [500_000, 0, 0, 0]),  # N3
        ([10**9, 10**9 + 1], {0: {2: 1}, 1: {3: 1}}, [0, 0, 0, 500_000], None),  # N4
        ([0, 0], {}, [250_000] * 4, [0, 0, 0, 0]),  # N6
    ],
    ids=["N1", "N2", "N3", "N4", "N6"],
)
def test_one_row_pays(kit, stakes, rows, server, validator):
    netuid = null_subnet(kit, stakes)
    for uid, weights in rows.items():
        row(kit, netuid, uid, weights)
    bonds = frozen(np.array([[3, 7]], np.uint16))
    kit.module.Bonds[netuid, 1] = bonds
    found = paid(kit, netuid)
    assert found[0] == server and (validator is None or found[1] == validator)
    winner = max(range(4), key=lambda uid: ([*stakes, 0, 0][uid], -uid))
    assert kit.module.ValidatorPermit[netuid].tolist() == [uid == winner for uid in range(4)]
    assert not kit.module.Consensus[netuid].any() and not kit.module.ConsensusByMechanism[netuid].any()
    assert dict(kit.module.Bonds.items(netuid)) == {1: bonds}, "bonds are not written"


def test_n5_a_miner_that_is_younger_than_the_row(kit):
    netuid = null_subnet(kit, [10**8])
    row(kit, netuid, 0, {2: 1})
    kit.module.BlockAtRegistration[netuid, 2] = 1
    assert paid(kit, netuid)[0] == [125_000] * 4
    kit.module.BlockAtRegistration[netuid, 2] = 0
    assert paid(kit, netuid)[0] == [0, 0, 500_000, 0]


@pytest.mark.parametrize("emission", [0, 1, 3, 131_071, 2**64 - 1])
def test_n7_every_rao_is_paid(kit, emission):
    netuid = null_subnet(kit, [10**8])
    kit.ok(HOTKEYS[0], "set_weights", netuid, (2, 3), (65534, 1), 0)
    assert kit.module.Weights[netuid, 0].tolist() == [[2, 65534], [3, 1]], "stored as given"
    kit.module.LastUpdate[netuid] = frozen(np.full(4, 9, np.uint64))
    server, validator = paid(kit, netuid, emission)
    assert sum(server) == emission - emission // 2 and sum(validator) == emission // 2


def test_n9_the_permit_is_the_winners(kit):
    netuid = null_subnet(kit, [300 * 10**6, 400 * 10**6], owner=HOTKEYS[0])
    assert kit.module.ValidatorPermit[netuid].tolist() == [False, True, False, False], "given at once"
    assert paid(kit, netuid, 700)[1] == [150, 200, 0, 0]
    assert kit.module.ValidatorPermit[netuid].tolist() == [False, True, False, False]


def test_n10_without_stake_the_miners_get_the_alpha_and_roots_part_is_recycled(kit):
    netuid = null_subnet(kit, [])
    kit.module.SubnetAlphaOut[netuid] = 1000
    before = sum(kit.module.TotalHotkeyAlpha[hotkey, netuid] for hotkey in HOTKEYS)
    kit.module.distribute(netuid, Pending(server=500, validator=200, root=300, owner=0))
    assert sum(kit.module.TotalHotkeyAlpha[hotkey, netuid] for hotkey in HOTKEYS) - before == 700
    assert kit.module.SubnetAlphaOut[netuid] == 700


def test_n11_four_mechanisms_split_each_pot(kit):
    netuid = null_subnet(kit, [10**8])
    kit.root("AdminUtils.sudo_set_max_mechanism_count", 4)
    kit.admin("mechanism_count", netuid, 4)
    row(kit, netuid, 0, {2: 1, 3: 2})
    shares = kit.module.run_epoch(netuid, pots=(501, 200, 300))
    assert shares.incentive.sum() == 501 and shares.dividend.sum() == 500
    assert kit.module.Emission[netuid].sum() == 1001, "a plain sum"
    shares = kit.module.run_epoch(netuid, 1002)
    assert shares.incentive.sum() == 501 and shares.dividend.sum() == 501


def test_n8_2500_uids(kit):
    netuid = null_subnet(kit, [10**8])
    kit.admin("max_allowed_uids", netuid, 2_500)
    kit.refused(
        None, "MaxAllowedUidsGreaterThanDefaultMaxAllowedUids", "AdminUtils.sudo_set_max_allowed_uids", netuid, 2_501
    )
    for number in range(2_496):
        kit.module.append_neuron(netuid, account(5_000 + number))
    kit.module.LastUpdate[netuid] = frozen(np.full(2_500, 10**6, np.uint64))
    row(kit, netuid, 0, {uid: 0 if uid == 100 else 65_535 for uid in range(1, 2_500)})
    for emission in (1, 4_097, 2**63):
        server, _ = paid(kit, netuid, emission)
        pot = emission - emission // 2
        assert sum(server) == pot and server[0] == server[100] == 0
        assert all(amount - pot // 2_498 in (0, 1) for uid, amount in enumerate(server) if uid not in (0, 100))
    kit.refused(None, "InvalidValue", "AdminUtils.sudo_set_epoch_consensus", netuid, "Yuma")


def test_the_switch_and_back(kit):
    netuid = kit.subnet()
    validators = kit.module.MaxAllowedValidators[netuid]
    refused = Origin.signed(BOB), kit.call("AdminUtils.sudo_set_epoch_consensus", netuid, "Null")
    with pytest.raises(DispatchError, match="BadOrigin"):
        kit.runtime.dispatch(*refused)
    kit.refused(None, "NotPermittedOnRootSubnet", "AdminUtils.sudo_set_epoch_consensus", 0, "Null")
    kit.module.AdminFreezeWindow.set(0)
    kit.ok(ALICE, "AdminUtils.sudo_set_epoch_consensus", netuid, "Null")
    assert kit.events("EpochConsensusSet") == [(netuid, "Null")]
    assert kit.module.MaxAllowedValidators[netuid] == 1
    kit.refused(ALICE, "TxRateLimitExceeded", "AdminUtils.sudo_set_epoch_consensus", netuid, "Yuma")
    kit.admin("max_allowed_uids", netuid, 2_000)
    kit.admin("epoch_consensus", netuid, "Yuma")
    assert kit.module.MaxAllowedValidators[netuid] == validators and kit.module.MaxAllowedUids[netuid] == 256
    assert kit.module.SavedYumaMaxAllowedValidators[netuid] is None


def test_without_the_permit_every_weight_call_is_refused_before_its_block(kit):
    netuid = null_subnet(kit, [10**8, 10**7])
    kit.refused(HOTKEYS[1], "NeuronNoValidatorPermit", "set_weights", netuid, (1,), (1,), 0)
    kit.refused(HOTKEYS[1], "NeuronNoValidatorPermit", "commit_weights", netuid, bytes(32))
    kit.module.MaxWeightsLimit[netuid] = 32_768
    kit.refused(HOTKEYS[0], "MaxWeightExceeded", "set_weights", netuid, (2, 3), (3, 1), 0)
    kit.ok(HOTKEYS[0], "set_weights", netuid, (2, 3), (3, 3), 0)
    assert kit.module.Weights[netuid, 0].tolist() == [[2, 3], [3, 3]]


def test_commits_have_a_size_and_one_place_a_hotkey(kit):
    netuid = null_subnet(kit, [10**8])
    kit.admin("commit_reveal_weights_enabled", netuid, True)
    round_ = kit.runtime.Drand.LastStoredRound.get() + 1_000
    commit = lambda size: ("commit_timelocked_weights", netuid, bytes(size), round_, 4)  # noqa: E731
    kit.ok(HOTKEYS[0], *commit(32_768))
    kit.ok(HOTKEYS[0], *commit(7))
    (queue,) = [queue for _, queue in kit.module.TimelockedWeightCommits.items(netuid)]
    assert [(hotkey, len(data)) for hotkey, _, data, _ in queue] == [(HOTKEYS[0], 7)]
    kit.refused(None, "InvalidValue", "AdminUtils.sudo_set_epoch_consensus", netuid, "Yuma")
    kit.module.TimelockedWeightCommits.clear(netuid)
    kit.admin("epoch_consensus", netuid, "Yuma")
    kit.refused(HOTKEYS[0], "CommitPayloadTooLarge", *commit(5_001))
    kit.ok(HOTKEYS[0], *commit(5_000))


def test_a_full_queue_drops_the_least_stake(kit):
    netuid = null_subnet(kit, [4, 3, 2, 3])
    queue = lambda uid, size: kit.module.queue_null_commit(netuid, netuid, 0, (HOTKEYS[uid], 1, bytes(size), 9))  # noqa: E731
    held = lambda: [entry[0] for entry in kit.module.TimelockedWeightCommits[netuid, 0]]  # noqa: E731
    for uid in (2, 1):
        queue(uid, 30_000)
    queue(0, 30_000)
    assert held() == [HOTKEYS[1], HOTKEYS[0]], "uid 2 has the least stake"
    with pytest.raises(DispatchError, match="CommitQueueFull"):
        queue(3, 30_000)  # as much stake as uid 1, a later uid
    queue(3, 5_000)
    assert held() == [HOTKEYS[1], HOTKEYS[0], HOTKEYS[3]]


def test_one_epoch_a_block_when_a_null_subnet_is_due(kit):
    first, second = kit.subnet(hotkey=account(1)), kit.subnet(hotkey=account(2))
    for netuid in (first, second):
        kit.admin("tempo", netuid, 5)
    kit.until(lambda: kit.module.LastEpochBlock[first] == kit.module.LastEpochBlock[second] == kit.runtime.block_number)
    assert kit.module.LastYumaStepBlock[first] == kit.runtime.block_number
    kit.admin("epoch_consensus", second, "Null")
    together = kit.runtime.block_number
    kit.blocks(5)
    assert kit.events("EpochDeferred") == [(second, together + 5, together + 6)]
    kit.blocks()
    assert kit.module.LastEpochBlock[second] == together + 6
    assert (
        kit.module.LastMechansimStepBlock[second] == together + 6 and kit.module.LastYumaStepBlock[second] == together
    )


def test_pruning_in_batches(kit):
    netuid = null_subnet(kit, [10**8, 10**7, 0, 0])
    for number in range(96):
        kit.module.append_neuron(netuid, account(5_000 + number))
    kit.module.MinAllowedUids[netuid] = 4
    kit.module.WeightCommits[netuid, HOTKEYS[0]] = ((bytes(32), 0, 1, 0),)
    emission = np.zeros(100, np.uint64)
    emission[[0, 1, 2, 99]] = 5, 4, 3, 2
    kit.module.Emission[netuid] = frozen(emission)
    row(kit, netuid, 0, {1: 7, 2: 8, 50: 9, 99: 3})
    kit.refused(None, "InvalidValue", "AdminUtils.sudo_trim_null_uids_batch", netuid, 3)
    kit.root("AdminUtils.sudo_trim_null_uids_batch", netuid, 4)
    assert kit.events("NullUidsPruningProgress") == [(netuid, 4, 36, 64, 1)]
    assert kit.module.SubnetworkN[netuid] == 36 and kit.module.NullPruningTarget[netuid] == 4
    assert dict(kit.module.WeightCommits.items(netuid)) == {}
    kit.root("AdminUtils.sudo_trim_null_uids_batch", netuid, 4)
    assert kit.module.SubnetworkN[netuid] == 4 == kit.module.MaxAllowedUids[netuid]
    assert kit.module.NullPruningTarget[netuid] is None
    assert kit.module.hotkeys(netuid) == [*HOTKEYS[:3], account(5_095)]
    assert kit.module.Weights[netuid, 0].tolist() == [[1, 7], [2, 8], [3, 3]]
    kit.admin("epoch_consensus", netuid, "Yuma")
    kit.refused(None, "InvalidValue", "AdminUtils.sudo_trim_null_uids_batch", netuid, 3)


def test_a_whole_tempo_pays_by_the_books(kit):
    """Through blocks: pending pots, takes and nominators, with root stake, to the rao."""
    netuid = null_subnet(kit, [10**11, 10**10])
    kit.module.SubnetMovingPrice[netuid] = 3 << 31
    kit.ok(ALICE, "add_stake", HOTKEYS[1], 0, 50 * RAO)
    row(kit, netuid, 0, {2: 2, 3: 1})
    kit.admin("tempo", netuid, 10)
    held = {hotkey: kit.module.TotalHotkeyAlpha[hotkey, netuid] for hotkey in HOTKEYS}
    kit.blocks(9)
    pots = [getattr(kit.module, name) for name in ("PendingServerEmission", "PendingValidatorEmission")]
    before = [item[netuid] for item in pots]
    kit.blocks()
    created = kit.module.SubnetAlphaOutEmission[netuid]
    gained = {hotkey: kit.module.TotalHotkeyAlpha[hotkey, netuid] - held[hotkey] for hotkey in HOTKEYS}
    server = gained[HOTKEYS[2]] + gained[HOTKEYS[3]]
    assert created > 0 and before[0] * 10 // 9 - server in range(-10, 11)
    assert gained[HOTKEYS[2]] == server * 2 // 3 or gained[HOTKEYS[2]] == server * 2 // 3 + 1
    assert gained[HOTKEYS[0]] > gained[HOTKEYS[1]] > 0
    assert kit.module.RootAlphaDividendsPerSubnet[netuid, HOTKEYS[1]] > 0
