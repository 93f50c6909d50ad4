"""Pool and executive without sockets: order, limits, replacement, expiry, fees, block limits."""

from __future__ import annotations

import numpy as np
import pytest
from signing import ALICE, BOB, CHARLIE, compact, signed, transfer_call

from raytensor.devnet import pool as pool_module
from raytensor.devnet.chain import Chain
from raytensor.devnet.chain_spec import AUTHOR, build_runtime
from raytensor.devnet.pool import PoolError
from raytensor.devnet.subtensor.neurons import storage_index

SLOT = 12_000
TAO = 10**9


@pytest.fixture
def chain():
    return Chain(build_runtime(check=True))


def seal(chain, count: int = 1):
    for _ in range(count):
        block = chain.seal(chain.runtime.timestamp_ms + SLOT)
    return block


def tx(chain, signer=ALICE, nonce=0, amount=TAO, dest=BOB, **options):
    return signed(transfer_call(dest.public_key, amount), signer, nonce, chain.genesis.hash, **options)


def issuance(chain) -> int:
    accounts = chain.runtime.System.Account.current.values()
    return sum(info.data.free + info.data.reserved for info in accounts)


def refusal(chain, raw) -> PoolError:
    with pytest.raises(PoolError) as caught:
        chain.pool.submit(raw)
    return caught.value


def test_order_is_arrival_among_accounts_and_nonce_within(chain):
    sent = [tx(chain, ALICE, 1), tx(chain, BOB, 0), tx(chain, ALICE, 0), tx(chain, CHARLIE, 0)]
    for raw in sent:
        chain.pool.submit(raw)
    block = seal(chain)
    assert block.extrinsics[1:] == [sent[1], sent[2], sent[0], sent[3]]
    assert len(chain.pool) == 0


def test_every_end_is_told_once(chain):
    told: list[list] = [[] for _ in range(3)]
    mortal = b"\x11\x00"  # period 4, phase 1
    seal(chain, 2)
    chain.pool.submit(tx(chain, ALICE, 0), told[0].append)
    late = tx(chain, ALICE, 2, era=mortal, era_hash=chain.block_hash(1))
    chain.pool.submit(late, told[1].append)
    chain.pool.submit(tx(chain, BOB, 5), told[2].append)
    block = seal(chain, 1)
    seal(chain, pool_module.FUTURE_BLOCKS)
    hash_ = f"0x{block.hash.hex()}"
    assert told[0] == ["ready", {"inBlock": hash_}, {"finalized": hash_}]
    assert told[1] == ["future", "invalid"]
    assert told[2] == ["future", "dropped"]
    assert len(chain.pool) == 0


def test_an_era_ends_with_its_last_block(chain):
    seal(chain, 1)
    # period 4, born at block 1: may be in blocks 1..4
    raw = tx(chain, ALICE, 0, era=b"\x11\x00", era_hash=chain.block_hash(1))
    seal(chain, 2)
    chain.pool.submit(raw)
    assert raw in seal(chain).extrinsics and chain.best.number == 4
    other = tx(chain, ALICE, 1, era=b"\x11\x00", era_hash=chain.block_hash(1))
    assert refusal(chain, other).data == "Transaction has an ancient birth block"  # block 5 begins the next era
    seal(chain)
    assert refusal(chain, other).data == "Transaction has a bad signature"  # which has a hash now, but not that one


def test_an_era_older_than_the_chain_remembers_is_ancient(chain):
    # phase 3 of a long period has not come yet on a young chain
    raw = tx(chain, ALICE, 0, era=b"\x35\x00", era_hash=bytes(32))
    assert refusal(chain, raw).data == "Transaction has an ancient birth block"


def test_replacement_needs_more_priority_and_a_tip_is_none(chain):
    first = tx(chain, ALICE, 0)
    chain.pool.submit(first)
    error = refusal(chain, tx(chain, ALICE, 0, amount=5, tip=10**6))
    assert (error.code, error.message, error.data) == (1014, "Priority is too low: (1 vs 1)", pool_module.TOO_LOW)
    assert refusal(chain, first).code == 1013
    seal(chain)
    assert refusal(chain, first).data == "Transaction is outdated"


