"""Signs requests for processes that must not hold a key.

In: references of hotkeys, and the texts of requests. Out: signatures. A process that parses untrusted answers signs
through a `RemoteSigner`, which calls the `Notary`, an actor that reads nothing else. The notary signs only requests of
the wire's protocols: an attacker in the asking process can send requests as the hotkey while the process lives, but
gets neither the key nor a signature under an extrinsic.
"""

import re
from collections.abc import Mapping
from typing import Any

from raytensor.wire.auth import PROTOCOL, Signer
from raytensor.wire.errors import MalformedAuth

_SS58 = r"[1-9A-HJ-NP-Za-km-z]{46,49}"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# The whole texts that the three protocols sign (auth.payload, epistula._message, axon_v10._message).
_REQUESTS = re.compile(
    rf"{PROTOCOL}\n(?:sr25519|ed25519)\n[A-Z]+\n/[!-~]*\n[0-9a-f]{{64}}\n\d{{1,20}}\n{_SS58}\n(?:{_SS58}|-)"
    rf"|[0-9a-f]{{64}}\.{_UUID}\.\d{{1,20}}\.(?:{_SS58})?"
    rf"|\d{{1,20}}\.{_SS58}\.{_SS58}\.{_UUID}\.[0-9a-f]{{64}}"
)


class Notary:
    """keys: hotkey (ss58) -> a reference whose `open()` gives a `Signer`; opened here and nowhere else."""

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self._signers: dict[str, Signer] = {hotkey: key.open() for hotkey, key in keys.items()}

    def schemes(self) -> dict[str, int]:
        """Hotkey -> crypto_type of each key."""
        return {hotkey: signer.crypto_type for hotkey, signer in self._signers.items()}

    def sign(self, hotkey: str, message: bytes) -> bytes:
        """64 bytes of signature. Raises MalformedAuth for other messages, KeyError for an unknown hotkey."""
        if not _REQUESTS.fullmatch(message.decode("ascii", "replace")):
            raise MalformedAuth("the notary signs only requests of the wire")
        return self._signers[hotkey].sign(message)


class RemoteSigner:
    """A `Signer` whose key is in a notary. notary: handle of the actor. `sign` blocks, so call it in a thread."""

    blocking = True

    def __init__(self, notary: Any, ss58: str, crypto_type: int, timeout_s: float = 10.0) -> None:
        self.ss58, self.crypto_type = ss58, crypto_type
        self._notary, self._timeout_s = notary, timeout_s

    def sign(self, message: bytes) -> bytes:
        import ray  # optional: a signer in one process needs none

        return ray.get(self._notary.sign.remote(self.ss58, message), timeout=self._timeout_s)
