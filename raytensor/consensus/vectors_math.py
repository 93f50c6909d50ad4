"""Conformance vectors of the pallet's maths functions, run on `pallet_math`.

In: `cases`, each with a function's name, its arguments (raw I32F32 bits) and its result. Out: the differences.
The matrices of the pallet's dense functions become sparse ones with each entry stored.
"""

from collections.abc import Callable

from raytensor.consensus import fixed as fx
from raytensor.consensus import pallet_math as pm


def _sparse(dense: list[list[int]]) -> pm.Sparse:
    return [list(enumerate(row)) for row in dense]


def _dense(sparse: pm.Sparse, columns: int) -> list[list[int]]:
    rows = [[0] * columns for _ in sparse]
    for row, entries in zip(rows, sparse, strict=True):
        for j, value in entries:
            row[j] = value
    return rows


def _through_sparse(function: Callable[[pm.Sparse], pm.Sparse]) -> Callable[[list[list[int]]], list[list[int]]]:
    return lambda dense: _dense(function(_sparse(dense)), len(dense[0]))


def _weighted_median(stake: list[int], score: list[int], minority: int, low: int, high: int) -> int:
    return pm.weighted_median(stake, score, list(range(len(stake))), minority, low, high)


def _interpolate(first: list[list[int]], second: list[list[int]], ratio: int) -> list[list[int]]:
    columns = len(first[0]) if first else 0
    return _dense(pm.interpolate_sparse(_sparse(first), _sparse(second), columns, ratio), columns)


def _liquid_and_plain(
    weights: list[list[int]], bonds: list[list[int]], consensus: list[int], low: int, high: int, average: int
) -> list[list[list[int]]]:
    """Yuma 3 bonds with equal alpha values, through liquid alpha and through the plain moving average."""
    alpha_low, alpha_high = fx.u16_proportion_to_fixed(low), fx.u16_proportion_to_fixed(high)
    alphas = [
        [pm.alpha_sigmoid(c, w, b, alpha_low, alpha_high, 1000 * fx.ONE) for w, b, c in zip(w_row, b_row, consensus)]
        for w_row, b_row in zip(weights, bonds, strict=True)
    ]
    plain = fx.sub(fx.ONE, fx.fixed64_to_fixed32(fx.safe_div64(average << 64, 10**6 << 64)))
    new, old, columns = _sparse(weights), _sparse(bonds), len(weights[0])
    both = (pm.mat_ema_alpha_sparse(new, old, alphas), pm.mat_ema_sparse(new, old, plain))
    return [_dense(stored, columns) for stored in both]


FUNCTIONS: dict[str, Callable] = {
    "vec_max_upscale_to_u16": pm.vec_max_upscale_to_u16,
    "vec_u16_max_upscale_to_u16": pm.vec_u16_max_upscale_to_u16,
    "check_vec_max_limited": pm.check_vec_max_limited,
    "fixed_proportion_to_u16": fx.fixed_proportion_to_u16,
    "sigmoid_safe": pm.sigmoid_safe,
    "is_topk": pm.is_topk,
    "normalize": pm.normalize,
    "row_normalize": _through_sparse(pm.row_normalize_sparse),
    "row_normalize_sparse": pm.row_normalize_sparse,
    "col_normalize": lambda m: _dense(pm.col_normalize_sparse(_sparse(m), len(m[0])), len(m[0])),
    "col_normalize_sparse": pm.col_normalize_sparse,
    "col_max_upscale": lambda m: _dense(pm.col_max_upscale_sparse(_sparse(m), len(m[0])), len(m[0])),
    "col_max_upscale_sparse": pm.col_max_upscale_sparse,
    "row_hadamard": lambda m, v: _dense(pm.row_hadamard_sparse(_sparse(m), v), len(m[0])),
    "row_hadamard_sparse": pm.row_hadamard_sparse,
    "matmul": lambda m, v: pm.matmul_sparse(_sparse(m), v, len(m[0])),
    "matmul_sparse": pm.matmul_sparse,
    "matmul_transpose": lambda m, v: pm.matmul_transpose_sparse(_sparse(m), v),
    "matmul_transpose_sparse": pm.matmul_transpose_sparse,
    "row_sum_sparse": pm.row_sum_sparse,
    "col_clip": lambda m, v: _dense(pm.col_clip_sparse(_sparse(m), v), len(m[0])),
    "col_clip_sparse": pm.col_clip_sparse,
    "weighted_median": _weighted_median,
    "weighted_median_col": lambda s, m, k: pm.weighted_median_col_sparse(s, _sparse(m), len(m[0]), k),
    "weighted_median_col_sparse": pm.weighted_median_col_sparse,
    "interpolate": _interpolate,
    "interpolate_sparse": pm.interpolate_sparse,
    "mat_ema_alpha": lambda n, o, a: _dense(pm.mat_ema_alpha_sparse(_sparse(n), _sparse(o), a), len(n[0])),
    "mat_ema_alpha_sparse": pm.mat_ema_alpha_sparse,
    "compute_bonds_liquid_vs_plain": _liquid_and_plain,
}


def check_cases(cases: list[dict]) -> tuple[int, list[str]]:
    """(number of cases, differences). `ref_exact` is the exact result if the chain's test allows a tolerance."""
    differences = []
    for number, case in enumerate(cases):
        wanted = case["expected"] if case["ref_exact"] is None else case["ref_exact"]
        function = FUNCTIONS.get(case["fn"])
        if function is None:
            differences.append(f"case {number}: {case['fn']}: unknown function")
            continue
        got = _listed(function(*case["args"]))
        if got != wanted:
            differences.append(f"case {number}: {case['fn']}: expected {wanted}, got {got}")
    return len(cases), differences


def _listed(value: object) -> object:
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value
