"""Timelock encryption of weights for a drand beacon, and the round at which the chain can open them. Pure.

In: uids and u16 values, a subnet's epoch schedule, the beacon as `Drand.BeaconConfig` gives it. Out: the bytes for
`commit_timelocked_mechanism_weights`, and the reveal round. Knows nothing of connections or keys.

bittensor-core encrypts in the same format, but only for the public key of drand quicknet; a chain with another beacon,
such as the embedded one, needs the key that it publishes. In `tests/chain/test_timelock.py` bittensor-core decrypts the
result.

    key -> BF-IBE under (beacon key, sha256(round)) ; plaintext -> AES-256-GCM under key
    bytes = U | V | W | body | suite    (U: 96 bytes of G2; the others with a u64 length in front, little endian)

Sources: the `tle` crate of ideal-lab5/timelock (FullIdent, AES-GCM); drand's scheme bls-unchained-g1-rfc9380;
bittensor-core's epoch_schedule for `first_reveal_block`.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from raytensor.chain.rpc.codec import encode_compact

DST = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
MAX_TEMPO = 50_400  # blocks after which a subnet steps at once
SAFETY_BLOCKS = 3  # margin for slow blocks after the first block that can open a commit, as in bittensor-core
COMMIT_VERSION = 4


class Beacon(NamedTuple):
    """A drand beacon: compressed G2 key of 96 bytes, seconds between rounds, Unix time of round 1."""

    public_key: bytes
    period_s: int
    genesis_s: int

    def round_at(self, time_s: float) -> int:
        """The newest round published at a Unix time; 0 before the first."""
        return 0 if time_s < self.genesis_s else int((time_s - self.genesis_s) // self.period_s) + 1


QUICKNET = Beacon(
    bytes.fromhex(
        "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
        "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
    ),
    period_s=3,
    genesis_s=1_692_803_367,
)


class EpochSchedule(NamedTuple):
    """A subnet's schedule as stored at `block`: Tempo, LastEpochBlock, PendingEpochAt, SubnetEpochIndex,
    BlocksSinceLastStep.
    """

    block: int
    tempo: int
    last_epoch_block: int
    pending_epoch_at: int
    epoch_index: int
    blocks_since_step: int

    def due(self, block: int) -> bool:
        """Whether an epoch runs in `block`."""
        if self.tempo == 0:
            return False
        triggered = 0 < self.pending_epoch_at <= block
        late = self.blocks_since_step > MAX_TEMPO
        return triggered or late or block - self.last_epoch_block >= self.tempo

    def step(self, block: int) -> EpochSchedule:
        """The schedule after `block`, if it is not changed from outside."""
        if self.due(block):
            return EpochSchedule(block, self.tempo, block, 0, self.epoch_index + 1, 0)
        return self._replace(block=block, blocks_since_step=self.blocks_since_step + 1)


def first_reveal_block(schedule: EpochSchedule, reveal_period_epochs: int) -> int:
    """The first block that can open a commit included in the block after the schedule's.

    The chain opens commits before it runs the epochs of a block, and counts a due epoch as begun. Raises ValueError for
    tempo 0.
    """
    if schedule.tempo == 0:
        raise ValueError("the subnet's tempo is 0: no epoch runs, so no commit can be revealed")
    block = schedule.block + 1
    target = schedule.epoch_index + schedule.due(block) + reveal_period_epochs
    limit = block + (reveal_period_epochs + 2) * MAX_TEMPO
    while block < limit:
        if schedule.epoch_index + schedule.due(block) >= target:
            return block
        schedule = schedule.step(block)
        block += 1
    raise ValueError(f"no block up to {limit} reveals a commit {reveal_period_epochs} epochs after {schedule}")


def reveal_round(
    beacon: Beacon, schedule: EpochSchedule, reveal_period_epochs: int, now_s: float, block_time_s: float
) -> int:
    """The round to encrypt for: published just before SAFETY_BLOCKS after the first reveal block, as in bittensor-core.

    now_s  Unix time of the chain at `schedule.block`, its Timestamp.Now.

    Where epochs are shorter than a few rounds (fast blocks), the newest round at the time of inclusion is used: the
    chain refuses older ones.
    """
    blocks = first_reveal_block(schedule, reveal_period_epochs) + SAFETY_BLOCKS - schedule.block
    wanted = math.floor((now_s + blocks * block_time_s - beacon.genesis_s) / beacon.period_s)
    return max(wanted, beacon.round_at(now_s + block_time_s), 1)


def weights_payload(hotkey: bytes, uids: Sequence[int], values: Sequence[int], version_key: int) -> bytes:
    """SCALE of WeightsTlockPayload: (hotkey: Vec<u8>, uids: Vec<u16>, values: Vec<u16>, version_key: u64)."""
    if len(uids) != len(values):
        raise ValueError(f"{len(uids)} uids but {len(values)} values")
    columns = [b"".join(i.to_bytes(2, "little") for i in column) for column in (uids, values)]
    u16s = b"".join(encode_compact(len(uids)) + column for column in columns)
    return encode_compact(len(hotkey)) + hotkey + u16s + version_key.to_bytes(8, "little")


def seal(plaintext: bytes, round_number: int, public_key: bytes) -> bytes:
    """Encrypt so that only the beacon's signature of `round_number` decrypts. Raises ValueError for an invalid key."""
    try:
        beacon_key = G2Point.from_compressed_bytes(public_key)
    except ValueError as error:
        why = f"is not a compressed point of BLS12-381 G2: {error}"
        raise ValueError(f"beacon key 0x{public_key.hex()} {why}") from error
    key, sigma, nonce = os.urandom(32), os.urandom(32), os.urandom(12)
    r = Scalar.from_be_bytes_mod_order(_sha256(sigma + key))
    identity = G1Point.hash_to_curve(round_message(round_number), DST)
    shared = GT.pairing(identity, beacon_key * r)
    # The binding offers the serialization of a GT element only as its text, in hexadecimal.
    v = _xor(sigma, _sha256(bytes.fromhex(str(shared))))
    body = _sized(AESGCM(key).encrypt(nonce, plaintext, b"")) + _sized(nonce)
    parts = (v, _xor(key, _sha256(sigma)), body, b"AES_GCM_")
    return (G2Point() * r).to_compressed_bytes() + b"".join(map(_sized, parts))


def round_message(round_number: int) -> bytes:
    """The message that the beacon signs in a round."""
    return _sha256(round_number.to_bytes(8, "big"))


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data
