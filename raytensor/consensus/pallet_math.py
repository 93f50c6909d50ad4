"""The functions of the pallet's `epoch/math.rs` that an epoch uses, under the same names.

In: vectors as lists of I32F32 bits, sparse matrices as lists of rows of (uid, bits) in stored order.
Out: new vectors and matrices, exact to the last bit. Slow and simple, to be read beside the chain's source. Knows
nothing of subnets, storage or numpy. Where a sum of the chain overflows (a row of more than 32,768 full weights), the
sum here is the exact integer; where it saturates (columns), it saturates here too.
"""

from collections.abc import Callable

from raytensor.consensus.fixed import (
    MAX,
    ONE,
    U16_MAX,
    add,
    div,
    exp_safe,
    from_int,
    mul,
    round_half_away,
    safe_div,
    sub,
    to_unsigned,
)

Vector = list[int]
Sparse = list[list[tuple[int, int]]]
Mask = Callable[[int, int], bool]


def is_topk(vector: Vector, k: int) -> list[bool]:
    """True for the k largest, by a stable ascending sort: of equal values, the one with the higher uid is taken."""
    n = len(vector)
    result = [True] * n
    if n >= k:
        for i in sorted(range(n), key=vector.__getitem__)[: n - k]:
            result[i] = False
    return result


def is_topk_nonzero(vector: Vector, k: int) -> list[bool]:
    """`is_topk`, and not zero."""
    return [top and value != 0 for top, value in zip(is_topk(vector, k), vector, strict=True)]


def inplace_mask_vector(mask: list[bool], vector: Vector) -> Vector:
    """Zero where the mask is true. Returns a new vector."""
    return [0 if masked else value for masked, value in zip(mask, vector, strict=True)]


def normalize(vector: Vector) -> Vector:
    """Divided by the sum, truncated; unchanged when the sum is 0."""
    return normalize_using_sum(vector, sum(vector))


def normalize_using_sum(vector: Vector, total: int) -> Vector:
    """`inplace_normalize_using_sum`."""
    return list(vector) if total == 0 else [safe_div(value, total) for value in vector]


def mask_rows_sparse(mask: list[bool], matrix: Sparse) -> Sparse:
    """Rows whose mask is true become empty."""
    return [[] if masked else list(row) for masked, row in zip(mask, matrix, strict=True)]


def mask_diag_sparse(matrix: Sparse, except_index: int | None = None) -> Sparse:
    """Without the diagonal (`mask_diag_sparse`), except for one uid (`mask_diag_sparse_except_index`)."""
    return [[(j, v) for j, v in row if i != j or i == except_index] for i, row in enumerate(matrix)]


def vec_mask_sparse_matrix(matrix: Sparse, first: Vector, second: Vector, mask: Mask) -> Sparse:
    """Without the entries (i, j) for which mask(first[i], second[j]) is true."""
    return [[(j, v) for j, v in row if not mask(first[i], second[j])] for i, row in enumerate(matrix)]


def scalar_vec_mask_sparse_matrix(matrix: Sparse, scalar: int, vector: Vector, mask: Mask) -> Sparse:
    """Without the entries (i, j) for which mask(scalar, vector[j]) is true."""
    return [[(j, v) for j, v in row if not mask(scalar, vector[j])] for row in matrix]


def row_normalize_sparse(matrix: Sparse) -> Sparse:
    """Each row divided by its sum where that is positive."""
    result = []
    for row in matrix:
        total = sum(v for _, v in row)
        result.append([(j, safe_div(v, total)) for j, v in row] if total > 0 else list(row))
    return result


def row_sum_sparse(matrix: Sparse) -> Vector:
    return [sum(v for _, v in row) for row in matrix]


def col_sum_sparse(matrix: Sparse, columns: int) -> Vector:
    sums = [0] * columns
    for row in matrix:
        for j, v in row:
            sums[j] = add(sums[j], v)
    return sums


def _divide_columns(matrix: Sparse, divisors: Vector) -> Sparse:
    return [[(j, safe_div(v, divisors[j]) if divisors[j] else v) for j, v in row] for row in matrix]


