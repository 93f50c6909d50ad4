"""The epoch's matrix phases for networks where few pairs are stored: compressed rows in, compressed rows out.

The same phases as `dense`, over the same columns: each miner's entries are gathered into short vectors for `column`.
`by_miner` converts the stored rows to columns once; the phases read the columns lo..hi only. Rows may be in any order;
`seen_entries` and `seen_weights` compute the effect of that order on the chain's cursor.

A column form is (start int64 [n + 1], row int32 [entries], place int64 [entries]): the entries of miner j are
start[j]:start[j + 1], by ascending validator; place is an entry's position in the stored rows.
"""

import numpy as np

from raytensor.consensus.kernels import column
from raytensor.consensus.kernels.arithmetic import share
from raytensor.consensus.kernels.dense import factors
from raytensor.consensus.kernels.jit import kernel, part
from raytensor.consensus.kernels.liquid import LANES

EVERY = -2


@kernel
def by_miner(indptr, uids, registered, bound, owner):
    """Column form of the entries (i, j) that count: j registered before bound[i], and i is not j.

    owner: the uid whose entry for itself counts; -1 for none, `EVERY` for all.
    """
    n = indptr.size - 1
    start = np.zeros(n + 1, np.int64)
    for i in range(n):
        for p in range(indptr[i], indptr[i + 1]):
            j = uids[p]
            if registered[j] < bound[i] and (i != j or i == owner or owner == EVERY):
                start[j + 1] += 1
    for j in range(n):
        start[j + 1] += start[j]
    fill = start[:n].copy()
    row = np.empty(start[n], np.int32)
    place = np.empty(start[n], np.int64)
    for i in range(n):
        for p in range(indptr[i], indptr[i + 1]):
            j = uids[p]
            if registered[j] < bound[i] and (i != j or i == owner or owner == EVERY):
                row[fill[j]] = i
                place[fill[j]] = p
                fill[j] += 1
    return start, row, place


@kernel
def row_sums(values, start, row, place, n, lo, hi):
    """Sum of each validator's weights that count, over the miners lo..hi: int64 [n]."""
    sums = np.zeros(n, np.int64)
    for k in range(start[lo], start[hi]):
        sums[row[k]] += values[place[k]]
    return sums


@kernel
def consensus(values, start, row, place, lo, hi, sums, voting, active_stake, kappa):
    """As `dense.consensus`, for the columns lo..hi; voting and active_stake: int64 [n]."""
    n = sums.size
    factor = factors(sums)
    num_voters, all_votes = 0, np.int64(0)
    for i in range(n):
        num_voters += voting[i] > 0
        all_votes += voting[i]
    agreed = np.zeros(hi - lo, np.int64)
    ranks = np.zeros(hi - lo, np.int64)
    trust = np.zeros(n, np.int64)
    longest = 1
    for j in range(lo, hi):
        longest = max(longest, start[j + 1] - start[j] + 1)
    score, votes = np.empty(longest, np.int64), np.empty(longest, np.int64)
    stake, added = np.empty(longest, np.int64), np.empty(longest, np.int64)
    for j in range(lo, hi):
        m, voters, voted = 0, 0, np.int64(0)
        for k in range(start[j], start[j + 1]):
            i = row[k]
            if voting[i] > 0:
                score[voters] = share(values[place[k]], factor[i])
                votes[voters] = voting[i]
                voted += voting[i]
                voters += 1
        if voters < num_voters:
            # the other voters score 0: one entry with their stake
            score[voters] = 0
            votes[voters] = all_votes - voted
            voters += 1
        c = column.median(score, votes, voters, all_votes, kappa)
        agreed[j - lo] = c
        if c == 0:
            continue
        for k in range(start[j], start[j + 1]):
            i = row[k]
            score[m] = share(values[place[k]], factor[i])
            stake[m] = active_stake[i]
            added[m] = 0
            m += 1
        ranks[j - lo] = column.rank(score, stake, m, c, added)
        for k in range(m):
            trust[row[start[j] + k]] += added[k]
    return agreed, ranks, trust


@kernel
def seen_entries(indptr, uids, start, place):
    """The stored entries that a cursor sees that only moves forward: those after no larger uid. bool [entries].

    The cursor reads the entries of the column form only.
    """
    exists = np.zeros(uids.size, np.bool_)
    for k in range(start[start.size - 1]):
        exists[place[k]] = True
    return _seen(indptr, uids, exists)


@part
def _seen(indptr, uids, exists):
    seen = np.zeros(uids.size, np.bool_)
    for i in range(indptr.size - 1):
        largest = np.int64(-1)
        for p in range(indptr[i], indptr[i + 1]):
            if exists[p] and uids[p] > largest:
                largest = np.int64(uids[p])
                seen[p] = True
    return seen


@kernel
def seen_weights(indptr, uids, values, start, row, place, sums, agreed, mode):
    """`seen_entries` of the weights for bonds, after the consensus: a weight clipped to nothing does not exist."""
    factor = factors(sums)
    exists = np.zeros(uids.size, np.bool_)
    for j in range(start.size - 1):
        for k in range(start[j], start[j + 1]):
            p = place[k]
            gone = mode == column.CLIPPED and agreed[j] == 0 and share(values[p], factor[row[k]]) > 0
            exists[p] = not gone
    # blended weights are stored by ascending uid, so the cursor sees all
    return exists if mode == column.BLENDED else _seen(indptr, uids, exists)