def test_signatures_bind_genesis_version_and_signer(chain):
    for options in ({"spec_version": 424}, {"signature": bytes(64)}, {"signature": b"\xff" * 64}):
        assert refusal(chain, tx(chain, **options)).data == "Transaction has a bad signature"
    foreign = signed(transfer_call(BOB.public_key, 1), ALICE, 0, b"\7" * 32)
    assert refusal(chain, foreign).data == "Transaction has a bad signature"


def test_unsigned_extrinsics_have_nobody_to_vouch(chain):
    remark = b"\4" + b"\0\0" + b"\0"
    assert refusal(chain, compact(len(remark)) + remark).code == 1011


def test_limits_of_the_pool(chain, monkeypatch):
    monkeypatch.setattr(pool_module, "READY_LIMIT", 3)
    monkeypatch.setattr(pool_module, "FUTURE_LIMIT", 2)
    for nonce in range(3):
        chain.pool.submit(tx(chain, ALICE, nonce))
    error = refusal(chain, tx(chain, BOB, 0))
    assert (error.code, error.message) == (1016, "Immediately Dropped")
    for nonce in (7, 8):
        chain.pool.submit(tx(chain, BOB, nonce))
    assert refusal(chain, tx(chain, CHARLIE, 9)).code == 1016
    seal(chain)
    chain.pool.submit(tx(chain, CHARLIE, 0))


def test_an_extrinsic_that_became_unaffordable_ends_invalid_and_is_banned(chain):
    poor = CHARLIE
    everything = chain.runtime.Balances.free(poor.public_key)
    told: list = []
    chain.pool.submit(tx(chain, poor, 0, amount=everything - 100_000))
    second = tx(chain, poor, 1, amount=1)
    chain.pool.submit(second, told.append)
    seal(chain)
    assert told == ["ready", "invalid"]
    assert refusal(chain, second).code == 1012
    assert chain.runtime.System.Account[poor.public_key].nonce == 1


def test_a_full_block_leaves_the_rest_for_the_next(chain):
    # each remark weighs about 0.4 ms per kilobyte; the normal class has 3 s of weight and 7.5 MiB
    size = 1_000_000
    remark = b"\0\0" + compact(size) + bytes(size)
    for nonce in range(10):
        chain.pool.submit(signed(remark, ALICE, nonce, chain.genesis.hash))
    sizes = [len(seal(chain).extrinsics) - 1 for _ in range(3)]
    assert sizes == [7, 3, 0]


def test_an_extrinsic_beyond_a_blocks_length_is_refused(chain):
    size = 7_900_000
    remark = b"\0\0" + compact(size) + bytes(size)
    raw = signed(remark, ALICE, 0, chain.genesis.hash)
    assert refusal(chain, raw).data == "Transaction would exhaust the block limits"


def test_money_is_conserved_and_the_author_is_paid(chain):
    before, author = issuance(chain), chain.runtime.Balances.free(AUTHOR)
    assert before == chain.runtime.Balances.TotalIssuance.get()
    for nonce in range(5):
        chain.pool.submit(tx(chain, ALICE, nonce, amount=10**18 if nonce == 2 else TAO, tip=nonce))
    seal(chain)
    events = [(p, e, v) for p, e, v in chain.runtime.event_names() if p != "SubtensorModule"]
    paid = [values[1] for _, event, values in events if event == "TransactionFeePaid"]
    assert len(paid) == 5 and chain.runtime.Balances.free(AUTHOR) == author + sum(paid)
    assert [event for _, event, _ in events].count("ExtrinsicFailed") == 1
    assert issuance(chain) == before == chain.runtime.Balances.TotalIssuance.get()