def col_normalize_sparse(matrix: Sparse, columns: int) -> Sparse:
    """Each column divided by its sum where that is not 0."""
    return _divide_columns(matrix, col_sum_sparse(matrix, columns))


def col_max_upscale_sparse(matrix: Sparse, columns: int) -> Sparse:
    """Each column divided by its largest value where that is positive."""
    largest = [0] * columns
    for row in matrix:
        for j, v in row:
            largest[j] = max(largest[j], v)
    return _divide_columns(matrix, largest)


def row_hadamard_sparse(matrix: Sparse, vector: Vector) -> Sparse:
    """Row i times vector[i]."""
    return [[(j, mul(v, scale)) for j, v in row] for row, scale in zip(matrix, vector, strict=True)]


def mat_vec_mul_sparse(matrix: Sparse, vector: Vector) -> Sparse:
    """Entry (i, j) times vector[j], zeros dropped."""
    products = [[(j, mul(v, vector[j])) for j, v in row] for row in matrix]
    return [[(j, v) for j, v in row if v] for row in products]


def matmul_sparse(matrix: Sparse, vector: Vector, columns: int) -> Vector:
    """result_j = sum over i of vector_i * matrix_ij."""
    result = [0] * columns
    for row, scale in zip(matrix, vector, strict=True):
        for j, v in row:
            result[j] = add(result[j], mul(scale, v))
    return result


def matmul_transpose_sparse(matrix: Sparse, vector: Vector) -> Vector:
    """result_i = sum over j of vector_j * matrix_ij."""
    result = []
    for row in matrix:
        total = 0
        for j, v in row:
            total = add(total, mul(vector[j], v))
        result.append(total)
    return result


def vec_mul(a: Vector, b: Vector) -> Vector:
    """Element-wise product, 0 where it would leave the range."""
    products = [(x * y) >> 32 for x, y in zip(a, b, strict=True)]
    return [p if -MAX - 1 <= p <= MAX else 0 for p in products]


def col_clip_sparse(matrix: Sparse, threshold: Vector) -> Sparse:
    """min(value, threshold of the column); an entry clipped to 0 or less is removed, a stored 0 stays."""
    result = []
    for row in matrix:
        result.append([(j, min(v, threshold[j])) for j, v in row if v <= threshold[j] or threshold[j] > 0])
    return result


