"""Block production: on a clock, as soon as an extrinsic is ready, or only when asked.

In: a `Chain` and a mode. Out: sealed blocks, on the event loop's thread. Knows nothing of requests.

Timestamps: by the clock in interval mode; instant and manual blocks are one block time apart, so that a script that
drives the chain by hand gets the same chain every time.
"""

from __future__ import annotations

import asyncio
import time

from raytensor.devnet.chain import Block, Chain

FILL_SHARE = 0.5  # of the block time, for taking in extrinsics; the rest is for clients
MAX_FILL_S = 0.5  # nobody is answered meanwhile
GENESIS_TIME_MS = 1_750_000_000_000


class Author:
    """Seals blocks. `interval_s`: seconds between blocks; None with `instant` or without (manual)."""

    def __init__(self, chain: Chain, *, interval_s: float | None, instant: bool = False) -> None:
        self.chain, self.interval_s, self.instant = chain, interval_s, instant
        self._scheduled = False
        self._task: asyncio.Task | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failure: asyncio.Future | None = None

    def start(self) -> None:
        """Begin on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self.failure = self._loop.create_future()
        if self.instant:
            self.chain.pool.on_ready = self._schedule
        elif self.interval_s is not None:
            self._task = self._loop.create_task(self._run(self.interval_s))
            self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self, task: asyncio.Task) -> None:
        # A chain that stands still in silence would hang every client; the node ends with the cause instead.
        if not task.cancelled() and task.exception() is not None and not self.failure.done():
            self.failure.set_exception(task.exception())

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._seal_instant)

    def _seal_instant(self) -> None:
        self._scheduled = False
        if self.chain.pool.has_ready():
            self.seal()
            if self.chain.pool.has_ready():
                self._schedule()

    def seal(self, *, wait: bool = True) -> Block:
        """One block now; its time follows the mode. wait: until it is on disk. A failure ends the node."""
        try:
            return self._seal(wait)
        except Exception as error:  # the loop's edge: a chain that can't make or keep a block must not go on
            if self.failure is not None and not self.failure.done():
                self.failure.set_exception(error)
            raise

    def _seal(self, wait: bool) -> Block:
        runtime = self.chain.runtime
        previous = runtime.Timestamp.Now.get()
        if self.interval_s is not None and not self.instant:
            budget_s = min(self.interval_s * FILL_SHARE, MAX_FILL_S)
            return self.chain.seal(max(previous + 1, time.time_ns() // 1_000_000), budget_s, wait=wait)
        return self.chain.seal((previous or GENESIS_TIME_MS) + runtime.block_time_ms)

    async def _run(self, interval_s: float) -> None:
        due = time.monotonic() + interval_s
        while True:
            # At least one pass of the event loop between blocks, however late we are.
            await asyncio.sleep(max(due - time.monotonic(), 0))
            self.seal(wait=False)
            if self.chain.storing is not None:
                await asyncio.shield(asyncio.wrap_future(self.chain.storing))  # a stop must not take it back
            self.chain.settle()
            due = max(due + interval_s, time.monotonic())  # lost slots are not made up for
