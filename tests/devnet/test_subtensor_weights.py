"""Setting weights: every check in its order, batches, commit and reveal, and what is refused before a block."""

from __future__ import annotations

import numpy as np
import pytest
from subnetkit import ALICE, BOB, RAO, Kit, account

from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import DispatchError, Origin
from raytensor.devnet.subtensor.errors import BAD_REQUEST

OWNER_HOT, VALIDATOR, MINER = account(1), account(2), account(3)
SALT = (1, 2, 3, 4)


@pytest.fixture
def kit():
    kit = Kit()
    kit.netuid = netuid = kit.subnet(hotkey=OWNER_HOT)
    kit.neuron(netuid, BOB, VALIDATOR, stake_tao=100)
    kit.neuron(netuid, BOB, MINER)
    kit.until(lambda: kit.module.ValidatorPermit[netuid][1])
    return kit


def row(kit, netuid, uid=1):
    return [tuple(entry) for entry in kit.module.Weights[netuid, uid].tolist()]


def test_weights_are_stored_as_submitted_upscaled_with_zeros_kept(kit):
    kit.ok(VALIDATOR, "set_weights", kit.netuid, (2, 0, 1), (1, 0, 2), 0)
    assert row(kit, kit.netuid) == [(2, 32_768), (0, 0), (1, 65_535)]
    assert kit.module.LastUpdate[kit.netuid][1] == kit.runtime.block_number
    assert kit.events("WeightsSet")[-1] == (kit.netuid, 1)


def test_every_check_of_set_weights(kit):
    netuid = kit.netuid
    kit.refused(VALIDATOR, "CommitRevealEnabled", "set_weights", 1, (0,), (1,), 0)
    kit.module.CommitRevealWeightsEnabled[0] = False
    kit.module.Uids[0, VALIDATOR], kit.module.LastUpdate[0] = 0, np.zeros(1, np.uint64)
    kit.refused(VALIDATOR, "CanNotSetRootNetworkWeights", "set_weights", 0, (0,), (1,), 0)
    kit.module.CommitRevealWeightsEnabled[77] = False
    kit.refused(VALIDATOR, "HotKeyNotRegisteredInSubNet", "set_weights", 77, (0,), (1,), 0)
    kit.refused(VALIDATOR, "MechanismDoesNotExist", "set_mechanism_weights", netuid, 1, (0,), (1,), 0)
    kit.refused(VALIDATOR, "WeightVecNotEqualSize", "set_weights", netuid, (0, 1), (1,), 0)
    kit.refused(VALIDATOR, "UidsLengthExceedUidsInSubNet", "set_weights", netuid, (0, 1, 2, 3), (1,) * 4, 0)
    kit.refused(account(99), "HotKeyNotRegisteredInSubNet", "set_weights", netuid, (0,), (1,), 0)
    kit.refused(MINER, "NeuronNoValidatorPermit", "set_weights", netuid, (0,), (1,), 0)
    kit.refused(VALIDATOR, "DuplicateUids", "set_weights", netuid, (0, 0), (1, 1), 0)
    kit.refused(VALIDATOR, "UidVecContainInvalidOne", "set_weights", netuid, (0, 3), (1, 1), 0)
    kit.admin("min_allowed_weights", netuid, 2)
    kit.refused(VALIDATOR, "WeightVecLengthIsLow", "set_weights", netuid, (0,), (1,), 0)
    kit.admin("weights_version_key", netuid, 7)
    kit.refused(VALIDATOR, "IncorrectWeightVersionKey", "set_weights", netuid, (0, 1), (1, 1), 6)
    kit.ok(VALIDATOR, "set_weights", netuid, (0, 1), (1, 1), 7)
    kit.admin("stake_threshold", 10**6 * RAO)
    kit.refused(VALIDATOR, "NotEnoughStakeToSetWeights", "set_weights", netuid, (0, 1), (1, 1), 7)
    kit.ok(OWNER_HOT, "set_weights", netuid, (0, 1), (1, 1), 7)


