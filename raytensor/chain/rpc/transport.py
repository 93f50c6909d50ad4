"""A websocket for one owner: a deadline for each request, a probe for a silent line, notifications kept apart.

In: one request at a time. Out: its answer; answers to anybody else are thrown away, notifications of subscriptions are
kept (the newest `KEPT_NOTES`). Has the three methods that substrate-interface's transport asks of a websocket.
Raises what `BROKEN` lists; after that the socket is of no use. Knows nothing of endpoints, chains or retries.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections import deque

import websocket

# Everything that a dead, slow or lying endpoint makes a request end with.
BROKEN = (websocket.WebSocketException, OSError, ssl.SSLError, ValueError)
KEPT_NOTES = 64
# The kernel asks a silent peer after 15 s, and gives it up 15 s later; its own defaults are hours.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]


class Socket:
    """`timeout_s`: of the connection, and of each request until it is set anew."""

    def __init__(self, url: str, timeout_s: float) -> None:
        # The library checks UTF-8 in Python, a second for a megabyte and a half; JSON is decoded strictly anyway.
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
        """The answer to the request that was sent last."""
        while (left := self._deadline - time.monotonic()) > 0:
            text = self._receive(left)
            if self._answers(text):
                return text
        raise websocket.WebSocketTimeoutException(f"no answer within {self.timeout_s:g} s")

    def probe(self, timeout_s: float) -> None:
        """Returns if the peer answers a ping in time."""
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
        """Waits for a notification; False if none came in time."""
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
        # Answers can be megabytes: the id is looked for at both ends before all of it is parsed.
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
