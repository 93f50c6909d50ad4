"""Fees of accounts that hold stake but no TAO: paid out of the position the call draws on, or not at all."""

from __future__ import annotations

import pytest
from signing import signed
from subnetkit import ALICE, BOB, RAO, Kit, account
from substrateinterface import Keypair

from raytensor.devnet.chain import Chain
from raytensor.devnet.chain_spec import AUTHOR
from raytensor.devnet.pool import PoolError

POOR = Keypair.create_from_uri("//Poor")
STAKE = 10 * RAO


@pytest.fixture
def kit():
    """Two subnets; the poor account holds 10 alpha with one hotkey on the first, and 600 rao of TAO."""
    kit = Kit()
    kit.chain = chain = Chain(kit.runtime)
    kit.blocks = lambda count=1: [chain.seal(kit.runtime.timestamp_ms + 12_000) for _ in range(count)]
    kit.netuid, kit.other = kit.subnet(hotkey=account(1)), kit.subnet(hotkey=account(2))
    kit.hotkey = account(10)
    kit.ok(BOB, "try_associate_hotkey", kit.hotkey)
    kit.ok(BOB, "add_stake", kit.hotkey, kit.netuid, 100 * RAO)
    kit.ok(BOB, "transfer_stake", POOR.public_key, kit.hotkey, kit.netuid, kit.netuid, STAKE)
    kit.ok(BOB, "Balances.transfer_allow_death", ("Id", POOR.public_key), 600)
    kit.blocks(1)
    return kit


def submit(kit, name, *args, nonce=0):
    call = kit.runtime.codecs("RuntimeCall").encode(kit.call(name, *args))
    raw = signed(call, POOR, nonce, kit.chain.genesis.hash)
    kit.chain.pool.submit(raw)
    return raw


def refused(kit, name, *args) -> str:
    with pytest.raises(PoolError) as caught:
        submit(kit, name, *args)
    return caught.value.data


UNPAYABLE = "Inability to pay some fees (e.g. account balance too low)"


def test_a_withdrawal_pays_its_fee_in_alpha(kit):
    module, netuid = kit.module, kit.netuid
    raw = submit(kit, "remove_stake", kit.hotkey, netuid, STAKE // 2)
    fee = kit.runtime.TransactionPayment.fee(
        len(raw), kit.runtime.weight(kit.call("remove_stake", kit.hotkey, netuid, 1))
    )
    wanted = module.alpha_fee(POOR.public_key, kit.call("remove_stake", kit.hotkey, netuid, 1), fee)
    assert (wanted.hotkey, wanted.netuid) == (kit.hotkey, netuid)
    pool, alpha_in = module.SubnetTAO[netuid], module.SubnetAlphaIn[netuid]
    assert wanted.alpha == alpha_in * fee // (pool - fee)
    author = kit.runtime.Balances.free(AUTHOR)
    kit.blocks(1)
    ((who, on, alpha, tao),) = kit.events("TransactionFeePaidWithAlpha")
    assert (who, on) == (POOR.public_key, netuid)
    # The pool has moved by the block's own emission since; the amounts are what it asks for now.
    assert abs(alpha - wanted.alpha) <= wanted.alpha // 1_000 and fee - 2 <= tao <= fee
    assert kit.events("TransactionFeePaid") == [(POOR.public_key, fee, 0)]
    assert kit.runtime.Balances.free(AUTHOR) - author >= tao
    assert module.stake_of(kit.hotkey, POOR.public_key, netuid) == STAKE - STAKE // 2 - alpha
    assert kit.runtime.Balances.free(POOR.public_key) > 600 and kit.runtime.System.Account[POOR.public_key].nonce == 1
    kit.assert_books_balance()


def test_whoever_has_tao_pays_in_tao(kit):
    kit.ok(ALICE, "Balances.transfer_allow_death", ("Id", POOR.public_key), RAO)
    submit(kit, "remove_stake", kit.hotkey, kit.netuid, STAKE // 2)
    kit.blocks(1)
    assert not kit.events("TransactionFeePaidWithAlpha") and len(kit.events("TransactionFeePaid")) == 1


def test_other_calls_and_other_positions_do_not_pay_in_alpha(kit):
    assert refused(kit, "add_stake", kit.hotkey, kit.netuid, RAO) == UNPAYABLE
    assert refused(kit, "remove_stake", kit.hotkey, kit.other, RAO) == UNPAYABLE, "no stake there"
    assert refused(kit, "System.remark", b"") == UNPAYABLE


def test_unstaking_all_pays_only_while_there_is_one_position(kit):
    kit.ok(BOB, "add_stake", kit.hotkey, kit.other, 100 * RAO)
    kit.ok(BOB, "transfer_stake", POOR.public_key, kit.hotkey, kit.other, kit.other, STAKE)
    kit.blocks(1)
    assert refused(kit, "unstake_all", kit.hotkey) == UNPAYABLE
    two = tuple(kit.call("remove_stake", kit.hotkey, netuid, RAO) for netuid in (kit.netuid, kit.other))
    assert refused(kit, "Utility.batch_all", two) == UNPAYABLE
    submit(kit, "Utility.batch_all", two[:1])
    kit.blocks(1)
    assert len(kit.events("TransactionFeePaidWithAlpha")) == 1 and kit.events("BatchCompleted") == [()]
    kit.assert_books_balance()


def test_a_fee_in_alpha_is_final_even_when_the_call_fails(kit):
    submit(kit, "move_stake", kit.hotkey, account(999), kit.netuid, kit.netuid, RAO)
    kit.blocks(1)
    ((_, _, alpha, _),) = kit.events("TransactionFeePaidWithAlpha")
    assert kit.events("ExtrinsicFailed") and alpha > 0
    assert kit.module.stake_of(kit.hotkey, POOR.public_key, kit.netuid) == STAKE - alpha
    kit.assert_books_balance()


def test_stake_that_is_worth_less_than_the_fee_pays_nothing(kit):
    kit.ok(POOR.public_key, "transfer_stake", BOB, kit.hotkey, kit.netuid, kit.netuid, STAKE - 100)
    assert kit.module.stake_of(kit.hotkey, POOR.public_key, kit.netuid) == 100
    assert refused(kit, "remove_stake", kit.hotkey, kit.netuid, 100) == UNPAYABLE
