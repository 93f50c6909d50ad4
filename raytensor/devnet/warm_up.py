"""Loads the consensus kernels on a thread while the chain runs.

In: a runtime. Out: `runtime.epoch_implementation` changes from "reference" to "fast" once the kernels are ready; both
give the same bits. On a new machine the kernels compile for some tens of seconds, which must not delay a block.
Knows nothing of what an epoch computes.
"""

import threading

from raytensor.consensus import load_kernels
from raytensor.devnet.runtime import Runtime


def warm_up(runtime: Runtime) -> threading.Thread:
    """Start loading. Returns the thread, a daemon."""
    runtime.epoch_implementation = "reference"

    def load() -> None:
        load_kernels()
        runtime.epoch_implementation = "fast"

    thread = threading.Thread(target=load, name="warm-up", daemon=True)
    thread.start()
    return thread
