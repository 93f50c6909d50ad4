"""Yuma consensus, equal to the chain to the last unit.

In: `EpochInput`, the state of one mechanism of one subnet at one block. Out: `EpochOutput`, what the chain stores and
pays. Pure: arrays in, arrays out; knows nothing of Ray, of a chain's transport or of where the arrays came from.
"""

from __future__ import annotations

from ..errors import ConfigError
from .epoch_io import NO_COMMIT, EpochInput, EpochOutput, RawColumns, stake_from_bits, stake_weight
from .reference import epoch_reference
from .rows import Rows

__all__ = [
    "NO_COMMIT",
    "EpochInput",
    "EpochOutput",
    "RawColumns",
    "Rows",
    "epoch",
    "stake_from_bits",
    "stake_weight",
]


def epoch(inputs: EpochInput, *, implementation: str = "fast", threads: int | None = None) -> EpochOutput:
    """One epoch, as `epoch_mechanism` (pallets/subtensor, run_epoch.rs) computes it.

    implementation: "fast", or "reference" for the plain integer text of the pallet. Both give the same bits.
    threads: cores for the fast one; None takes those of this process where the network is large enough.
    """
    if implementation not in ("fast", "reference"):
        raise ConfigError(f'implementation: "{implementation}"; choose "fast" or "reference"')
    if implementation == "reference":
        return epoch_reference(inputs)
    from .fast import epoch_fast  # the compiler takes a second to load; the reference does without

    return epoch_fast(inputs, threads=threads)
