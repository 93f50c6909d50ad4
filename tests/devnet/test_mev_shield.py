"""MevShield: encrypted extrinsics run behind their carrier; what can't be opened or was not sealed rightly does not."""

from __future__ import annotations

import bittensor_core
import pytest
from signing import ALICE, BOB, CHARLIE, compact, signed, transfer_call

from raytensor.devnet.chain import Chain
from raytensor.devnet.chain_spec import build_runtime
from raytensor.devnet.pool import PoolError

SLOT, TAO = 12_000, 10**9
ERA, PERIOD = bytes([0b0000_0010, 0]), 8  # mortal, 8 blocks, born in block 0


@pytest.fixture
def chain():
    return Chain(build_runtime(check=True))


def seal(chain):
    return chain.seal(chain.runtime.timestamp_ms + SLOT)


def carrier(chain, ciphertext: bytes, signer=ALICE, nonce=0, era=ERA) -> bytes:
    call = b"\x1e\1" + compact(len(ciphertext)) + ciphertext
    return signed(call, signer, nonce, chain.genesis.hash, era=era)


def shield(chain, raw: bytes) -> bytes:
    key = chain.runtime.MevShield.NextKey.get()
    return bytes(bittensor_core.encrypt_mlkem768(key, raw, include_key_hash=True))


def payment(chain, signer=ALICE, nonce=1, amount=TAO) -> bytes:
    return signed(transfer_call(CHARLIE.public_key, amount), signer, nonce, chain.genesis.hash)


def free(chain, who) -> int:
    return chain.runtime.System.Account[who.public_key].data.free


def refusal(chain, raw) -> str:
    with pytest.raises(PoolError) as caught:
        chain.pool.submit(raw)
    assert caught.value.code == 1010
    return caught.value.data


def test_the_extrinsic_within_follows_its_carrier_in_the_same_block(chain):
    inner, before = payment(chain), free(chain, CHARLIE)
    outer = carrier(chain, shield(chain, inner))
    chain.pool.submit(outer)
    assert chain.pool.pending() == [outer], "the pool holds nothing but the carrier"
    assert seal(chain).extrinsics[1:] == [outer, inner]
    assert free(chain, CHARLIE) == before + TAO
    assert chain.runtime.System.Account[ALICE.public_key].nonce == 2


def test_someone_elses_extrinsic_goes_past_the_pool_and_its_rivals_there_end(chain):
    rival = payment(chain, BOB, 0, 2 * TAO)
    told: list = []
    inner = payment(chain, BOB, 0)
    chain.pool.submit(carrier(chain, shield(chain, inner)))
    chain.pool.submit(rival, told.append)
    block = seal(chain)
    assert inner in block.extrinsics and rival not in block.extrinsics
    assert told == ["ready", "invalid"] and len(chain.pool) == 0


@pytest.mark.parametrize("what", ["tampered", "stale", "garbage"])
def test_what_cant_run_is_lost_and_its_carrier_pays(chain, what):
    if what == "tampered":
        sealed = bytearray(shield(chain, payment(chain)))
        sealed[-1] ^= 1
    elif what == "stale":
        sealed = shield(chain, payment(chain, nonce=0))
    else:
        sealed = shield(chain, b"\x10nope")
    before, free_before = free(chain, CHARLIE), free(chain, ALICE)
    chain.pool.submit(carrier(chain, bytes(sealed)))
    assert len(seal(chain).extrinsics) == 2
    assert free(chain, CHARLIE) == before and free(chain, ALICE) < free_before
    assert seal(chain).extrinsics[1:] == []


def test_the_pool_refuses_carriers_as_the_extensions_do(chain):
    sealed = shield(chain, payment(chain))
    assert refusal(chain, carrier(chain, b"short")) == "Custom error: 23"
    assert refusal(chain, carrier(chain, bytes(16) + sealed[16:])) == "Custom error: 24"
    assert refusal(chain, carrier(chain, sealed, era=b"\0")) == "Transaction is outdated"
    assert refusal(chain, carrier(chain, sealed, era=bytes([0b0000_0011, 0]))) == "Transaction is outdated"
    assert len(chain.pool) == 0
