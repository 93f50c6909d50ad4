"""The input and the output of an epoch: one mechanism of one subnet at one block.

In: the chain's storage values; a malformed one raises a ConfigError with its name.
Out: `EpochInput` and `EpochOutput`. Field names are the chain's. Knows nothing of how an epoch is computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raytensor.consensus.dense_rows import DenseRows
from raytensor.consensus.rows import Rows, unsigned
from raytensor.errors import ConfigError

NO_COMMIT = 2**64 - 1  # commit_block of a uid without a live commit
LIQUID_MODES = ("auto", "current", "previous")
EPOCH_KINDS = ("yuma", "null")
PAID = ("server_emission", "validator_emission", "emission")  # fields of `EpochOutput` in rao, in the kernels' order


def _whole(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ConfigError(f"{name}: {value!r} is not an integer")
    if not low <= value <= high:
        raise ConfigError(f"{name}: {value} is outside {low}..{high}")
    return int(value)


def _flags(name: str, values: object, n: int) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (n,):
        raise ConfigError(f"{name}: shape {array.shape}; this network has {n}")
    if array.dtype != bool and n:
        raise ConfigError(f"{name}: {array.dtype} values; give true and false")
    return np.require(array, bool, ["C", "W"])


_U16, _U64 = 2**16 - 1, 2**64 - 1
_RANGES = {
    "block": (0, _U64),
    "tempo": (0, _U16),
    "activity_cutoff": (0, _U64),
    "max_validators": (0, 2**32 - 1),
    "emission": (0, _U64),
    "stake_threshold": (0, _U64),
    "kappa": (0, _U16),
    "bonds_penalty": (0, _U16),
    "bonds_moving_average": (0, (2**31 - 1) * 10**6),
    "alpha_low": (0, _U16),
    "alpha_high": (0, _U16),
    "alpha_sigmoid_steepness": (-(2**15), 2**15 - 1),
    "last_mechanism_step_block": (0, _U64),
}
_CHOICES = {"liquid_alpha_mode": LIQUID_MODES, "epoch_kind": EPOCH_KINDS}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EpochInput:
    """The state that `epoch_mechanism` (run_epoch.rs) reads. Vectors have length n and are indexed by uid.

    stake, stake_frac  uint64: the stake weight as an I64F64, whole rao (below 2^63) and fraction in units of 2^-64.
    last_update, block_at_registration   uint64: blocks.
    validator_permit   bool, as stored by the previous epoch; this epoch counts weights of permit holders only.
    weights, bonds     rows as stored.
    activity_cutoff    blocks, which the chain derives from tempo and factor.
    kappa, bonds_penalty, alpha_low, alpha_high   u16, 65535 means 1.
    bonds_moving_average   millionths. alpha_sigmoid_steepness: hundredths.
    commit_block       uint64: block of the earliest live weight commit of each uid, or NO_COMMIT; read only if
                       `commit_reveal` is set.
    emission           rao of alpha to distribute.
    liquid_alpha_mode  whose consensus liquid alpha compares weights with (LiquidAlphaConsensusMode): "current", the
                       "previous" epoch's, or "auto": the previous one's if bonds_penalty is 65535, else the current.
    previous_consensus uint16: the consensus that the previous epoch of this mechanism stored (ConsensusByMechanism),
                       cut or padded with 0 to n. None or empty: nothing is stored, so the current one is used.
    last_yuma_step_block   block of the last Yuma epoch (LastYumaStepBlock), or None if the chain stores none.
    epoch_kind         "yuma", or "null" (SubnetEpochConsensus).
    pots               rao for (miners, validators' alpha, validators' root) of a Null epoch; their sum is `emission`.
                       None: validators get the floor of half, miners the rest. Yuma divides the sum.

    Raises ConfigError, with the name of the field, for a value of the wrong type, shape or range.
    """

    block: int
    tempo: int
    activity_cutoff: int
    last_update: np.ndarray
    block_at_registration: np.ndarray
    stake: np.ndarray
    validator_permit: np.ndarray
    weights: Rows | DenseRows
    bonds: Rows | DenseRows
    max_validators: int
    emission: int
    stake_frac: np.ndarray = None  # pyright: ignore[reportAssignmentType]  # None becomes zeros
    stake_threshold: int = 0
    owner_uid: int | None = None
    kappa: int = 32767
    bonds_penalty: int = 65535
    bonds_moving_average: int = 900_000
    alpha_low: int = 45875
    alpha_high: int = 58982
    alpha_sigmoid_steepness: int = 1000
    yuma3: bool = False
    liquid_alpha: bool = False
    commit_reveal: bool = False
    commit_block: np.ndarray = None  # pyright: ignore[reportAssignmentType]  # None becomes NO_COMMIT
    last_mechanism_step_block: int = 0
    last_yuma_step_block: int | None = None
    liquid_alpha_mode: str = "auto"
    previous_consensus: np.ndarray = None  # pyright: ignore[reportAssignmentType]  # None becomes an empty array
    epoch_kind: str = "yuma"
    pots: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        for name in ("weights", "bonds"):
            if not isinstance(getattr(self, name), (Rows, DenseRows)):
                raise ConfigError(f"{name}: {type(getattr(self, name)).__name__}; build it with Rows or DenseRows")
        n = self.weights.n
        if self.bonds.n != n:
            raise ConfigError(f"bonds: {self.bonds.n} rows, weights has {n}")
        for name, (low, high) in _RANGES.items():
            put(name, _whole(name, getattr(self, name), low, high))
        for name in ("yuma3", "liquid_alpha", "commit_reveal"):
            if not isinstance(value := getattr(self, name), (bool, np.bool_)):
                raise ConfigError(f"{name}: {value!r} is neither true nor false")
            put(name, bool(value))
        if self.owner_uid is not None:
            put("owner_uid", _whole("owner_uid", self.owner_uid, 0, n - 1))
        if self.last_yuma_step_block is not None:
            put("last_yuma_step_block", _whole("last_yuma_step_block", self.last_yuma_step_block, 0, _U64))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}: {getattr(self, name)!r}; choose {' or '.join(choices)}")
        put("previous_consensus", _stored_consensus(self.previous_consensus, n))
        if self.pots is not None:
            put("pots", _pots(self.pots, self.emission))
        for name in ("last_update", "block_at_registration", "stake"):
            put(name, unsigned(name, getattr(self, name), np.uint64, n))
        put("validator_permit", _flags("validator_permit", self.validator_permit, n))
        fraction = np.zeros(n, np.uint64) if self.stake_frac is None else self.stake_frac
        put("stake_frac", unsigned("stake_frac", fraction, np.uint64, n))
        commits = np.full(n, NO_COMMIT, np.uint64) if self.commit_block is None else self.commit_block
        put("commit_block", unsigned("commit_block", commits, np.uint64, n))
        if (sum_u64(self.stake) << 64) + sum_u64(self.stake_frac) >= 2**127:
            raise ConfigError(f"stake: the sum is {sum_u64(self.stake)} rao; an I64F64 holds less than 2^63")

    @property
    def n(self) -> int:
        return self.weights.n

    @property
    def judges_by_previous(self) -> bool:
        """Whether liquid alpha compares weights with the stored consensus of the previous epoch."""
        mode = self.liquid_alpha_mode
        wanted = mode == "previous" or (mode == "auto" and self.bonds_penalty == _U16)
        return wanted and len(self.previous_consensus) > 0

    @property
    def bond_cutoff_block(self) -> int:
        """Bonds to miners registered at this block or later are dropped (`last_tempo` of run_epoch.rs)."""
        if self.last_yuma_step_block is not None:
            return min(self.last_yuma_step_block + 1, _U64)
        if self.last_mechanism_step_block:
            return min(self.last_mechanism_step_block + 1, _U64)
        return max(self.block - self.tempo, 0)


def _stored_consensus(values: object, n: int) -> np.ndarray:
    """uint16 [n], or [0] where nothing is stored."""
    stored = unsigned("previous_consensus", () if values is None else values, np.uint16)
    if len(stored) in (0, n):
        return stored
    return np.concatenate([stored[:n], np.zeros(max(n - len(stored), 0), np.uint16)])


def _pots(values: object, emission: int) -> tuple[int, int, int]:
    if not isinstance(values, (tuple, list)) or len(values) != 3:
        raise ConfigError(f"pots: {values!r}; give the rao of miners, of validators' alpha and of validators' root")
    miners, local, root = (_whole("pots", value, 0, _U64) for value in values)
    if miners + local + root != emission:
        raise ConfigError(f"pots: {miners} + {local} + {root} rao; their sum must be the emission of {emission}")
    return miners, local, root


def sum_u64(values: np.ndarray) -> int:
    """Exact sum of a uint64 vector of any size."""
    low = int((values & np.uint64(0xFFFFFFFF)).sum())
    return (int((values >> np.uint64(32)).sum()) << 32) + low


def stake_from_bits(bits: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(stake, stake_frac) from the raw bits of I64F64 numbers."""
    for value in bits:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**127:
            raise ConfigError(f"stake: {value!r} is not the raw bits of an I64F64 of 0 or more")
    whole, fraction = [value >> 64 for value in bits], [value & _U64 for value in bits]
    return np.array(whole, dtype=np.uint64), np.array(fraction, dtype=np.uint64)


