"""Utility beyond batches: calls as somebody else, calls with a second choice."""

from __future__ import annotations

import pytest
from subnetkit import ALICE, BOB, RAO, Kit, account

from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import DispatchError, Origin

AS_BOB = ("system", ("Signed", BOB))


@pytest.fixture
def kit():
    kit = Kit()
    kit.give = kit.call("Balances.transfer_keep_alive", ("Id", account(5)), RAO)
    kit.too_much = kit.call("Balances.transfer_keep_alive", ("Id", account(5)), 2 * 10**15)
    return kit


def test_root_calls_as_an_account_and_hears_of_failure_in_the_event(kit):
    free = kit.runtime.Balances.free(BOB)
    kit.root("Utility.dispatch_as", AS_BOB, kit.give)
    assert kit.events("DispatchedAs") == [(("Ok", ()),)] and kit.runtime.Balances.free(BOB) == free - RAO
    kit.root("Utility.dispatch_as", AS_BOB, kit.too_much)
    assert kit.events("DispatchedAs")[-1] == (("Err", ("Token", "FundsUnavailable")),)
    kit.root("Utility.dispatch_as", ("system", "Root"), kit.call("AdminUtils.sudo_set_tx_rate_limit", 5))
    assert kit.module.TxRateLimit.get() == 5
    kit.refused(ALICE, "BadOrigin", "Utility.dispatch_as", AS_BOB, kit.give)


def test_the_fallible_form_fails_itself(kit):
    kit.refused(None, "FundsUnavailable", "Utility.dispatch_as_fallible", AS_BOB, kit.too_much)
    kit.root("Utility.dispatch_as_fallible", AS_BOB, kit.give)
    assert kit.events("DispatchedAs") == [(("Ok", ()),)]


def test_a_fallback_is_made_when_the_main_call_fails(kit):
    kit.ok(BOB, "Utility.if_else", kit.too_much, kit.give)
    assert kit.events("IfElseFallbackCalled") == [(("Token", "FundsUnavailable"),)]
    assert kit.runtime.Balances.free(account(5)) == RAO
    kit.ok(BOB, "Utility.if_else", kit.give, kit.too_much)
    assert kit.events("IfElseMainSuccess") == [()]
    with pytest.raises(DispatchError):
        kit.runtime.dispatch(Origin.signed(BOB), kit.call("Utility.if_else", kit.too_much, kit.too_much))


def test_a_derived_account_spends_its_own(kit):
    derived = blake2_256(b"modlpy/utilisuba" + BOB + (3).to_bytes(2, "little"))
    kit.ok(BOB, "Balances.transfer_allow_death", ("Id", derived), 2 * RAO)
    kit.ok(BOB, "Utility.as_derivative", 3, kit.give)
    assert kit.runtime.Balances.free(derived) == RAO
