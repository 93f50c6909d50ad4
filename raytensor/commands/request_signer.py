"""A key that signs wire requests in a child process.

In: a key reference. Out: signatures of wire requests. The child process opens the key and refuses to sign anything
else, so a process that reads answers of strangers holds no key.
"""

import threading

from raytensor.chain.wallet import KeyRef
from raytensor.pool.forked_worker import ForkedWorker
from raytensor.wire.notary import Notary


class ProcessSigner:
    """A `Signer` whose key is opened, and signs, in a child process; it signs wire requests only.

    Raises WalletError if the key can't be opened. `close` ends the child.
    """

    blocking = True

    def __init__(self, key: KeyRef) -> None:
        self.ss58 = key.ss58
        self._lock = threading.Lock()
        self._child = ForkedWorker(_LazyNotary(self.ss58, key), limit_s=30.0)
        self.crypto_type: int = self._child.call("scheme")

    def sign(self, message: bytes) -> bytes:
        """64 bytes of signature. Raises MalformedAuth for a message that is not a wire request."""
        with self._lock:
            return self._child.call("sign", message)

    def close(self) -> None:
        self._child.close()


class _LazyNotary:
    """Opens the key at the first call, which is in the child process."""

    def __init__(self, ss58: str, key: KeyRef) -> None:
        self._ss58, self._key = ss58, key
        self._notary: Notary | None = None

    def scheme(self) -> int:
        return self._open().schemes()[self._ss58]

    def sign(self, message: bytes) -> bytes:
        return self._open().sign(self._ss58, message)

    def _open(self) -> Notary:
        if self._notary is None:
            self._notary = Notary({self._ss58: self._key})
        return self._notary
