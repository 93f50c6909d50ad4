"""One websocket connection to a chain, with fail-over between several endpoints.

In: endpoints in order of preference, and a time-out. Out: JSON-RPC answers, and the heads that the endpoint pushes.
The connection moves to the next endpoint when the socket fails, when several requests in a row end with an error, when
the endpoint refuses to serve (rate limits), or when it has no new block for `heartbeat_s`. An endpoint that serves
another chain is never used; one that lags behind the newest known block is used only if no other is left. Reads are
repeated. A submission is not: without an answer its fate is unknown, and the caller has to look at the chain.
An error is an answer: it is raised as `RpcError`, also if every endpoint has the same one.
Waits for: at most `timeout_s` for a connection with its examination, and as much for each request; each endpoint is
tried once, the first twice. A connection that was silent is pinged before the next request.
Bounds: not thread-safe. Knows nothing of metadata, calls or keys.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import websocket

from raytensor.chain.rpc.identity import ChainIdentity
from raytensor.chain.rpc.transport import BROKEN, Socket
from raytensor.errors import ChainError, ChainUnavailable, ConfigError, FateUnknown

log = logging.getLogger(__name__)

NETWORKS = {
    "finney": "wss://entrypoint-finney.opentensor.ai:443",
    "test": "wss://test.finney.opentensor.ai:443",
    "archive": "wss://archive.chain.opentensor.ai:443",
    "local": "ws://127.0.0.1:9944",
}

_SUBMISSIONS = {"author_submitExtrinsic", "author_submitAndWatchExtrinsic"}
# The endpoint refuses to serve for now: rate limits (jsonrpsee, public gateways), HTTP 429 and 503, internal errors.
_INTERNAL = -32603
_UNWILLING = {-32005, -32010, -32029, _INTERNAL, 429, 503}
# Words of an answer, whatever its code, that a runtime API function does not exist.
_NO_FUNCTION = ("Function to start was not found", "Exported method")
PROBE_AFTER_S = 10.0  # a connection silent for so long is pinged before a request
LAG_BLOCKS = 10  # an endpoint this far behind the newest known block lags
ASIDE_S = 60.0  # for so long a lagging or silent endpoint is not used while there is another


class RpcError(ChainError):
    """The node answered with an error. `error`: {"code", "message", "data"?}."""

    def __init__(self, method: str, error: dict[str, Any]) -> None:
        words = " ".join(str(error[key]) for key in ("message", "data") if error.get(key) is not None)
        super().__init__(f"{method}: {words} ({error.get('code')})")
        self.method = method
        self.error = error

    @property
    def no_function(self) -> bool:
        """Whether the runtime lacks the function that was called."""
        return any(words in str(self) for words in _NO_FUNCTION)

    @property
    def unwilling(self) -> bool:
        """Whether another endpoint may well answer."""
        return self.error.get("code") in _UNWILLING and not self.no_function


def endpoint_urls(endpoints: Sequence[str] | str) -> list[str]:
    """URLs of endpoints given as URLs or as network names (finney, test, archive, local)."""
    names = [endpoints] if isinstance(endpoints, str) else list(endpoints)
    urls = [NETWORKS.get(name, name) for name in names]
    for url in urls:
        if not url.startswith(("ws://", "wss://")):
            names = ", ".join(NETWORKS)
            raise ConfigError(f"chain endpoint {url!r}: give ws://host:port, wss://host, or one of {names}")
    if not urls:
        raise ConfigError("no chain endpoint: give at least one")
    return urls


class Connection:
    """`rpc(method, params)` over the first endpoint that works.

    identity  the chain that every endpoint must serve; None takes that of the first endpoint that answers.
    """

    def __init__(
        self,
        endpoints: Sequence[str] | str,
        timeout_s: float = 20.0,
        failures_to_switch: int = 3,
        heartbeat_s: float = 120.0,
        identity: ChainIdentity | None = None,
    ) -> None:
        if timeout_s <= 0:
            raise ConfigError(f"chain time-out {timeout_s} s: give a positive number")
        self.urls = endpoint_urls(endpoints)
        self.timeout_s, self.failures_to_switch, self.heartbeat_s = timeout_s, failures_to_switch, heartbeat_s
        self.identity = identity
        self.reconnects = -1  # the first connection is none
        self.spec_version: int | None = None  # of the runtime, as the endpoint has pushed it last
        self.newest = 0  # number of the newest block that any endpoint has reported
        self._new_at = time.monotonic()
        self._here = -1  # number of the best block of the endpoint in use, and when it last changed
        self._here_at = time.monotonic()
        self._follows = False
        self._aside: dict[str, float] = {}  # url -> until when it is not used
        self._at = 0
        self._failures = 0
        self._socket: Socket | None = None

    @property
    def endpoint(self) -> str:
        """The endpoint in use, or the next one to try."""
        return self.urls[self._at]

    @property
    def genesis(self) -> str:
        """Hash of block 0."""
        assert self.identity is not None, "known once connected"
        return self.identity.genesis

    def pin(self, identity: ChainIdentity, *, examine: bool = False) -> None:
        """From here on endpoints must serve this chain. examine: the one in use, too, before the next request."""
        self.identity = identity
        if examine:
            self._drop_quietly()

    @property
    def block_age_s(self) -> float:
        """Seconds since a block was seen that is newer than all before."""
        return time.monotonic() - self._new_at

    def rpc(self, method: str, params: Sequence[Any] = (), *, timeout_s: float | None = None) -> Any:
        """The `result` of one request.

        Raises RpcError for an answer that is an error, ChainUnavailable if no endpoint answered, FateUnknown if a
        submission was sent and no answer came.
        """
        started = time.monotonic()
        causes: dict[str, Exception] = {}  # the last one of each endpoint
        for _ in range(len(self.urls) + 1):
            try:
                self._connect()
            except (*BROKEN, ChainError) as error:
                causes[self.endpoint] = error
                self._drop(error)
                continue
            try:
                return self._ask(method, params, timeout_s or self.timeout_s)
            except RpcError as refusal:
                if method not in _SUBMISSIONS and refusal.unwilling:
                    causes[self.endpoint] = refusal
                    self._drop(refusal)
                    continue
                self._count_failure(refusal)
                raise
            except BROKEN as error:
                causes[self.endpoint] = error
                self._drop(error)
                if method in _SUBMISSIONS:
                    raise FateUnknown(f"{method} was sent and not answered ({_words(error)})") from error
        for cause in reversed(causes.values()):
            if isinstance(cause, RpcError) and cause.method == method and cause.error.get("code") == _INTERNAL:
                raise cause  # no endpoint does better: the caller learns what it was
        waited = time.monotonic() - started
        why = "; ".join(f"{url}: {_words(cause)}" for url, cause in causes.items())
        raise ChainUnavailable(
            f"{method}: no answer from {', '.join(self.urls)}: {len(self.urls) + 1} attempts in {waited:.1f} s, each "
            f"limited to {self.timeout_s:g} s ({why})"
        ) from list(causes.values())[-1]

    def saw(self, number: int) -> None:
        """Record the number of the endpoint's best block; leave an endpoint that has no new one for too long."""
        now = time.monotonic()
        if number > self.newest:
            self.newest, self._new_at = number, now
        if number != self._here:  # a fork may lower it: the endpoint is alive then, too
            self._here, self._here_at = number, now
        elif now - self._here_at > self.heartbeat_s:
            self._leave(ChainError(f"no block after {number} for {self.heartbeat_s:g} s"))

    def next_header(self, timeout_s: float) -> dict[str, Any] | None:
        """The newest header that the endpoint has pushed since the last call; None if none came in time.

        Only the first call costs requests: it subscribes. Raises ChainUnavailable.
        """
        if not self._follows:
            self._follows = True
            self._drop_quietly()  # the next connection starts with the subscription
        try:
            self._connect()
            socket = self._socket
            assert socket is not None, "connected"
            deadline = time.monotonic() + timeout_s
            while socket.wait(deadline - time.monotonic()):
                if (header := self._take_notes(socket)) is not None:
                    self.saw(number_of(header))
                    return header
            if time.monotonic() - self._here_at > self.heartbeat_s:
                raise ChainError(f"no block after {self._here} for {self.heartbeat_s:g} s")
            return None
        except (*BROKEN, ChainError) as error:
            endpoint = self.endpoint
            self._leave(error)
            raise ChainUnavailable(f"{endpoint}: {_words(error)}") from error

    def _take_notes(self, socket: Socket) -> Any:
        """The newest pushed header, None if none came; keeps the pushed version of the runtime."""
        header = None
        while socket.notes:
            found = socket.notes.popleft()["params"].get("result")
            if isinstance(found, dict) and "specVersion" in found:
                self.spec_version = found["specVersion"]
            else:
                number_of(found)
                header = found
        return header

    def malformed(self, method: str, error: Exception) -> ChainUnavailable:
        """Leave the endpoint, whose answer to `method` is not what it should be; the error for the caller to raise."""
        endpoint = self.endpoint
        self._leave(error)
        return ChainUnavailable(f"{endpoint}: the answer to {method} is malformed: {_words(error)}")

    def close(self) -> None:
        if self._socket is not None:
            try:
                self._socket.close()
            except BROKEN:
                pass  # it is gone either way
            self._socket = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(self, method: str, params: Sequence[Any], timeout_s: float) -> Any:
        assert self._socket is not None, "connected"
        answer = self._socket.request(method, params, timeout_s)
        if isinstance(answer.get("error"), dict):
            raise RpcError(method, answer["error"])
        if "result" not in answer:
            raise websocket.WebSocketPayloadException(f"the answer to {method} has neither result nor error")
        self._failures = 0
        return answer["result"]

    def _connect(self) -> None:
        if self._socket is not None:
            if time.monotonic() - self._socket.heard_at > PROBE_AFTER_S:
                self._socket.probe(min(5.0, self.timeout_s))
            return
        deadline = time.monotonic() + self.timeout_s
        found = Socket(self.endpoint, self.timeout_s)
        self._socket = found
        try:
            self._examine(deadline)
            if self._follows:
                self._ask("chain_subscribeNewHeads", [], deadline - time.monotonic())
                self._ask("state_subscribeRuntimeVersion", [], deadline - time.monotonic())
        except (*BROKEN, ChainError):
            self._socket = None
            found.close()
            raise
        self.reconnects += 1
        log.debug("connected to %s", self.endpoint)

    def _examine(self, deadline: float) -> None:
        """Raise ChainError if the endpoint serves another chain, or lags and another endpoint may not."""
        genesis = self._ask("chain_getBlockHash", [0], deadline - time.monotonic())
        if not isinstance(genesis, str):
            raise ChainError(f"{self.endpoint} has no block 0: {genesis!r:.80}")
        number = number_of(self._ask("chain_getHeader", [], deadline - time.monotonic()))
        identity = self.identity or ChainIdentity(genesis)
        refusal = identity.refusal(
            genesis, number, lambda n: self._ask("chain_getBlockHash", [n], deadline - time.monotonic())
        )
        if refusal:
            self._aside[self.endpoint] = float("inf") if genesis != identity.genesis else time.monotonic() + ASIDE_S
            raise ChainError(f"{self.endpoint} {refusal}")
        if number + LAG_BLOCKS < self.newest:
            text = f"{self.endpoint} is at block {number}, {self.newest - number} behind the newest that was seen"
            now = time.monotonic()
            if any(url != self.endpoint and self._aside.get(url, 0.0) <= now for url in self.urls):
                self._aside[self.endpoint] = now + ASIDE_S
                raise ChainError(text)
            log.warning("%s; there is no other", text)
        self.identity = identity
        self._here = -1
        self.saw(number)

    def _count_failure(self, error: RpcError) -> None:
        code = error.error.get("code")
        if error.no_function or (isinstance(code, int) and 1000 <= code < 2000):
            return  # no failure of the endpoint: the pool's refusal of an extrinsic, an older runtime
        self._failures += 1
        if self._failures >= self.failures_to_switch:
            self._drop(error)

    def _leave(self, error: Exception) -> None:
        """Leave the endpoint, and do not use it for a while."""
        self._aside[self.endpoint] = max(self._aside.get(self.endpoint, 0.0), time.monotonic() + ASIDE_S)
        self._drop(error)

    def _drop(self, error: Exception) -> None:
        """Close the socket and choose the next endpoint, if possible one that is not set aside."""
        log.warning("chain endpoint %s failed: %s", self.endpoint, _words(error))
        self._drop_quietly()
        now = time.monotonic()
        order = [(self._at + step) % len(self.urls) for step in range(1, len(self.urls) + 1)]
        self._at = next((at for at in order if self._aside.get(self.urls[at], 0.0) <= now), order[0])

    def _drop_quietly(self) -> None:
        self.close()
        self._failures = 0


def _words(error: BaseException | None) -> str:
    chain = []
    while error is not None and len(chain) < 4:
        chain.append(f"{type(error).__name__}: {error}")
        error = error.__cause__
    return " <- ".join(chain)


def number_of(header: Any) -> int:
    """The number of a JSON-RPC header. Raises ValueError for anything else."""
    try:
        return int(header["number"], 16)
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"not a header: {header!r:.80}") from None
