"""A websocket with a deadline per request, a ping for silent connections, and a queue for notifications.

In: one request at a time. Out: its answer. Answers to other requests are dropped; notifications of subscriptions are
kept (the newest `KEPT_NOTES`). Has the three methods that the transport of substrate-interface needs.
Waits for: the peer, at most `timeout_s`. Raises the errors in `BROKEN`; the socket is unusable after one.
Knows nothing of endpoints, chains or retries.
"""

import json
import socket
import ssl
import time
from collections import deque

import websocket

# The errors of a request to a dead, slow or misbehaving endpoint.
BROKEN = (websocket.WebSocketException, OSError, ssl.SSLError, ValueError)
KEPT_NOTES = 64
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


class Socket:
    """timeout_s: of connecting, and of each request; may be set before a request."""

    def __init__(self, url: str, timeout_s: float) -> None:
        # The library checks UTF-8 in Python, which takes a second for 1.5 MB; decoding the JSON checks it anyway.
        self._ws = websocket.create_connection(
            url, timeout=timeout_s, sockopt=_KEEPALIVE, enable_multithread=False, skip_utf8_validation=True
        )
        self._id = 0
        self.timeout_s = timeout_s
        self._deadline = 0.0
        self.heard_at = time.monotonic()
        self.notes: deque[dict] = deque(maxlen=KEPT_NOTES)

    def send(self, text: str) -> None:
        self._id = json.loads(text)["id"] if len(text) < 4096 else int(text[text.rindex(":") + 1 : -1])
        self._deadline = time.monotonic() + self.timeout_s
        self._ws.settimeout(self.timeout_s)
        self._ws.send(text)

    def recv(self) -> str:
        """The answer to the last request."""
        while (left := self._deadline - time.monotonic()) > 0:
            text = self._receive(left)
            if self._answers(text):
                return text
        raise websocket.WebSocketTimeoutException(f"no answer within {self.timeout_s:g} s")

    def probe(self, timeout_s: float) -> None:
        """Ping the peer. Raises WebSocketTimeoutException if no answer comes in time."""
        deadline = time.monotonic() + timeout_s
        self._ws.settimeout(timeout_s)
        self._ws.ping()
        while (left := deadline - time.monotonic()) > 0:
            self._ws.settimeout(left)
            opcode, frame = self._ws.recv_data_frame(control_frame=True)
            self.heard_at = time.monotonic()
            if opcode == websocket.ABNF.OPCODE_PONG:
                return
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                raise websocket.WebSocketConnectionClosedException("the endpoint closed the connection")
            if opcode == websocket.ABNF.OPCODE_TEXT:
                self._keep(json.loads(frame.data.decode()))
        raise websocket.WebSocketTimeoutException(f"no answer to a ping within {timeout_s:g} s")

    def wait(self, timeout_s: float) -> bool:
        """Wait for a notification; False if none came in time."""
        deadline = time.monotonic() + timeout_s
        while not self.notes:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                text = self._receive(left)
            except websocket.WebSocketTimeoutException:
                return False
            self._keep(json.loads(text))
        return True

    def close(self) -> None:
        self._ws.close(timeout=0)

    def _receive(self, timeout_s: float) -> str:
        self._ws.settimeout(timeout_s)
        text = self._ws.recv()
        if not text:
            raise websocket.WebSocketConnectionClosedException("the endpoint closed the connection")
        self.heard_at = time.monotonic()
        return text if isinstance(text, str) else text.decode()

    def _answers(self, text: str) -> bool:
        # Answers can be megabytes: look for the id at both ends before parsing all of it.
        mark = f'"id":{self._id}'
        for part in (text[:64], text[-64:]):
            packed = part.replace(" ", "")
            at = packed.find(mark)
            if at >= 0 and packed[at + len(mark) : at + len(mark) + 1] in (",", "}"):
                return True
        message = json.loads(text)
        self._keep(message)
        return isinstance(message, dict) and message.get("id") == self._id

    def _keep(self, message: object) -> None:
        if isinstance(message, dict) and isinstance(message.get("params"), dict) and "method" in message:
            self.notes.append(message)
