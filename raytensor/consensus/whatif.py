"""What-if: the epochs of a subnet as it is and with changes, compared per neuron.

In: a `Snapshot` and changes as text ("set.kappa=0.6"). Out: a `Comparison`: what the next epochs pay. Pure, except
that a change may name a weights file. Knows nothing of the command line.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np

from raytensor.consensus.emission import Pots
from raytensor.consensus.epoch_io import EPOCH_KINDS, LIQUID_MODES, NO_COMMIT, EpochInput, EpochOutput
from raytensor.consensus.epochs import EpochRun, run_epochs
from raytensor.consensus.fixed import from_int
from raytensor.consensus.forecast import Subnet, forecast
from raytensor.consensus.pallet_math import vec_max_upscale_to_u16
from raytensor.consensus.snapshot import SCALARS, Snapshot
from raytensor.errors import ConfigError

SHARES = {"kappa", "bonds_penalty", "alpha_low", "alpha_high"}
FLAGS = {"yuma3", "liquid_alpha", "commit_reveal"}
CHOICES = {"liquid_alpha_mode": LIQUID_MODES, "epoch_kind": EPOCH_KINDS}
PER_NEURON = ("stake", "weights", "permit", "last_update")
COLUMNS = ("incentive", "dividends", "validator_trust", "validator_permit")
_UNSETTABLE = {"pots", "block"}  # the epoch's block follows from the schedule; an emission is set as a whole
SETTABLE = tuple(name for name in SCALARS if name not in _UNSETTABLE)


def apply_changes(snapshot: Snapshot, changes: Sequence[str]) -> EpochInput:
    """The snapshot's input with each change applied, in order.

    A change is `set.FIELD=VALUE` or `set.FIELD.WHO=VALUE`, see `raytensor consensus --help`. Raises ConfigError with
    the change and what to write instead.
    """
    inputs = snapshot.inputs
    for change in changes:
        match = re.fullmatch(r"set\.([a-z0-9_]+)(?:\.([^=]+))?=(.*)", change, re.DOTALL)
        if match is None:
            raise ConfigError(f'"{change}": write set.FIELD=VALUE or set.FIELD.HOTKEY=VALUE, for example set.kappa=0.6')
        field, who, value = match.groups()
        if who is None and field in SETTABLE:
            inputs = replace(inputs, **{field: _scalar(change, field, value)}, pots=None)
        elif who is not None and field in PER_NEURON:
            inputs = _set_neuron(change, snapshot, inputs, field, snapshot.uid(who), value)
        elif field in PER_NEURON:
            raise ConfigError(f'"{change}": write the neuron too, as set.{field}.HOTKEY=…, or set.{field}.uid:7=…')
        else:
            fields = f"{', '.join(SETTABLE)}, and per hotkey {', '.join(PER_NEURON)}"
            raise ConfigError(f'"{change}": no field "{field}"; there are {fields}')
    return inputs


def _scalar(change: str, field: str, value: str) -> int | bool | str | None:
    if field in FLAGS:
        if value not in ("true", "false"):
            raise ConfigError(f'"{change}": write true or false')
        return value == "true"
    if field in CHOICES:
        return value
    if field in ("owner_uid", "last_yuma_step_block") and value == "none":
        return None
    if field in SHARES and re.fullmatch(r"[01]?\.\d+", value):
        return int(Decimal(value) * 65535)
    if not re.fullmatch(r"-?\d+", value):
        hint = " (or a share from 0.0 to 1.0)" if field in SHARES else ""
        raise ConfigError(f'"{change}": write the integer that the chain stores{hint}')
    return int(value)


def _set_neuron(change: str, snapshot: Snapshot, inputs: EpochInput, field: str, uid: int, value: str) -> EpochInput:
    if field == "weights":
        return set_weights(inputs, uid, read_weights(value, snapshot))
    if field == "permit":
        if value not in ("true", "false"):
            raise ConfigError(f'"{change}": write true or false')
        return replace(inputs, validator_permit=_with(inputs.validator_permit, uid, value == "true"))
    amount = re.fullmatch(r"(\d+)", value)
    if field == "last_update":
        if amount is None:
            raise ConfigError(f'"{change}": write a block number')
        return replace(inputs, last_update=_with(inputs.last_update, uid, _u64(change, int(value))))
    alpha = re.fullmatch(r"(\d+)(?:\.(\d{1,9}))?alpha", value)
    if amount is not None:
        rao = int(value)
    elif alpha is not None:
        rao = int(alpha[1]) * 10**9 + int((alpha[2] or "").ljust(9, "0"))
    else:
        raise ConfigError(f'"{change}": write rao, as in 2500000000, or alpha with its name, as in 2.5alpha')
    stake, fraction = _with(inputs.stake, uid, _u64(change, rao)), _with(inputs.stake_frac, uid, 0)
    return replace(inputs, stake=stake, stake_frac=fraction)


def _with(values: np.ndarray, uid: int, value: int | bool) -> np.ndarray:
    changed = values.copy()
    changed[uid] = value
    return changed


def _u64(change: str, value: int) -> int:
    if value >= 2**64:
        raise ConfigError(f'"{change}": {value} does not fit 64 bits')
    return value


def set_weights(inputs: EpochInput, uid: int, row: Sequence[tuple[int, int]]) -> EpochInput:
    """The inputs as if the validator had set these weights (uid, u16) in this block, without a pending commit."""
    weights = inputs.weights.replace_row(uid, row, name="weights")
    updated, commits = _with(inputs.last_update, uid, inputs.block), _with(inputs.commit_block, uid, NO_COMMIT)
    return replace(inputs, weights=weights, last_update=updated, commit_block=commits)


def read_weights(path: str | Path, snapshot: Snapshot) -> list[tuple[int, int]]:
    """A validator's row from a JSON file {"hotkey or uid:7": weight, ...}; weights of any scale, at least 0.

    Scaled to u16 so that the largest becomes 65535, as clients and the chain's `set_weights` do. Raises ConfigError.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f'{path}: write {{"hotkey": weight, ...}}')
    for who, weight in content.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise ConfigError(f'{path}: weight {weight!r} of "{who}"; a weight is a number of at least 0')
    largest = max(content.values())
    if largest == 0:
        raise ConfigError(f"{path}: each weight is 0; give at least one above 0")
    uids = [snapshot.uid(who) for who in content]
    scaled = [round(weight / largest * 65535) for weight in content.values()]
    stored = vec_max_upscale_to_u16([from_int(weight) for weight in scaled])
    return sorted(zip(uids, stored, strict=True))