def test_anyone_may_weigh_itself_alone(kit):
    kit.admin("min_allowed_weights", kit.netuid, 2)
    kit.ok(MINER, "set_weights", kit.netuid, (2,), (5,), 0)
    assert row(kit, kit.netuid, 2) == [(2, 65_535)]


def test_the_rate_limit_counts_from_the_last_update_and_from_registration(kit):
    netuid = kit.netuid
    kit.ok(VALIDATOR, "set_weights", netuid, (2,), (1,), 0)
    kit.admin("weights_set_rate_limit", netuid, 5)
    kit.blocks(4)
    kit.refused(VALIDATOR, "SettingWeightsTooFast", "set_weights", netuid, (2,), (1,), 0)
    kit.blocks(1)
    kit.ok(VALIDATOR, "set_weights", netuid, (2,), (1,), 0)
    kit.neuron(netuid, BOB, account(7))
    kit.refused(account(7), "SettingWeightsTooFast", "set_weights", netuid, (3,), (1,), 0)


def test_a_batch_sets_what_it_can_and_names_what_it_cannot(kit):
    second = kit.subnet(ALICE, account(8))
    kit.neuron(second, BOB, VALIDATOR, stake_tao=100)
    kit.until(lambda: kit.module.ValidatorPermit[second][1])
    netuids = (kit.netuid, 77, second, 1)
    items = ((2, 1),)
    kit.ok(VALIDATOR, "batch_set_weights", netuids, (items, items, ((0, 3),), items), (0, 0, 0, 0))
    assert row(kit, kit.netuid) == [(2, 65_535)] and row(kit, second) == [(0, 65_535)]
    assert kit.events("BatchCompletedWithErrors") == [()]
    failed = kit.events("BatchWeightItemFailed")
    assert [netuid for netuid, _ in failed] == [77, 1]
    assert failed[1][1][1].error[0] == kit.module.errors.index("CommitRevealEnabled")
    assert kit.events("BatchWeightsCompleted") == [(netuids, VALIDATOR)]
    kit.refused(VALIDATOR, "InputLengthsUnequal", "batch_set_weights", netuids, (items,), (0,))


# --- commit and reveal


def commit_on(kit, period=1):
    kit.admin("commit_reveal_weights_enabled", kit.netuid, True)
    kit.admin("commit_reveal_weights_interval", kit.netuid, period)


def digest(hotkey, index, uids, values, salt=SALT, version=0):
    """The commitment, written out by hand: SCALE is little endian, lengths below 64 are one byte (n << 2)."""
    lists = (uids, values, salt)
    vectors = b"".join(bytes([len(v) << 2]) + b"".join(x.to_bytes(2, "little") for x in v) for v in lists)
    return blake2_256(hotkey + index.to_bytes(2, "little") + vectors + version.to_bytes(8, "little"))


def next_epoch(kit):
    index = kit.module.SubnetEpochIndex[kit.netuid]
    kit.until(lambda: kit.module.SubnetEpochIndex[kit.netuid] == index + 1)


def test_a_commit_is_revealed_in_the_epoch_after_and_then_counts(kit):
    netuid = kit.netuid
    kit.refused(VALIDATOR, "CommitRevealDisabled", "commit_weights", netuid, bytes(32))
    commit_on(kit)
    kit.refused(VALIDATOR, "CommitRevealEnabled", "set_weights", netuid, (2,), (1,), 0)
    commitment = digest(VALIDATOR, netuid, (0, 2), (5, 10))
    kit.ok(VALIDATOR, "commit_weights", netuid, commitment)
    assert kit.module.LastUpdate[netuid][1] == kit.runtime.block_number
    kit.refused(VALIDATOR, "RevealTooEarly", "reveal_weights", netuid, (0, 2), (5, 10), SALT, 0)
    next_epoch(kit)
    updated = kit.module.LastUpdate[netuid][1]
    kit.refused(VALIDATOR, "NoWeightsCommitFound", "reveal_weights", netuid, (0, 2), (5, 11), SALT, 0)
    kit.ok(VALIDATOR, "reveal_weights", netuid, (0, 2), (5, 10), SALT, 0)
    assert row(kit, netuid) == [(0, 32_768), (2, 65_535)]
    assert kit.module.LastUpdate[netuid][1] == updated, "a reveal is no update"
    assert kit.events("WeightsRevealed") == [(VALIDATOR, netuid, commitment)]
    kit.refused(VALIDATOR, "NoWeightsCommitFound", "reveal_weights", netuid, (0, 2), (5, 10), SALT, 0)


