"""Loads the consensus kernels beside the running chain.

In: a runtime. Out: `runtime.epoch_implementation` turns from "reference" to "fast" once the kernels are ready; both
give the same bits. On a machine that has never run them the kernels compile for some tens of seconds, and a chain
that waited for that inside a block would leave its clients waiting too. Knows nothing of what an epoch computes.
"""

from __future__ import annotations

import threading

from raytensor.consensus import load_kernels
from raytensor.devnet.runtime import Runtime


def warm_up(runtime: Runtime) -> threading.Thread:
    """Start the loading; returns the thread that does it, which ends with the process."""
    runtime.epoch_implementation = "reference"

    def load() -> None:
        load_kernels()
        runtime.epoch_implementation = "fast"

    thread = threading.Thread(target=load, name="warm-up", daemon=True)
    thread.start()
    return thread
