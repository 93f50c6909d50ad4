"""btauth/1: proof that hotkey X sent exactly these bytes to hotkey Y, and when.

In: headers, the raw body, the time. Out: a `Caller`, or an `AuthError` with the reason.
Pure functions: they read no clock, no store and no network. Knows nothing of bodies beyond their bytes.

Headers (X-Bittensor-...): Version "1", Hotkey (ss58), Receiver (ss58), Nonce (decimal nanoseconds), Signature (0x hex),
Crypto (only when the scheme is not sr25519). Signed bytes: eight lines joined by "\\n", as `payload` builds them.
The same bytes as bittensor 11's `bittensor.http_auth`; each accepts what the other signs.

The check has two steps, since most of it needs no body: `read_claim` (header shape, receiver, freshness) before the
body is read, and `prove` (signature under the declared scheme only) after. The nonce store comes last (`Gate`), so that
only the owner of a key can use up its nonces.
"""

import hashlib
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ed25519_zebra as _ed25519
import sr25519 as _sr25519

from raytensor.chain import ss58
from raytensor.config.wire import Freshness
from raytensor.wire.errors import BadSignature, MalformedAuth, StaleRequest, WrongReceiver

sr25519: Any = _sr25519  # native modules without type declarations
ed25519: Any = _ed25519
PROTOCOL = "btauth/1"
VERSION = "1"
SCHEMES = {1: "sr25519", 0: "ed25519"}  # by `crypto_type`, as wallets number them

_DECIMAL = re.compile(r"[0-9]{1,20}")
_SIGNATURE = re.compile(r"(?:0x)?[0-9a-fA-F]{128}")


class Signer(Protocol):
    """A key in this process, or a proxy of one in another process.

    blocking  whether `sign` waits for another process; it is then called in a thread.
    """

    ss58: str
    crypto_type: int  # 1 sr25519, 0 ed25519
    blocking: bool

    def sign(self, message: bytes) -> bytes: ...


class Key:
    """A private key in this process, from a seed of 32 bytes. It can't be pickled or printed."""

    blocking = False

    def __init__(self, seed: bytes, scheme: str = "sr25519") -> None:
        if len(seed) != 32 or scheme not in SCHEMES.values():
            raise ValueError(f"a key needs a seed of 32 bytes and a scheme of {', '.join(SCHEMES.values())}")
        self.crypto_type = 1 if scheme == "sr25519" else 0
        if scheme == "sr25519":
            public, self._secret = sr25519.pair_from_seed(seed)
        else:
            self._secret, public = ed25519.ed_from_seed(seed)
        self._public = bytes(public)
        self.ss58 = ss58.encode(self._public)

    def sign(self, message: bytes) -> bytes:
        """64 bytes of signature over the message."""
        if self.crypto_type == 1:
            return sr25519.sign((self._public, self._secret), message)
        return ed25519.ed_sign(self._secret, message)

    def __repr__(self) -> str:
        return f"Key({self.ss58})"

    def __reduce__(self):
        raise TypeError(f"{self!r} must not leave its process")


@dataclass(frozen=True, slots=True)
class Claim:
    """What the headers claim: well-formed and fresh, but not proved."""

    hotkey: str
    public_key: bytes
    scheme: str
    nonce_ns: int
    receiver: str | None
    signature: bytes
    unique: str = ""  # distinguishes requests with the same nonce, in protocols with coarse clocks
    body_hash: str = ""  # in protocols that sign a hash from a header


@dataclass(frozen=True, slots=True)
class Caller:
    """The proved sender of a request."""

    hotkey: str
    nonce_ns: int
    scheme: str


SET_BACK_NS = 5 * 10**9  # a clock that jumps back by more was set


class NonceSource:
    """Nonces of one process: the time in nanoseconds, strictly increasing unless the clock is set back.

    The last ten bits are random per process, so that two processes that sign with one hotkey in the same microsecond
    use different nonces.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._tag = secrets.randbits(10)
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            now = (self._clock() >> 10 << 10) | self._tag
            # A clock that was ahead and is set right: its nonces would be refused as of the future until it is there.
            self._last = now if self._last - now > SET_BACK_NS else max(now, self._last + 1024)
            return self._last


def payload(
    scheme: str, sender: str, receiver: str | None, nonce_ns: int, method: str, path: str, body: bytes
) -> bytes:
    """The bytes that btauth/1 signs. `path` is the request target as sent, the query included."""
    digest = hashlib.sha256(body).hexdigest()
    lines = (PROTOCOL, scheme, method.upper(), path, digest, str(nonce_ns), sender, receiver or "-")
    return "\n".join(lines).encode()


def sign(signer: Signer, *, method: str, path: str, body: bytes, receiver: str | None, nonce_ns: int) -> dict[str, str]:
    """The headers that prove a request. Each attempt needs a new nonce."""
    scheme = SCHEMES[signer.crypto_type]
    message = payload(scheme, signer.ss58, receiver, nonce_ns, method, path, body)
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
    """The first step: header shape, then receiver, then freshness. `receiver` is the hotkey of the server.

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
    """The second step: the signature, under the declared scheme only. Raises BadSignature."""
    message = payload(claim.scheme, claim.hotkey, claim.receiver, claim.nonce_ns, method, path, body)
    check_signature(claim, message)
    return Caller(claim.hotkey, claim.nonce_ns, claim.scheme)


def public_key_of(address: str) -> bytes:
    """The public key of a claimed hotkey. Raises MalformedAuth unless it is an ss58 address."""
    try:
        return ss58.decode(address)
    except ValueError as error:
        raise MalformedAuth(f"the claimed hotkey is not an address: {error}") from None


def decimal(text: str, name: str) -> int:
    """A header with a decimal number of at most 20 digits. Raises MalformedAuth."""
    if not _DECIMAL.fullmatch(text):
        raise MalformedAuth(f"{name} must be a decimal number")
    return int(text)


def signature_of(text: str, name: str) -> bytes:
    """A header with a signature of 64 bytes in hex. Raises MalformedAuth."""
    if not _SIGNATURE.fullmatch(text):
        raise MalformedAuth(f"{name} must be 64 bytes in hex")
    return bytes.fromhex(text.removeprefix("0x"))


def check_receiver(named: str | None, receiver: str, required: bool) -> None:
    """Raises WrongReceiver unless the request was signed for the hotkey of the server."""
    if named is None:
        if required:
            raise WrongReceiver("the request was signed for no receiver, and this server requires one")
    elif named != receiver:
        raise WrongReceiver("the request was signed for another hotkey")


def check_fresh(nonce_ns: int, now_ns: int, max_age_s: float, max_skew_s: float) -> None:
    """Raises StaleRequest unless the nonce is at most `max_age_s` old and `max_skew_s` ahead."""
    age_s = (now_ns - nonce_ns) / 1e9
    if age_s > max_age_s:
        raise StaleRequest(f"the request is older than {max_age_s:g} s")
    if -age_s > max_skew_s:
        raise StaleRequest(f"the request is more than {max_skew_s:g} s ahead of this server's clock")


def check_signature(claim: Claim, message: bytes) -> None:
    """Raises BadSignature unless the claimed key signed the message under the declared scheme."""
    check = sr25519.verify if claim.scheme == "sr25519" else ed25519.ed_verify
    try:
        valid = check(claim.signature, message, claim.public_key)
    except ValueError:  # 64 bytes that are not a signature of this scheme, or 32 that are not a point
        valid = False
    if not valid:
        raise BadSignature("the signature does not fit the claimed hotkey and these bytes")
