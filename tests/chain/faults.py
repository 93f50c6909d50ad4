"""A TCP proxy between a client and a real node that misbehaves on demand, from a thread of its own.

    open    forwards
    stall   keeps the connection and forwards nothing, in either direction (a half-dead socket)
    mute    forwards requests, swallows answers: a submission arrives and its answer does not
    shut    closes every connection and refuses new ones
"""

from __future__ import annotations

import select
import socket
import threading
from urllib.parse import urlparse


class FaultProxy:
    """Listens on a free loopback port. `endpoint` is its URL; `mode` may be set at any time."""

    def __init__(self, target: str) -> None:
        url = urlparse(target)
        self._target = (url.hostname, url.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        self.mode = "open"
        self.connections = 0
        self._closed = threading.Event()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._nodes: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=5)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            if self.mode == "shut":
                self._drop_all()
            silent = self.mode == "stall"
            watched = [self._listener] + ([] if silent else list(self._pairs))
            ready, _, _ = select.select(watched, [], [], 0.02)
            for sock in ready:
                if sock is self._listener:
                    self._accept()
                elif sock in self._pairs:
                    self._forward(sock)
        self._drop_all()
        self._listener.close()

    def _accept(self) -> None:
        inner, _ = self._listener.accept()
        if self.mode == "shut":
            inner.close()
            return
        outer = socket.create_connection(self._target, timeout=5)
        self.connections += 1
        self._pairs[inner], self._pairs[outer] = outer, inner
        self._nodes.add(outer)

    def _forward(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(1 << 16)
            if data and not (self.mode == "mute" and sock in self._nodes):
                self._pairs[sock].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        other = self._pairs.pop(sock)
        self._pairs.pop(other, None)
        sock.close()
        other.close()

    def _drop_all(self) -> None:
        for sock in list(self._pairs):
            if sock in self._pairs:
                self._drop(sock)
