"""Between the two layouts: compressed rows, and matrices [miners, validators].

In and out: plain arrays, see `rows.Rows` and `dense_rows.DenseRows`.
"""

from __future__ import annotations

import numpy as np

from raytensor.consensus.kernels.jit import kernel


@kernel
def occupied(indptr, uids, used_rows, used_columns):
    """Marks the rows that have entries and the columns that they name (bool [n] each, in place)."""
    for i in range(indptr.size - 1):
        if indptr[i + 1] > indptr[i]:
            used_rows[i] = True
            for p in range(indptr[i], indptr[i + 1]):
                used_columns[uids[p]] = True


@kernel
def to_dense(indptr, uids, values, validators, miners):
    """Values u16 [miners, validators] and the sorted flat positions of entries that are 0."""
    n = indptr.size - 1
    position = np.full(n, -1, np.int64)
    for k in range(miners.size):
        position[miners[k]] = k
    matrix = np.zeros((miners.size, validators.size), np.uint16)
    num_zeros = 0
    for v in range(validators.size):
        i = validators[v]
        for p in range(indptr[i], indptr[i + 1]):
            matrix[position[uids[p]], v] = values[p]
            num_zeros += values[p] == 0
    zeros = np.empty(num_zeros, np.int64)
    k = 0
    for v in range(validators.size):
        if num_zeros == 0:
            break
        i = validators[v]
        for p in range(indptr[i], indptr[i + 1]):
            if values[p] == 0:
                zeros[k] = position[uids[p]] * validators.size + v
                k += 1
    zeros.sort()
    return matrix, zeros


@kernel
def to_sparse(n, validators, miners, values, zeros):
    """Compressed rows (indptr, uids, values) of a matrix; uids ascend in each row."""
    size = validators.size
    indptr = np.zeros(n + 1, np.int64)
    counts = np.zeros(size, np.int64)
    for m in range(miners.size):
        for v in range(size):
            counts[v] += values[m, v] > 0
    for z in zeros:
        counts[z % size] += 1
    for v in range(size):
        indptr[validators[v] + 1] = counts[v]
    for i in range(n):
        indptr[i + 1] += indptr[i]
    fill = np.empty(size, np.int64)
    for v in range(size):
        fill[v] = indptr[validators[v]]
    uids = np.empty(indptr[n], np.uint32)
    counted = np.empty(indptr[n], np.uint16)
    z = 0
    for m in range(miners.size):
        end = (m + 1) * size
        for v in range(size):
            stored_zero = z < zeros.size and zeros[z] < end and zeros[z] - m * size == v
            z += stored_zero
            if values[m, v] > 0 or stored_zero:
                uids[fill[v]] = miners[m]
                counted[fill[v]] = values[m, v]
                fill[v] += 1
    return indptr, uids, counted


@kernel
def own_position(miners, validators, owner):
    """For each miner that is also a validator its position among the validators, else -1; -1 for the owner too."""
    own = np.full(miners.size, -1, np.int32)
    v = 0
    for m in range(miners.size):
        while v < validators.size and validators[v] < miners[m]:
            v += 1
        if v < validators.size and validators[v] == miners[m] and miners[m] != owner:
            own[m] = v
    return own
