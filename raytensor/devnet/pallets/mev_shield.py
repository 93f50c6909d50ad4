"""MevShield (30): extrinsics that stay encrypted in the pool until their block is built.

In: `submit_encrypted`, which carries a signed extrinsic encrypted for the author's ML-KEM-768 key. Out: the inner
extrinsic, which the chain adds to the same block directly after its carrier (chain.py).
The author's key is derived from a fixed public seed, because only the owner of a development chain reads its pool.
Knows nothing of the pool or of the inner extrinsic's content.

    ciphertext = xxhash128(key) | u16 length | ML-KEM-768 ciphertext | 24 bytes nonce | XChaCha20-Poly1305 ciphertext

Format and checks: pallets/shield of Subtensor (the call's documentation, CheckShieldedTxValidity).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from Crypto.Cipher import ChaCha20_Poly1305
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from raytensor.devnet.hashing import blake2_256, twox_128
from raytensor.devnet.pallet import Call, Origin, Pallet, StorageValue, call

MAX_CIPHERTEXT = 8192
MAX_ERA_BLOCKS = 8  # longest era of a carrier; CheckMortality refuses others as stale
PARSE_FAILED, WRONG_KEY = 23, 24  # InvalidTransaction::Custom
_HASH, _NONCE, _TAG = 16, 24, 16


@cache
def author_key():
    """The author's decapsulation key."""
    halves = (blake2_256(b"RayTensor devnet, MevShield key " + half) for half in (b"d", b"z"))
    return MLKEM768PrivateKey.from_seed_bytes(b"".join(halves))


class Shielded(NamedTuple):
    """The parts of a ciphertext."""

    key_hash: bytes
    kem: bytes
    nonce: bytes
    sealed: bytes


def parse(ciphertext: bytes) -> Shielded | None:
    """The parts of a ciphertext; None if it is shorter than its lengths say."""
    start = _HASH + 2
    end = start + int.from_bytes(ciphertext[_HASH:start], "little")
    if len(ciphertext) < end + _NONCE + _TAG:
        return None
    nonce_end = end + _NONCE
    return Shielded(ciphertext[:_HASH], ciphertext[start:end], ciphertext[end:nonce_end], ciphertext[nonce_end:])


class MevShield(Pallet):
    name, index, crate = "MevShield", 30, "pallet_shield"
    NextKey = StorageValue("BoundedVec<u8, 2048>", optional=True)
    events = {"EncryptedSubmitted": (0, {"id": "H256", "who": "AccountId32"})}
    errors = ("BadEncKeyLen", "Unreachable", "TooManyPendingExtrinsics", "WeightExceedsAbsoluteMax")

    def genesis(self, config: dict) -> None:
        self.NextKey.set(author_key().public_key().public_bytes_raw())

    @call(1, weight=38_980_000)
    def submit_encrypted(self, origin: Origin, ciphertext: "BoundedVec<u8, 8192>"):
        who = origin.ensure_signed()
        encoded = self.runtime.codecs("(AccountId32, Vec<u8>)").encode((who, ciphertext))
        self.emit("EncryptedSubmitted", blake2_256(encoded), who)

    def refusal(self, call: Call) -> int | None:
        """The InvalidTransaction::Custom code with which the pool refuses a carrier; None if it accepts it."""
        shielded = parse(call.args[0])
        if shielded is None:
            return PARSE_FAILED
        return None if shielded.key_hash == twox_128(self.NextKey.get()) else WRONG_KEY

    def open(self, call: Call) -> bytes | None:
        """The length-prefixed extrinsic inside a carrier; None if it is not encrypted for the author's key."""
        shielded = parse(call.args[0])
        if shielded is None:
            return None
        try:
            secret = author_key().decapsulate(shielded.kem)
            cipher = ChaCha20_Poly1305.new(key=secret, nonce=shielded.nonce)
            return cipher.decrypt_and_verify(shielded.sealed[:-_TAG], shielded.sealed[-_TAG:])
        except ValueError:
            return None


def is_carrier(call: Call) -> bool:
    return call.spec.name == "submit_encrypted" and call.pallet == MevShield.name
