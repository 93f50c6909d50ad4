"""What a subnet pays at its next epochs, from its state at any block: emission, consensus, payments, growing stake.

In: `Subnet`, the inputs of all mechanisms with the schedule, the emission and the accounts. Out: a `Forecast` each.
Exact as long as nobody sends an extrinsic that changes the subnet, and no timelocked weights are revealed before the
epoch. Knows nothing of the chain's transport.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from raytensor.consensus.emission import Emission, Pots
from raytensor.consensus.epoch_io import EpochInput, EpochOutput, stake_from_bits
from raytensor.consensus.epochs import (
    EpochRun,
    SubnetOutput,
    combine_mechanisms,
    following,
    split_emissions,
    split_pots,
)
from raytensor.consensus.payout import Accounts, Payout, pay
from raytensor.errors import ConfigError

Change = Callable[[Pots], Pots]


@dataclass(frozen=True, slots=True, eq=False)
class Subnet:
    """A subnet after a block.

    mechanisms        an input each; emission, pots and block are those of the state, not of the next epoch.
    split             u16 shares of the mechanisms, or None for equal parts.
    next_epoch_block  the block in which the next epoch runs.
    """

    mechanisms: tuple[EpochInput, ...]
    split: tuple[int, ...] | None
    next_epoch_block: int
    emission: Emission
    accounts: Accounts

    def __post_init__(self) -> None:
        first = self.mechanisms[0]
        if len({inputs.n for inputs in self.mechanisms} | {len(self.accounts.hotkeys)}) != 1:
            raise ConfigError(
                f"mechanisms: {len(self.accounts.hotkeys)} hotkeys; each mechanism has one input per hotkey"
            )
        if self.next_epoch_block <= first.block:
            raise ConfigError(f"next_epoch_block: {self.next_epoch_block}; the state is of block {first.block}")


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """One epoch: its block, the pots it divides, the mechanisms' outputs, what is stored, and who is paid."""

    block: int
    pots: Pots
    mechanisms: tuple[EpochOutput, ...]
    stored: SubnetOutput
    payout: Payout


def forecast(
    subnet: Subnet, run: EpochRun, num_epochs: int = 1, *, resubmit: bool = False, change_pots: Change | None = None
) -> list[Forecast]:
    """The next `num_epochs` epochs. Stake grows by what each pays.

    run: computes one epoch. resubmit: validators set the same weights again in each tempo. change_pots: what is
    distributed instead of the forecast pots. Raises ConfigError for fewer than 1 epoch.
    """
    if num_epochs < 1:
        raise ConfigError(f"num_epochs: {num_epochs}; run at least 1")
    accounts, emission, inputs = subnet.accounts, subnet.emission, subnet.mechanisms
    block, epoch_block = inputs[0].block, subnet.next_epoch_block
    result: list[Forecast] = []
    for _ in range(num_epochs):
        if result:
            before, epoch_block = epoch_block, epoch_block + max(inputs[0].tempo, 1)
            block = before
        emission = emission.after(epoch_block - block)
        pots = change_pots(emission.pots) if change_pots else emission.pots
        inputs = tuple(
            replace(one, block=epoch_block, **part) for one, part in zip(inputs, _parts(subnet, inputs, pots))
        )
        outputs = tuple(run(one) for one in inputs)
        stored = combine_mechanisms(inputs, outputs)
        payout = pay(accounts, pots, stored.server_emission.tolist(), stored.validator_emission.tolist())
        result.append(Forecast(epoch_block, pots, outputs, stored, payout))
        grown = replace(accounts, alpha_rao=payout.stake_after(accounts.alpha_rao))
        inputs = _next_inputs(inputs, outputs, stored, accounts, grown, resubmit)
        issuance = emission.issuance_rao - payout.recycled_rao
        emission, accounts = replace(emission, pots=Pots(), issuance_rao=issuance), grown
    return result


def _parts(subnet: Subnet, inputs: tuple[EpochInput, ...], pots: Pots) -> list[dict]:
    """The emission fields of each mechanism. Yuma splits the sum, Null each pot."""
    count = len(inputs)
    if inputs[0].epoch_kind == "null":
        each = split_pots((pots.server_rao, pots.validator_rao, pots.root_rao), count, subnet.split)
        return [{"emission": sum(part), "pots": part} for part in each]
    parts = split_emissions(pots.consensus_rao, count, subnet.split)
    return [{"emission": part, "pots": None} for part in parts]


def _next_inputs(
    inputs: tuple[EpochInput, ...],
    outputs: tuple[EpochOutput, ...],
    stored: SubnetOutput,
    before: Accounts,
    after: Accounts,
    resubmit: bool,
) -> tuple[EpochInput, ...]:
    """The inputs one tempo later. All mechanisms share the permits; stake grows by what the hotkeys were paid."""
    grown = [after.inherited_rao(hotkey) - before.inherited_rao(hotkey) for hotkey in after.hotkeys]
    first = inputs[0]
    bits = [(w << 64) + f for w, f in zip(first.stake.tolist(), first.stake_frac.tolist(), strict=True)]
    stake, fraction = stake_from_bits([max(old + (new << 64), 0) for old, new in zip(bits, grown, strict=True)])
    shared = {"stake": stake, "stake_frac": fraction, "validator_permit": np.array(stored.validator_permit)}
    steps = [following(one, output, resubmit=resubmit) for one, output in zip(inputs, outputs, strict=True)]
    return tuple(replace(step, **shared) for step in steps)
