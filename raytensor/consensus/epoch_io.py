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
