"""Many tempos of one subnet of a fork, as it is and with changes: who earns what.

In: a `Fork`, a netuid, changes as `raytensor consensus` takes them ("set.kappa=0.6"), a number of tempos. Out:
`Earnings`, rao of alpha by hotkey. The blocks are those of the embedded chain, without extrinsics: emission, consensus,
payments and growing stake are the chain's own. Validators set the same weights again in every tempo.
Earned: what a hotkey and its nominators got on the subnet, and the root dividends to be claimed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from raytensor.chain import ss58
from raytensor.consensus import EpochInput
from raytensor.consensus.snapshot import Snapshot
from raytensor.consensus.whatif import apply_changes
from raytensor.devnet.chain_spec import build_runtime
from raytensor.devnet.fork.state import Fork
from raytensor.devnet.runtime import Runtime
from raytensor.devnet.subtensor.subnet_storage import frozen
from raytensor.errors import ConfigError

# field of `EpochInput` -> storage item per subnet that holds it
ITEMS = {
    "tempo": "Tempo",
    "max_validators": "MaxAllowedValidators",
    "kappa": "Kappa",
    "bonds_penalty": "BondsPenalty",
    "bonds_moving_average": "BondsMovingAverage",
    "alpha_sigmoid_steepness": "AlphaSigmoidSteepness",
    "yuma3": "Yuma3On",
    "liquid_alpha": "LiquidAlphaOn",
    "commit_reveal": "CommitRevealWeightsEnabled",
    "last_mechanism_step_block": "LastMechansimStepBlock",
    "validator_permit": "ValidatorPermit",
}
NAMES = {"liquid_alpha_mode": "LiquidAlphaConsensusMode", "epoch_kind": "SubnetEpochConsensus"}


@dataclass(frozen=True, slots=True)
class Earnings:
    """What each hotkey earned. before, after: rao of alpha by hotkey, as the subnet is and with the changes."""

    netuid: int
    num_tempos: int
    first_block: int
    last_block: int
    changes: tuple[str, ...]
    hotkeys: tuple[str, ...]
    before: dict[str, int]
    after: dict[str, int]

    def rows(self) -> list[dict]:
        """One dictionary per hotkey that earned, the largest change first, then the largest earnings."""
        uids = {hotkey: uid for uid, hotkey in enumerate(self.hotkeys)}
        rows = []
        for hotkey in {*self.before, *self.after}:
            before, after = self.before.get(hotkey, 0), self.after.get(hotkey, 0)
            row = {"uid": uids.get(hotkey), "hotkey": hotkey, "before_rao": before, "after_rao": after}
            rows.append(row | {"change_rao": after - before})
        return sorted(rows, key=lambda row: (-abs(row["change_rao"]), -row["before_rao"], row["hotkey"]))

    def as_json(self) -> dict:
        blocks = {"first_block": self.first_block, "last_block": self.last_block}
        head = {"netuid": self.netuid, "num_tempos": self.num_tempos, **blocks, "changes": list(self.changes)}
        return head | {"neurons": self.rows()}


def play(fork: Fork, netuid: int, changes: Sequence[str], num_tempos: int) -> Earnings:
    """Play the tempos, twice where there are changes. Raises ConfigError for a change that is not understood."""
    runtime, before = _play(fork, netuid, (), num_tempos)
    after = _play(fork, netuid, changes, num_tempos)[1] if changes else before
    keys = tuple(ss58.encode(hotkey) for hotkey in runtime.SubtensorModule.hotkeys(netuid))
    return Earnings(netuid, num_tempos, fork.block + 1, runtime.block_number, tuple(changes), keys, before, after)


def _play(fork: Fork, netuid: int, changes: Sequence[str], num_tempos: int) -> tuple[Runtime, dict[str, int]]:
    runtime = build_runtime(history_blocks=16)
    fork.restore(runtime)
    module = runtime.SubtensorModule
    if module.Tempo[netuid] == 0:
        raise ConfigError(f"subnet {netuid} has the tempo 0: it has no epochs")
    change_subnet(runtime, netuid, changes)
    held = _held(runtime, netuid)
    claims: dict[bytes, int] = {}
    for _ in range(num_tempos):
        _next_epoch(runtime, netuid)
        for hotkey, amount in module.RootAlphaDividendsPerSubnet.items(netuid):
            claims[hotkey] = claims.get(hotkey, 0) + amount
    earned = {hotkey: amount - held.get(hotkey, 0) for hotkey, amount in _held(runtime, netuid).items()}
    for hotkey, amount in claims.items():
        earned[hotkey] = earned.get(hotkey, 0) + amount
    return runtime, {ss58.encode(hotkey): amount for hotkey, amount in earned.items() if amount}


def _held(runtime: Runtime, netuid: int) -> dict[bytes, int]:
    """Alpha of each hotkey on the subnet, its nominators' included."""
    return {hotkey: alpha for (hotkey, on), alpha in runtime.SubtensorModule.TotalHotkeyAlpha.items() if on == netuid}


