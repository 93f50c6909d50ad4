"""btauth/1: proof that hotkey X sent exactly these bytes to hotkey Y, a moment ago.

In: headers, the raw body, the clock. Out: a `Caller`, or an `AuthError` that says why not.
Pure functions: no clock, no store, no network of their own. Knows nothing of bodies beyond their bytes.

Headers (X-Bittensor-...): Version "1", Hotkey (ss58), Receiver (ss58), Nonce (decimal nanoseconds), Signature (0x hex),
Crypto (only when the scheme is not sr25519). Signed bytes: eight lines joined by "\\n", as `payload` builds them.
The same bytes as bittensor 11's `bittensor.http_auth`; each accepts what the other signs.

A check has two halves, since most of it needs no body: `read_claim` (header shape, receiver, freshness) before the
body is read, `prove` (signature under the declared scheme only) after. The replay store comes last (`verify`).
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import ed25519_zebra
import sr25519

from raytensor.chain import ss58
from raytensor.config.wire import Freshness
from raytensor.wire.errors import BadSignature, MalformedAuth, StaleRequest, WrongReceiver

PROTOCOL = "btauth/1"
VERSION = "1"
SCHEMES = {1: "sr25519", 0: "ed25519"}  # by `crypto_type`, as wallets number them

_DECIMAL = re.compile(r"[0-9]{1,20}")
_SIGNATURE = re.compile(r"(?:0x)?[0-9a-fA-F]{128}")


class Signer(Protocol):
    """What signs: a key in this process, or something that asks another process to sign."""

    ss58: str
    crypto_type: int  # 1 sr25519, 0 ed25519

    def sign(self, message: bytes) -> bytes: ...


class Key:
    """A private key in this process, from a seed of 32 bytes. Can't be pickled or printed."""

    def __init__(self, seed: bytes, scheme: str = "sr25519") -> None:
        if len(seed) != 32 or scheme not in SCHEMES.values():
            raise ValueError(f"a key needs a seed of 32 bytes and a scheme of {', '.join(SCHEMES.values())}")
        self.crypto_type = 1 if scheme == "sr25519" else 0
        if scheme == "sr25519":
            public, self._secret = sr25519.pair_from_seed(seed)
        else:
            self._secret, public = ed25519_zebra.ed_from_seed(seed)
        self._public = bytes(public)
        self.ss58 = ss58.encode(self._public)

    def sign(self, message: bytes) -> bytes:
        """64 bytes of signature over the message."""
        if self.crypto_type == 1:
            return sr25519.sign((self._public, self._secret), message)
        return ed25519_zebra.ed_sign(self._secret, message)

    def __repr__(self) -> str:
        return f"Key({self.ss58})"

    def __reduce__(self):
        raise TypeError(f"{self!r} must not leave its process")


@dataclass(frozen=True, slots=True)
class Claim:
    """What the headers say, in good shape and fresh, but not yet proved."""

    hotkey: str
    public_key: bytes
    scheme: str
    nonce_ns: int
    receiver: str | None
    signature: bytes
    unique: str = ""  # beside the nonce, what tells two requests of one hotkey apart (protocols with coarse clocks)
    body_hash: str = ""  # of protocols that sign a hash which they name in a header


@dataclass(frozen=True, slots=True)
class Caller:
    """The proved sender of a request."""

    hotkey: str
    nonce_ns: int
    scheme: str


