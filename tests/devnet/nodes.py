"""Real node processes for the tests, and a client that says whatever it is told."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from websocket import create_connection

ROOT = Path(__file__).resolve().parent.parent.parent
START_TIMEOUT_S = 60.0


class Node:
    """One `python -m raytensor.devnet` on a free port; it ends with this process."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "raytensor.devnet", "--port", "0", "--quiet", "--exit-with-stdin", *arguments]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=ROOT
        )
        readable, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT_S)
        assert readable, f"the node did not serve within {START_TIMEOUT_S} s"
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read().decode()
        self.ready = json.loads(line)
        self.endpoint = self.ready["endpoint"]
        self.http = self.endpoint.replace("ws://", "http://")

    def stop(self) -> str:
        """End it as its owner would; returns what it said on standard error."""
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0, self.process.stderr.read().decode()
        return self.process.stderr.read().decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=60)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


class RawClient:
    """JSON-RPC over a websocket, message by message. Notifications seen on the way are kept in `notes`."""

    def __init__(self, endpoint: str, timeout_s: float = 120.0) -> None:
        self.socket = create_connection(endpoint, timeout=timeout_s)
        self.notes: list[dict] = []
        self._id = 0

    def send(self, text: str) -> None:
        self.socket.send(text)

    def receive(self) -> dict | list:
        return json.loads(self.socket.recv())

    def request(self, method: str, params=()) -> dict:
        """The whole reply."""
        self._id += 1
        named = params if isinstance(params, dict) else list(params)
        self.send(json.dumps({"jsonrpc": "2.0", "id": self._id, "method": method, "params": named}))
        while True:
            reply = self.receive()
            if isinstance(reply, dict) and reply.get("id") == self._id:
                return reply
            self.notes.append(reply)

    def call(self, method: str, params=()):
        """The result; an error reply fails the test."""
        reply = self.request(method, params)
        assert "error" not in reply, reply
        return reply["result"]

    def note(self, subscription: str):
        """The next notification of a subscription."""
        for i, note in enumerate(self.notes):
            if note["params"]["subscription"] == subscription:
                return self.notes.pop(i)["params"]["result"]
        while True:
            note = self.receive()
            if note.get("params", {}).get("subscription") == subscription:
                return note["params"]["result"]
            self.notes.append(note)

    def close(self) -> None:
        self.socket.close()


def wait_until(condition, timeout_s: float = 120.0, what: str = "the condition"):
    """Poll until `condition()` is true and return it."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come within {timeout_s} s")
