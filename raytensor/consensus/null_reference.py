"""The Null epoch in plain integers: the row of the largest staker pays the miners, stake pays the validators.

In: `EpochInput` of kind "null". Out: `EpochOutput`, in the order of the pallet's Null branch (run_epoch.rs).
`null_fast` must give the same result. Knows nothing of several mechanisms.
"""

import numpy as np

from raytensor.consensus import fixed as fx
from raytensor.consensus import pallet_math as pm
from raytensor.consensus.epoch_io import NO_COMMIT, EpochInput, EpochOutput, RawColumns


def null_reference(inputs: EpochInput) -> EpochOutput:
    """One Null epoch. Stake threshold, activity and permits don't count; bonds are left as they are."""
    n = inputs.n
    bits = [(w << 64) + f for w, f in zip(inputs.stake.tolist(), inputs.stake_frac.tolist(), strict=True)]
    winner = max(range(n), key=lambda uid: (bits[uid], -uid), default=0)
    miners = miner_shares(inputs, winner) if n else []
    server_pot, validator_pot = null_pots(inputs, any(bits))
    server, validator = pay(miners, server_pot), pay(bits, validator_pot)
    incentive, dividends = (_normalised(shares) for shares in (miners, bits))
    zeros = np.zeros(n, np.int64)
    counted = [s if i == inputs.owner_uid or s >> 64 >= inputs.stake_threshold else 0 for i, s in enumerate(bits)]
    stake = _normalised(counted)
    active = [updated + inputs.activity_cutoff >= inputs.block for updated in inputs.last_update.tolist()]
    raw = (stake, dividends, zeros, zeros, incentive, dividends)
    return EpochOutput(
        incentive=_u16(incentive),
        dividends=_u16(dividends),
        consensus=zeros.astype(np.uint16),
        validator_trust=zeros.astype(np.uint16),
        stake_weight=_u16(stake),
        validator_permit=np.arange(n) == winner,
        active=np.array(active, dtype=bool),
        server_emission=np.array(server, dtype=np.uint64),
        validator_emission=np.array(validator, dtype=np.uint64),
        emission=np.array([a + b for a, b in zip(server, validator, strict=True)], dtype=np.uint64),
        bonds=inputs.bonds,
        raw=RawColumns(*(np.array(column, dtype=np.int64) for column in raw)),
    )


def null_pots(inputs: EpochInput, any_stake: bool) -> tuple[int, int]:
    """Rao for (miners, validators). Without stake the miners also get the validators' alpha; root's is recycled."""
    half = inputs.emission // 2
    server, local, root = inputs.pots or (inputs.emission - half, half, 0)
    return (server, local + root) if any_stake else (server + local, 0)


def miner_shares(inputs: EpochInput, winner: int) -> list[int]:
    """The winner's weights by uid. 1 for each uid if none of them counts."""
    shares = [0] * inputs.n
    updated, commit = int(inputs.last_update[winner]), int(inputs.commit_block[winner])
    for uid, weight in inputs.weights.row(winner):
        registered = int(inputs.block_at_registration[uid])
        revealed_late = inputs.commit_reveal and commit != NO_COMMIT and commit < registered
        if updated > registered and not revealed_late and (uid != winner or uid == inputs.owner_uid):
            shares[uid] = weight
    return shares if any(shares) else [1] * inputs.n


def pay(shares: list[int], pot: int) -> list[int]:
    """Rao of each share, by differences of floored prefix sums: the payments add up to the pot exactly."""
    total = sum(shares)
    if total == 0:
        return [0] * len(shares)
    paid, before, prefix = [], 0, 0
    for share in shares:
        prefix += share
        upto = prefix * pot // total
        paid.append(upto - before)
        before = upto
    return paid


def _normalised(shares: list[int]) -> list[int]:
    """share / total as an I64F64, truncated to an I32F32."""
    total = sum(shares)
    return [fx.fixed64_to_fixed32(fx.safe_div64(share, total)) for share in shares]


def _u16(column: pm.Vector) -> np.ndarray:
    return np.array([fx.fixed_proportion_to_u16(value) for value in column], dtype=np.uint16)