def test_an_expired_commit_is_worth_nothing(kit):
    commit_on(kit)
    kit.ok(VALIDATOR, "commit_weights", kit.netuid, digest(VALIDATOR, kit.netuid, (2,), (1,)))
    next_epoch(kit)
    next_epoch(kit)
    # The pool has one word for every wrong epoch.
    kit.refused(VALIDATOR, "RevealTooEarly", "reveal_weights", kit.netuid, (2,), (1,), SALT, 0)
    with pytest.raises(DispatchError, match="ExpiredWeightCommit"):
        kit.module.reveal_weights(Origin.signed(VALIDATOR), kit.netuid, (2,), (1,), SALT, 0)


def test_the_reveal_period_is_counted_in_epochs(kit):
    commit_on(kit, period=3)
    kit.ok(VALIDATOR, "commit_weights", kit.netuid, digest(VALIDATOR, kit.netuid, (2,), (1,)))
    for _ in range(3):
        kit.refused(VALIDATOR, "RevealTooEarly", "reveal_weights", kit.netuid, (2,), (1,), SALT, 0)
        next_epoch(kit)
    kit.ok(VALIDATOR, "reveal_weights", kit.netuid, (2,), (1,), SALT, 0)


def test_at_most_ten_commits_wait_and_a_batch_reveals_all_or_none(kit):
    netuid = kit.netuid
    commit_on(kit)
    for i in range(10):
        kit.ok(VALIDATOR, "commit_weights", netuid, digest(VALIDATOR, netuid, (2,), (i + 1,)))
    kit.refused(VALIDATOR, "TooManyUnrevealedCommits", "commit_weights", netuid, bytes(32))
    next_epoch(kit)
    two = ((2,), (2,)), ((3,), (4,)), (SALT, SALT)
    wrong = (two[0], ((3,), (40,)), two[2])
    kit.refused(VALIDATOR, "NoWeightsCommitFound", "batch_reveal_weights", netuid, *wrong, (0, 0))
    kit.ok(VALIDATOR, "batch_reveal_weights", netuid, *two, (0, 0))
    assert len(kit.events("WeightsBatchRevealed")[0][2]) == 2
    assert len(kit.module.WeightCommits[netuid, VALIDATOR]) == 6, "commits before the revealed ones are overtaken"


def test_committing_obeys_the_rate_limit_and_the_registration(kit):
    commit_on(kit)
    kit.admin("weights_set_rate_limit", kit.netuid, 5)
    kit.ok(VALIDATOR, "batch_commit_weights", (kit.netuid, 77), (bytes(32), bytes(32)))
    assert [netuid for netuid, _ in kit.events("BatchWeightItemFailed")] == [77]
    kit.refused(VALIDATOR, "CommittingWeightsTooFast", "commit_weights", kit.netuid, bytes(32))
    kit.refused(account(99), "HotKeyNotRegisteredInSubNet", "commit_weights", kit.netuid, bytes(32))


def test_timelocked_commits_wait_for_their_pulse_and_are_dropped_after_their_epoch(kit):
    netuid = kit.netuid
    commit_on(kit)
    kit.runtime.Drand.LastStoredRound.set(100)
    commit = (netuid, b"\x01" * 300)
    kit.refused(VALIDATOR, "IncorrectCommitRevealVersion", "commit_timelocked_weights", *commit, 200, 3)
    kit.refused(VALIDATOR, "InvalidRevealRound", "commit_timelocked_weights", *commit, 99, 4)
    kit.ok(VALIDATOR, "commit_timelocked_weights", *commit, 200, 4)
    epoch = kit.module.SubnetEpochIndex[netuid]
    assert kit.events("TimelockedWeightsCommitted") == [(VALIDATOR, netuid, blake2_256(commit[1]), 200)]
    assert kit.module.TimelockedWeightCommits[netuid, epoch][0][0] == VALIDATOR
    next_epoch(kit)
    assert (netuid, epoch) in kit.module.TimelockedWeightCommits
    next_epoch(kit)
    assert (netuid, epoch) not in kit.module.TimelockedWeightCommits


