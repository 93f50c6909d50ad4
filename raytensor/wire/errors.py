"""The errors of requests and answers on the wire.

    WireError (raytensor.errors)      status  meaning
    ├── AuthError                        401
    │   ├── MalformedAuth                401  an authentication header is missing or unreadable
    │   ├── WrongReceiver                401  signed for another hotkey, or for none
    │   ├── StaleRequest                 401  the nonce is outside the freshness window
    │   ├── BadSignature                 401  the signature does not match the claimed hotkey and bytes
    │   └── ReplayedRequest              401  this nonce was already accepted
    ├── PayloadError                     400  the body is not a message within the bounds
    ├── TooLarge                         413  the body is larger than the bound
    ├── TooSlow                          408  the sender or the handler took too long
    ├── NotFound                         404  no such path
    ├── Refused                          403  the access policy refuses this caller
    ├── RateLimited                      429  a caller or an address is over its rate limit
    ├── Overloaded                       503  the server is busy; the request may be sent again later
    ├── Declined                         422  the miner declined; has the `Reason` of its `Failure`
    └── Broken                           500  the handler raised

On the wire an error is JSON: {"error": class name, "reason": text, "fix": text}, `Declined` also "failure".
Reasons contain no signature, no body and nothing internal to the server, so any caller may read them.
"""

import json

from raytensor.errors import WireError
from raytensor.types import Reason


class AuthError(WireError):
    """A request whose sender is not proved."""

    status = 401


class MalformedAuth(AuthError):
    """An authentication header is missing or unreadable."""

    fix = "sign the request with btauth/1: X-Bittensor-Version, -Hotkey, -Receiver, -Nonce and -Signature"


class WrongReceiver(AuthError):
    """Signed for another hotkey, or for none."""

    fix = "sign for the hotkey that serves this address: read the metagraph again"


class StaleRequest(AuthError):
    """The nonce is outside the freshness window."""

    fix = "synchronize the clock by NTP, and sign each attempt with the current time in nanoseconds"


class BadSignature(AuthError):
    """The signature does not match the claimed hotkey and bytes."""

    fix = "sign the method, the path as sent and the raw body as sent, with the key of the claimed hotkey"


class ReplayedRequest(AuthError):
    """This nonce was already accepted from this hotkey."""

    fix = "sign each attempt with a new nonce"


class PayloadError(WireError):
    """The body is not a message within the bounds."""

    status = 400


class TooLarge(WireError):
    """The body is larger than the bound."""

    status = 413
    fix = "send fewer or shorter rows"


class TooSlow(WireError):
    """The sender or the handler took too long."""

    status = 408


class NotFound(WireError):
    """No such path."""

    status = 404


class Refused(WireError):
    """The access policy refuses this caller."""

    status = 403


class RateLimited(WireError):
    """A caller or an address is over its rate limit. `retry_after_s`: seconds until the next request is allowed."""

    status = 429

    def __init__(self, reason: str, *, retry_after_s: float = 1.0, fix: str | None = None) -> None:
        super().__init__(reason, fix=f"wait {retry_after_s:.1f} s" if fix is None else fix)
        self.retry_after_s = retry_after_s


class Overloaded(WireError):
    """The server is busy; the request may be sent again later."""

    status = 503
    fix = "try again later, or ask another miner"


class Declined(WireError):
    """The miner declined. `failure`: the reason of its `Failure`."""

    status = 422

    def __init__(self, reason: str, *, failure: Reason = Reason.SILENT) -> None:
        super().__init__(reason)
        self.failure = failure


class Broken(WireError):
    """The handler raised."""

    status = 500


def to_json(error: WireError) -> bytes:
    """The body that carries an error."""
    message = {"error": type(error).__name__, "reason": str(error), "fix": error.fix}
    if isinstance(error, Declined):
        message["failure"] = error.failure.value
    return json.dumps(message).encode()
