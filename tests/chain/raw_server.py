"""A websocket server of bare sockets, whose answers the test writes byte by byte.

`answer(method, params)` returns what the request gets: a value is its result; an `Error` its error; `Raw` bytes are
sent as the payload of a frame; `Drip` bytes one at a time with a pause between, until the client goes.
`push(result)` sends a notification to all connections. `requests` counts the requests by method.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raytensor.chain.rpc.connection import Connection, RpcError

GENESIS = "0x" + "11" * 32


@dataclass
class Error:
    code: int
    message: str
    data: Any = None


@dataclass
class Raw:
    payload: bytes


@dataclass
class Drip:
    pause_s: float


def header(number: int) -> dict:
    zero = "0x" + "00" * 32
    names = ("parentHash", "stateRoot", "extrinsicsRoot")
    return {"number": hex(number), "digest": {"logs": []}} | dict.fromkeys(names, zero)


def node_like(method: str, params: list) -> Any:
    """Enough for a `Connection` to take the endpoint."""
    return {"chain_getBlockHash": GENESIS, "chain_getHeader": header(7)}.get(method, "0x00")


def frame(payload: bytes) -> bytes:
    if len(payload) < 126:
        return b"\x81" + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return b"\x81\x7e" + struct.pack(">H", len(payload)) + payload
    return b"\x81\x7f" + struct.pack(">Q", len(payload)) + payload


class Upstream:
    """Asks a real node on behalf of several threads; its errors are answers. `endpoint` may be changed at any time."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._clients: dict[str, Connection] = {}
        self._lock = threading.Lock()

    def __call__(self, method: str, params: list) -> Any:
        if "_subscribe" in method:
            return "1"  # the test pushes
        try:
            return self.rpc(method, params)
        except RpcError as error:
            return Error(**error.error)

    def rpc(self, method: str, params: list | tuple = ()) -> Any:
        with self._lock:
            if self.endpoint not in self._clients:
                self._clients[self.endpoint] = Connection(self.endpoint, 20.0)
            return self._clients[self.endpoint].rpc(method, params)

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *exc: object) -> None:
        for client in self._clients.values():
            client.close()


class RawServer:
    def __init__(self, answer: Callable[[str, list], Any] = node_like, *, drip_handshake_s: float = 0.0) -> None:
        self.answer, self.requests = answer, Counter()
        self._drip_handshake_s = drip_handshake_s
        self._closing = threading.Event()
        self._peers: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        for sock in (self._listener, *self._peers):
            sock.close()

    def push(self, result: Any) -> None:
        note = {"jsonrpc": "2.0", "method": "chain_newHead", "params": {"subscription": "1", "result": result}}
        for peer in list(self._peers):
            try:
                peer.sendall(frame(json.dumps(note).encode()))
            except OSError:
                self._peers.remove(peer)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        try:
            stream = peer.makefile("rb")
            key = ""
            while (line := stream.readline().strip()) != b"":
                if line.lower().startswith(b"sec-websocket-key:"):
                    key = line.split(b":", 1)[1].strip().decode()
            digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
            head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            reply = f"{head}Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n\r\n".encode()
            if self._drip_handshake_s:
                self._drip(peer, reply, self._drip_handshake_s)
                return
            peer.sendall(reply)
            self._peers.append(peer)
            while (request := self._read(stream)) is not None:
                self.requests[request["method"]] += 1
                self._reply(peer, request["id"], self.answer(request["method"], request["params"]))
        except (OSError, ValueError):
            pass  # the client is gone
        finally:
            peer.close()

    def _read(self, stream) -> dict | None:
        while True:
            start = stream.read(2)
            if len(start) < 2:
                return None
            size = start[1] & 127
            if size >= 126:
                size = int.from_bytes(stream.read(2 if size == 126 else 8), "big")
            mask, data = stream.read(4), stream.read(size)
            if start[0] & 15 == 8:
                return None
            if start[0] & 15 == 1:
                return json.loads(bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def _reply(self, peer: socket.socket, number: int, found: Any) -> None:
        if isinstance(found, Drip):
            self._drip(peer, frame(b" " * 100_000), found.pause_s)
        elif isinstance(found, Raw):
            peer.sendall(frame(found.payload))
        elif isinstance(found, Error):
            error = {"code": found.code, "message": found.message, "data": found.data}
            peer.sendall(frame(json.dumps({"jsonrpc": "2.0", "error": error, "id": number}).encode()))
        else:
            peer.sendall(frame(json.dumps({"jsonrpc": "2.0", "result": found, "id": number}).encode()))

    def _drip(self, peer: socket.socket, data: bytes, pause_s: float) -> None:
        for byte in data:
            peer.sendall(bytes([byte]))
            if self._closing.wait(pause_s):
                return
