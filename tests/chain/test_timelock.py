"""Timelocked weights: what we seal, bittensor-core opens; the reveal round is the one that it computes."""

from __future__ import annotations

import time

import bittensor_core
import pytest

from raytensor.chain.writer.timelock import (
    QUICKNET,
    EpochSchedule,
    first_reveal_block,
    reveal_round,
    seal,
    weights_payload,
)

# Round 1000 of drand quicknet, as the beacon published it.
ROUND = 1000
SIGNATURE = "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"


def opened(ciphertext: bytes, signature: str = SIGNATURE) -> bytes:
    kept = (len(ciphertext) << 2 | 1).to_bytes(2, "little") + ciphertext + ROUND.to_bytes(8, "little")
    return bittensor_core.decrypt_with_signature(kept, signature)


def test_bittensor_core_opens_what_we_seal_for_quicknet():
    plaintext = weights_payload(bytes(range(32)), [0, 5, 300], [1, 2, 65_535], 7)
    ciphertext = seal(plaintext, ROUND, QUICKNET.public_key)
    assert opened(ciphertext) == plaintext
    theirs, _ = bittensor_core.encrypt_at_round(plaintext, ROUND)
    assert len(theirs) == len(ciphertext) + 2 + 8, "the same layout, in SCALE with the round behind"
    assert seal(plaintext, ROUND, QUICKNET.public_key) != ciphertext, "fresh keys each time"


def test_only_the_rounds_own_signature_opens():
    ciphertext = seal(b"secret", ROUND + 1, QUICKNET.public_key)
    with pytest.raises(ValueError, match="InvalidSignature"):
        opened(ciphertext)


def test_a_key_that_is_no_point_is_refused_by_name():
    with pytest.raises(ValueError, match="is not a compressed point of BLS12-381 G2"):
        seal(b"", 1, b"\1" * 96)


def test_the_payload_is_scale():
    assert weights_payload(b"\7" * 32, [1, 258], [3, 4], 5).hex() == (
        "80" + "07" * 32 + "08" + "0100" + "0201" + "08" + "0300" + "0400" + "05" + "00" * 7
    )
    with pytest.raises(ValueError, match="2 uids but 1 values"):
        weights_payload(bytes(32), [1, 2], [1], 0)


SCHEDULES = {
    # block, tempo, last epoch, pending, index, since step; reveal period -> first reveal block
    "mid epoch": (EpochSchedule(1_000, 360, 900, 0, 5, 100), 1, 1_260),
    "the epoch's last block": (EpochSchedule(1_259, 360, 900, 0, 5, 359), 1, 1_620),
    "pending epoch": (EpochSchedule(1_000, 360, 900, 1_010, 5, 100), 1, 1_010),
    "three epochs": (EpochSchedule(1_000, 100, 950, 0, 5, 50), 3, 1_250),
    "late": (EpochSchedule(100_000, 360, 99_999, 0, 5, 50_400), 1, 100_002),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_reveal_round_is_the_one_that_bittensor_core_computes(name):
    schedule, period, first = SCHEDULES[name]
    assert first_reveal_block(schedule, period) == first
    before = time.time()
    _, theirs = bittensor_core.get_encrypted_commit_v2(
        [0],
        [1],
        0,
        schedule.last_epoch_block,
        schedule.pending_epoch_at,
        schedule.epoch_index,
        schedule.tempo,
        schedule.blocks_since_step,
        schedule.block,
        period,
        12.0,
        bytes(32),
    )
    after = time.time()
    ours = [reveal_round(QUICKNET, schedule, period, now, 12.0) for now in (before, after)]
    assert ours[0] <= theirs <= ours[1] <= ours[0] + 1 + (after - before) / 3


def test_where_epochs_are_short_the_round_is_one_that_the_chain_still_takes():
    schedule, now = EpochSchedule(100, 10, 95, 0, 5, 5), QUICKNET.genesis_s + 3_000.0
    assert QUICKNET.round_at(now) == 1_001
    assert reveal_round(QUICKNET, schedule, 1, now, 0.25) == 1_001
    assert reveal_round(QUICKNET, schedule, 1, now, 12.0) == 1_000 + (5 + 3) * 12 // 3


def test_a_subnet_without_epochs_reveals_nothing():
    with pytest.raises(ValueError, match="tempo is 0"):
        first_reveal_block(EpochSchedule(1, 0, 0, 0, 0, 0), 1)
