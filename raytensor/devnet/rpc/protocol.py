"""JSON-RPC 2.0 as Substrate nodes speak it: single requests, batches, subscriptions.

In: one text message of a connection. Out: one text reply, then the notifications of the subscriptions it opened.
Parameters by position or by name; ids are echoed as they came; a reply always leaves before its notifications.
Everybody shares one thread: between requests, and inside methods that take long (they are coroutines), others get
their turn at least every SLICE_S seconds.
Knows nothing of what the methods do or of how messages travel (server.py).
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
    """What a transport offers. `subscriptions` is None where notifications can't be sent (HTTP)."""

    subscriptions: dict[str, Subscription] | None

    def send(self, text: str) -> None: ...


class Subscription:
    """A stream of notifications `method` on one connection. Held back until the reply with its id has been sent."""

    __slots__ = ("id", "method", "on_close", "_connection", "_held")

    def __init__(self, connection: Connection, method: str) -> None:
        if connection.subscriptions is None:
            raise RpcError(-32601, "Method not found", "subscriptions need a websocket")
        self.id = secrets.token_urlsafe(12)
        self.method, self._connection = method, connection
        self.on_close: Callable[[], None] = lambda: None
        self._held: list[str] | None = []
        connection.subscriptions[self.id] = self

    def notify(self, result: Any) -> None:
        params = {"subscription": self.id, "result": result}
        text = json.dumps({"jsonrpc": "2.0", "method": self.method, "params": params}, separators=(",", ":"))
        if self._held is None:
            self._connection.send(text)
        else:
            self._held.append(text)

    def open(self) -> None:
        """The reply has been sent: let the notifications go."""
        held, self._held = self._held, None
        for text in held or ():
            self._connection.send(text)

    def close(self) -> bool:
        """End the stream. False when it had ended before."""
        self.on_close()
        self.on_close = lambda: None
        return self._connection.subscriptions.pop(self.id, None) is not None


def method(*names: str, params: tuple[str, ...] = ()):
    """Serve a function under these names. It gets the connection, then its parameters, None where left out."""

    def mark(function: Callable) -> Callable:
        function.rpc_names, function.rpc_params = names, params
        return function

    return mark


class Turns:
    """Shares the event loop fairly: `take()` lets others run once the last turn is SLICE_S ago."""

    def __init__(self) -> None:
        self._since = 0.0

    async def take(self) -> None:
        if time.monotonic() - self._since > SLICE_S:
            await asyncio.sleep(0)
            self._since = time.monotonic()


class Dispatcher:
    """Finds methods marked with `@method` on the given groups and answers messages.

    `num_failures`: requests that ended in a mistake of ours; each was logged and got "Internal error".
    """

    def __init__(self, groups: list[object], turns: Turns | None = None) -> None:
        self.methods: dict[str, Callable] = {}
        self.turns = turns or Turns()
        self.num_failures = 0
        for group in groups:
            for attribute in dir(type(group)):
                function = getattr(group, attribute)
                for name in getattr(function, "rpc_names", ()):
                    assert name not in self.methods, name
                    self.methods[name] = function

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
        await self.turns.take()

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
            await self.turns.take()
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
        except Exception:  # the node's edge: a mistake of ours in one method must not take the connection with it
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
        function = self.methods.get(name)
        if function is None:
            raise RpcError(-32601, "Method not found")
        names = function.rpc_params
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
    """Bytes of a hex string, with or without 0x; invalid params otherwise."""
    if isinstance(value, str):
        try:
            return bytes.fromhex(value[2:] if value[:2] in ("0x", "0X") else value)
        except ValueError:
            pass
    raise invalid_params(f"{what}: {value!r:.80} is no hex string")