# --- two-level validation


def code_of(kit, signer, name, *args):
    """Pool code of the error that the transaction extension raises; None when the pool lets the call pass."""
    try:
        kit.runtime.precheck(Origin.signed(signer), kit.call(name, *args))
    except DispatchError as error:
        assert error.pallet == "SubtensorModule"
        return kit.module.custom_codes.get(error.name, BAD_REQUEST)
    return None


def test_the_pool_knows_these_refusals_and_their_codes(kit):
    netuid = kit.netuid
    kit.ok(VALIDATOR, "set_weights", netuid, (2,), (1,), 0)
    assert code_of(kit, VALIDATOR, "set_weights", netuid, (2,), (1,), 0) is None
    kit.admin("weights_set_rate_limit", netuid, 100)
    assert code_of(kit, VALIDATOR, "set_weights", netuid, (2,), (1,), 0) == 6
    assert code_of(kit, VALIDATOR, "batch_set_weights", (netuid,), (((2, 1),),), (0,)) is None, "fails in its block"
    assert code_of(kit, VALIDATOR, "batch_set_weights", (netuid,), (), (0,)) == 18
    assert code_of(kit, MINER, "set_weights", netuid, (0,), (1,), 0) == 6, "it registered a moment ago"
    assert code_of(kit, account(99), "set_weights", netuid, (0,), (1,), 0) == 19
    kit.admin("stake_threshold", 10**6 * RAO)
    assert code_of(kit, VALIDATOR, "set_weights", netuid, (2,), (1,), 0) == 1
    assert code_of(kit, VALIDATOR, "batch_commit_weights", (netuid,), (bytes(32),)) == 1
    kit.admin("stake_threshold", 0)
    assert code_of(kit, VALIDATOR, "reveal_weights", netuid, (2,), (1,), SALT, 0) == 16
    kit.runtime.Drand.LastStoredRound.set(100)
    assert code_of(kit, VALIDATOR, "commit_timelocked_weights", netuid, b"", 99, 4) == 15
    kit.admin("network_rate_limit", 1_000)
    assert code_of(kit, BOB, "register_network", account(50)) == 6


def test_the_pool_refuses_what_spec_475_refuses(kit):
    netuid, many = kit.netuid, kit.module.TotalNetworks.get() + 1
    stranger = account(99)
    for size in (0, many):
        pairs, digests, keys = (((2, 1),),) * size, (bytes(32),) * size, (0,) * size
        assert code_of(kit, VALIDATOR, "batch_set_weights", (netuid,) * size, pairs, keys) == BAD_REQUEST
        assert code_of(kit, VALIDATOR, "batch_commit_weights", (netuid,) * size, digests) == BAD_REQUEST
        columns = ((2,),) * size, ((1,),) * size, (SALT,) * size, keys
        assert code_of(kit, VALIDATOR, "batch_reveal_weights", netuid, *columns) == BAD_REQUEST
    info = kit.runtime.codecs("CommitmentInfo").zero
    for where, code in ((77, 3), (netuid, 19)):
        commitment = kit.runtime.call("Commitments.set_commitment", where, info)
        with pytest.raises(DispatchError) as caught:
            kit.runtime.precheck(Origin.signed(stranger), commitment)
        assert kit.module.custom_codes[caught.value.name] == code
    kit.runtime.Drand.LastStoredRound.set(100)
    kit.admin("commit_reveal_weights_enabled", netuid, True)
    assert code_of(kit, VALIDATOR, "set_weights", netuid, (2,), (1,), 0) == BAD_REQUEST
    assert code_of(kit, VALIDATOR, "set_mechanism_weights", netuid, 0, (2,), (1,), 0) == BAD_REQUEST
    timelocked = (netuid, b"x" * 100, 10**6, 4)
    kit.ok(VALIDATOR, "commit_timelocked_weights", *timelocked)
    kit.admin("weights_set_rate_limit", netuid, 100)
    commits = {
        "commit_weights": (netuid, bytes(32)),
        "commit_mechanism_weights": (netuid, 0, bytes(32)),
        "commit_timelocked_weights": timelocked,
        "commit_timelocked_mechanism_weights": (netuid, 0, *timelocked[1:]),
        "commit_crv3_mechanism_weights": (netuid, 0, b"x" * 100, 10**6),
    }
    for name, args in commits.items():
        assert code_of(kit, VALIDATOR, name, *args) == 6, name
        assert code_of(kit, stranger, name, *args) == 19, name


