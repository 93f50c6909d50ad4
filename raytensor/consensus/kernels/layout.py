"""Converts between the two layouts: compressed rows, and matrices [miners, validators].

In and out: plain arrays, see `rows.Rows` and `dense_rows.DenseRows`.
"""

import numpy as np

from raytensor.consensus.kernels.jit import kernel

BLOCK = 64  # miners: 64 rows of some hundred validators fit the first-level cache


@kernel
def occupied(indptr, uids, used_rows, used_columns):
    """Mark the rows that have entries and the columns of these entries (bool [n] each, in place)."""
    for i in range(indptr.size - 1):
        if indptr[i + 1] > indptr[i]:
            used_rows[i] = True
            for p in range(indptr[i], indptr[i + 1]):
                used_columns[uids[p]] = True


@kernel
def to_dense(indptr, uids, values, validators, miners, ascending):
    """Values u16 [miners, validators] and the sorted flat positions of entries that are 0."""
    size = validators.size
    position = np.full(indptr.size - 1, -1, np.int64)
    for k in range(miners.size):
        position[miners[k]] = k
    matrix = np.zeros((miners.size, size), np.uint16)
    cursor = np.empty(size, np.int64)
    num_zeros = 0
    for v in range(size):
        cursor[v] = indptr[validators[v]]
        for p in range(cursor[v], indptr[validators[v] + 1]):
            num_zeros += values[p] == 0
    # blocks of miners: their part of the matrix stays in the cache while each validator writes to it
    step = BLOCK if ascending else max(miners.size, 1)
    for end in range(step, miners.size + step, step):
        for v in range(size):
            p, last = cursor[v], indptr[validators[v] + 1]
            while p < last and position[uids[p]] < end:
                matrix[position[uids[p]], v] = values[p]
                p += 1
            cursor[v] = p
    zeros = np.empty(num_zeros, np.int64)
    k = 0
    for v in range(size if num_zeros else 0):
        for p in range(indptr[validators[v]], indptr[validators[v] + 1]):
            if values[p] == 0:
                zeros[k] = position[uids[p]] * size + v
                k += 1
    zeros.sort()
    return matrix, zeros


@kernel
def to_sparse(n, validators, miners, values, zeros):
    """Compressed rows (indptr, uids, values) of a matrix; uids ascend in each row."""
    num, size = miners.size, validators.size
    counts = np.zeros(size, np.int64)
    for m in range(num):
        for v in range(size):
            counts[v] += values[m, v] > 0
    exists = np.zeros((num if zeros.size else 0, size), np.bool_)
    for z in zeros:
        counts[z % size] += 1
        exists[z // size, z % size] = True
    indptr = np.zeros(n + 1, np.int64)
    for v in range(size):
        indptr[validators[v] + 1] = counts[v]
    for i in range(n):
        indptr[i + 1] += indptr[i]
    fill = np.empty(size, np.int64)
    for v in range(size):
        fill[v] = indptr[validators[v]]
    uids = np.empty(indptr[n], np.uint32)
    counted = np.empty(indptr[n], np.uint16)
    for begin in range(0, num, BLOCK):
        for v in range(size):
            k = fill[v]
            for m in range(begin, min(begin + BLOCK, num)):
                if values[m, v] > 0 or (zeros.size > 0 and exists[m, v]):
                    uids[k] = miners[m]
                    counted[k] = values[m, v]
                    k += 1
            fill[v] = k
    return indptr, uids, counted


@kernel
def own_position(miners, validators, owner):
    """The position of each miner among the validators; -1 if it is not one, or is the owner."""
    own = np.full(miners.size, -1, np.int32)
    v = 0
    for m in range(miners.size):
        while v < validators.size and validators[v] < miners[m]:
            v += 1
        if v < validators.size and validators[v] == miners[m] and miners[m] != owner:
            own[m] = v
    return own
