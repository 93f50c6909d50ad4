"""The joint value of answers to one question: duplicates, pairwise synergy, divergence. Pure numpy.

In: per-row losses and distributions of the miners of one group, on rows that all of them were asked. Out: a number for
each miner. Everything is a sum over miners in a fixed order. Knows nothing of tasks and state.
"""

import math
from typing import overload

import numpy as np

# Kaplan et al. 2020 (arXiv 2001.08361, eq. 1.1): L(N) = (N_c / N)^alpha_N with these two.
N_C = 8.8e13
ALPHA_N = 0.076


@overload
def effective_parameters(loss: float, entropy_floor: float, power: float) -> float: ...
@overload
def effective_parameters(loss: np.ndarray, entropy_floor: float, power: float) -> np.ndarray: ...
def effective_parameters(loss: np.ndarray | float, entropy_floor: float, power: float) -> np.ndarray | float:
    """N(L)^power with N(L) = exp(ln 8.8e13 - ln(max(L, entropy_floor)) / 0.076), as in the classic validator.

    The scaling law of Kaplan et al. solved for N: the parameters of a large model that would reach `loss`. Source:
    opentensor/bittensor v4.0.1, core_validator, `shapley_base` (floor 1.69 nats per token, power 0.5).
    """
    if isinstance(loss, np.ndarray):
        return np.exp(power * (math.log(N_C) - np.log(np.maximum(loss, entropy_floor)) / ALPHA_N))
    return math.exp(power * (math.log(N_C) - math.log(max(loss, entropy_floor)) / ALPHA_N))


def representatives(losses: np.ndarray, rank: np.ndarray, tolerance: float) -> np.ndarray:
    """int64 [n]: for each miner, the representative of those with the same answers; itself when there is none.

    losses     float64 [n, rows]. Two miners are duplicates when their losses differ by at most `tolerance` nats a row
               on average, and when they share a duplicate.
    rank       float64 [n]: the duplicate with the lowest rank (then the lowest index) represents the others.
    """
    component = np.arange(len(losses))
    for i in range(len(losses)):
        same = np.abs(losses - losses[i]).mean(axis=1) <= tolerance
        joined = np.isin(component, component[same])
        component[joined] = component[joined].min()
    best: dict[int, int] = {}
    for i in np.argsort(rank, kind="stable").tolist():
        best.setdefault(int(component[i]), i)
    return np.array([best[c] for c in component.tolist()], dtype=np.int64)


def synergy(losses: np.ndarray, entropy_floor: float, power: float, unit: float = 1.0) -> np.ndarray:
    """float64 [n]: each miner's half of the value that pairs gain over their better member, summed and divided by n.

    losses  float64 [n, rows], nats. The pair's answer is the mean of both probabilities:
            L_ij = mean_r -ln((exp(-l_ir) + exp(-l_jr)) / 2 + 1e-40), against min(L_i, L_j);
            share of i = sum_j max(0, N(L_ij)^p - N(min)^p) / 2 / n: the Shapley value of coalitions of two.
    unit    tokens' losses are divided by this before they are valued (bytes per token).
    Source: opentensor/bittensor v4.0.1, core_validator, `shapley_synergy` and `_synergy`.
    """
    n = len(losses)
    if n < 2:
        return np.zeros(n)
    p = np.exp(-losses)
    alone = losses.mean(axis=1)
    together = np.stack([-np.log((p[i] + p) / 2.0 + 1e-40).mean(axis=1) for i in range(n)])
    expected = np.minimum(alone[:, None], alone[None, :])
    better_half = effective_parameters(expected / unit, entropy_floor, power)
    gain = effective_parameters(together / unit, entropy_floor, power) - better_half
    gain[np.arange(n), np.arange(n)] = 0.0
    return np.maximum(0.0, gain).sum(axis=1) / 2.0 / n


def excess_divergence(distributions: np.ndarray) -> np.ndarray:
    """float64 [n] in 0 .. 10: how far each miner's answers differ from the average answer of the group.

    distributions  float64 [n, rows, cells], each row summing to 1. h = Hellinger distance from the mean over miners,
                   averaged over rows; excess = clamp(((h - (mean + std)) / std)^3, 0, 10), std with n - 1.
    Source: opentensor/bittensor v4.0.1, core_validator, `logits_divergence`.
    """
    n = len(distributions)
    if n < 3:
        return np.zeros(n)
    average = distributions.mean(axis=0)
    h = np.sqrt(0.5 * ((np.sqrt(distributions) - np.sqrt(average)) ** 2).sum(axis=2)).mean(axis=1)
    spread = h.std(ddof=1)
    if spread < 1e-12:
        return np.zeros(n)
    return np.clip(((h - (h.mean() + spread)) / spread) ** 3, 0.0, 10.0)