def weighted_median(stake: Vector, score: Vector, partition: list[int], minority: int, low: int, high: int) -> int:
    """The stake-weighted median by a search with the middle element as pivot.

    low, high: the edges of the partition inside the integral of stake. Equals: the smallest score v for which
    the stake of all scores <= v exceeds the minority, and the largest score if none does.
    """
    for _ in range(len(partition) + 1):
        if not partition:
            return 0
        if len(partition) == 1:
            return score[partition[0]]
        pivot = score[partition[len(partition) // 2]]
        lower = [i for i in partition if score[i] < pivot]
        upper = [i for i in partition if score[i] > pivot]
        low_stake = sum(stake[i] for i in lower)
        high_stake = sum(stake[i] for i in upper)
        if minority < add(low, low_stake) and lower:
            partition, high = lower, add(low, low_stake)
        elif sub(high, high_stake) <= minority and upper:
            partition, low = upper, sub(high, high_stake)
        else:
            return pivot
    return 0


def weighted_median_col_sparse(stake: Vector, score: Sparse, columns: int, majority: int) -> Vector:
    """Each column's weighted median over the rows of positive stake; an absent entry scores 0.

    The stake is normalised again here, so its sum is usually a few units below 1.
    """
    rows = [i for i, s in enumerate(stake) if s > 0]
    use_stake = normalize([stake[i] for i in rows])
    stake_sum = sum(use_stake)
    minority = sub(stake_sum, majority)
    use_score = [[0] * len(rows) for _ in range(columns)]
    for k, i in enumerate(rows):
        for j, v in score[i]:
            use_score[j][k] = v
    return [weighted_median(use_stake, s, list(range(len(rows))), minority, 0, stake_sum) for s in use_score]


def interpolate_sparse(first: Sparse, second: Sparse, columns: int, ratio: int) -> Sparse:
    """first + ratio * (second - first), positive entries only and by ascending uid; ratio 0 and 1 return a copy."""
    if ratio in (0, ONE):
        return [list(row) for row in (first if ratio == 0 else second)]
    result = []
    for row1, row2 in zip(first, second, strict=True):
        a, b = dict(row1), dict(row2)
        row = [(j, add(a.get(j, 0), mul(ratio, sub(b.get(j, 0), a.get(j, 0))))) for j in sorted(a.keys() | b.keys())]
        result.append([(j, v) for j, v in row if v > 0 and j < columns])
    return result


def mat_ema_sparse(new: Sparse, old: Sparse, alpha: int) -> Sparse:
    """alpha * new + (1 - alpha) * old, positive entries only and by ascending uid."""
    result = []
    for new_row, old_row in zip(new, old, strict=True):
        row: dict[int, int] = {}
        for scale, entries in ((alpha, new_row), (sub(ONE, alpha), old_row)):
            for j, v in entries:
                row[j] = add(row.get(j, 0), mul(scale, v))
        result.append([(j, row[j]) for j in sorted(row) if row[j] > 0])
    return result


def mat_ema_alpha_sparse(new: Sparse, old: Sparse, alpha: list[Vector]) -> Sparse:
    """min(1, (1 - alpha_ij) * old_ij + alpha_ij * new_ij) for the entries of `new` alone, in their order.

    An old entry without a new one is removed. alpha: one dense row per row of `new`.
    """
    result = []
    for new_row, old_row, row_alpha in zip(new, old, alpha, strict=True):
        decayed = {j: mul(sub(ONE, row_alpha[j]), v) for j, v in old_row}
        row = [(j, min(ONE, add(decayed.get(j, 0), max(0, mul(row_alpha[j], v))))) for j, v in new_row]
        result.append([(j, v) for j, v in row if v > 0])
    return result


def clamp_value(value: int, low: int, high: int) -> int:
    """min with high, then max with low: the result is low if low is above high."""
    return max(min(value, high), low)


def alpha_sigmoid(consensus: int, weight: int, bond: int, alpha_low: int, alpha_high: int, steepness: int) -> int:
    """The liquid alpha of one validator and miner (`alpha_sigmoid` of run_epoch.rs)."""
    buy = clamp_value(sub(weight, consensus), 0, ONE)
    sell = clamp_value(sub(bond, weight), 0, ONE)
    difference = buy if weight >= bond else sell
    exponent = mul(div(steepness, from_int(-100)), sub(difference, ONE >> 1))
    sigmoid = div(ONE, add(ONE, exp_safe(exponent)))
    return clamp_value(add(alpha_low, mul(sigmoid, sub(alpha_high, alpha_low))), alpha_low, alpha_high)


def sigmoid_safe(value: int, rho: int, kappa: int) -> int:
    """1 / (1 + exp(-rho * (value - kappa)))."""
    exponent = mul(mul(rho, -ONE), sub(value, kappa))
    return safe_div(ONE, add(exp_safe(exponent), ONE))


def vec_max_upscale_to_u16(vector: Vector) -> list[int]:
    """Scaled so that the largest becomes 65535. Above and up to 32768 two formulas round differently."""
    if not vector or max(vector) == 0:
        return [to_unsigned(mul(v, from_int(U16_MAX)), 16) for v in vector]
    largest = max(vector)
    if largest > from_int(32768):
        scale = safe_div(from_int(U16_MAX), largest)
        return [to_unsigned(round_half_away(mul(v, scale)), 16) for v in vector]
    return [to_unsigned(round_half_away(safe_div(mul(v, from_int(U16_MAX)), largest)), 16) for v in vector]


def vec_u16_max_upscale_to_u16(vector: list[int]) -> list[int]:
    """The scaling of `set_weights` before it stores weights."""
    return vec_max_upscale_to_u16([from_int(v) for v in vector])


def check_vec_max_limited(vector: list[int], max_limit: int) -> bool:
    """Whether no weight's share of the sum exceeds max_limit / 65535."""
    limit = safe_div(from_int(max_limit), from_int(U16_MAX))
    return max(normalize([from_int(v) for v in vector]), default=limit) <= limit