def _next_epoch(runtime: Runtime, netuid: int) -> None:
    """Blocks up to the next epoch of the subnet; then the validators set their weights again."""
    module = runtime.SubtensorModule
    index = module.SubnetEpochIndex[netuid]
    while module.SubnetEpochIndex[netuid] == index:
        runtime.next_block()
    for place in module.mechanism_indices(netuid):
        updated = module.LastUpdate[place].copy()
        updated[list(module.Weights.keys(place))] += np.uint64(module.Tempo[netuid])
        module.LastUpdate[place] = frozen(updated)


def change_subnet(runtime: Runtime, netuid: int, changes: Sequence[str]) -> None:
    """Apply changes to the storage of a subnet. Raises ConfigError."""
    module = runtime.SubtensorModule
    hotkeys = tuple(ss58.encode(hotkey) for hotkey in module.hotkeys(netuid))
    coldkeys = tuple(ss58.encode(module.Owner[hotkey]) for hotkey in module.hotkeys(netuid))
    old = module.epoch_input(netuid, netuid, 0)
    new = apply_changes(Snapshot(netuid, 0, hotkeys, coldkeys, old), changes)
    known = {*ITEMS, *NAMES, *_WRITERS, "stake_threshold", "pots"}
    for name in _different(old, new):
        if name not in known:
            raise ConfigError(f'"set.{name}": not while tempos are played; `raytensor consensus` has it for one epoch')
        if name in ITEMS:
            value = getattr(new, name)
            getattr(module, ITEMS[name])[netuid] = frozen(value) if isinstance(value, np.ndarray) else value
        elif name in NAMES:
            getattr(module, NAMES[name])[netuid] = getattr(new, name).capitalize()
        elif name in _WRITERS:
            _WRITERS[name](module, netuid, old, new)
    module.StakeThreshold.set(new.stake_threshold)
    module.AlphaValues[netuid] = (new.alpha_low, new.alpha_high)


def _different(old: EpochInput, new: EpochInput) -> list[str]:
    """The fields that a change has touched. Rows are compared by identity: a change makes new ones."""
    found = []
    for name in EpochInput.__dataclass_fields__:
        one, two = getattr(old, name), getattr(new, name)
        same = np.array_equal(one, two) if isinstance(one, np.ndarray) else one is two or one == two
        if not same:
            found.append(name)
    return found


def _write_weights(module, netuid: int, old: EpochInput, new: EpochInput) -> None:
    before, after = old.weights.to_lists(), new.weights.to_lists()
    for uid in range(new.n):
        if before[uid] != after[uid]:
            module.Weights[netuid, uid] = frozen(np.array(after[uid], np.uint16).reshape(-1, 2))


def _write_stake(module, netuid: int, old: EpochInput, new: EpochInput) -> None:
    """A stake weight becomes the hotkey's alpha, above what it has by root, parents and children."""
    for uid in np.flatnonzero(old.stake != new.stake).tolist():
        hotkey = module.Keys[netuid, uid]
        own = module.TotalHotkeyAlpha[hotkey, netuid]
        others = int(old.stake[uid]) - own
        if int(new.stake[uid]) < others:
            raise ConfigError(f"set.stake.uid:{uid}: root stake and parents alone give it {others} rao")
        module.TotalHotkeyAlpha[hotkey, netuid] = int(new.stake[uid]) - others


def _write_last_update(module, netuid: int, old: EpochInput, new: EpochInput) -> None:
    module.LastUpdate[netuid] = frozen(new.last_update)


def _nothing(module, netuid: int, old: EpochInput, new: EpochInput) -> None:
    """A field that is written with another one."""


_WRITERS: dict[str, Callable[..., None]] = {
    "weights": _write_weights,
    "stake": _write_stake,
    "last_update": _write_last_update,
    **dict.fromkeys(("stake_frac", "commit_block", "alpha_low", "alpha_high", "activity_cutoff"), _nothing),
}