def test_an_account_below_the_deposit_is_reaped_and_its_dust_burned(chain):
    runtime = chain.runtime
    key = CHARLIE
    amount = runtime.Balances.free(key.public_key) - 100_000
    call = b"\5\0\0" + BOB.public_key + compact(amount)
    chain.pool.submit(signed(call, key, 0, chain.genesis.hash))
    seal(chain)
    left = runtime.Balances.free(key.public_key)
    call = b"\5\4\0" + BOB.public_key + b"\0"  # transfer_all, keep_alive = false
    assert 500 < left < 100_000
    assert refusal(chain, signed(call, key, 1, chain.genesis.hash)).data.startswith("Inability to pay")
    assert issuance(chain) == runtime.Balances.TotalIssuance.get()


def test_feeless_calls_need_no_balance(chain):
    # set_weights of a hotkey without a rao: admitted as far as money goes, refused for what it lacks on the subnet
    from substrateinterface import Keypair

    hotkey = Keypair.create_from_uri("//NoMoneyAtAll")
    serve = b"\7\4" + (1).to_bytes(2, "little") + (1).to_bytes(4, "little") + (0x01020304).to_bytes(16, "little")
    serve += (8091).to_bytes(2, "little") + bytes([4, 4, 0, 0])
    error = refusal(chain, signed(serve, hotkey, 0, chain.genesis.hash))
    assert error.data == "Custom error: 10"


def test_one_commit_of_a_hotkey_and_mechanism_is_in_the_pool(chain):
    """Its tag is ("weight-commit", hotkey, storage index) where weights are rate limited (spec 475)."""
    module, netuid = chain.runtime.SubtensorModule, 1
    for uid, key in enumerate((ALICE, BOB)):
        module.Uids[netuid, key.public_key] = uid
    module.SubnetworkN[netuid] = 2
    module.CommitRevealWeightsEnabled[netuid] = True
    module.MechanismCountCurrent[netuid] = 2
    for mecid in range(2):
        module.LastUpdate[storage_index(netuid, mecid)] = np.zeros(2, np.uint64)
    module.WeightsSetRateLimit[netuid] = 1
    seal(chain)

    def commit(signer, nonce, mecid=0, salt=1):
        call = chain.runtime.call("SubtensorModule.commit_mechanism_weights", netuid, mecid, bytes([salt]) * 32)
        out = bytearray()
        chain.runtime.codecs("RuntimeCall").enc(call, out)
        return signed(bytes(out), signer, nonce, chain.genesis.hash)

    first = commit(ALICE, 0)
    chain.pool.submit(first)
    assert refusal(chain, commit(ALICE, 1, salt=2)).code == 1014
    chain.pool.submit(commit(ALICE, 1, mecid=1))  # another mechanism
    chain.pool.submit(commit(BOB, 0))  # another hotkey
    assert first in seal(chain).extrinsics
    assert len(chain.pool) == 0
    seal(chain)
    chain.pool.submit(commit(ALICE, 2, salt=3))  # the first is gone
    module.WeightsSetRateLimit[netuid] = 0
    chain.pool.submit(commit(BOB, 1))
    chain.pool.submit(commit(BOB, 2, salt=2))


def test_a_rate_limit_of_weights_ends_for_the_pool_one_block_before_they_are_set(chain):
    """The pool validates as of the next block (frame_executive, validate_transaction)."""
    module, netuid = chain.runtime.SubtensorModule, 1
    module.Uids[netuid, ALICE.public_key] = 0
    module.SubnetworkN[netuid] = 1
    module.CommitRevealWeightsEnabled[netuid] = True
    module.LastUpdate[storage_index(netuid, 0)] = np.array([1], np.uint64)
    module.WeightsSetRateLimit[netuid] = 4
    seal(chain, 3)
    call = chain.runtime.call("SubtensorModule.commit_weights", netuid, b"\1" * 32)
    out = bytearray()
    chain.runtime.codecs("RuntimeCall").enc(call, out)
    raw = signed(bytes(out), ALICE, 0, chain.genesis.hash)
    assert refusal(chain, raw).data == "Custom error: 6"  # it would be in block 4
    seal(chain)
    chain.pool.submit(raw)
    assert chain.runtime.block_number == 4 and raw in seal(chain).extrinsics
    assert list(module.LastUpdate[storage_index(netuid, 0)]) == [5]
