"""A whole dense epoch in one call, for a network that one core computes.

Entering compiled code takes microseconds, as long as the epoch of a small network.
In: the chain's columns and the matrices. Out: the results that `plan.Plan` collects from the separate phases.
"""

import numpy as np

from raytensor.consensus.kernels import dense
from raytensor.consensus.kernels.jit import kernel
from raytensor.consensus.kernels.layout import own_position
from raytensor.consensus.kernels.stake import finish, normalised, prepare, products


@kernel
def epoch(
    clock,
    numbers,
    rates,
    previous,
    updated,
    registered,
    commit,
    stake,
    frac,
    permit,
    validators,
    miners,
    weights,
    zeros,
    held,
    stored,
):
    """clock: uint64 [block, activity_cutoff, stake_threshold, last_tempo, emission].

    numbers: int64 [owner or -1, max_validators, kappa as I32F32]. rates: see `sharded.Electorate`.
    previous: int64 [n] the stored consensus that liquid alpha compares with, or [0] for this epoch's.
    stored: u16 [miners, validators], the bonds to store are written here.
    Returns flags bool [2, n] (active, new permit), raw int64 [6, n] (stake, active stake, consensus, trust, incentive,
    dividends), the u16 and rao columns of `stake.finish`, the positions of stored zeros.
    """
    n, num_miners = stake.size, miners.size
    active, new_permit, share, active_share, bound = prepare(
        clock, numbers[0], numbers[1], updated, commit, stake, frac, permit
    )
    voting = normalised(active_share)
    registered_here = registered[miners]
    own = own_position(miners, validators, numbers[0])
    bound_here, stake_here, voting_here = bound[validators], active_share[validators], voting[validators]
    keep = np.zeros(validators.size, np.uint16)
    for k in range(validators.size):
        keep[k] = 65535 if new_permit[validators[k]] else 0
    absent = voting.sum() - voting_here.sum()

    sums = dense.row_sums(weights, 0, num_miners, registered_here, bound_here, own)
    agreed, ranks, trust = dense.consensus(
        weights, 0, num_miners, registered_here, bound_here, own, sums, voting_here, absent, stake_here, numbers[2]
    )
    incentive = normalised(ranks)
    now = rates.copy()
    # liquid alpha is off in an epoch without consensus (`compute_bonds_sparse`)
    now[1] = rates[1] != 0 and (previous.any() if previous.size else agreed.any())
    judged = previous[miners] if previous.size else agreed
    here = (weights, held, zeros, 0, num_miners, registered_here, bound_here, own)
    earned, stored_zeros = dense.bonds(*here, sums, stake_here, agreed, judged, incentive, clock[3], now, keep, stored)
    dividends = normalised(products(earned, stake_here) if rates[0] else earned)

    flags = np.empty((2, n), np.bool_)
    raw = np.zeros((6, n), np.int64)
    flags[0], flags[1], raw[0], raw[1] = active, new_permit, share, active_share
    for k in range(num_miners):
        raw[2, miners[k]] = agreed[k]
        raw[4, miners[k]] = incentive[k]
    for k in range(validators.size):
        raw[3, validators[k]] = trust[k]
        raw[5, validators[k]] = dividends[k]
    columns, rao = finish(clock[4], raw[0], raw[1], raw[2], raw[3], raw[4], raw[5])
    return flags, raw, columns, rao, stored_zeros
