"""Extrinsics of version 4: decoding, the payload that is signed, signatures.

In: the length-prefixed bytes that a client submits. Out: an `Extrinsic` with its decoded call.
Knows nothing of state: executive.py checks nonce, balance and mortality.
Format: `84 | MultiAddress | MultiSignature | era, nonce, tip, mode | call`. The signed payload is call, extra and
(spec_version, transaction_version, genesis, era block hash, metadata hash), hashed with blake2-256 above 256 bytes.
"""

from dataclasses import dataclass
from typing import Any

import ed25519_zebra
import sr25519

from raytensor.devnet.builtin import ScaleError, compact, read_compact
from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Call
from raytensor.devnet.scale import Codecs

SIGNED_V4, BARE_V4 = 0x84, 0x04


@dataclass(frozen=True, slots=True, eq=False)
class Extrinsic:
    """A decoded extrinsic. `signer` is None for a bare one (inherents). `era`: (period, phase), or None if immortal.

    raw  the length-prefixed bytes.
    """

    raw: bytes
    hash: bytes
    call: Call
    call_bytes: bytes
    signer: bytes | None = None
    scheme: int = 0
    signature: bytes = b""
    era: tuple[int, int] | None = None
    nonce: int = 0
    tip: int = 0
    extra: bytes = b""

    def birth(self, current: int) -> int:
        """First block of the era that contains block `current` (sp_runtime::generic::Era::birth); 0 if immortal."""
        if self.era is None:
            return 0
        period, phase = self.era
        return (max(current, phase) - phase) // period * period + phase

    def death(self, current: int) -> int | None:
        """First block after that era; None if immortal."""
        return None if self.era is None else self.birth(current) + self.era[0]

    def payload(self, spec_version: int, transaction_version: int, genesis: bytes, era_hash: bytes) -> bytes:
        """The bytes that are signed."""
        versions = spec_version.to_bytes(4, "little") + transaction_version.to_bytes(4, "little")
        data = self.call_bytes + self.extra + versions + genesis + era_hash + b"\0"
        return blake2_256(data) if len(data) > 256 else data

    def verify(self, payload: bytes) -> bool:
        """Whether the signature signs the payload."""
        return self.signer is not None and verify_signature(self.scheme, self.signature, payload, self.signer)


def verify_signature(scheme: int, signature: bytes, message: bytes, key: bytes) -> bool:
    """Whether a MultiSignature of variant `scheme` signs the message. False for a malformed one."""
    try:
        if scheme == 1:
            return sr25519.verify(signature, message, key)  # pyright: ignore[reportAttributeAccessIssue]  # no stubs
        if scheme == 0:
            return ed25519_zebra.ed_verify(signature, message, key)  # pyright: ignore[reportAttributeAccessIssue]
    except ValueError:
        return False
    return False  # ecdsa is not supported


def decode_extrinsic(codecs: Codecs, raw: bytes) -> Extrinsic:
    """Decode a length-prefixed extrinsic. Raises `ScaleError` for a malformed one."""
    length, pos = read_compact(raw, 0)
    if length != len(raw) - pos:
        raise ScaleError(f"the extrinsic says it has {length} bytes and has {len(raw) - pos}")
    if length == 0:
        raise ScaleError("the extrinsic is empty")
    kind, signed, pos = raw[pos], {}, pos + 1
    if kind == SIGNED_V4:
        signed, pos = _signed_part(raw, pos)
    elif kind != BARE_V4:
        raise ScaleError(f"extrinsic version {kind & 0x7F} is not 4")
    call_bytes = raw[pos:]
    return Extrinsic(raw, blake2_256(raw), codecs("RuntimeCall").decode(call_bytes), call_bytes, **signed)


def _signed_part(raw: bytes, pos: int) -> tuple[dict[str, Any], int]:
    """(signer, signature and extra by their field names, next position)."""
    if len(raw) < pos + 34:
        raise ScaleError("extrinsic: input ends too early")
    if raw[pos] != 0:
        raise ScaleError("extrinsic: the signer's address must be an account id")
    signer, scheme = raw[pos + 1 : pos + 33], raw[pos + 33]
    start, pos = pos + 34, pos + 34 + (65 if scheme == 2 else 64)
    if scheme > 2 or len(raw) < pos + 1:
        raise ScaleError("extrinsic: bad signature type, or input ends too early")
    signature, start = raw[start:pos], pos
    era, pos = decode_era(raw, pos)
    nonce, pos = read_compact(raw, pos)
    tip, pos = read_compact(raw, pos)
    if nonce >> 32 or tip >> 64:
        raise ScaleError("extrinsic: nonce or tip out of range")
    if pos >= len(raw) or raw[pos] != 0:
        raise ScaleError("extrinsic: metadata hash mode must be Disabled")
    pos += 1
    extra = raw[start:pos]
    fields = {"signer": signer, "scheme": scheme, "signature": signature, "era": era, "nonce": nonce, "tip": tip}
    return fields | {"extra": extra}, pos


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
