"""A websocket with a deadline per request, a largest message, a ping for silent connections, and kept notifications.

In: one request at a time. Out: its answer, parsed. Answers to other requests are dropped; notifications of
subscriptions are kept (the newest `KEPT_NOTES`).
Waits for: the peer. A deadline bounds connecting, each request and each ping as a whole, however slowly bytes arrive.
Bounds: messages of at most `MAX_MESSAGE` bytes. Raises the errors in `BROKEN`; the socket is unusable after one.
Knows nothing of endpoints, chains or retries.
"""

import json
import socket
import ssl
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import websocket

# The errors of a request to a dead, slow or misbehaving endpoint.
BROKEN = (websocket.WebSocketException, OSError, ssl.SSLError, ValueError)
KEPT_NOTES = 64
MAX_MESSAGE = 64 * 1024 * 1024  # bytes; nodes limit their answers to 15 MiB unless configured otherwise
# TCP keepalive probes a silent peer after 15 s and gives up 15 s later; the defaults of the kernel are hours.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)  # not on every system
    ),
]


class _BoundedSocket:
    """A socket whose operations share one deadline, and which reads a limited number of bytes per message.

    The time-out of a plain socket starts again with each byte, so that a slow peer could hold a request without end.
    """

    def __init__(self, inner: socket.socket, deadline: float) -> None:
        self._inner, self.deadline, self.received = inner, deadline, 0

    def recv(self, size: int) -> bytes:
        self._limit()
        data = self._inner.recv(size)
        self.received += len(data)
        if self.received > MAX_MESSAGE:
            raise websocket.WebSocketPayloadException(f"a message of more than {MAX_MESSAGE:,} bytes")
        return data

    def send(self, data: bytes) -> int:
        self._limit()
        return self._inner.send(data)

    def gettimeout(self) -> float:
        return max(0.001, self.deadline - time.monotonic())

    def settimeout(self, timeout_s: float | None) -> None:
        """Ignored: the deadline rules."""

    def _limit(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise websocket.WebSocketTimeoutException("the deadline has passed")
        self._inner.settimeout(left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # close, shutdown, fileno


class _Line(websocket.WebSocket):
    """The library's websocket over a `_BoundedSocket`, also during the handshake."""

    def __init__(self, deadline: float) -> None:
        self._bounded: _BoundedSocket | None = None
        self._deadline = deadline
        # The library checks UTF-8 in Python, which takes a second for 1.5 MB; decoding the JSON checks it anyway.
        super().__init__(sockopt=_KEEPALIVE, enable_multithread=False, skip_utf8_validation=True)

    @property
    def sock(self) -> Any:
        return self._bounded

    @sock.setter
    def sock(self, inner: socket.socket | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._bounded = None if inner is None else _BoundedSocket(inner, self._deadline)

    def bound(self, deadline: float) -> None:
        """What follows ends at this monotonic time."""
        self._deadline = deadline
        if self._bounded is not None:
            self._bounded.deadline = deadline

    def next_message(self) -> None:
        """Count the bytes of the next message from 0."""
        if self._bounded is not None:
            self._bounded.received = 0


class Socket:
    """timeout_s: of connecting with all that belongs to it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._ws = _Line(time.monotonic() + timeout_s)
        self._ws.settimeout(timeout_s)
        self._ws.connect(url, redirect_limit=1)
        self._id = 0
        self.heard_at = time.monotonic()
        self.notes: deque[dict] = deque(maxlen=KEPT_NOTES)

    def request(self, method: str, params: Sequence[Any], timeout_s: float) -> Any:
        """The whole answer to a JSON-RPC request, with `result` or `error`."""
        self._id += 1
        self._ws.bound(time.monotonic() + timeout_s)
        try:
            self._ws.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": list(params), "id": self._id}))
            while True:
                message = self._receive()
                if isinstance(message, dict) and "method" not in message:
                    refused = message.get("id") is None and isinstance(message.get("error"), dict)
                    if message.get("id") == self._id or refused:  # "request is too big" names no request
                        return message
        except websocket.WebSocketTimeoutException as error:
            raise websocket.WebSocketTimeoutException(f"no answer within {timeout_s:g} s") from error

    def probe(self, timeout_s: float) -> None:
        """Ping the peer. Raises WebSocketTimeoutException if no answer comes in time."""
        self._ws.bound(time.monotonic() + timeout_s)
        try:
            self._ws.ping()
            while True:
                self._ws.next_message()
                opcode, frame = self._ws.recv_data_frame(control_frame=True)
                self.heard_at = time.monotonic()
                if opcode == websocket.ABNF.OPCODE_PONG:
                    return
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    raise websocket.WebSocketConnectionClosedException("the endpoint closed the connection")
                if opcode == websocket.ABNF.OPCODE_TEXT and frame is not None:
                    self._keep(_parsed(frame.data))
        except websocket.WebSocketTimeoutException as error:
            raise websocket.WebSocketTimeoutException(f"no answer to a ping within {timeout_s:g} s") from error

    def wait(self, timeout_s: float) -> bool:
        """Wait for a notification; False if none came in time."""
        self._ws.bound(time.monotonic() + timeout_s)
        while not self.notes:
            try:
                self._receive()
            except websocket.WebSocketTimeoutException:
                return False  # a part of a message that has arrived is kept, and completed by the next call
        return True

    def close(self) -> None:
        self._ws.bound(time.monotonic() + 1.0)
        self._ws.close(timeout=0)

    def _receive(self) -> Any:
        """The next message, parsed; a notification is also kept."""
        data = self._ws.recv()
        self._ws.next_message()
        if not data:
            raise websocket.WebSocketConnectionClosedException("the endpoint closed the connection")
        self.heard_at = time.monotonic()
        message = _parsed(data)
        self._keep(message)
        return message

    def _keep(self, message: Any) -> None:
        if isinstance(message, dict) and isinstance(message.get("params"), dict) and "method" in message:
            self.notes.append(message)


def _parsed(data: str | bytes) -> Any:
    try:
        return json.loads(data)
    except RecursionError:
        raise websocket.WebSocketPayloadException("an answer that is nested too deeply") from None
