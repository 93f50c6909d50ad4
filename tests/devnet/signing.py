"""Signed extrinsics made by hand, quickly and also wrongly: what no well-behaved client would send."""

from __future__ import annotations

from hashlib import blake2b

import sr25519
from substrateinterface import Keypair

ALICE, BOB, CHARLIE, DAVE = (Keypair.create_from_uri(f"//{name}") for name in ("Alice", "Bob", "Charlie", "Dave"))
SPEC_VERSION, TRANSACTION_VERSION = 475, 1


def compact(value: int) -> bytes:
    """SCALE compact, written anew so that the codec under test does not vouch for itself."""
    for mode, bits in ((0, 6), (1, 14), (2, 30)):
        if value < 1 << bits:
            return (value << 2 | mode).to_bytes(1 << mode, "little")
    size = max((value.bit_length() + 7) // 8, 4)
    return bytes([(size - 4) << 2 | 3]) + value.to_bytes(size, "little")


def prefixed(body: bytes) -> bytes:
    return compact(len(body)) + body


def transfer_call(dest: bytes, amount: int) -> bytes:
    """Balances.transfer_keep_alive(MultiAddress::Id(dest), amount)."""
    return b"\5\3\0" + dest + compact(amount)


def signed(
    call: bytes,
    signer: Keypair,
    nonce: int,
    genesis: bytes,
    *,
    era: bytes = b"\0",
    era_hash: bytes | None = None,
    tip: int = 0,
    spec_version: int = SPEC_VERSION,
    signature: bytes | None = None,
) -> bytes:
    """A length-prefixed version 4 extrinsic."""
    extra = era + compact(nonce) + compact(tip) + b"\0"
    payload = call + extra + spec_version.to_bytes(4, "little") + TRANSACTION_VERSION.to_bytes(4, "little")
    payload += genesis + (era_hash or genesis) + b"\0"
    if len(payload) > 256:
        payload = blake2b(payload, digest_size=32).digest()
    if signature is None:
        signature = sr25519.sign((signer.public_key, signer.private_key), payload)
    return prefixed(b"\x84\0" + signer.public_key + b"\1" + signature + extra + call)


def to_hex(data: bytes) -> str:
    return "0x" + data.hex()
