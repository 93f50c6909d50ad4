"""Keeps garbage collections short.

In: a chain. Out: collections that visit only the objects of the last blocks. A full collection over the state of 64
subnets takes up to a second. Every BLOCKS_BETWEEN blocks all live objects are frozen (`gc.freeze`), which excludes them
from later collections; the state has no reference cycles, so reference counting still frees it.
"""

import gc

from raytensor.devnet.block import Block
from raytensor.devnet.chain import Chain

BLOCKS_BETWEEN = 32


def avoid_long_collections(chain: Chain) -> None:
    """Collect and freeze every BLOCKS_BETWEEN blocks, in this process."""

    def collect(block: Block, changes: list) -> None:
        if block.number % BLOCKS_BETWEEN == 0:
            gc.collect()
            gc.freeze()

    gc.freeze()
    chain.listeners.append(collect)
