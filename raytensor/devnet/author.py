"""Block production: at a fixed interval, for each ready extrinsic, or on request.

In: a `Chain` and a mode. Out: sealed blocks, on the event loop's thread. Knows nothing of requests.

Timestamps are the wall clock in interval mode. Instant and manual blocks are one block time apart, so that a script
that seals blocks by hand produces the same chain each time.
"""

import asyncio
import time

from raytensor.devnet.block import Block
from raytensor.devnet.chain import Chain

FILL_SHARE = 0.5  # share of the block time for applying extrinsics; the rest is for clients
MAX_FILL_S = 0.5  # no client is answered meanwhile
GENESIS_TIME_MS = 1_750_000_000_000


class Author:
    """Seals blocks. `interval_s`: seconds between blocks; None in instant and manual mode.

    failure  after `start`: a future that gets the exception of a block that could not be sealed or stored.
    """

    def __init__(self, chain: Chain, *, interval_s: float | None, instant: bool = False) -> None:
        self.chain, self.interval_s, self.instant = chain, interval_s, instant
        self._scheduled = False
        self._task: asyncio.Task | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failure: asyncio.Future | None = None

    def start(self) -> None:
        """Start on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self.failure = self._loop.create_future()
        if self.instant:
            self.chain.pool.on_ready.append(self._schedule)
        elif self.interval_s is not None:
            self._task = self._loop.create_task(self._run(self.interval_s))
            self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self, task: asyncio.Task) -> None:
        # A chain that stops without a word would leave every client waiting; the node ends with the cause instead.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self.failure is not None and not self.failure.done():
            self.failure.set_exception(error)

    def _schedule(self) -> None:
        if not self._scheduled:
            assert self._loop is not None, "start() comes first"
            self._scheduled = True
            self._loop.call_soon(self._seal_instant)

    def _seal_instant(self) -> None:
        self._scheduled = False
        if self.chain.pool.has_ready():
            self.seal()
            if self.chain.pool.has_ready():
                self._schedule()

    def seal(self, *, wait: bool = True) -> Block:
        """Seal one block now. wait: return once it is on disk. A failure ends the node."""
        try:
            return self._seal(wait)
        except Exception as error:  # the loop's edge: a chain that cannot seal or store a block must not continue
            self._fail(error)
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
            # Even a late author leaves the event loop one pass between blocks.
            await asyncio.sleep(max(due - time.monotonic(), 0))
            self.seal(wait=False)
            if self.chain.storing is not None:
                await asyncio.shield(asyncio.wrap_future(self.chain.storing))  # a stop must not cancel the write
            self.chain.settle()
            due = max(due + interval_s, time.monotonic())  # lost slots are not made up for
