"""JSON-RPC 2.0 as Substrate nodes speak it: single requests, batches, subscriptions.

In: one text message of a connection. Out: one text reply, then the notifications of the subscriptions it opened.
Parameters are given by position or by name. Ids are echoed unchanged. A reply is sent before its notifications.
All connections share one thread. Between requests, and inside long methods (which are coroutines), other requests run
at least every SLICE_S seconds.
Knows nothing of what the methods do, or of the transport (server.py).
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, Protocol

from raytensor.devnet.pool import PoolError

MAX_BATCH = 10_000
SLICE_S = 0.01
_log = logging.getLogger(__name__)


class RpcError(Exception):
    """An error reply: code, message, optional data."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data

    def body(self) -> dict[str, Any]:
        body = {"code": self.code, "message": self.message}
        return body if self.data is None else body | {"data": self.data}


def invalid_params(why: str) -> RpcError:
    return RpcError(-32602, "Invalid params", why)


class Connection(Protocol):
    """One client of a transport. `subscriptions` is None where notifications cannot be sent (HTTP)."""

    @property
    def subscriptions(self) -> dict[str, Subscription] | None: ...

    def send(self, text: str) -> None: ...


class Subscription:
    """A stream of notifications `method` on one connection. They are queued until the reply with its id is sent.

    on_close  called once, when the stream ends.
    """

    __slots__ = ("id", "method", "_on_close", "_connection", "_streams", "_queued")

    def __init__(self, connection: Connection, method: str, on_close: Callable[[str], object] | None = None) -> None:
        if connection.subscriptions is None:
            raise RpcError(-32601, "Method not found", "subscriptions need a websocket")
        self.id = secrets.token_urlsafe(12)
        self.method, self._connection, self._on_close = method, connection, on_close
        self._queued: list[str] | None = []  # None once the reply with the id is sent
        self._streams = connection.subscriptions
        self._streams[self.id] = self

    @property
    def closed(self) -> bool:
        return self.id not in self._streams

    def notify(self, result: Any) -> None:
        params = {"subscription": self.id, "result": result}
        text = json.dumps({"jsonrpc": "2.0", "method": self.method, "params": params}, separators=(",", ":"))
        if self._queued is None:
            self._connection.send(text)
        else:
            self._queued.append(text)

    def open(self) -> None:
        """Send the queued notifications. Called once the reply with the id is sent."""
        queued, self._queued = self._queued, None
        for text in queued or ():
            self._connection.send(text)

    def close(self) -> bool:
        """End the stream. Returns False if it had ended before."""
        if self._streams.pop(self.id, None) is None:
            return False
        if self._on_close is not None:
            self._on_close(self.id)
        return True


def method(*names: str, params: tuple[str, ...] = ()):
    """Serve a function under these names. It receives the connection, then its parameters, None where omitted."""

    def mark(function: Callable) -> Callable:
        _SERVED[function] = (names, params)
        return function

    return mark


_SERVED: dict[Callable, tuple[tuple[str, ...], tuple[str, ...]]] = {}  # function -> (method names, parameter names)


class TimeSlices:
    """Shares the event loop: `give_way()` runs other tasks if the caller's time slice of SLICE_S seconds is over."""

    def __init__(self) -> None:
        self._since = 0.0

    async def give_way(self) -> None:
        if time.monotonic() - self._since > SLICE_S:
            await asyncio.sleep(0)
            self._since = time.monotonic()


