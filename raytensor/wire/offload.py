"""Runs work on few bytes on the event loop, and on many in a thread, so that other requests are not kept waiting.

In: the size of the work and a function. Out: its result. Bounds: the threads of asyncio's default executor.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
HERE_BYTES = 32 * 1024  # a thread costs more than work on fewer bytes


async def offload(num_bytes: int, work: Callable[[], T]) -> T:
    """The result of `work()`, which handles `num_bytes`."""
    return await asyncio.to_thread(work) if num_bytes > HERE_BYTES else work()
