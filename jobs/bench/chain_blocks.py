"""Blocks on demand for the fault benchmark, at the pace of the slowest reader: none falls behind on a busy machine.

In: an endpoint of a node that makes no blocks by itself, the recorder, a writer to follow. Out: a block as soon as the
pool has something new, else one every `IDLE_S`; each once the recorder has the events of the one before and the writer
has read all but the last blocks. While `held` is entered there is no block, so that a node can be killed and the
recorder misses nothing. Knows nothing of faults.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from chain_ledger import Recorder

from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.writer.writer import ChainWriter
from raytensor.errors import ChainError

IDLE_S, POLL_S = 0.1, 0.03
LAG, IDLE_LAG = 2, 4  # blocks that the writer has not read, with and without extrinsics in the pool
STALL_S = 5.0  # a writer that reads nothing for so long gets a block nevertheless


class Blocks:
    def __init__(self, endpoint: str, recorder: Recorder) -> None:
        self._endpoint, self._recorder = endpoint, recorder
        self._client = ChainClient(endpoint, 30.0)
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._writer: ChainWriter | None = None
        self._left: set[str] = set()  # extrinsics that the last block did not take
        self._made_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="blocks", daemon=True)
        self._thread.start()

    @contextmanager
    def following(self, writer: ChainWriter) -> Iterator[None]:
        with self._lock:
            self._writer = writer
        try:
            yield
        finally:
            with self._lock:
                self._writer = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """No block is made, and the recorder has read all that there are."""
        with self._lock:
            deadline = time.monotonic() + 60.0
            while not self._recorded(self._client.head()) and time.monotonic() < deadline:
                time.sleep(0.005)
            yield

    def make(self, count: int) -> None:
        """So many blocks, now."""
        for _ in range(count):
            with self.held():
                self._seal()

    def wait_for(self, count: int, timeout_s: float = 30.0) -> None:
        """Until there are so many more blocks, at the pace of the writer."""
        deadline, seen = time.monotonic() + timeout_s, self._recorder.newest.number + count
        while self._recorder.newest.number < seen and time.monotonic() < deadline and not self._stop.is_set():
            time.sleep(POLL_S)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=60)
        self._client.close()

    def _recorded(self, head: Head) -> bool:
        return head.number == 0 or self._recorder.events(head.hash) is not None

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                with self._lock:
                    if self._due():
                        self._seal()
            except ChainError:
                self._stop.wait(POLL_S)  # the node starts again

    def _seal(self) -> None:
        self._client.rpc("dev_newBlock")
        self._left, self._made_at = self._pool(), time.monotonic()

    def _due(self) -> bool:
        head, age_s = self._client.head(), time.monotonic() - self._made_at
        if not self._recorded(head):
            return False
        asked = bool(self._pool() - self._left)
        if self._writer is not None and age_s < STALL_S:
            if self._writer.state()["block"] < head.number - (LAG if asked else IDLE_LAG):
                return False
        return asked or age_s >= IDLE_S

    def _pool(self) -> set[str]:
        return set(self._client.rpc("author_pendingExtrinsics"))