class NonceSource:
    """Nonces of one process: now in nanoseconds, each greater than the one before.

    The last ten bits are random per process, so that two processes that sign with one hotkey in the same microsecond
    do not make the same nonce.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._tag = secrets.randbits(10)
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self._last = max((self._clock() >> 10 << 10) | self._tag, self._last + 1024)
            return self._last


def payload(
    *, scheme: str, method: str, path: str, body: bytes, nonce_ns: int, sender: str, receiver: str | None
) -> bytes:
    """The bytes that btauth/1 signs. `path` is the request target as sent, the query included."""
    digest = hashlib.sha256(body).hexdigest()
    lines = (PROTOCOL, scheme, method.upper(), path, digest, str(nonce_ns), sender, receiver or "-")
    return "\n".join(lines).encode()


def sign(signer: Signer, *, method: str, path: str, body: bytes, receiver: str | None, nonce_ns: int) -> dict[str, str]:
    """The headers that prove a request. Every try needs a new nonce."""
    scheme = SCHEMES[signer.crypto_type]
    message = payload(
        scheme=scheme, method=method, path=path, body=body, nonce_ns=nonce_ns, sender=signer.ss58, receiver=receiver
    )
    headers = {
        "X-Bittensor-Version": VERSION,
        "X-Bittensor-Hotkey": signer.ss58,
        "X-Bittensor-Nonce": str(nonce_ns),
        "X-Bittensor-Signature": "0x" + signer.sign(message).hex(),
    }
    if scheme != "sr25519":
        headers["X-Bittensor-Crypto"] = scheme
    if receiver is not None:
        headers["X-Bittensor-Receiver"] = receiver
    return headers


def read_claim(
    headers: Mapping[str, str], *, receiver: str, now_ns: int, fresh: Freshness, require_receiver: bool = True
) -> Claim:
    """The first half: header shape, then receiver, then freshness. `receiver` is the hotkey that serves.

    Raises MalformedAuth, WrongReceiver or StaleRequest.
    """
    lowered = {name.lower(): value for name, value in headers.items()}

    def need(name: str) -> str:
        value = lowered.get(f"x-bittensor-{name.lower()}")
        if value is None:
            raise MalformedAuth(f"the header X-Bittensor-{name} is missing")
        return value

    if need("Version") != VERSION:
        raise MalformedAuth(f"X-Bittensor-Version must be {VERSION}")
    sender = need("Hotkey")
    public_key = public_key_of(sender)
    nonce_ns = decimal(need("Nonce"), "X-Bittensor-Nonce")
    scheme = lowered.get("x-bittensor-crypto", "sr25519").strip().lower()
    if scheme not in SCHEMES.values():
        raise MalformedAuth(f"X-Bittensor-Crypto must be one of {', '.join(SCHEMES.values())}")
    signature = signature_of(need("Signature"), "X-Bittensor-Signature")
    named = lowered.get("x-bittensor-receiver")
    check_receiver(named, receiver, require_receiver)
    check_fresh(nonce_ns, now_ns, fresh.max_age_s, fresh.max_skew_s)
    return Claim(sender, public_key, scheme, nonce_ns, named, signature)


def prove(claim: Claim, *, method: str, path: str, body: bytes) -> Caller:
    """The second half: the signature, under the declared scheme only. Raises BadSignature."""
    message = payload(
        scheme=claim.scheme,
        method=method,
        path=path,
        body=body,
        nonce_ns=claim.nonce_ns,
        sender=claim.hotkey,
        receiver=claim.receiver,
    )
    check_signature(claim, message)
    return Caller(claim.hotkey, claim.nonce_ns, claim.scheme)


# ------------------------------------------------------------------------------- checks that other protocols share


def public_key_of(address: str) -> bytes:
    """The public key of a claimed hotkey; MalformedAuth if that is no ss58 address."""
    try:
        return ss58.decode(address)
    except ValueError as error:
        raise MalformedAuth(f"the claimed hotkey is no address: {error}") from None


def decimal(text: str, name: str) -> int:
    """A header that holds a decimal number of at most 20 digits; MalformedAuth otherwise."""
    if not _DECIMAL.fullmatch(text):
        raise MalformedAuth(f"{name} must be a decimal number")
    return int(text)


def signature_of(text: str, name: str) -> bytes:
    """A header that holds a signature of 64 bytes in hex; MalformedAuth otherwise."""
    if not _SIGNATURE.fullmatch(text):
        raise MalformedAuth(f"{name} must be 64 bytes in hex")
    return bytes.fromhex(text.removeprefix("0x"))


def check_receiver(named: str | None, receiver: str, required: bool) -> None:
    """WrongReceiver unless the request was signed for the hotkey that serves."""
    if named is None:
        if required:
            raise WrongReceiver("the request was signed for no receiver, and this server wants to be named")
    elif named != receiver:
        raise WrongReceiver("the request was signed for another hotkey")


def check_fresh(nonce_ns: int, now_ns: int, max_age_s: float, max_skew_s: float) -> None:
    """StaleRequest unless the nonce is at most `max_age_s` old and `max_skew_s` ahead."""
    age_s = (now_ns - nonce_ns) / 1e9
    if age_s > max_age_s:
        raise StaleRequest(f"the request is older than {max_age_s:g} s")
    if -age_s > max_skew_s:
        raise StaleRequest(f"the request is more than {max_skew_s:g} s ahead of this server's clock")


def check_signature(claim: Claim, message: bytes) -> None:
    """BadSignature unless the claimed key signed the message under the declared scheme."""
    check = sr25519.verify if claim.scheme == "sr25519" else ed25519_zebra.ed_verify
    try:
        valid = check(claim.signature, message, claim.public_key)
    except ValueError:  # 64 bytes that are no signature of this scheme, or 32 that are no point
        valid = False
    if not valid:
        raise BadSignature("the signature does not fit the claimed hotkey and these bytes")