class Dispatcher:
    """Answers messages with the methods marked by `@method` on the given groups.

    num_failures  requests that failed by an internal error; each is logged and answered with "Internal error".
    """

    def __init__(self, groups: list[object], slices: TimeSlices | None = None) -> None:
        self.methods: dict[str, tuple[Callable, tuple[str, ...]]] = {}  # name -> (bound method, parameter names)
        self.num_failures = 0
        self._slices = slices or TimeSlices()
        for group in groups:
            for attribute, function in vars(type(group)).items():
                names, params = _SERVED.get(function, ((), ())) if callable(function) else ((), ())
                for name in names:
                    assert name not in self.methods, name
                    self.methods[name] = (getattr(group, attribute), params)

    async def handle(self, message: str | bytes, connection: Connection) -> None:
        """Answer one message on its connection."""
        opened: list[Subscription] = []
        try:
            request = json.loads(message)
        except (ValueError, RecursionError):
            return connection.send(_dump(_error(None, RpcError(-32700, "Parse error"))))
        if isinstance(request, list):
            reply = await self._batch(request, connection, opened)
        else:
            reply = await self._answer(request, connection, opened)
        if reply is not None:
            connection.send(_dump(reply))
        for subscription in opened:
            subscription.open()
        await self._slices.give_way()

    async def _batch(self, requests: list, connection: Connection, opened: list) -> Any:
        if not requests:
            return _error(None, RpcError(-32600, "Invalid request"))
        if len(requests) > MAX_BATCH:
            return _error(
                None, RpcError(-32010, "The batch request was too large", f"Exceeded max limit of {MAX_BATCH}")
            )
        replies = []
        for request in requests:
            replies.append(await self._answer(request, connection, opened))
            await self._slices.give_way()
        return [reply for reply in replies if reply is not None] or None

    async def _answer(self, request: Any, connection: Connection, opened: list) -> dict | None:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            request_id = request.get("id") if isinstance(request, dict) else None
            return _error(
                request_id if isinstance(request_id, str | int) else None, RpcError(-32600, "Invalid request")
            )
        request_id = request.get("id")
        if "id" in request and not isinstance(request_id, str | int | float | None):
            return _error(None, RpcError(-32600, "Invalid request"))
        try:
            result = self._call(request["method"], request.get("params"), connection)
            if inspect.iscoroutine(result):
                result = await result
        except RpcError as error:
            reply = _error(request_id, error)
        except PoolError as error:
            reply = _error(request_id, RpcError(error.code, error.message, error.data))
        except Exception:  # the node's edge: an internal error in one method must not close the connection
            self.num_failures += 1
            _log.exception("%s failed", request["method"])
            reply = _error(request_id, RpcError(-32603, "Internal error"))
        else:
            if isinstance(result, Subscription):
                opened.append(result)
                result = result.id
            reply = {"jsonrpc": "2.0", "result": result, "id": request_id}
        return reply if "id" in request else None

    def _call(self, name: str, params: Any, connection: Connection) -> Any:
        if name not in self.methods:
            raise RpcError(-32601, "Method not found")
        function, names = self.methods[name]
        if params is None:
            values = []
        elif isinstance(params, list):
            values = params
        elif isinstance(params, dict):
            unknown = params.keys() - set(names)
            if unknown:
                raise invalid_params(f"{name} has no parameter {sorted(unknown)[0]!r}; it takes {', '.join(names)}")
            values = [params.get(parameter) for parameter in names]
        else:
            raise RpcError(-32600, "Invalid request")
        if len(values) > len(names):
            if any(value is not None for value in values[len(names) :]):
                raise invalid_params(f"{name} takes at most {len(names)} parameters")
            values = values[: len(names)]
        return function(connection, *values, *[None] * (len(names) - len(values)))


def _error(request_id: Any, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": error.body(), "id": request_id}


def _dump(reply: Any) -> str:
    return json.dumps(reply, separators=(",", ":"))


def hex_bytes(value: Any, what: str) -> bytes:
    """Bytes of a hex string, with or without 0x. Raises `RpcError` "Invalid params" for anything else."""
    if isinstance(value, str):
        try:
            return bytes.fromhex(value[2:] if value[:2] in ("0x", "0X") else value)
        except ValueError:
            pass
    raise invalid_params(f"{what}: {value!r:.80} is no hex string")
