"""A line on standard error about work that takes long, before a job has a view.

In: what is being done. Out: lines on standard error. Knows nothing of the work.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from raytensor.supervised import run_once

SILENT_S = 3.0


@contextmanager
def patience(what: str) -> Iterator[None]:
    """Say on standard error what takes long: after three seconds, then every ten."""
    over = threading.Event()

    def watch() -> None:
        started = time.monotonic()
        wait_s = SILENT_S
        while not over.wait(wait_s):
            print(f"{what} ({time.monotonic() - started:.0f} s so far)", file=sys.stderr, flush=True)
            wait_s = 10.0

    thread = run_once("patience", watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