def test_batches_declare_a_full_weight_per_item(kit):
    one = kit.runtime.weight(kit.call("set_weights", kit.netuid, (2,), (1,), 0))
    three = kit.call("batch_set_weights", (1, 2, 3), (((2, 1),),) * 3, (0, 0, 0))
    assert kit.runtime.weight(three) == 3 * one
    commit = kit.runtime.weight(kit.call("commit_weights", kit.netuid, bytes(32)))
    assert kit.runtime.weight(kit.call("batch_commit_weights", (1, 2), (bytes(32),) * 2)) == 2 * commit
    reveals = [kit.call("batch_reveal_weights", 2, ((0,) * n,), ((1,) * n,), (SALT,), (0,)) for n in (1, 5)]
    assert kit.runtime.weight(reveals[0]) < kit.runtime.weight(reveals[1])


def test_serving_and_takes_are_checked_in_the_pool_too(kit):
    netuid, ip = kit.netuid, 16_909_060
    serve = (netuid, 1, ip, 9_000, 4, 4, 0, 0)
    assert code_of(kit, account(99), "serve_axon", *serve) == 10
    assert code_of(kit, MINER, "serve_axon", netuid, 1, 0x7F000001, 9_000, 4, 4, 0, 0) == 11
    assert code_of(kit, MINER, "serve_axon", netuid, 1, ip, 9_000, 5, 4, 0, 0) == 11
    assert code_of(kit, MINER, "serve_axon", netuid, 1, ip, 0, 4, 4, 0, 0) == 13
    kit.ok(MINER, "serve_axon", *serve)
    assert code_of(kit, MINER, "serve_axon", *serve) == 12
    assert kit.module.Axons[netuid, MINER].port == 9_000 and kit.events("AxonServed") == [(netuid, MINER)]
    assert code_of(kit, BOB, "increase_take", account(99), 1) == 4
    assert code_of(kit, ALICE, "increase_take", VALIDATOR, 1) == 25
    assert code_of(kit, BOB, "increase_take", VALIDATOR, 11_796) == 26
    assert code_of(kit, BOB, "increase_take", VALIDATOR, 11_797) == 27
    assert code_of(kit, BOB, "decrease_take", VALIDATOR, 11_796) == 26


def test_in_a_batch_the_same_refusal_is_a_module_error(kit):
    kit.admin("weights_set_rate_limit", kit.netuid, 100)
    inner = kit.call("set_weights", kit.netuid, (2,), (1,), 0)
    kit.ok(MINER, "Utility.force_batch", (inner,))
    ((error,),) = kit.events("ItemFailed")
    assert error[0] == "Module" and error[1].index == 7
    assert error[1].error[0] == kit.module.errors.index("SettingWeightsTooFast")


def test_a_swapping_coldkey_may_do_nothing_else(kit):
    kit.module.ColdkeySwapAnnouncements[BOB] = (1, bytes(32))
    assert code_of(kit, BOB, "add_stake", VALIDATOR, kit.netuid, RAO) == 0
    kit.module.ColdkeySwapDisputes[BOB] = 1
    with pytest.raises(DispatchError, match="ColdkeySwapDisputed"):
        kit.runtime.precheck(Origin.signed(BOB), kit.call("Balances.transfer_all", ("Id", ALICE), False))
