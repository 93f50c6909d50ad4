"""The development beacon: drand quicknet's scheme with a local key, so that the node can sign rounds itself.

In: round numbers. Out: signatures, pulses, verification of pulses, decrypted timelocked ciphertexts.
The secret is public: it is derived from a fixed text. Only the chain itself waits for a round.
Scheme: bls-unchained-g1-rfc9380 (signatures of 48 bytes in G1, keys of 96 bytes in G2) with the period and genesis of
quicknet, so that clients compute the same rounds from the wall clock. Knows nothing of storage or blocks.
"""

import hashlib
from functools import cache

import bittensor_core
from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from raytensor.chain.writer.timelock import DST, QUICKNET, Beacon, round_message
from raytensor.devnet.builtin import compact

_SECRET = Scalar.from_be_bytes_mod_order(hashlib.sha256(b"RayTensor devnet, drand beacon").digest())


@cache
def development_beacon() -> Beacon:
    return QUICKNET._replace(public_key=(G2Point() * _SECRET).to_compressed_bytes())


def sign(round_number: int) -> bytes:
    """The development beacon's signature of a round."""
    return (G1Point.hash_to_curve(round_message(round_number), DST) * _SECRET).to_compressed_bytes()


class DevelopmentPulse:
    """A pulse of the development beacon. It is signed when it is first read; most pulses never are."""

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
    """Whether the beacon with that key signed the round. Raises ValueError if key or signature is no curve point."""
    key, point = G2Point.from_compressed_bytes(public_key), G1Point.from_compressed_bytes(signature)
    message = G1Point.hash_to_curve(round_message(round_number), DST)
    return GT.pairing(point, G2Point()) == GT.pairing(message, key)


def unseal(ciphertext: bytes, signature: bytes) -> bytes | None:
    """The plaintext of a timelocked ciphertext; None if it is malformed or encrypted for another signature."""
    # bittensor-core (the chain's own crate) takes ciphertexts in the clients' form: SCALE (bytes, reveal round).
    stored = compact(len(ciphertext)) + ciphertext + bytes(8)
    try:
        return bittensor_core.decrypt_with_signature(stored, signature.hex())
    except ValueError:
        return None