PARTS = ("incentive", "dividends", "root", "owner_cut")


@dataclass(frozen=True, slots=True, eq=False)
class Epoch:
    """One epoch of a comparison: who is paid, and the u16 columns by uid (incentive: of the first mechanism).

    paid: rao by hotkey for each of `PARTS`. withheld_rao: incentive of the owner's miners, which nobody gets.
    """

    block: int
    paid: dict[str, dict[str, int]]
    columns: dict[str, np.ndarray]
    withheld_rao: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """The epochs before and after the changes. paid_before, paid_after: rao by hotkey, over all epochs and parts."""

    snapshot: Snapshot
    before: list[Epoch]
    after: list[Epoch]

    @property
    def paid_before(self) -> dict[str, int]:
        return _totals(self.before)

    @property
    def paid_after(self) -> dict[str, int]:
        return _totals(self.after)

    def rows(self) -> list[dict]:
        """One dictionary per neuron and per other hotkey that is paid, largest change first.

        The u16 columns are those of the last epoch. A hotkey that is not on the subnet (a parent, the owner's) has the
        uid None.
        """
        lasts = (self.before[-1], self.after[-1])
        before, after = self.paid_before, self.paid_after
        rows = []
        known = dict.fromkeys(self.snapshot.hotkeys)
        for number, hotkey in enumerate([*known, *sorted({*before, *after} - known.keys())]):
            uid = number if number < len(known) else None
            paid = [before.get(hotkey, 0), after.get(hotkey, 0)]
            row = {"uid": uid, "hotkey": hotkey, "before_rao": paid[0], "after_rao": paid[1]}
            row["change_rao"] = paid[1] - paid[0]
            for part in PARTS:
                sides = (self.before, self.after)
                row[f"{part}_rao"] = [sum(one.paid[part].get(hotkey, 0) for one in side) for side in sides]
            if uid is not None:
                row |= {name: [last.columns[name][uid].item() for last in lasts] for name in lasts[0].columns}
            rows.append(row)
        return sorted(rows, key=lambda row: (-abs(row["change_rao"]), row["uid"] is None, row["uid"] or 0))


