"""When the epochs of a subnet were and will be.

In: stored numbers of a subnet at one block. Out: block of the last and of the next epoch. Pure.
Runtimes that store LastEpochBlock have an epoch `tempo` blocks after the last one, or when the owner asks for it
(pallet subtensor, `get_next_epoch_start_block`). Older ones have it where (block + netuid + 1) mod (tempo + 1) is 0
(pallet subtensor, `blocks_until_next_epoch`).
"""

from collections.abc import Mapping
from typing import Any

ROOT = 0
LAST, PENDING = "LastEpochBlock", "PendingEpochAt"


def epoch_blocks(values: Mapping[str, Any], netuid: int, tempo: int, block: int) -> tuple[int, int]:
    """(block of the last epoch, block of the next one); 0 for none.

    values  by storage name; a name that the runtime lacks is absent. An epoch that is due runs in the next block at the
            earliest. The root subnet has no epochs.
    """
    if netuid == ROOT or (not tempo and LAST not in values):
        return int(values.get(LAST) or 0), 0
    if LAST not in values:
        upcoming = block + tempo + 1 - (block + netuid + 1) % (tempo + 1)
        return max(0, upcoming - (tempo + 1)), upcoming
    last = int(values[LAST] or 0)
    upcoming = next_epoch(last, tempo, int(values.get(PENDING) or 0))
    return last, max(upcoming, block + 1) if upcoming else 0


def next_epoch(last_epoch_block: int, tempo: int, pending_at: int) -> int:
    """The block of the next epoch: min(last + tempo, pending if set); 0 if the subnet has no epochs (tempo 0).

    Source: pallet subtensor, `get_next_epoch_start_block`.
    """
    if tempo == 0:
        return pending_at
    due = last_epoch_block + tempo
    return min(due, pending_at) if pending_at else due