@kernel
def bonds(weights, held, lo, hi, sums, active_stake, agreed, judged, incentive, rates, keep, seen_w, seen_b):
    """As `dense.bonds`, for the columns lo..hi.

    weights, held (bonds): (values u16, start, row, place). seen_w, seen_b: bool per stored entry, or empty if the
    cursor of liquid alpha sees all. Returns earnings (int64 [n]) and the entries to store, by miner: miner (from lo),
    validator (int32), value (u16) and the position of its weight in the stored rows, or -1.
    """
    weight_values, w_start, w_row, w_place = weights
    bond_values, b_start, b_row, b_place = held
    yuma3, liquid, alpha, mode, penalty = rates[0], rates[1], rates[2], rates[3], rates[4]
    factor = factors(sums)
    earned = np.zeros(sums.size, np.int64)
    longest = 0
    for j in range(lo, hi):
        longest = max(longest, w_start[j + 1] - w_start[j] + b_start[j + 1] - b_start[j])
    score, ema, work = np.empty(longest, np.int64), np.empty(longest, np.int64), np.empty(longest, np.int64)
    stake, added, held_work = np.empty(longest, np.int64), np.empty(longest, np.int64), np.empty(longest, np.int64)
    bond, allowed, stored = np.empty(longest, np.uint16), np.empty(longest, np.uint16), np.empty(longest, np.uint16)
    entry, visible_w = np.empty(longest, np.bool_), np.empty(longest, np.bool_)
    visible_b = np.empty(longest, np.bool_)
    who, where = np.empty(longest, np.int32), np.empty(longest, np.int64)
    lanes = np.empty((5, LANES), np.int64)
    most = w_start[hi] - w_start[lo] + b_start[hi] - b_start[lo]
    out_miner, out_validator = np.empty(most, np.int32), np.empty(most, np.int32)
    out_count, out_place = np.empty(most, np.uint16), np.empty(most, np.int64)
    used = 0
    for j in range(lo, hi):
        # both columns, merged by validator
        m = 0
        c, earning = agreed[j - lo], incentive[j - lo]
        a, a_end = w_start[j], w_start[j + 1]
        b, b_end = b_start[j], b_start[j + 1]
        while a < a_end or b < b_end:
            i = w_row[a] if a < a_end else b_row[b]
            if b < b_end:
                i = min(i, b_row[b])
            score[m], bond[m], entry[m], where[m] = 0, 0, False, -1
            visible_w[m] = visible_b[m] = True
            if a < a_end and w_row[a] == i:
                p = w_place[a]
                score[m] = share(weight_values[p], factor[i])
                entry[m] = not (mode == column.CLIPPED and c == 0 and score[m] > 0)
                where[m] = p
                if seen_w.size > 0:
                    visible_w[m] = seen_w[p]
                a += 1
            if b < b_end and b_row[b] == i:
                bond[m] = bond_values[b_place[b]]
                if seen_b.size > 0:
                    visible_b[m] = seen_b[b_place[b]]
                b += 1
            who[m], stake[m], allowed[m], added[m] = i, active_stake[i], keep[i], 0
            m += 1
        column.weights_for_bonds(score, m, c, mode, penalty)
        if not yuma3:
            column.yuma1(score, stake, bond, m, alpha, earning, ema, work, added)
            column.store(work, ema, m, allowed, stored)
        else:
            if liquid:
                if mode == column.BLENDED:
                    for k in range(m):
                        entry[k] = score[k] > 0
                total = column.yuma3_liquid(
                    score, bond, entry, visible_w, visible_b, m, judged[j - lo], rates[5:], ema, work, held_work, lanes
                )
            else:
                total = column.yuma3(score, bond, m, alpha, ema)
            column.earn(ema, total, m, earning, added)
            column.store(ema, ema, m, allowed, stored)
        for k in range(m):
            earned[who[k]] += added[k]
            if ema[k] > 0 and allowed[k] != 0:
                out_miner[used], out_validator[used] = j - lo, who[k]
                out_count[used], out_place[used] = stored[k], where[k]
                used += 1
    return earned, out_miner[:used], out_validator[:used], out_count[:used], out_place[:used]


@kernel
def to_rows(n, miner, validator, count, place, num_stored, by_place):
    """Compressed rows from entries by miner. by_place: in the order of the stored weights, else by ascending uid."""
    indptr = np.zeros(n + 1, np.int64)
    for k in range(miner.size):
        indptr[validator[k] + 1] += 1
    for i in range(n):
        indptr[i + 1] += indptr[i]
    fill = indptr[:n].copy()
    uids = np.empty(miner.size, np.uint32)
    values = np.empty(miner.size, np.uint16)
    order = np.arange(miner.size)
    if by_place:
        at = np.full(num_stored, -1, np.int64)
        for k in range(miner.size):
            at[place[k]] = k
        used = 0
        for p in range(num_stored):
            if at[p] >= 0:
                order[used] = at[p]
                used += 1
    for k in order:
        i = validator[k]
        uids[fill[i]] = miner[k]
        values[fill[i]] = count[k]
        fill[i] += 1
    return indptr, uids, values
