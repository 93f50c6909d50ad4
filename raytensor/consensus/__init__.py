"""Yuma consensus, equal to the chain to the last unit.

In: `EpochInput`, the state of one mechanism of one subnet at one block. Out: `EpochOutput`, what the chain stores and
pays. Pure: arrays in, arrays out. Knows nothing of Ray, of a chain's transport or of the origin of the arrays.

    EpochInput -> epoch -> EpochOutput;   epochs: several in a row;   epoch_with_mechanisms: a subnet of several
"""

from collections.abc import Sequence

from raytensor.consensus.dense_rows import DenseRows
from raytensor.consensus.epoch_io import NO_COMMIT, EpochInput, EpochOutput, RawColumns, stake_from_bits, stake_weight
from raytensor.consensus.epochs import Between, SubnetOutput, combine_mechanisms, following, run_epochs, split_emissions
from raytensor.consensus.null_reference import null_reference
from raytensor.consensus.reference import epoch_reference
from raytensor.consensus.rows import Rows
from raytensor.errors import ConfigError

__all__ = ["NO_COMMIT", "DenseRows", "EpochInput", "EpochOutput", "RawColumns", "Rows", "SubnetOutput"]
__all__ += ["epoch", "epoch_with_mechanisms", "epochs", "following", "load_kernels", "split_emissions"]
__all__ += ["stake_from_bits", "stake_weight"]


def epoch(inputs: EpochInput, *, implementation: str = "fast", threads: int | None = None) -> EpochOutput:
    """One epoch, as `epoch_mechanism` (pallets/subtensor, run_epoch.rs) computes it: Yuma, or Null by `epoch_kind`.

    implementation: "fast" (compiled kernels) or "reference" (plain integers, in the order of the pallet). Both give
    the same bits. threads: cores for "fast"; None takes all of this process if the network is large enough.
    Raises ConfigError for another implementation or fewer than 1 thread.
    """
    if implementation not in ("fast", "reference"):
        raise ConfigError(f'implementation: "{implementation}"; choose "fast" or "reference"')
    null = inputs.epoch_kind == "null"
    if implementation == "reference":
        return null_reference(inputs) if null else epoch_reference(inputs)
    from raytensor.consensus.fast import epoch_fast  # the compiler takes a second to load

    return epoch_fast(inputs, threads=threads)


def epochs(
    inputs: EpochInput,
    num_epochs: int,
    *,
    resubmit: bool = False,
    between: Between | None = None,
    implementation: str = "fast",
    threads: int | None = None,
) -> list[EpochOutput]:
    """`num_epochs` consecutive epochs, a tempo apart; permits and bonds carry over as on the chain.

    resubmit: validators set the same weights in each epoch, so that none becomes inactive. between(input, number):
    returns the input of epoch `number` (from 1), for example with other weights. Raises ConfigError.
    """

    def run(state: EpochInput) -> EpochOutput:
        return epoch(state, implementation=implementation, threads=threads)

    return run_epochs(inputs, num_epochs, run, resubmit=resubmit, between=between)


def epoch_with_mechanisms(
    mechanisms: Sequence[EpochInput], *, implementation: str = "fast", threads: int | None = None
) -> SubnetOutput:
    """One epoch of a subnet: an input per mechanism, with its part of the emission (see `split_emissions`)."""
    outputs = [epoch(inputs, implementation=implementation, threads=threads) for inputs in mechanisms]
    return combine_mechanisms(mechanisms, outputs)


def load_kernels() -> None:
    """Load or compile the kernels now, so that no epoch waits for them: tens of seconds once, then about one."""
    from raytensor.consensus import fast  # the compiler takes a second to load

    fast.load_kernels()
