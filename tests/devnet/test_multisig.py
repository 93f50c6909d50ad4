"""Multisig: approvals by call and by hash, deposits, timepoints, every error, and the account that clients derive."""

from __future__ import annotations

import bittensor_core
import pytest
from subnetkit import ALICE, BOB, CHARLIE, RAO, Kit, account

from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import DispatchError, Origin
from raytensor.devnet.pallets.multisig import DEPOSIT_BASE, DEPOSIT_FACTOR, Timepoint, multisig_account
from raytensor.devnet.pallets.system import Weight

DAVE = account(7)
TWO_OF_THREE = multisig_account(sorted((ALICE, BOB, CHARLIE)), 2)
LIGHT = Weight(10**12, 0)
DEPOSIT = DEPOSIT_BASE + 2 * DEPOSIT_FACTOR


@pytest.fixture
def kit():
    kit = Kit()
    kit.blocks(3)
    kit.ok(ALICE, "Balances.transfer_allow_death", ("Id", TWO_OF_THREE), 100 * RAO)
    kit.transfer = kit.call("Balances.transfer_keep_alive", ("Id", DAVE), 5 * RAO)
    kit.hash = blake2_256(kit.runtime.codecs("RuntimeCall").encode(kit.transfer))
    return kit


def others(who: bytes) -> tuple[bytes, ...]:
    return tuple(sorted({ALICE, BOB, CHARLIE} - {who}))


def approve(kit, who, timepoint=None, call_hash=None):
    kit.ok(who, "Multisig.approve_as_multi", 2, others(who), timepoint, call_hash or kit.hash, LIGHT)


def reserved(kit, who):
    return kit.runtime.System.Account[who].data.reserved


def test_the_account_is_the_one_that_clients_derive():
    keys = [account(number) for number in (9, 3, 200, 4)]
    for threshold in (1, 2, 4):
        theirs, order = bittensor_core.multisig_account_id(keys, threshold)
        assert (bytes(theirs), [bytes(key) for key in order]) == (
            multisig_account(sorted(keys), threshold),
            sorted(keys),
        )
    many = [account(number) for number in range(70)]
    assert bytes(bittensor_core.multisig_account_id(many, 2)[0]) == multisig_account(sorted(many), 2)


def test_two_of_three_send_what_neither_could_alone(kit):
    approve(kit, ALICE)
    when = Timepoint(kit.runtime.block_number, 0)
    operation = kit.runtime.Multisig.Multisigs[TWO_OF_THREE, kit.hash]
    assert operation == (when, DEPOSIT, ALICE, (ALICE,)) and reserved(kit, ALICE) == DEPOSIT
    assert kit.events("NewMultisig") == [(ALICE, TWO_OF_THREE, kit.hash)]
    kit.blocks()
    kit.ok(CHARLIE, "Multisig.as_multi", 2, others(CHARLIE), when, kit.transfer, LIGHT)
    assert kit.runtime.Balances.free(DAVE) == 5 * RAO and kit.runtime.Balances.free(TWO_OF_THREE) == 95 * RAO
    assert kit.events("MultisigExecuted") == [(CHARLIE, when, TWO_OF_THREE, kit.hash, ("Ok", ()))]
    assert reserved(kit, ALICE) == 0 and not len(kit.runtime.Multisig.Multisigs)
    kit.assert_books_balance()


def test_a_failing_call_is_made_and_shows_only_in_the_event(kit):
    call = kit.call("Balances.transfer_keep_alive", ("Id", DAVE), 500 * RAO)
    digest = blake2_256(kit.runtime.codecs("RuntimeCall").encode(call))
    approve(kit, ALICE, call_hash=digest)
    when = Timepoint(kit.runtime.block_number, 0)
    kit.ok(BOB, "Multisig.as_multi", 2, others(BOB), when, call, LIGHT)
    assert kit.events("MultisigExecuted")[0][4] == ("Err", ("Token", "FundsUnavailable"))
    assert reserved(kit, ALICE) == 0


def test_three_of_three_collect_approvals(kit):
    everyone = multisig_account(sorted((ALICE, BOB, CHARLIE)), 3)
    kit.ok(ALICE, "Balances.transfer_allow_death", ("Id", everyone), 10 * RAO)
    args = (kit.transfer, LIGHT)
    kit.ok(CHARLIE, "Multisig.as_multi", 3, others(CHARLIE), None, *args)
    when = Timepoint(kit.runtime.block_number, 0)
    kit.ok(ALICE, "Multisig.approve_as_multi", 3, others(ALICE), when, kit.hash, LIGHT)
    assert kit.events("MultisigApproval") == [(ALICE, when, everyone, kit.hash)]
    assert kit.runtime.Multisig.Multisigs[everyone, kit.hash].approvals == tuple(sorted((ALICE, CHARLIE)))
    kit.refused(ALICE, "AlreadyApproved", "Multisig.as_multi", 3, others(ALICE), when, *args)
    kit.ok(BOB, "Multisig.as_multi", 3, others(BOB), when, *args)
    assert kit.runtime.Balances.free(DAVE) == 5 * RAO


def test_the_last_approval_by_hash_alone_does_not_make_the_call(kit):
    approve(kit, ALICE)
    when = Timepoint(kit.runtime.block_number, 0)
    approve(kit, BOB, when)
    assert kit.runtime.Balances.free(DAVE) == 0
    kit.refused(CHARLIE, "AlreadyApproved", "Multisig.approve_as_multi", 2, others(CHARLIE), when, kit.hash, LIGHT)
    kit.ok(ALICE, "Multisig.as_multi", 2, others(ALICE), when, kit.transfer, LIGHT)
    assert kit.runtime.Balances.free(DAVE) == 5 * RAO


