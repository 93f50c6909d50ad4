"""What-if: the epochs of a subnet as it is and with changes, compared per neuron.

In: a `Snapshot` and changes as text ("set.kappa=0.6"). Out: a `Comparison`. Pure, except that a change may name a
weights file. Knows nothing of the command line.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np

from raytensor.consensus.epoch_io import NO_COMMIT, EpochInput, EpochOutput
from raytensor.consensus.epochs import EpochRun, run_epochs
from raytensor.consensus.fixed import from_int
from raytensor.consensus.pallet_math import vec_max_upscale_to_u16
from raytensor.consensus.snapshot import SCALARS, Snapshot
from raytensor.errors import ConfigError

SHARES = {"kappa", "bonds_penalty", "alpha_low", "alpha_high"}
FLAGS = {"yuma3", "liquid_alpha", "commit_reveal"}
PER_NEURON = ("stake", "weights", "permit", "last_update")


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
        if who is None and field in SCALARS:
            inputs = replace(inputs, **{field: _scalar(change, field, value)})
        elif who is not None and field in PER_NEURON:
            inputs = _set_neuron(change, snapshot, inputs, field, snapshot.uid(who), value)
        elif field in PER_NEURON:
            raise ConfigError(f'"{change}": write the neuron too, as set.{field}.HOTKEY=…, or set.{field}.uid:7=…')
        else:
            fields = f"{', '.join(SCALARS)}, and per hotkey {', '.join(PER_NEURON)}"
            raise ConfigError(f'"{change}": no field "{field}"; there are {fields}')
    return inputs


def _scalar(change: str, field: str, value: str) -> int | bool | None:
    if field in FLAGS:
        if value not in ("true", "false"):
            raise ConfigError(f'"{change}": write true or false')
        return value == "true"
    if field == "owner_uid" and value == "none":
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


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """The epochs before and after the changes. paid_before, paid_after: rao per uid, as miner and validator."""

    snapshot: Snapshot
    before: list[EpochOutput]
    after: list[EpochOutput]

    @property
    def paid_before(self) -> list[int]:
        return _paid(self.before)

    @property
    def paid_after(self) -> list[int]:
        return _paid(self.after)

    def rows(self) -> list[dict]:
        """One dictionary per neuron, largest change first; the u16 columns are those of the last epoch."""
        lasts = (self.before[-1], self.after[-1])
        columns = ("incentive", "dividends", "validator_trust", "validator_permit")
        paid, rows = zip(self.snapshot.hotkeys, self.paid_before, self.paid_after, strict=True), []
        for uid, (hotkey, before, after) in enumerate(paid):
            row = {"uid": uid, "hotkey": hotkey, "before_rao": before, "after_rao": after, "change_rao": after - before}
            rows.append(row | {name: [getattr(last, name)[uid].item() for last in lasts] for name in columns})
        return sorted(rows, key=lambda row: (-abs(row["change_rao"]), row["uid"]))


def _paid(outputs: list[EpochOutput]) -> list[int]:
    columns = [column.tolist() for output in outputs for column in (output.server_emission, output.validator_emission)]
    return [sum(terms) for terms in zip(*columns, strict=True)]


def compare(snapshot: Snapshot, changes: Sequence[str], run: EpochRun, num_epochs: int = 1) -> Comparison:
    """Run the snapshot as it is and with the changes, over `num_epochs` epochs. Validators keep their weights."""
    changed = apply_changes(snapshot, changes)
    before = run_epochs(snapshot.inputs, num_epochs, run, resubmit=num_epochs > 1)
    return Comparison(snapshot, before, run_epochs(changed, num_epochs, run, resubmit=num_epochs > 1))
