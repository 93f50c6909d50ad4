"""Random networks with everything that is awkward: ties, zeros, unsorted rows, fractional stakes, re-registrations.

In: a seed. Out: an `EpochInput` that `EpochInput` accepts. Every network follows from its seed alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raytensor.consensus import NO_COMMIT, EpochInput, Rows, stake_from_bits


def random_network(seed: int, *, max_n: int = 24) -> EpochInput:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, max_n + 1))
    block = int(rng.integers(1, 3_000_000))
    tempo = int(rng.choice([0, 1, 2, 99, 360]))
    recent = lambda spread: np.maximum(block - rng.integers(0, spread, n), 0).astype(np.uint64)  # noqa: E731
    lively = rng.random() < 0.5  # nothing but what the matrices say keeps anyone from earning
    registered = recent(50) if rng.random() < 0.2 and not lively else recent(100_000) // np.uint64(2)
    last_update = recent(50) if rng.random() < 0.7 else recent(8000)
    density = float(rng.choice([0.1, 0.4, 0.8, 1.0]))
    unsorted = rng.random() < 0.3
    stake, stake_frac = _stake(rng, n)
    yuma3 = bool(rng.random() < 0.6)
    return EpochInput(
        block=block,
        tempo=tempo,
        activity_cutoff=10**7 if lively else int(rng.choice([1, 30, 5000, 10**6])),
        last_update=last_update,
        block_at_registration=registered,
        stake=stake,
        stake_frac=stake_frac,
        stake_threshold=0 if lively else int(rng.choice([0, 1, 1000, 10**12])),
        owner_uid=int(rng.integers(0, n)) if rng.random() < 0.4 else None,
        validator_permit=rng.random(n) < (1.0 if lively else rng.choice([0.0, 0.3, 0.8])),
        max_validators=int(rng.choice([0, 1, 2, n // 2, n, 64])),
        kappa=int(rng.choice([0, 1, 100, 32767, 32768, 45000, 65534, 65535])),
        bonds_penalty=int(rng.choice([0, 1, 1000, 32768, 65534, 65535])),
        bonds_moving_average=int(rng.choice([0, 1, 500_000, 900_000, 975_000, 999_999, 1_000_000])),
        alpha_low=int(rng.choice([0, 1638, 24542, 45875, 65535])),
        alpha_high=int(rng.choice([0, 1638, 40103, 58982, 65535])),
        alpha_sigmoid_steepness=int(rng.choice([-1000, -1, 0, 1, 37, 100, 200, 1000, 2399, 2401, 5000, 32767, -32768])),
        yuma3=yuma3,
        liquid_alpha=bool(rng.random() < 0.6),
        commit_reveal=bool(rng.random() < 0.4),
        commit_block=np.where(rng.random(n) < 0.5, recent(200), np.uint64(NO_COMMIT)),
        last_mechanism_step_block=0 if rng.random() < 0.3 else max(block - int(rng.choice([1, 20, 400])), 1),
        weights=_rows(rng, n, density, unsorted, zeros=0.15),
        bonds=_rows(rng, n, float(rng.choice([0.0, density])), unsorted and rng.random() < 0.5, zeros=0.1),
        emission=(0, 1, 1000, 10**9, 148_000_000_000, 2**64 - 1)[rng.integers(0, 6)],
    )


def random_mode(inputs: EpochInput, seed: int, kind: str = "yuma") -> EpochInput:
    """The same network with a random mode of liquid alpha, stored consensus, last Yuma epoch and pots."""
    rng = np.random.default_rng([seed, 1])
    n = inputs.n
    stored = [None, np.zeros(n, np.uint16), rng.integers(0, 65536, n), rng.integers(0, 65536, n // 2), [65535] * n]
    last_yuma = [None, 0, max(inputs.block - int(rng.integers(0, 500)), 0), 2**64 - 1]
    pots = tuple(int(10.0 ** rng.uniform(0, 18)) * int(rng.random() < 0.8) for _ in range(3))
    budget = {"pots": pots, "emission": sum(pots)} if rng.random() < 0.5 else {}
    return replace(
        inputs,
        liquid_alpha_mode=str(rng.choice(["auto", "current", "previous"])),
        previous_consensus=stored[rng.integers(0, len(stored))],
        last_yuma_step_block=last_yuma[rng.integers(0, len(last_yuma))],
        epoch_kind=kind,
        **budget,
    )


def _stake(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    kind = rng.integers(0, 6)
    if kind == 0:
        whole = rng.integers(0, 3, n)  # ties and zeros
    elif kind == 1:
        whole = rng.integers(0, 10**15, n)
    elif kind == 2:
        whole = (10.0 ** rng.uniform(0, 16, n)).astype(np.int64)  # some below 2^-32 of the whole
    elif kind == 3:
        whole = rng.integers(0, 2**63 // n, n)  # close to the type's limit
    else:
        whole = np.where(rng.random(n) < 0.2, rng.integers(1, 10**12, n), 0)
    fraction = rng.integers(0, 2**64, n, dtype=np.uint64) if rng.random() < 0.5 else np.zeros(n, np.uint64)
    return stake_from_bits([(int(w) << 64) + int(f) for w, f in zip(whole, fraction, strict=True)])


def _rows(rng: np.random.Generator, n: int, density: float, unsorted: bool, zeros: float) -> Rows:
    values = int(rng.choice([3, 100, 65536]))  # few different values make ties
    rows = []
    for _ in range(n):
        uids = np.flatnonzero(rng.random(n) < density)
        if rng.random() < 0.1:
            uids = uids[:1]
        if unsorted:
            rng.shuffle(uids)
        row = rng.integers(0, values, len(uids)) * (65535 // max(values - 1, 1))
        row[rng.random(len(uids)) < zeros] = 0
        rows.append(list(zip(uids.tolist(), row.tolist(), strict=True)))
    return Rows.from_lists(rows)
