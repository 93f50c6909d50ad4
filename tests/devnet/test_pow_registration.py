"""Registration by proof of work: the seal, who may, when, and what it costs."""

from __future__ import annotations

from hashlib import sha256

import pytest
from Crypto.Hash import keccak
from subnetkit import ALICE, BOB, CHARLIE, OWNER_HOT, Kit, account

from raytensor.devnet.subtensor.pow_registration import meets, seal

HOT = account(70)


@pytest.fixture
def kit():
    kit = Kit()
    kit.netuid = kit.subnet(hotkey=OWNER_HOT)
    kit.admin("min_difficulty", kit.netuid, 4)
    kit.admin("difficulty", kit.netuid, 4)
    kit.admin("admin_freeze_window", 0)
    kit.blocks(2)
    return kit


def work(kit, hotkey=HOT, coldkey=BOB, back=1, enough=True):
    """(block, nonce, seal) of the first nonce that meets the difficulty, or of the first that does not."""
    block = kit.runtime.block_number - back
    block_hash = kit.runtime.System.BlockHash[block]
    for nonce in range(1_000):
        found = seal(kit.netuid, block_hash, hotkey, coldkey, nonce)
        if meets(found, kit.module.Difficulty[kit.netuid]) == enough:
            return block, nonce, found
    raise AssertionError("no nonce")


def test_the_seal_binds_subnet_block_keys_and_nonce():
    message = b"subtensor-pow-register-v1" + bytes([2, 1]) + bytes(32) + HOT + BOB + bytes([7]) + bytes(7)
    expected = keccak.new(digest_bits=256, data=sha256(message).digest()).digest()
    assert seal(258, bytes(32), HOT, BOB, 7) == expected
    assert meets(bytes(32), 2**64 - 1) and meets(b"\xff" * 32, 1) and not meets(b"\xff" * 32, 2)
    assert meets(b"\x3f" + b"\xff" * 31, 4) and not meets(b"\x40" + bytes(31), 4)


def test_a_proof_registers_without_a_burn(kit):
    module, netuid = kit.module, kit.netuid
    kit.refused(BOB, "SubNetRegistrationDisabled", "pow_register", netuid, *work(kit), HOT)
    kit.ok(ALICE, "AdminUtils.sudo_set_network_pow_registration_allowed", netuid, True)
    assert kit.events("PowRegistrationAllowed") == [(netuid, True)]
    free, burn = kit.runtime.Balances.free(BOB), module.Burn[netuid]
    proof = work(kit)
    kit.ok(BOB, "pow_register", netuid, *proof, HOT)
    assert module.Keys[netuid, module.Uids[netuid, HOT]] == HOT and module.Owner[HOT] == BOB
    assert kit.runtime.Balances.free(BOB) == free and module.Burn[netuid] == burn
    assert module.LastPowRegistrationBlock[HOT] == proof[0] and module.Difficulty[netuid] == 5
    other = account(71)
    kit.refused(BOB, "TooManyRegistrationsThisBlock", "pow_register", netuid, *work(kit, other), other)
    kit.assert_books_balance()


def test_a_wrong_proof_is_refused(kit):
    netuid = kit.netuid
    kit.ok(ALICE, "AdminUtils.sudo_set_network_pow_registration_allowed", netuid, True)
    kit.blocks(6)
    block, nonce, found = work(kit)
    kit.refused(CHARLIE, "InvalidSeal", "pow_register", netuid, block, nonce, found, HOT)
    kit.refused(BOB, "InvalidSeal", "pow_register", netuid, block, nonce + 1, found, HOT)
    kit.refused(BOB, "InvalidDifficulty", "pow_register", netuid, *work(kit, enough=False), HOT)
    kit.refused(BOB, "InvalidWorkBlock", "pow_register", netuid, *work(kit, back=6), HOT)
    kit.refused(BOB, "RegistrationNotPermittedOnRootSubnet", "pow_register", 0, block, nonce, found, HOT)
    kit.ok(BOB, "pow_register", netuid, *work(kit, back=5), HOT)
    kit.blocks(1)
    kit.refused(BOB, "HotKeyAlreadyRegisteredInSubNet", "pow_register", netuid, *work(kit), HOT)
    kit.refused(BOB, "InvalidWorkBlock", "pow_register", netuid, *work(kit, back=6), HOT)


def test_the_difficulty_decays_to_its_minimum(kit):
    module, netuid = kit.module, kit.netuid
    kit.admin("burn_half_life", netuid, 10)
    module.Difficulty[netuid] = 1 << 40
    kit.blocks(10)
    assert module.Difficulty[netuid] == pytest.approx(1 << 39, rel=1e-6)
    module.Difficulty[netuid] = 1
    kit.blocks(1)
    assert module.Difficulty[netuid] == 1
