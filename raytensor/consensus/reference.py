"""The epoch in plain integers, in the order of the pallet's `epoch_mechanism` (pallets/subtensor, run_epoch.rs).

In: `EpochInput`. Out: `EpochOutput`, equal to the chain to the last bit. Slow; the fast epoch is tested against it.
Knows nothing of several mechanisms or several epochs.
"""

import numpy as np

from raytensor.consensus import fixed as fx
from raytensor.consensus import pallet_math as pm
from raytensor.consensus.epoch_io import EpochInput, EpochOutput, RawColumns
from raytensor.consensus.rows import Rows


def epoch_reference(inputs: EpochInput) -> EpochOutput:
    """One epoch. The comments name the sections of run_epoch.rs."""
    n, block, owner = inputs.n, inputs.block, inputs.owner_uid
    last_update, registered = inputs.last_update.tolist(), inputs.block_at_registration.tolist()

    # Active & updated
    inactive = [updated + inputs.activity_cutoff < block for updated in last_update]

    # Stake
    total_stake = [(w << 64) + f for w, f in zip(inputs.stake.tolist(), inputs.stake_frac.tolist(), strict=True)]
    filtered = [s if i == owner or s >> 64 >= inputs.stake_threshold else 0 for i, s in enumerate(total_stake)]
    stake_sum = sum(filtered)
    if stake_sum:
        filtered = [fx.safe_div64(s, stake_sum) for s in filtered]
    stake = [fx.fixed64_to_fixed32(s) for s in filtered]

    # Validator permits: the stored ones apply to this epoch, the new ones to the next
    permits = inputs.validator_permit.tolist()
    new_permits = pm.is_topk_nonzero(stake, inputs.max_validators)
    if owner is not None:
        permits[owner] = new_permits[owner] = True
    forbids = [not permit for permit in permits]

    # Active stake
    active_stake = pm.inplace_mask_vector(inactive, stake)
    active_stake = pm.normalize(pm.inplace_mask_vector(forbids, active_stake))

    # Weights
    weights = [[(j, fx.from_int(w)) for j, w in row] for row in inputs.weights.to_lists()]
    weights = pm.mask_rows_sparse(forbids, weights)
    weights = pm.mask_diag_sparse(weights, owner)
    weights = pm.vec_mask_sparse_matrix(weights, last_update, registered, lambda updated, reg: updated <= reg)
    if inputs.commit_reveal:
        commits = inputs.commit_block.tolist()
        weights = pm.vec_mask_sparse_matrix(weights, commits, registered, lambda commit, reg: commit < reg)
    weights = pm.row_normalize_sparse(weights)

    # Consensus, validator trust
    kappa = fx.u16_proportion_to_fixed(inputs.kappa)
    consensus = pm.weighted_median_col_sparse(active_stake, weights, n, kappa)
    clipped = pm.col_clip_sparse(weights, consensus)
    validator_trust = pm.row_sum_sparse(clipped)

    # Ranks, incentive
    incentive = pm.normalize(pm.matmul_sparse(clipped, active_stake, n))

    # Bonds and dividends
    penalty = fx.u16_proportion_to_fixed(inputs.bonds_penalty)
    weights_for_bonds = pm.interpolate_sparse(weights, clipped, n, penalty)
    bonds = [[(j, fx.from_int(b)) for j, b in row] for row in inputs.bonds.to_lists()]
    if inputs.yuma3:
        bonds = [[(j, fx.u16_proportion_to_fixed(b >> 32)) for j, b in row] for row in bonds]
    cutoff = inputs.bond_cutoff_block
    bonds = pm.scalar_vec_mask_sparse_matrix(bonds, cutoff, registered, lambda tempo, reg: tempo <= reg)
    if inputs.yuma3:
        ema_bonds = compute_bonds_sparse(inputs, weights_for_bonds, bonds, consensus)
        shares = pm.row_sum_sparse(pm.mat_vec_mul_sparse(pm.col_normalize_sparse(ema_bonds, n), incentive))
        dividends = pm.normalize(pm.vec_mul(shares, active_stake))
    else:
        bonds = pm.col_normalize_sparse(bonds, n)
        delta = pm.col_normalize_sparse(pm.row_hadamard_sparse(weights_for_bonds, active_stake), n)
        ema_bonds = pm.col_normalize_sparse(pm.mat_ema_sparse(delta, bonds, bonds_alpha(inputs)), n)
        dividends = pm.normalize(pm.matmul_transpose_sparse(ema_bonds, incentive))
        ema_bonds = pm.col_max_upscale_sparse(ema_bonds, n)

    # Emission
    combined = [fx.add(i, d) for i, d in zip(incentive, dividends, strict=True)]
    emission_sum = sum(combined)
    server = pm.normalize_using_sum(incentive, emission_sum)
    validator = pm.normalize_using_sum(dividends, emission_sum)
    both = pm.normalize(combined)
    if emission_sum == 0:
        # without incentive and dividends, stake decides
        validator = both = active_stake if any(active_stake) else stake

    kept = [row if permit else [] for row, permit in zip(ema_bonds, new_permits, strict=True)]
    stored_bonds = [[(j, fx.fixed_proportion_to_u16(b)) for j, b in row] for row in kept]
    raw = (stake, active_stake, consensus, validator_trust, incentive, dividends)
    return EpochOutput(
        incentive=_u16(incentive),
        dividends=_u16(dividends),
        consensus=_u16(consensus),
        validator_trust=_u16(validator_trust),
        stake_weight=_u16(stake),
        validator_permit=np.array(new_permits, dtype=bool),
        active=~np.array(inactive, dtype=bool),
        server_emission=_rao(server, inputs.emission),
        validator_emission=_rao(validator, inputs.emission),
        emission=_rao(both, inputs.emission),
        bonds=Rows.from_lists(stored_bonds, name="bonds"),
        raw=RawColumns(*(np.array(column, dtype=np.int64) for column in raw)),
    )


