"""The HTTP server of a miner: one process, inside a Ray actor or standalone.

In: connections. Out: replies of the `Gate`, errors as JSON. This module handles sockets, headers and bytes; the gate
decides who is answered, and with what. Replicas on one machine share a port with `reuse_port`, and the replicas of a
hotkey share one nonce store wherever they run.
Bounds: connections in total, per address and of strangers (`connections`); seconds for the headers, for the body, and
for a caller to read its answer.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from raytensor.config.wire import Server
from raytensor.errors import WireError
from raytensor.payload import Schemas
from raytensor.types import Metagraph
from raytensor.wire import errors
from raytensor.wire.connections import Connections
from raytensor.wire.endpoints import group_of
from raytensor.wire.gate import Ask, Complete, Gate, Reply, Request, Shared
from raytensor.wire.nonce_store import NonceCheck
from raytensor.wire.payloads import NO_SCHEMAS
from raytensor.wire.router import Router

log = logging.getLogger(__name__)


class WireServer:
    """Serves one hotkey, or several on one port. Arguments: see `Gate`; `nonces` for one hotkey only.

    schemas  of the kinds of questions that carry a payload.

    gate  of the hotkey, or the `Router` of several.

    `await start()` listens, `update(metagraph)` sets which callers are served, `await stop()` ends. Before the first
    update only the allow list is served.
    """

    def __init__(
        self,
        hotkey: str | Sequence[str],
        ask: Ask,
        settings: Server,
        *,
        nonces: NonceCheck | None = None,
        complete: Complete | None = None,
        schemas: Schemas = NO_SCHEMAS,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        hotkeys = [hotkey] if isinstance(hotkey, str) else hotkey
        assert nonces is None or len(hotkeys) == 1, "a nonce store belongs to one hotkey"
        shared = Shared.of(settings, schemas)
        more: dict[str, Any] = {"shared": shared, "nonces": nonces, "complete": complete, "clock": clock}
        gates = {one: Gate(one, ask, settings, **more) for one in hotkeys}
        self.gate: Gate | Router = gates[hotkey] if isinstance(hotkey, str) else Router(gates, settings)
        self._settings = settings
        self._web: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._connections = Connections(settings)

    @property
    def num_connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    async def start(self) -> tuple[str, int]:
        """Listens. Returns the host and port when requests that are signed from now on are accepted."""
        assert self._listener is None, "already started"
        settings, loop = self._settings, asyncio.get_running_loop()
        await self.gate.wait_until_ready()
        self._web = web_server = web.Server(self._handle, handler_cancellation=True)
        connection = functools.partial(_Connection, web_server, settings, self._connections, self.gate.counts)
        if settings.host == "::" and socket.has_dualstack_ipv6():  # all addresses, those of IPv4 as well
            family, port = socket.AF_INET6, settings.port
            both = socket.create_server(
                ("::", port), family=family, backlog=512, reuse_port=settings.reuse_port, dualstack_ipv6=True
            )
            self._listener = await loop.create_server(connection, sock=both)
        else:
            where = {"host": settings.host, "port": settings.port, "reuse_port": settings.reuse_port or None}
            self._listener = await loop.create_server(connection, **where, backlog=512)
        host, port = self._listener.sockets[0].getsockname()[:2]
        return host, port

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Closes the port, waits up to `timeout_s` for requests in flight, then cancels them."""
        if self._listener is None or self._web is None:
            return
        self._listener.close()
        self._web.pre_shutdown()
        await self._web.shutdown(timeout_s)
        self._listener = self._web = None

    def update(self, metagraph: Metagraph) -> None:
        """Use this snapshot of the subnet from now on."""
        self.gate.update(metagraph)

    async def __aenter__(self) -> WireServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # ---- one request

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _Connection)
        connection.headers_are_in()
        try:
            headers = {name.lower(): value for name, value in request.headers.items()}
            address, read = request.remote or "", functools.partial(_read, request)
            made = Request(request.method, request.raw_path, headers, address, read, connection.is_proved)
            reply = await self.gate.handle(made)
            return await self._send(request, reply)
        finally:
            connection.is_idle()

    async def _send(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        pause_s = self._settings.stream_pause_s
        if isinstance(reply.body, bytes):
            response: web.StreamResponse = web.Response(status=reply.status, headers=reply.headers, body=reply.body)
        else:
            response = web.StreamResponse(status=reply.status, headers=reply.headers)
        try:
            if isinstance(reply.body, bytes):
                if reply.status in (408, 413):  # the rest of the body is unread, so no request can follow it
                    response.force_close()
                async with asyncio.timeout(pause_s):
                    await response.prepare(request)
                    await response.write_eof()
                return response
            async with asyncio.timeout(pause_s):
                await response.prepare(request)
            async for piece in reply.body:
                async with asyncio.timeout(pause_s):
                    await response.write(piece)
            await response.write_eof()
            return response
        except (TimeoutError, ConnectionError):
            self.gate.counts["unread"] += 1  # the caller does not read its answer
            request.protocol.force_close()
            return response
        finally:
            if not isinstance(reply.body, bytes):
                await reply.body.aclose()


async def _read(request: web.BaseRequest, most: int, took: Callable[[int], None]) -> bytes:
    """The body; TooLarge as soon as it is longer than `most`."""
    parts, size = [], 0
    try:
        while chunk := await request.content.readany():
            size += len(chunk)
            took(len(chunk))
            if size > most:
                raise errors.TooLarge(f"the body has more than {most} bytes")
            parts.append(chunk)
    except web.RequestPayloadError:
        raise errors.PayloadError("the body does not follow HTTP") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Connection(web.RequestHandler):
    """One connection, counted, with a time-out for the headers of each request (aiohttp has none)."""

    def __init__(self, manager: web.Server, settings: Server, all: Connections, counts: Counter[str]) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=settings.keepalive_s,
            access_log=None,  # pyright: ignore[reportArgumentType] (aiohttp's own default where logging is off)
            auto_decompress=False,  # no decompression: a small body can't become a large one
            lingering_time=1.0,  # time for the sender of a large body to read the error
            max_headers=64,
        )
        self._settings, self._all, self._counts = settings, all, counts
        self._header_timer: asyncio.TimerHandle | None = None
        self._handling = False
        self.group = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self.group = group_of(peer[0]) if peer else ""
        super().connection_made(transport)
        if not self._all.opened(self):
            self._counts["connections"] += 1
            self._refuse(errors.Overloaded("too many open connections"))
            return
        self._watch_headers()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        self._all.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._handling and self._header_timer is None:
            self._watch_headers()
        super().data_received(data)

    def headers_are_in(self) -> None:
        """The headers of a request are complete."""
        self._handling = True
        self._all.busy(self)
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def is_idle(self) -> None:
        """A request ended; the next byte starts the time-out of the next headers."""
        self._handling = False
        self._all.idle(self)

    def is_proved(self) -> None:
        """The caller of this request is proved and admitted: the connection is no stranger's any more."""
        self._all.proved(self)

    def evict(self) -> None:
        """Close the idle connection: somebody else needs its place."""
        self._counts["evicted"] += 1
        self.force_close()

    def handle_error(self, request, status=500, exc=None, message=None) -> web.StreamResponse:
        """Bytes that are not HTTP, answered like every other error."""
        self.headers_are_in()
        name = "malformed" if status < 500 else "internal"
        self._counts[name] += 1
        if status >= 500:
            log.error("a request failed in the server", exc_info=exc)
        error: WireError = errors.PayloadError("the request does not follow HTTP")
        if status >= 500:
            error = errors.Broken("the server failed")
        response = web.Response(status=error.status, body=errors.to_json(error), content_type="application/json")
        response.force_close()
        return response

    def _watch_headers(self) -> None:
        timeout_s = self._settings.header_timeout_s
        self._header_timer = asyncio.get_running_loop().call_later(timeout_s, self._headers_are_late)

    def _headers_are_late(self) -> None:
        self._header_timer = None
        self._counts["TooSlow"] += 1
        timeout_s = self._settings.header_timeout_s
        self._refuse(errors.TooSlow(f"the headers did not arrive within {timeout_s:g} s"))

    def _refuse(self, error: WireError) -> None:
        """Send an error before there is a request, and close."""
        if self.transport is not None:
            body = errors.to_json(error)
            head = f"HTTP/1.1 {error.status} {type(error).__name__}\r\nContent-Type: application/json\r\n"
            self.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self.force_close()
