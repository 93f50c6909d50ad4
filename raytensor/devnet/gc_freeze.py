"""Keeps the interpreter's garbage collector from standing the node still.

In: a chain. Out: collections that look only at what the last blocks made: a full one over the state of 64 subnets
takes up to a second, and comes when it likes. What lives at the end of a stretch of blocks is taken out of the
collector's sight; the state has no cycles, so it is freed all the same. Knows nothing of what is collected.
"""

from __future__ import annotations

import gc

from raytensor.devnet.chain import Chain

BLOCKS_BETWEEN = 32


def avoid_long_collections(chain: Chain) -> None:
    """From now on, in this process."""

    def tidy(block, changes) -> None:
        if block.number % BLOCKS_BETWEEN == 0:
            gc.collect()
            gc.freeze()

    gc.freeze()
    chain.listeners.append(tidy)
