"""The epoch's matrix phases for networks where nearly every pair is stored: matrices [miners, validators] of u16.

In: weights and bonds, a row per miner, and the validators' columns. Out: consensus and rank per miner, trust and
earnings per validator, and the bonds to store. Each phase works on the miners lo..hi only, so that cores and machines
can share a network; they exchange vectors over validators and the total rank. Integer sums do not depend on their
order, so each split gives the same result.

Phases: `row_sums` -> (sum over shards) -> `consensus` -> (sum of ranks) -> `bonds` -> (sum over shards).

Common arguments: registered uint64 [miners]; bound uint64 [validators]: a weight counts if the miner registered before
it; own int32 [miners]: position of the miner among the validators if its weight for itself does not count, else -1;
zeros int64: sorted flat positions (miner * validators + validator) of weights that are stored as 0.
"""

import numpy as np

from raytensor.consensus.kernels import column, fused
from raytensor.consensus.kernels.arithmetic import ONE, share
from raytensor.consensus.kernels.jit import kernel, part
from raytensor.consensus.kernels.liquid import LANES


@part
def _oldest(bound):
    """The registration block below which the weight of each validator with a permit counts. Others have bound 0."""
    oldest = np.uint64(0xFFFFFFFFFFFFFFFF)
    for i in range(bound.size):
        if bound[i] > np.uint64(0):
            oldest = min(oldest, bound[i])
    return oldest


@kernel
def row_sums(weights, lo, hi, registered, bound, own):
    """Sum of each validator's weights that count, over the miners lo..hi: int64 [validators]."""
    size = bound.size
    sums, narrow = np.zeros(size, np.int64), np.zeros(size, np.uint32)
    oldest = _oldest(bound)
    for begin in range(lo, hi, 65536):
        # 65536 values of u16 fit a 32-bit sum; a vector register holds twice as many of these
        for j in range(begin, min(begin + 65536, hi)):
            if registered[j] < oldest:
                for i in range(size):
                    narrow[i] = np.uint32(narrow[i] + weights[j, i])
            else:
                for i in range(size):
                    narrow[i] = np.uint32(narrow[i] + (weights[j, i] if registered[j] < bound[i] else 0))
            k = own[j]
            if k >= 0 and registered[j] < bound[k]:
                narrow[k] -= np.uint32(weights[j, k])
        for i in range(size):
            sums[i] += narrow[i]
            narrow[i] = 0
    for i in range(size):
        if bound[i] == np.uint64(0):
            sums[i] = 0
    return sums


@part
def factors(sums):
    """1 / sum for `share`, 0 for an empty row."""
    result = np.zeros(sums.size, np.float64)
    for i in range(sums.size):
        if sums[i] > 0:
            result[i] = 1.0 / sums[i]
    return result


@part
def _scores(weights, j, registered, bound, oldest, own, factor, score):
    """The weights of miner j, each divided by its row's sum; 0 if a weight does not count."""
    for i in range(bound.size):
        score[i] = share(weights[j, i], factor[i])
    if registered[j] >= oldest:
        for i in range(bound.size):
            score[i] = score[i] if registered[j] < bound[i] else 0
    if own[j] >= 0:
        score[own[j]] = 0


@kernel
def consensus(weights, lo, hi, registered, bound, own, sums, voting, absent_votes, active_stake, kappa):
    """Consensus and rank (int64 [hi - lo]) of the miners lo..hi and their part of the trust (int64 [validators]).

    voting: the stake that the median uses, 0 for validators without active stake. absent_votes: this stake of
    validators outside the matrix; they score 0.
    """
    size = bound.size
    factor = factors(sums)
    voters = np.flatnonzero(voting)
    num_votes = voters.size + (absent_votes > 0)
    votes = np.empty(num_votes, np.int64)
    votes[: voters.size] = voting[voters]
    everyone = voters.size == size
    # shares and stakes below 1 fit 32 bits, which doubles the width of the median's vectors
    narrow = num_votes > 0 and votes_fit(votes, num_votes)
    narrow_score, narrow_votes = np.empty(num_votes, np.uint32), votes.astype(np.uint32)
    score = np.empty(size + 1, np.int64)
    voted = np.empty(num_votes, np.int64)
    places = np.empty(num_votes, np.int64)
    places[: voters.size] = voters
    if absent_votes > 0:
        votes[voters.size] = absent_votes
        places[voters.size] = size
        score[size] = voted[voters.size] = 0
    all_votes = votes.sum()
    agreed = np.zeros(hi - lo, np.int64)
    ranks = np.zeros(hi - lo, np.int64)
    trust = np.zeros(size, np.int64)
    oldest = _oldest(bound)
    for j in range(lo, hi):
        _scores(weights, j, registered, bound, oldest, own, factor, score)
        if narrow:
            for k in range(num_votes):
                narrow_score[k] = min(score[k] if everyone else score[places[k]], np.int64(0xFFFFFFFF))
            c = column.median32(narrow_score, narrow_votes, num_votes, all_votes, kappa)
        elif everyone:
            c = column.median(score, votes, num_votes, all_votes, kappa)
        else:
            for k in range(voters.size):
                voted[k] = score[voters[k]]
            c = column.median(voted, votes, num_votes, all_votes, kappa)
        agreed[j - lo] = c
        if c > 0:
            ranks[j - lo] = column.rank(score, active_stake, size, c, trust)
    return agreed, ranks, trust


