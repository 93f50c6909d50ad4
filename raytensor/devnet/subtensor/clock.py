"""Schedule of one subnet's epochs.

In: tempo, last epoch, the owner's trigger and the current block, all in blocks. Out: whether an epoch is due, the
blocks until it, its block. The period is exactly `tempo` from the last epoch (coinbase/run_coinbase.rs,
should_run_epoch); it does not depend on the netuid.
"""

from __future__ import annotations

U64_MAX = 2**64 - 1
MAX_TEMPO = 50_400  # after more blocks than this without an epoch, one is due


def is_due(*, tempo: int, block: int, last_epoch: int, pending_at: int, blocks_since_step: int) -> bool:
    if tempo == 0:
        return False
    triggered = 0 < pending_at <= block
    return triggered or blocks_since_step > MAX_TEMPO or block - last_epoch >= tempo


def blocks_until_auto(tempo: int, block: int, last_epoch: int) -> int:
    """Blocks until the next scheduled epoch; 0 when it is due, u64::MAX when the tempo is 0 (no epochs)."""
    if tempo == 0:
        return U64_MAX
    return max(0, last_epoch + tempo - block)


def next_start(tempo: int, last_epoch: int, pending_at: int) -> int | None:
    if tempo == 0:
        return None
    auto = last_epoch + tempo
    return min(auto, pending_at) if pending_at else auto