Rao = Sequence[int] | np.ndarray


def stake_weight(alpha_rao: Rao, tao_rao: Rao, tao_weight: int) -> tuple[np.ndarray, np.ndarray]:
    """(stake, stake_frac) of alpha + tao * tao_weight / (2^64 - 1).

    alpha_rao, tao_rao: u64, after the transfers between parent and child keys. tao_weight: the u64 that the chain
    stores. Rounded as in the pallet (`get_tao_weight`: an U96F32, truncated; `get_stake_weights_for_network`).
    """
    ratio = (_whole("tao_weight", tao_weight, 0, _U64) << 32) // _U64
    alpha = unsigned("alpha_rao", alpha_rao, np.uint64).tolist()
    tao = unsigned("tao_rao", tao_rao, np.uint64, len(alpha)).tolist()
    # I64F64 holds less than 2^63: the conversions and both operations saturate
    top = 2**127 - 1
    held = [(min(a << 64, top), min(t << 64, top)) for a, t in zip(alpha, tao, strict=True)]
    return stake_from_bits([min(a + min((t * (ratio << 32)) >> 64, top), top) for a, t in held])


@dataclass(frozen=True, slots=True, eq=False)
class RawColumns:
    """The columns of an epoch before the conversion to u16: int64 bits of I32F32 (value x 2^32), length n."""

    stake_weight: np.ndarray
    active_stake: np.ndarray
    consensus: np.ndarray
    validator_trust: np.ndarray
    incentive: np.ndarray
    dividends: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class EpochOutput:
    """What the chain stores and pays after an epoch. Vectors have length n and are indexed by uid.

    incentive, dividends, consensus, validator_trust, stake_weight   uint16, 65535 means 1.
    validator_permit, active   bool; the permit is the one for the next epoch.
    server_emission, validator_emission, emission   uint64 rao: paid to miners, to validators, and both together
               (rounded separately).
    bonds      rows to store, in the layout of the input's bonds; only new permit holders have entries.
    """

    incentive: np.ndarray
    dividends: np.ndarray
    consensus: np.ndarray
    validator_trust: np.ndarray
    stake_weight: np.ndarray
    validator_permit: np.ndarray
    active: np.ndarray
    server_emission: np.ndarray
    validator_emission: np.ndarray
    emission: np.ndarray
    bonds: Rows | DenseRows
    raw: RawColumns