def test_timepoints_and_weights_are_checked(kit):
    when = Timepoint(kit.runtime.block_number, 0)
    name, head = "Multisig.approve_as_multi", (2, others(ALICE))
    kit.refused(ALICE, "UnexpectedTimepoint", name, *head, when, kit.hash, LIGHT)
    approve(kit, ALICE)
    kit.refused(BOB, "NoTimepoint", name, 2, others(BOB), None, kit.hash, LIGHT)
    kit.refused(BOB, "WrongTimepoint", name, 2, others(BOB), Timepoint(1, 0), kit.hash, LIGHT)
    kit.refused(BOB, "MaxWeightTooLow", "Multisig.as_multi", 2, others(BOB), when, kit.transfer, Weight(1, 0))
    kit.refused(ALICE, "AlreadyApproved", name, *head, when, kit.hash, LIGHT)


def test_signatories_are_checked(kit):
    name, tail = "Multisig.approve_as_multi", (None, kit.hash, LIGHT)
    kit.refused(ALICE, "MinimumThreshold", name, 1, others(ALICE), *tail)
    kit.refused(ALICE, "TooFewSignatories", name, 2, (), *tail)
    kit.refused(ALICE, "TooManySignatories", name, 2, tuple(account(i) for i in range(100)), *tail)
    kit.refused(ALICE, "SignatoriesOutOfOrder", name, 2, others(ALICE)[::-1], *tail)
    kit.refused(ALICE, "SenderInSignatories", name, 2, tuple(sorted((ALICE, BOB))), *tail)


def test_a_deposit_needs_free_balance(kit):
    kit.ok(ALICE, "Balances.transfer_allow_death", ("Id", DAVE), DEPOSIT)
    kit.refused(DAVE, "InsufficientBalance", "Multisig.approve_as_multi", 2, others(DAVE), None, kit.hash, LIGHT)
    kit.ok(ALICE, "Balances.transfer_allow_death", ("Id", DAVE), 500)
    kit.ok(DAVE, "Multisig.approve_as_multi", 2, others(DAVE), None, kit.hash, LIGHT)


def test_only_its_depositor_cancels(kit):
    approve(kit, ALICE)
    when = Timepoint(kit.runtime.block_number, 0)
    name = "Multisig.cancel_as_multi"
    kit.refused(BOB, "NotOwner", name, 2, others(BOB), when, kit.hash)
    kit.refused(ALICE, "WrongTimepoint", name, 2, others(ALICE), Timepoint(1, 0), kit.hash)
    kit.refused(ALICE, "NotFound", name, 2, others(ALICE), when, bytes(32))
    kit.ok(ALICE, name, 2, others(ALICE), when, kit.hash)
    assert kit.events("MultisigCancelled") == [(ALICE, when, TWO_OF_THREE, kit.hash)]
    assert reserved(kit, ALICE) == 0 and not len(kit.runtime.Multisig.Multisigs)


def test_poking_brings_an_old_deposit_to_todays_price(kit):
    approve(kit, ALICE)
    multisig, key = kit.runtime.Multisig, (TWO_OF_THREE, kit.hash)
    kit.ok(ALICE, "Multisig.poke_deposit", 2, others(ALICE), kit.hash)
    assert not kit.events("DepositPoked")
    kit.runtime.Balances.reserve(ALICE, 1_000)
    multisig.Multisigs[key] = multisig.Multisigs[key]._replace(deposit=DEPOSIT + 1_000)
    kit.refused(BOB, "NotOwner", "Multisig.poke_deposit", 2, others(BOB), kit.hash)
    kit.ok(ALICE, "Multisig.poke_deposit", 2, others(ALICE), kit.hash)
    assert kit.events("DepositPoked") == [(ALICE, kit.hash, DEPOSIT + 1_000, DEPOSIT)]
    assert reserved(kit, ALICE) == DEPOSIT == multisig.Multisigs[key].deposit


def test_a_threshold_of_one_acts_at_once_and_fails_openly(kit):
    one = multisig_account(sorted((ALICE, BOB)), 1)
    kit.ok(ALICE, "Balances.transfer_allow_death", ("Id", one), 6 * RAO)
    kit.ok(BOB, "Multisig.as_multi_threshold_1", (ALICE,), kit.transfer)
    assert kit.runtime.Balances.free(DAVE) == 5 * RAO
    with pytest.raises(DispatchError) as caught:
        kit.runtime.dispatch(Origin.signed(BOB), kit.call("Multisig.as_multi_threshold_1", (ALICE,), kit.transfer))
    assert caught.value.value == ("Token", "FundsUnavailable")


def test_the_timepoint_is_where_the_first_approval_stands_in_its_block(kit):
    remark = (Origin.signed(BOB), kit.call("System.remark", b""))
    first = kit.call("Multisig.approve_as_multi", 2, others(ALICE), None, kit.hash, LIGHT)
    assert kit.runtime.next_block([remark, remark, (Origin.signed(ALICE), first)]) == [None] * 3
    assert kit.runtime.Multisig.Multisigs[TWO_OF_THREE, kit.hash].when == (kit.runtime.block_number, 2)
