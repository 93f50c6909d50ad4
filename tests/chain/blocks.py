"""Blocks of a node that makes none by itself: no test misses one because the machine was busy.

with Blocks(endpoint) as blocks:   while entered, there are blocks:
    blocks.follow(writer)          ... each once all followers have read all but the last LAG
    with blocks.following(writer): ... for as long as this lasts
    blocks.leave(writer)           ... without followers: when the pool has an extrinsic, else one every `idle_s`
    with blocks.on_demand():       ... only when the pool has an extrinsic
    with blocks.held():            ... none
    blocks.up_to(number)           now, up to this one
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.writer.writer import ChainWriter

LEAST_S = 0.05  # between two blocks
LAG = 2  # an idle writer looks at the chain once a second


class Blocks:
    def __init__(self, endpoint: str, idle_s: float = 0.25) -> None:
        self.endpoint, self._idle_s = endpoint, idle_s
        self._client, self._stop = ChainClient(endpoint, timeout_s=60), threading.Event()
        self._lock, self._followers, self._only_on_demand = threading.RLock(), [], False
        self._left: set[str] = set()  # extrinsics that the last block did not take, as of a nonce to come
        self._thread = threading.Thread(target=self._run)

    def follow(self, writer: ChainWriter) -> None:
        with self._lock:
            self._followers.append(writer)

    def leave(self, writer: ChainWriter) -> None:
        with self._lock:
            self._followers = [one for one in self._followers if one is not writer]

    @contextmanager
    def following(self, writer: ChainWriter) -> Iterator[None]:
        self.follow(writer)
        try:
            yield
        finally:
            self.leave(writer)

    @contextmanager
    def on_demand(self) -> Iterator[None]:
        with self._lock:
            self._only_on_demand = True
        try:
            yield
        finally:
            with self._lock:
                self._only_on_demand = False

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            yield

    def up_to(self, number: int) -> None:
        with self._lock:
            if self._client.head().number < number:
                self._client.rpc("dev_newBlock", [{"to": number}])

    def _run(self) -> None:
        made_at = time.monotonic()
        while not self._stop.wait(LEAST_S):
            with self._lock:
                if self._due(time.monotonic() - made_at):
                    self._client.rpc("dev_newBlock")
                    self._left, made_at = self._pool(), time.monotonic()

    def _due(self, age_s: float) -> bool:
        if self._followers and not self._only_on_demand:
            head = self._client.head().number
            return all(writer.state()["block"] >= head - LAG for writer in self._followers)
        return bool(self._pool() - self._left) or (not self._only_on_demand and age_s > self._idle_s)

    def _pool(self) -> set[str]:
        return set(self._client.rpc("author_pendingExtrinsics"))

    def __enter__(self) -> Blocks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()