def _totals(epochs: Sequence[Epoch]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for one in epochs:
        for part in one.paid.values():
            for hotkey, amount in part.items():
                totals[hotkey] = totals.get(hotkey, 0) + amount
    return totals


def compare(snapshot: Snapshot, changes: Sequence[str], run: EpochRun, num_epochs: int = 1) -> Comparison:
    """Run the snapshot as it is and with the changes, over `num_epochs` epochs. Validators keep their weights."""
    before = _epochs(snapshot, snapshot.inputs, [], run, num_epochs)
    return Comparison(snapshot, before, _epochs(snapshot, apply_changes(snapshot, changes), changes, run, num_epochs))


def _epochs(
    snapshot: Snapshot, inputs: EpochInput, changes: Sequence[str], run: EpochRun, num_epochs: int
) -> list[Epoch]:
    """The epochs of the whole subnet if the snapshot describes it, else those of `inputs` with a constant emission."""
    resubmit = num_epochs > 1
    if snapshot.subnet is None:
        outputs = run_epochs(inputs, num_epochs, run, resubmit=resubmit)
        blocks = [inputs.block + number * max(inputs.tempo, 1) for number in range(num_epochs)]
        return [_plain(snapshot, block, output) for block, output in zip(blocks, outputs, strict=True)]
    subnet, replaced = changed_subnet(snapshot, inputs, changes)

    def pots(forecast_pots: Pots) -> Pots:
        return forecast_pots if replaced is None else forecast_pots.scaled_to(replaced)

    found = []
    for epoch in forecast(subnet, run, num_epochs, resubmit=resubmit, change_pots=pots):
        paid = {part: getattr(epoch.payout, part) for part in PARTS}
        columns = {name: getattr(epoch.stored, name) for name in COLUMNS[1:]}
        columns = {"incentive": epoch.mechanisms[0].incentive} | columns
        found.append(Epoch(epoch.block, paid, columns, epoch.payout.withheld_rao))
    return found


def changed_subnet(snapshot: Snapshot, inputs: EpochInput, changes: Sequence[str]) -> tuple[Subnet, int | None]:
    """The snapshot's subnet with the changes, and the emission that they set, if any.

    inputs: the first mechanism with the changes. The others get those that are not of one mechanism: all but weights
    and the block of the last weights. A change of the tempo moves the next epoch.
    """
    assert snapshot.subnet is not None
    shared = [change for change in changes if not change.startswith(("set.weights.", "set.last_update."))]
    others = [apply_changes(replace(snapshot, inputs=one), shared) for one in snapshot.subnet.mechanisms[1:]]
    moved = inputs.tempo - snapshot.inputs.tempo
    due = max(snapshot.subnet.next_epoch_block + moved, inputs.block + 1)
    subnet = replace(snapshot.subnet, mechanisms=(inputs, *others), next_epoch_block=due)
    sets_emission = any(change.startswith("set.emission=") for change in changes)
    return subnet, inputs.emission if sets_emission else None


def _plain(snapshot: Snapshot, block: int, output: EpochOutput) -> Epoch:
    parts = (output.server_emission.tolist(), output.validator_emission.tolist())
    incentive, dividends = (dict(zip(snapshot.hotkeys, part, strict=True)) for part in parts)
    paid = {"incentive": incentive, "dividends": dividends, "root": {}, "owner_cut": {}}
    return Epoch(block, paid, {name: getattr(output, name) for name in COLUMNS})
