"""One websocket to a chain, over several endpoints, that never waits for ever.

In: endpoints in order of preference and a time-out. Out: JSON-RPC answers. Every request has a deadline of its own; a
socket that failed is dropped at once, and so is one on which N requests in a row were answered with errors of whatever
kind; the next endpoint takes over, if it serves the same chain. Reads are asked again, a submission never is: when its
answer does not come, its fate is unknown, and the caller has to look at the chain.

Built on substrate-interface, whose own transport has no time-out and waits on half-dead sockets. Not thread-safe.
Knows nothing of metadata, calls or keys.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

import websocket
from substrateinterface import SubstrateInterface
from substrateinterface.exceptions import SubstrateRequestException
from substrateinterface.transport import WebsocketTransport

from raytensor.errors import ChainError, ChainUnavailable, ConfigError, FateUnknown

log = logging.getLogger(__name__)

NETWORKS = {
    "finney": "wss://entrypoint-finney.opentensor.ai:443",
    "test": "wss://test.finney.opentensor.ai:443",
    "archive": "wss://archive.chain.opentensor.ai:443",
    "local": "ws://127.0.0.1:9944",
}

# Everything that a dead, slow or lying endpoint makes a request end with.
_BROKEN = (websocket.WebSocketException, OSError, ssl.SSLError, json.JSONDecodeError)
_SUBMISSIONS = {"author_submitExtrinsic", "author_submitAndWatchExtrinsic"}


class RpcError(ChainError):
    """The node answered with an error. `error`: {"code", "message", "data"?}."""

    def __init__(self, method: str, error: dict[str, Any]) -> None:
        words = " ".join(str(error[key]) for key in ("message", "data") if error.get(key) is not None)
        super().__init__(f"{method}: {words} ({error.get('code')})")
        self.method = method
        self.error = error


class _Socket:
    """A websocket for substrate-interface's transport: a deadline per request, answers to others are thrown away."""

    def __init__(self, url: str, timeout_s: float) -> None:
        keepalive = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        self._ws = websocket.create_connection(url, timeout=timeout_s, sockopt=keepalive, enable_multithread=False)
        self._id = 0
        self.timeout_s = timeout_s
        self._deadline = 0.0

    def send(self, text: str) -> None:
        self._id = json.loads(text)["id"] if len(text) < 4096 else int(text[text.rindex(":") + 1 : -1])
        self._deadline = time.monotonic() + self.timeout_s
        self._ws.settimeout(self.timeout_s)
        self._ws.send(text)

    def recv(self) -> str:
        while (left := self._deadline - time.monotonic()) > 0:
            self._ws.settimeout(left)
            text = self._ws.recv()
            if not text:
                raise websocket.WebSocketConnectionClosedException("the endpoint closed the connection")
            if self._answers(text):
                return text
        raise websocket.WebSocketTimeoutException(f"no answer within {self.timeout_s:g} s")

    def _answers(self, text: str) -> bool:
        mark = f'"id":{self._id}'
        for part in (text[:64], text[-64:]):
            at = part.replace(" ", "").find(mark)
            if at >= 0 and part.replace(" ", "")[at + len(mark) : at + len(mark) + 1] in (",", "}"):
                return True
        message = json.loads(text)
        return isinstance(message, dict) and message.get("id") == self._id

    def close(self) -> None:
        self._ws.close(timeout=1)


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
    """`rpc(method, params)` over the first endpoint that works."""

    def __init__(self, endpoints: Sequence[str] | str, timeout_s: float = 20.0, failures_to_switch: int = 3) -> None:
        if timeout_s <= 0:
            raise ConfigError(f"chain time-out {timeout_s} s: give a positive number")
        self.urls = endpoint_urls(endpoints)
        self.timeout_s = timeout_s
        self.failures_to_switch = failures_to_switch
        self.genesis: str | None = None
        self.reconnects = -1  # the first connection is none
        self._at = 0
        self._failures = 0
        self._socket: _Socket | None = None
        self._substrate: SubstrateInterface | None = None

    @property
    def endpoint(self) -> str:
        """The endpoint in use, or the next one that will be tried."""
        return self.urls[self._at]

    @property
    def substrate(self) -> SubstrateInterface:
        """The substrate-interface object, connected."""
        self._connect()
        return self._substrate

    def rpc(self, method: str, params: Sequence[Any] = (), *, timeout_s: float | None = None) -> Any:
        """The `result` of one request.

        Raises RpcError for an answer that is an error, ChainUnavailable if no endpoint answered, FateUnknown if a
        submission was sent and no answer came.
        """
        started = time.monotonic()
        attempts = 1 if method in _SUBMISSIONS else len(self.urls) + 1
        cause: Exception | None = None
        for _ in range(attempts):
            try:
                self._connect()
            except (*_BROKEN, ChainError) as error:
                cause = error
                self._drop(error)
                continue
            try:
                return self._ask(method, list(params), timeout_s or self.timeout_s)
            except SubstrateRequestException as error:
                refusal = RpcError(method, _error_of(error))
                self._count_failure(refusal)
                raise refusal from error
            except _BROKEN as error:
                cause = error
                self._drop(error)
                if method in _SUBMISSIONS:
                    raise FateUnknown(f"{method} was sent and not answered ({_words(error)})") from error
        waited = time.monotonic() - started
        raise ChainUnavailable(
            f"{method}: no answer from {', '.join(self.urls)} in {waited:.1f} s ({attempts} attempts, "
            f"{self.timeout_s:g} s each; last: {_words(cause)})"
        ) from cause

    def close(self) -> None:
        if self._socket is not None:
            try:
                self._socket.close()
            except _BROKEN:
                pass  # it is gone either way
            self._socket = None

    def _ask(self, method: str, params: list, timeout_s: float) -> Any:
        self._socket.timeout_s = timeout_s
        answer = self._substrate.rpc_request(method, params)
        if "result" not in answer:
            raise websocket.WebSocketPayloadException(f"the answer to {method} has neither result nor error")
        self._failures = 0
        return answer["result"]

    def _connect(self) -> None:
        if self._socket is not None:
            return
        found = _Socket(self.endpoint, self.timeout_s)
        try:
            if self._substrate is None:
                self._substrate = SubstrateInterface(
                    websocket=found, ss58_format=42, type_registry={"types": {"Balance": "u64"}}
                )
            else:
                self._substrate.transport = WebsocketTransport(websocket=found, auto_reconnect=False)
            self._socket = found
            genesis = self._ask("chain_getBlockHash", [0], self.timeout_s)
            if self.genesis not in (None, genesis):
                raise ChainError(f"{self.endpoint} serves another chain: genesis {genesis}, not {self.genesis}")
            self.genesis = genesis
        except (*_BROKEN, ChainError, SubstrateRequestException):
            self._socket = None
            found.close()
            raise
        self.reconnects += 1
        log.debug("connected to %s", self.endpoint)

    def _count_failure(self, error: RpcError) -> None:
        if 1000 <= int(error.error.get("code") or 0) < 2000:
            return  # the pool's opinion of an extrinsic says nothing against the endpoint
        self._failures += 1
        if self._failures >= self.failures_to_switch:
            self._drop(error)

    def _drop(self, error: Exception) -> None:
        """Gives the socket up and turns to the next endpoint."""
        log.warning("chain endpoint %s failed: %s", self.endpoint, _words(error))
        self.close()
        self._failures = 0
        self._at = (self._at + 1) % len(self.urls)


def _words(error: Exception | None) -> str:
    chain = []
    while error is not None and len(chain) < 4:
        chain.append(f"{type(error).__name__}: {error}")
        error = error.__cause__
    return " <- ".join(chain)


def _error_of(error: SubstrateRequestException) -> dict[str, Any]:
    found = error.args[0] if error.args else {}
    return found if isinstance(found, dict) else {"code": 0, "message": str(found)}