def bonds_alpha(inputs: EpochInput) -> int:
    """1 - bonds_moving_average / 10^6 (`compute_ema_bonds_normal_sparse`, `compute_disabled_liquid_alpha`)."""
    average = fx.safe_div64(inputs.bonds_moving_average * fx.ONE64, 10**6 * fx.ONE64)
    return fx.sub(fx.ONE, fx.fixed64_to_fixed32(average))


def liquid_alpha_consensus(inputs: EpochInput, consensus: pm.Vector) -> pm.Vector:
    """The consensus that liquid alpha compares with: this epoch's, or the stored one of the previous epoch."""
    if not inputs.judges_by_previous:
        return consensus
    return [fx.u16_proportion_to_fixed(stored) for stored in inputs.previous_consensus.tolist()]


def compute_bonds_sparse(inputs: EpochInput, weights: pm.Sparse, bonds: pm.Sparse, consensus: pm.Vector) -> pm.Sparse:
    """The bonds of Yuma 3: a moving average of the weights, at one rate or at a rate per pair (liquid alpha)."""
    judged_by = liquid_alpha_consensus(inputs, consensus)
    if inputs.liquid_alpha and any(judged_by):
        return pm.mat_ema_alpha_sparse(weights, bonds, liquid_alpha_values_sparse(inputs, weights, bonds, judged_by))
    return pm.mat_ema_sparse(weights, bonds, bonds_alpha(inputs))


def liquid_alpha_values_sparse(
    inputs: EpochInput, weights: pm.Sparse, bonds: pm.Sparse, consensus: pm.Vector
) -> list[pm.Vector]:
    """`compute_liquid_alpha_values_sparse`: alpha of each pair, a dense row per validator.

    The chain reads each row with a cursor that only moves forward, so it reads an entry after a larger uid as 0. That
    changes the result for rows that are not ascending.
    """
    steepness = fx.from_int(inputs.alpha_sigmoid_steepness)
    low, high = fx.u16_proportion_to_fixed(inputs.alpha_low), fx.u16_proportion_to_fixed(inputs.alpha_high)
    alphas = []
    for weight_row, bond_row in zip(weights, bonds, strict=True):
        seen_weights, seen_bonds = _seen_by_cursor(weight_row), _seen_by_cursor(bond_row)
        pairs = [(c, seen_weights.get(j, 0), seen_bonds.get(j, 0)) for j, c in enumerate(consensus)]
        alphas.append([pm.alpha_sigmoid(*pair, low, high, steepness) for pair in pairs])
    return alphas


def _seen_by_cursor(row: list[tuple[int, int]]) -> dict[int, int]:
    """The entries whose uid is larger than every uid before them."""
    seen, largest = {}, -1
    for j, value in row:
        if j > largest:
            seen[j], largest = value, j
    return seen


def _u16(column: pm.Vector) -> np.ndarray:
    return np.array([fx.fixed_proportion_to_u16(value) for value in column], dtype=np.uint16)


def _rao(shares: pm.Vector, emission: int) -> np.ndarray:
    """floor(share * emission) in I96F32."""
    return np.array([max(share, 0) * emission >> 32 for share in shares], dtype=np.uint64)
