"""Several epochs in a row, and several mechanisms of one subnet.

In: `EpochInput`s. Out: `EpochOutput`s, and what the chain stores for the subnet as a whole. Knows nothing of how one
epoch is computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raytensor.consensus.dense_rows import DenseRows
from raytensor.consensus.epoch_io import EpochInput, EpochOutput
from raytensor.consensus.rows import unsigned
from raytensor.errors import ConfigError

_U64 = 2**64 - 1
EpochRun = Callable[[EpochInput], EpochOutput]
Between = Callable[[EpochInput, int], EpochInput]  # (input, number of its epoch) -> the input to use


def following(inputs: EpochInput, output: EpochOutput, *, resubmit: bool = False) -> EpochInput:
    """The input of the next epoch, one tempo later, if no neuron changes anything.

    Permits, bonds, consensus and the block of this epoch carry over. resubmit: each validator with weights sets
    the same weights again (`last_update` advances by a tempo); without it, all become inactive in the end.
    """
    period = max(inputs.tempo, 1)
    last_update = inputs.last_update
    if resubmit:
        rows = inputs.weights.to_rows() if isinstance(inputs.weights, DenseRows) else inputs.weights
        last_update = last_update + np.uint64(period) * (np.diff(rows.indptr) > 0).astype(np.uint64)
    blocks: dict[str, Any] = {"block": inputs.block + period, "last_mechanism_step_block": inputs.block}
    if inputs.epoch_kind == "yuma":
        blocks["last_yuma_step_block"] = inputs.block
    stored = {"validator_permit": output.validator_permit, "bonds": output.bonds}
    stored["previous_consensus"] = output.consensus
    return replace(inputs, **blocks, last_update=last_update, **stored)


def run_epochs(
    inputs: EpochInput, num_epochs: int, run: EpochRun, *, resubmit: bool = False, between: Between | None = None
) -> list[EpochOutput]:
    """`num_epochs` consecutive epochs. between(input, number): changes each input but the first. Raises ConfigError."""
    if num_epochs < 1:
        raise ConfigError(f"num_epochs: {num_epochs}; run at least 1")
    outputs: list[EpochOutput] = []
    for number in range(num_epochs):
        if number:
            inputs = following(inputs, outputs[-1], resubmit=resubmit)
            inputs = between(inputs, number) if between else inputs
        outputs.append(run(inputs))
    return outputs


def split_emissions(emission: int, mechanism_count: int, split: Sequence[int] | None = None) -> list[int]:
    """Rao for each mechanism (`split_emissions`, subnets/mechanism.rs): by u16 shares of 65535, or evenly.

    The remainder of the division goes to mechanism 0. Missing shares are 0, surplus ones are ignored. Raises
    ConfigError for fewer than 1 mechanism.
    """
    if mechanism_count < 1:
        raise ConfigError(f"mechanism_count: {mechanism_count}; a subnet has at least 1")
    if split is None:
        parts = [emission // mechanism_count] * mechanism_count
    else:
        shares = unsigned("split", split, np.uint16).tolist()[:mechanism_count]
        parts = [emission * share // 65535 for share in shares] + [0] * (mechanism_count - len(shares))
    parts[0] += max(emission - sum(parts), 0)
    return parts


def split_pots(pots: Sequence[int], mechanism_count: int, split: Sequence[int] | None = None) -> list[tuple]:
    """The pots (miners, validators' alpha, validators' root) of each mechanism: each pot is split on its own."""
    return list(zip(*(split_emissions(pot, mechanism_count, split) for pot in pots), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class SubnetOutput:
    """What the chain stores and pays per subnet, over all mechanisms. Fields as in `EpochOutput`, length n.

    Incentive and bonds are stored per mechanism: `mechanisms` holds each one's own output.
    """

    dividends: np.ndarray
    consensus: np.ndarray
    validator_trust: np.ndarray
    stake_weight: np.ndarray
    validator_permit: np.ndarray
    active: np.ndarray
    server_emission: np.ndarray
    validator_emission: np.ndarray
    emission: np.ndarray
    mechanisms: tuple[EpochOutput, ...]


def combine_mechanisms(mechanisms: Sequence[EpochInput], outputs: Sequence[EpochOutput]) -> SubnetOutput:
    """Combine the mechanisms of a subnet in their order, as `epoch_with_mechanisms` (subnets/mechanism.rs) does.

    A column is the sum of the mechanisms' columns, weighted by their parts of the emission (U64F64, truncated after
    each term); paid amounts are added; flags are or-ed. In Yuma the stored `emission` is weighted too, although it is
    an amount: that is what the chain does; in Null it is added. Raises ConfigError for mechanisms of different sizes.
    """
    if not mechanisms or len({inputs.n for inputs in mechanisms}) != 1:
        raise ConfigError(f"mechanisms: sizes {[inputs.n for inputs in mechanisms]}; all describe one subnet")
    total = sum(inputs.emission for inputs in mechanisms)
    weights = [(inputs.emission << 64) // total if total else (not k) << 64 for k, inputs in enumerate(mechanisms)]

    def weighted(name: str, limit: int, dtype: type) -> np.ndarray:
        result = [0] * mechanisms[0].n
        for output, weight in zip(outputs, weights, strict=True):
            added = getattr(output, name).tolist()
            result = [min(old + (new * weight >> 64), limit) for old, new in zip(result, added, strict=True)]
        return np.array(result, dtype)

    def paid(name: str) -> np.ndarray:
        columns = [getattr(output, name).tolist() for output in outputs]
        return np.array([min(sum(terms), _U64) for terms in zip(*columns, strict=True)], np.uint64)

    added = all(inputs.epoch_kind == "null" for inputs in mechanisms)
    return SubnetOutput(
        **{name: weighted(name, 65535, np.uint16) for name in ("dividends", "consensus", "validator_trust")},
        stake_weight=weighted("stake_weight", 65535, np.uint16),
        validator_permit=np.logical_or.reduce([output.validator_permit for output in outputs]),
        active=np.logical_or.reduce([output.active for output in outputs]),
        server_emission=paid("server_emission"),
        validator_emission=paid("validator_emission"),
        emission=paid("emission") if added else weighted("emission", _U64, np.uint64),
        mechanisms=tuple(outputs),
    )