@part
def votes_fit(votes, num_votes):
    """Whether every vote is below 1: a voter with all stake is alone."""
    for k in range(num_votes):
        if votes[k] >= ONE:
            return False
    return True


@part
def _with_room(values, used, more):
    if used + more <= values.size:
        return values
    larger = np.empty(2 * (used + more), values.dtype)
    larger[:used] = values[:used]
    return larger


@part
def _note_zeros(ema, stored, keep, row, positions, used):
    """Write the flat positions of the row's entries that are stored as 0; returns how many positions there are now."""
    for i in range(ema.size):
        if ema[i] > 0 and stored[row, i] == 0 and keep[i] != 0:
            positions[used] = row * ema.size + i
            used += 1
    return used


@kernel
def bonds(
    weights,
    held,
    zeros,
    lo,
    hi,
    registered,
    bound,
    own,
    sums,
    active_stake,
    agreed,
    judged,
    incentive,
    last_tempo,
    rates,
    keep,
    stored,
):
    """Bonds after the epoch, for the miners lo..hi.

    held: bonds as stored, u16 like weights. agreed, judged, incentive: int64 [hi - lo]; judged is the consensus that
    liquid alpha compares with. rates: see `sharded.Electorate`.
    keep: u16 [validators], 65535 for new permit holders, else 0.
    stored: u16 [hi - lo, validators], to be written. An array of numpy, which asks for large pages, is written in a
    fifth of the time of a new one of numba.
    Returns earnings (int64 [validators]) and the flat positions in `stored` of entries that are stored as 0.
    """
    size = bound.size
    yuma3, liquid, alpha, mode, penalty = rates[0], rates[1], rates[2], rates[3], rates[4]
    limits = rates[5:]
    factor = factors(sums)
    earned = np.zeros(size, np.int64)
    stored_zeros = np.empty(0, np.int64)
    num_zeros = 0
    bond, kept = np.empty(size, np.uint16), np.empty(size, np.uint16)
    score, ema, work = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    entry = np.empty(size, np.bool_)
    bond_work = np.empty(size if liquid else 0, np.int64)
    seen = np.ones(size if liquid else 0, np.bool_)
    lanes = np.empty((5, LANES), np.int64)
    oldest = _oldest(bound)
    next_zero = np.searchsorted(zeros, lo * size)
    for j in range(lo, hi):
        c, earning = agreed[j - lo], incentive[j - lo]
        if registered[j] < oldest and mode != column.BLENDED and not liquid:
            cap = c if mode == column.CLIPPED else np.int64(ONE)
            row = j - lo
            # the place, the bonds' past, and where results go
            common = (weights, held, j, factor, cap, last_tempo > registered[j], alpha, own[j], earning)
            into = (keep, ema, earned, stored, row)
            empty = fused.yuma3(*common, *into) if yuma3 else fused.yuma1(*common, *into, active_stake, work)
            if empty:
                stored_zeros = _with_room(stored_zeros, num_zeros, empty)
                num_zeros = _note_zeros(ema, stored, keep, row, stored_zeros, num_zeros)
            continue
        _scores(weights, j, registered, bound, oldest, own, factor, score)
        # a copy: creating a view of a row takes longer than copying a short row
        if last_tempo <= registered[j]:
            bond[:] = 0
        else:
            for i in range(size):
                bond[i] = held[j, i]
        if liquid:
            for i in range(size):
                entry[i] = weights[j, i] > 0 and registered[j] < bound[i]
            if own[j] >= 0:
                entry[own[j]] = False
            while next_zero < zeros.size and zeros[next_zero] < (j + 1) * size:
                i = zeros[next_zero] - j * size
                entry[i] = registered[j] < bound[i] and own[j] != i
                next_zero += 1
            if mode == column.CLIPPED and c == 0:
                for i in range(size):
                    entry[i] &= score[i] == 0
        column.weights_for_bonds(score, size, c, mode, penalty)
        if not yuma3:
            column.yuma1(score, active_stake, bond, size, alpha, earning, ema, work, earned)
            empty = column.store(work, ema, size, keep, kept)
        else:
            if liquid:
                if mode == column.BLENDED:
                    for i in range(size):
                        entry[i] = score[i] > 0
                total = column.yuma3_liquid(
                    score, bond, entry, seen, seen, size, judged[j - lo], limits, ema, work, bond_work, lanes
                )
            else:
                total = column.yuma3(score, bond, size, alpha, ema)
            column.earn(ema, total, size, earning, earned)
            empty = column.store(ema, ema, size, keep, kept)
        for i in range(size):
            stored[j - lo, i] = kept[i]
        if empty:
            stored_zeros = _with_room(stored_zeros, num_zeros, empty)
            num_zeros = _note_zeros(ema, stored, keep, j - lo, stored_zeros, num_zeros)
    return earned, stored_zeros[:num_zeros]
