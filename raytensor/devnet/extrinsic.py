"""Extrinsics of version 4: decoding, the payload that is signed, signatures.

In: the length-prefixed bytes that a client submits. Out: an `Extrinsic`, with its call as values.
Knows nothing of state: nonce, balance and mortality are judged in executive.py.
Format: `84 | MultiAddress | MultiSignature | era, nonce, tip, mode | call`; signed are call, extra and
(spec_version, transaction_version, genesis, era block hash, metadata hash), hashed with blake2-256 above 256 bytes.
"""

from __future__ import annotations

import ed25519_zebra
import sr25519

from raytensor.devnet.builtin import ScaleError, compact, read_compact
from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Call
from raytensor.devnet.scale import Codecs

SIGNED_V4, BARE_V4 = 0x84, 0x04


class Extrinsic:
    """A decoded extrinsic. `signer` is None for a bare one (inherents). `era`: (period, phase), or None if immortal."""

    __slots__ = (
        "raw",
        "hash",
        "signer",
        "scheme",
        "signature",
        "era",
        "nonce",
        "tip",
        "mode",
        "call",
        "_extra",
        "_call_bytes",
    )

    def birth(self, current: int) -> int:
        """First block of the era that contains `current` (sp_runtime::generic::Era::birth); 0 if immortal."""
        if self.era is None:
            return 0
        period, phase = self.era
        return (max(current, phase) - phase) // period * period + phase

    def death(self, current: int) -> int | None:
        """First block after that era; None if immortal."""
        return None if self.era is None else self.birth(current) + self.era[0]

    def payload(self, spec_version: int, transaction_version: int, genesis: bytes, era_hash: bytes) -> bytes:
        """What the signature signs."""
        versions = spec_version.to_bytes(4, "little") + transaction_version.to_bytes(4, "little")
        data = self._call_bytes + self._extra + versions + genesis + era_hash + b"\0"
        return blake2_256(data) if len(data) > 256 else data

    def verify(self, payload: bytes) -> bool:
        """Whether the signature signs the payload."""
        return verify_signature(self.scheme, self.signature, payload, self.signer)


def verify_signature(scheme: int, signature: bytes, message: bytes, key: bytes) -> bool:
    """Whether a MultiSignature of that index signs the message. Never raises on a malformed one."""
    try:
        if scheme == 1:
            return sr25519.verify(signature, message, key)
        if scheme == 0:
            return ed25519_zebra.ed_verify(signature, message, key)
    except ValueError:
        return False
    return False  # ecdsa accounts are hashes of keys; the devnet has none


def decode_extrinsic(codecs: Codecs, raw: bytes) -> Extrinsic:
    """Decode a length-prefixed extrinsic. ScaleError says what is wrong with it."""
    length, pos = read_compact(raw, 0)
    if length != len(raw) - pos:
        raise ScaleError(f"the extrinsic says it has {length} bytes and has {len(raw) - pos}")
    if length == 0:
        raise ScaleError("the extrinsic is empty")
    extrinsic = Extrinsic()
    extrinsic.raw, extrinsic.hash = raw, blake2_256(raw)
    kind = raw[pos]
    if kind == SIGNED_V4:
        pos = _signed_part(extrinsic, raw, pos + 1)
    elif kind == BARE_V4:
        extrinsic.signer, extrinsic.era, extrinsic.nonce, extrinsic.tip = None, None, 0, 0
        pos += 1
    else:
        raise ScaleError(f"extrinsic version {kind & 0x7F} is not 4")
    extrinsic._call_bytes = raw[pos:]
    extrinsic.call = codecs("RuntimeCall").decode(extrinsic._call_bytes)
    return extrinsic


def _signed_part(extrinsic: Extrinsic, raw: bytes, pos: int) -> int:
    if len(raw) < pos + 34:
        raise ScaleError("extrinsic: input ends too early")
    if raw[pos] != 0:
        raise ScaleError("extrinsic: the signer's address must be an account id")
    extrinsic.signer = raw[pos + 1 : pos + 33]
    extrinsic.scheme = raw[pos + 33]
    size = 65 if extrinsic.scheme == 2 else 64
    start, pos = pos + 34, pos + 34 + size
    if extrinsic.scheme > 2 or len(raw) < pos + 1:
        raise ScaleError("extrinsic: bad signature type, or input ends too early")
    extrinsic.signature = raw[start:pos]
    start = pos
    extrinsic.era, pos = decode_era(raw, pos)
    extrinsic.nonce, pos = read_compact(raw, pos)
    extrinsic.tip, pos = read_compact(raw, pos)
    if extrinsic.nonce >> 32 or extrinsic.tip >> 64:
        raise ScaleError("extrinsic: nonce or tip out of range")
    if pos >= len(raw) or raw[pos] != 0:
        raise ScaleError("extrinsic: metadata hash mode must be Disabled")
    pos += 1
    extrinsic._extra = raw[start:pos]
    return pos


def decode_era(data: bytes, pos: int) -> tuple[tuple[int, int] | None, int]:
    """((period, phase) or None, next position) of an era (sp_runtime::generic::Era)."""
    if pos >= len(data):
        raise ScaleError("era: input ends too early")
    if data[pos] == 0:
        return None, pos + 1
    if pos + 2 > len(data):
        raise ScaleError("era: input ends too early")
    encoded = data[pos] | data[pos + 1] << 8
    period = 2 << (encoded % 16)
    phase = (encoded >> 4) * max(period >> 12, 1)
    if period < 4 or phase >= period:
        raise ScaleError("era: period or phase out of range")
    return (period, phase), pos + 2


def bare_extrinsic(codecs: Codecs, call: Call) -> bytes:
    """An inherent: version 4 without a signature, length-prefixed."""
    body = bytes([BARE_V4]) + codecs("RuntimeCall").encode(call)
    return compact(len(body)) + body
