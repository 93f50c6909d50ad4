"""Epistula 2, signed headers that several subnets use, as a dialect of the wire.

Headers: Epistula-Version "2", -Timestamp (milliseconds), -Uuid, -Signed-By, -Signed-For, -Request-Signature (0x hex).
Signed text: "{sha256 of the body, hex}.{uuid}.{timestamp}.{signed for}", sr25519. Paths and bodies are those of the
wire, since Epistula defines none. Fail-closed: a request without a receiver is refused, and the uuid is part of the
nonce, so that no request is answered twice. The optional Epistula-Secret-Signature headers are not sent.
"""

import hashlib
import re
import uuid
from collections.abc import Mapping

from raytensor.config.wire import Freshness
from raytensor.wire import auth
from raytensor.wire.auth import Caller, Claim, Signer
from raytensor.wire.dialect import Dialect, Draft
from raytensor.wire.errors import MalformedAuth

VERSION = "2"
UUID = re.compile(r"[0-9A-Za-z-]{1,64}")


class Epistula(Dialect):
    """Requests signed by Epistula 2."""

    name = "epistula"
    mark = "epistula-version"
    receiver = "epistula-signed-for"

    def read(self, headers: Mapping[str, str], receiver: str, now_ns: int, fresh: Freshness) -> Claim:
        def need(name: str) -> str:
            value = headers.get(f"epistula-{name.lower()}")
            if value is None:
                raise MalformedAuth(f"the header Epistula-{name} is missing", fix="sign the request as Epistula 2 says")
            return value

        if need("Version") != VERSION:
            raise MalformedAuth(f"Epistula-Version must be {VERSION}")
        sender = need("Signed-By")
        public_key = auth.public_key_of(sender)
        nonce_ns = auth.decimal(need("Timestamp"), "Epistula-Timestamp") * 1_000_000
        unique = need("Uuid")
        if not UUID.fullmatch(unique):
            raise MalformedAuth("Epistula-Uuid must be a uuid")
        signature = auth.signature_of(need("Request-Signature"), "Epistula-Request-Signature")
        named = headers.get("epistula-signed-for") or None
        auth.check_receiver(named, receiver, required=True)
        auth.check_fresh(nonce_ns, now_ns, fresh.max_age_s, fresh.max_skew_s)
        return Claim(sender, public_key, "sr25519", nonce_ns, named, signature, unique)

    def prove(self, claim: Claim, *, method: str, target: str, body: bytes) -> Caller:
        auth.check_signature(claim, _message(body, claim.unique, claim.nonce_ns // 1_000_000, claim.receiver or ""))
        return Caller(claim.hotkey, claim.nonce_ns, claim.scheme)

    def sign(self, signer: Signer, draft: Draft, receiver: str, nonce_ns: int) -> dict[str, str]:
        unique, timestamp_ms = str(uuid.uuid4()), nonce_ns // 1_000_000
        signature = signer.sign(_message(draft.body, unique, timestamp_ms, receiver))
        return {
            "Epistula-Version": VERSION,
            "Epistula-Timestamp": str(timestamp_ms),
            "Epistula-Uuid": unique,
            "Epistula-Signed-By": signer.ss58,
            "Epistula-Signed-For": receiver,
            "Epistula-Request-Signature": "0x" + signature.hex(),
        }


def _message(body: bytes, unique: str, timestamp_ms: int, receiver: str) -> bytes:
    return f"{hashlib.sha256(body).hexdigest()}.{unique}.{timestamp_ms}.{receiver}".encode()
