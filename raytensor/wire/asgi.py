"""The wire behind an ASGI server: the proxy of Ray Serve, or uvicorn.

In: ASGI 3 messages. Out: replies of the `Gate`. The ASGI server owns connections, header limits and their time-outs;
the gate checks everything else, as with `WireServer`. Knows nothing of Ray.

With Ray Serve, `@serve.ingress` takes a function that makes the app in each replica: each replica has its own gate, and
all share the nonce store of the hotkey:

    def app():
        nonces = SharedNonces(shared_store(hotkey, settings.freshness), settings.freshness.retention_s)
        return AsgiApp(Gate(hotkey, ask, settings, nonces=nonces))

    @serve.deployment(num_replicas=4)
    @serve.ingress(app)
    class Miner: ...

Behind a proxy all requests have the address of the proxy; addresses in headers are not trusted.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from raytensor.wire.errors import PayloadError, TooLarge
from raytensor.wire.gate import Gate, Request

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class AsgiApp:
    """An ASGI application around a gate. `stream_pause_s`: seconds that a caller may leave an answer unread."""

    def __init__(self, gate: Gate, stream_pause_s: float = 30.0) -> None:
        self.gate = gate
        self._pause_s = stream_pause_s
        self._ready: asyncio.Future[None] | None = None

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        await self._until_ready()  # some servers do not run the lifespan protocol

        async def read_body(most: int, took: Callable[[int], None]) -> bytes:
            parts, size, more = [], 0, True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise PayloadError("the caller closed the connection")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                took(len(parts[-1]))
                if size > most:
                    raise TooLarge(f"the body has more than {most} bytes")
                more = message.get("more_body", False)
            return parts[0] if len(parts) == 1 else b"".join(parts)

        target = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0]
        if scope.get("query_string"):
            target += b"?" + scope["query_string"]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        address = (scope.get("client") or ("", 0))[0]
        request = Request(scope["method"], target.decode("latin-1"), headers, address, read_body)
        reply = await self.gate.handle(request)
        pairs = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in reply.headers.items()]
        try:
            if isinstance(reply.body, bytes):
                pairs.append((b"content-length", str(len(reply.body)).encode()))
                await self._send(send, {"type": "http.response.start", "status": reply.status, "headers": pairs})
                await self._send(send, {"type": "http.response.body", "body": reply.body})
                return
            await self._send(send, {"type": "http.response.start", "status": reply.status, "headers": pairs})
            async for piece in reply.body:
                await self._send(send, {"type": "http.response.body", "body": piece, "more_body": True})
            await self._send(send, {"type": "http.response.body", "body": b""})
        except TimeoutError:
            self.gate.counts["unread"] += 1
            raise ConnectionResetError("the caller does not read the answer") from None
        finally:
            if not isinstance(reply.body, bytes):
                await reply.body.aclose()

    async def _send(self, send: Send, message: dict[str, Any]) -> None:
        async with asyncio.timeout(self._pause_s):
            await send(message)

    async def _until_ready(self) -> None:
        if self._ready is None:
            self._ready = asyncio.ensure_future(self.gate.wait_until_ready())
        if not self._ready.done():
            await asyncio.shield(self._ready)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        await self._until_ready()
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})
