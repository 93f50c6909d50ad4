"""The transport: websockets and HTTP POST on one loopback port.

In: messages, passed to a `Dispatcher`. Out: its replies and notifications, in order per connection.
A request must name a loopback host, and its Origin, if it has one, must be the endpoint itself or one that is allowed:
otherwise any web page could call dev_* on its visitor's machine.
Bounds: a client with MAX_BACKLOG unread bytes, or that reads nothing for MAX_STALL_S, is disconnected. Messages above
MAX_MESSAGE get the error of a real node. Knows nothing of the meaning of messages.
"""

import asyncio
import json
from collections import deque
from collections.abc import Collection
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from raytensor.devnet.rpc.protocol import Dispatcher, Subscription

MAX_MESSAGE = 15 * 1024 * 1024  # jsonrpsee's default in Substrate nodes
HARD_LIMIT = 32 * 1024 * 1024  # above this the connection is closed unread
MAX_BACKLOG = 64 * 1024 * 1024  # bytes queued for one slow client
MAX_STALL_S = 30.0  # a client that reads nothing for so long is disconnected
MAX_CONNECTIONS = 4096
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TOO_BIG = json.dumps(
    {
        "jsonrpc": "2.0",
        "error": {"code": -32007, "message": "Request is too big", "data": f"Exceeded max limit of {MAX_MESSAGE}"},
        "id": None,
    }
)


class _Socket:
    """One websocket: a queue of texts and the task that writes them."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self._socket, self._transport = socket, transport
        self._queue: deque[str] = deque()
        self._backlog = 0
        self._wake = asyncio.Event()
        self.too_slow = False

    def send(self, text: str) -> None:
        if self.too_slow:
            return
        self._queue.append(text)
        self._backlog += len(text)
        if self._backlog > MAX_BACKLOG:
            # Disconnected here: the writing task is waiting for the same client.
            self.too_slow = True
            self._queue.clear()
            self.abort()
        self._wake.set()

    async def write(self) -> None:
        """Send queued texts until cancelled, or until the client disconnects or stops reading."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    text = self._queue.popleft()
                    self._backlog -= len(text)
                    async with asyncio.timeout(MAX_STALL_S):
                        await self._socket.send_str(text)
        except (ConnectionError, RuntimeError, TimeoutError):  # the client disconnected or stopped reading
            self.too_slow = True
            self._queue.clear()
            self.abort()

    def abort(self) -> None:
        """Close the connection at once; a closing handshake would wait for a client that does not read."""
        self._transport.abort()

    def close(self) -> None:
        for subscription in list(self.subscriptions.values()):
            subscription.close()


class _Post:
    """One HTTP request: collects the reply; has no subscriptions."""

    def __init__(self) -> None:
        self.subscriptions: dict[str, Subscription] | None = None
        self.reply = ""

    def send(self, text: str) -> None:
        self.reply = text


def refusal(host: str, origin: str | None, allowed: Collection[str]) -> str | None:
    """Why a request with these Host and Origin headers is refused, None if it is not."""
    name = urlsplit(f"//{host}").hostname or ""
    if name not in LOOPBACK:
        return f"Host {host!r} is refused: the node serves {', '.join(LOOPBACK)} only"
    if origin is None or "*" in allowed or origin.rstrip("/") in allowed:
        return None
    if origin.split("://", 1)[-1] == host and origin.startswith(("http://", "https://")):
        return None  # clients that are no browsers name the endpoint itself
    return f"Origin {origin!r} is refused: start the node with --allow-origin {origin} to allow it"


class Server:
    """Serves a dispatcher on 127.0.0.1. `start()` returns the port.

    allowed  origins of web pages that may call, such as "https://polkadot.js.org"; "*" allows every page.
    """

    def __init__(self, dispatcher: Dispatcher, allowed: Collection[str] = ()) -> None:
        self._dispatcher = dispatcher
        self._allowed = {origin.rstrip("/") for origin in allowed}
        self._sockets: set[_Socket] = set()
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> int:
        """Listen on a port; 0 chooses a free one. Returns the port. Raises OSError if the port is not available."""
        app = web.Application(client_max_size=HARD_LIMIT)
        app.router.add_get("/{tail:.*}", self._websocket)
        app.router.add_post("/{tail:.*}", self._post)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, backlog=1024)
        await site.start()
        return self._runner.addresses[0][1]

    async def stop(self) -> None:
        for connection in list(self._sockets):
            connection.abort()
        if self._runner is not None:
            await self._runner.cleanup()

    def _refusal(self, request: web.Request) -> web.Response | None:
        why = refusal(request.headers.get("Host", ""), request.headers.get("Origin"), self._allowed)
        return None if why is None else web.Response(status=403, text=why)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._refusal(request)) is not None:
            return refused
        if len(self._sockets) >= MAX_CONNECTIONS:
            return web.Response(status=429, text="Too many connections. Please try again later.")
        socket = web.WebSocketResponse(max_msg_size=HARD_LIMIT, compress=False)
        if not socket.can_prepare(request).ok:
            return web.Response(status=405, text="Used HTTP Method is not allowed. POST is required")
        await socket.prepare(request)
        if request.transport is None:
            return socket  # the client disconnected during the handshake
        connection = _Socket(socket, request.transport)
        self._sockets.add(connection)
        writer = asyncio.create_task(connection.write())
        try:
            async for message in socket:
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                if len(message.data) > MAX_MESSAGE:
                    connection.send(_TOO_BIG)
                else:
                    await self._dispatcher.handle(message.data, connection)
                if connection.too_slow:
                    break
        except ConnectionError:
            pass  # the client disconnected while a pong or a close frame was written
        finally:
            self._sockets.discard(connection)
            connection.close()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return socket

    async def _post(self, request: web.Request) -> web.Response:
        if (refused := self._refusal(request)) is not None:
            return refused
        body = await request.read()
        connection = _Post()
        if len(body) > MAX_MESSAGE:
            connection.send(_TOO_BIG)
        else:
            await self._dispatcher.handle(body, connection)
        return web.Response(text=connection.reply, content_type="application/json")
