"""The development beacon: drand quicknet's scheme with a key of our own, so that it can sign rounds when they are due.

In: round numbers. Out: signatures, pulses, verdicts on pulses; timelocked ciphertexts opened.
The secret comes from a text that everybody knows: on this chain nobody has to wait for a round but the chain itself.
Scheme: bls-unchained-g1-rfc9380 (signatures of 48 bytes in G1, keys of 96 bytes in G2), period and genesis of quicknet,
so that clients which compute rounds from the wall clock compute the same. Knows nothing of storage or blocks.
"""

from __future__ import annotations

import hashlib
from functools import cache

import bittensor_core
from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from raytensor.chain.timelock import DST, QUICKNET, Beacon, round_message
from raytensor.devnet.builtin import compact

_SECRET = Scalar.from_be_bytes_mod_order(hashlib.sha256(b"RayTensor devnet, drand beacon").digest())


@cache
def development_beacon() -> Beacon:
    return QUICKNET._replace(public_key=(G2Point() * _SECRET).to_compressed_bytes())


def sign(round_number: int) -> bytes:
    """The development beacon's signature of a round."""
    return (G1Point.hash_to_curve(round_message(round_number), DST) * _SECRET).to_compressed_bytes()


class DevelopmentPulse:
    """A pulse of the development beacon. It is signed when somebody looks at it: most pulses nobody ever reads."""

    __slots__ = ("round", "_signature")

    def __init__(self, round_number: int) -> None:
        self.round = round_number
        self._signature: bytes | None = None

    @property
    def signature(self) -> bytes:
        if self._signature is None:
            self._signature = sign(self.round)
        return self._signature

    @property
    def randomness(self) -> bytes:
        return hashlib.sha256(self.signature).digest()


def verify(public_key: bytes, round_number: int, signature: bytes) -> bool:
    """Whether the beacon of that key signed the round. ValueError when key or signature are no curve points."""
    key, point = G2Point.from_compressed_bytes(public_key), G1Point.from_compressed_bytes(signature)
    message = G1Point.hash_to_curve(round_message(round_number), DST)
    return GT.pairing(point, G2Point()) == GT.pairing(message, key)


def unseal(ciphertext: bytes, signature: bytes) -> bytes | None:
    """The plaintext of a timelocked ciphertext; None when it is malformed or not for that signature."""
    # bittensor-core (the chain's own crate) opens ciphertexts as clients keep them: SCALE (bytes, reveal round).
    kept = compact(len(ciphertext)) + ciphertext + bytes(8)
    try:
        return bittensor_core.decrypt_with_signature(kept, signature.hex())
    except ValueError:
        return None
