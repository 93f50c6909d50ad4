"""Clients that go away or stop reading: the node says nothing of it, keeps no memory for them and serves the others."""

from __future__ import annotations

import json
import socket
import struct
import time

import pytest
from nodes import Node, RawClient
from websocket import WebSocketException, create_connection

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset instead of a farewell


def request(method: str, params=()) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})


@pytest.fixture
def node():
    made = Node("--block-time", "0.05")
    yield made
    if made.process.poll() is None:
        made.stop()


def test_clients_that_vanish_leave_no_word(node):
    for i in range(60):
        client = create_connection(node.endpoint, timeout=60)
        client.send(request("chain_subscribeNewHeads"))
        client.recv()
        # Answers, notifications and pongs are on their way when the line is cut, at another moment each time.
        for _ in range(20):
            client.ping()
            client.send(request("state_getMetadata"))
        time.sleep(0.002 * (i % 10))
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.sock.close()
    other = RawClient(node.endpoint)
    assert other.call("system_chain") == "Bittensor"
    other.close()
    assert node.stop() == ""


def test_a_reader_that_stopped_is_cut_off_and_holds_nobody_up(node):
    stalled = create_connection(node.endpoint, timeout=60)
    other = RawClient(node.endpoint)
    # Each answer has about 100 kB; 64 MiB may wait for one reader.
    longest = 0.0
    cut = False
    for _ in range(1_500):
        try:
            stalled.send(request("state_getMetadata"))
        except (OSError, WebSocketException):
            cut = True
            break
        started = time.monotonic()
        other.call("chain_getHeader")
        longest = max(longest, time.monotonic() - started)
    assert cut
    assert longest < 30.0
    other.close()
    stalled.shutdown()
    assert node.stop() == ""


def status_of(node, headers: dict[str, str], method: str = "GET") -> int:
    """HTTP status of a websocket handshake (GET) or of a POST with these headers."""
    with socket.create_connection(("127.0.0.1", int(node.endpoint.rsplit(":", 1)[1])), timeout=20) as line:
        body = request("dev_newBlock") if method == "POST" else ""
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        upgrade |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        more = upgrade if method == "GET" else {"Content-Length": str(len(body)), "Content-Type": "text/plain"}
        lines = [f"{method} / HTTP/1.1", *(f"{name}: {value}" for name, value in (headers | more).items())]
        line.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        return int(line.makefile("rb").readline().split()[1])


@pytest.mark.parametrize("method, served", [("GET", 101), ("POST", 200)])
def test_a_web_page_cannot_call(method, served):
    node = Node("--block-time", "manual", "--allow-origin", "https://polkadot.js.org")
    port = node.endpoint.rsplit(":", 1)[1]
    here = f"127.0.0.1:{port}"

    def status(host=here, origin=None):
        return status_of(node, {"Host": host} | ({} if origin is None else {"Origin": origin}), method)

    try:
        for host in (here, f"localhost:{port}", f"[::1]:{port}", "localhost:1234"):
            assert status(host) == served
            assert status(host, f"http://{host}") == served  # what websocket libraries name
        assert status(origin="https://polkadot.js.org") == served
        for origin in (
            "https://evil.example",
            "null",
            "http://localhost:3000",
            f"http://{here}.evil.example",
            "",
            "file://",
        ):
            assert status(origin=origin) == 403, origin
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "169.254.169.254"):
            assert status(host, f"http://{host}") == 403, host  # a name that was bound to this address
    finally:
        node.stop()
