"""The fast path equals the reference to the last bit, in every layout and split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import random_network

from raytensor.consensus import DenseRows, EpochInput, Rows, epoch, plan
from raytensor.consensus import pallet_math as pm
from raytensor.consensus.fixed import ONE, exp, exp_safe, from_int
from raytensor.consensus.kernels import arithmetic, column, liquid
from raytensor.consensus.kernels.jit import part


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**40), threads=st.sampled_from([1, 1, 3]), dense_from=st.sampled_from([0.0, 0.3, 2.0]))
def test_fast_equals_reference(seed, threads, dense_from, differing):
    inputs = random_network(seed)
    before = plan.DENSE_FROM
    plan.DENSE_FROM = dense_from
    try:
        assert differing(epoch(inputs, implementation="reference"), epoch(inputs, threads=threads)) == []
    finally:
        plan.DENSE_FROM = before


def test_the_random_networks_are_worth_the_name():
    """They earn, in both versions and with liquid alpha, and they hold what is awkward."""
    networks = [random_network(seed) for seed in range(150)]
    earning = [n for n in networks if epoch(n).incentive.any()]
    assert len(earning) > 50
    assert sum(n.yuma3 for n in earning) > 15 and sum(not n.yuma3 for n in earning) > 15
    assert sum(n.yuma3 and n.liquid_alpha for n in earning) > 10
    assert sum(not n.weights.ascending for n in earning) > 5
    assert sum(bool((n.weights.values == 0).any()) for n in earning) > 15
    assert sum(bool(n.stake_frac.any()) for n in earning) > 15


@pytest.mark.parametrize("seed", range(20))
def test_matrices_given_as_such(seed, differing):
    inputs = random_network(seed + 1000)
    if not (inputs.weights.ascending and inputs.bonds.ascending):
        inputs = random_network(seed + 2000)
    everyone = np.arange(inputs.n, dtype=np.uint32)
    if inputs.weights.ascending and inputs.bonds.ascending:
        dense = {name: DenseRows.from_rows(getattr(inputs, name), everyone, everyone) for name in ("weights", "bonds")}
        assert dense["weights"].to_rows().same_as(inputs.weights)
        given_dense = _replace(inputs, **dense)
        result = epoch(given_dense)
        assert differing(epoch(inputs, implementation="reference"), result) == []
        assert isinstance(result.bonds, DenseRows)
        assert differing(result, epoch(given_dense, implementation="reference")) == []


def _replace(inputs: EpochInput, **changes) -> EpochInput:
    from dataclasses import replace

    return replace(inputs, **changes)


def test_a_wide_network_equals_the_reference(differing):
    """More validators than vector lanes and than one block of exponentials, all kinds of bonds."""
    rng = np.random.default_rng(3)
    validators, miners = 150, 40
    n = validators + miners
    rows = [list(zip(range(validators, n), rng.integers(0, 65536, miners).tolist())) for _ in range(validators)]
    held = [list(zip(range(validators, n), rng.integers(0, 65536, miners).tolist())) for _ in range(validators)]
    stake = np.zeros(n, np.uint64)
    stake[:validators] = rng.integers(1, 10**15, validators)
    kinds = ((False, False, 65535), (True, False, 30000), (True, True, 65535), (True, True, 9))
    for yuma3, liquid_alpha, penalty in kinds:
        inputs = EpochInput(
            block=10_000,
            tempo=360,
            activity_cutoff=5000,
            last_update=np.full(n, 9_999, np.uint64),
            block_at_registration=np.arange(n, dtype=np.uint64),
            stake=stake,
            validator_permit=np.arange(n) < validators,
            weights=Rows.from_lists(rows + [[]] * miners),
            bonds=Rows.from_lists(held + [[]] * miners),
            max_validators=100,
            emission=10**9,
            yuma3=yuma3,
            liquid_alpha=liquid_alpha,
            bonds_penalty=penalty,
            last_mechanism_step_block=9_000,
        )
        expected = epoch(inputs, implementation="reference")
        assert expected.incentive.any() and expected.dividends.any()
        for threads in (1, 4):
            assert differing(expected, epoch(inputs, threads=threads)) == []


def test_uids_beyond_u16_keep_the_result():
    """The same network with its neurons far apart in a network of 70,000: an extension that changes nothing."""
    small = random_network(53)
    n, step = 70_000, 3_000
    assert small.n * step < n
    place = np.arange(small.n) * step
    spread = {}
    for name in ("last_update", "block_at_registration", "stake", "stake_frac", "commit_block"):
        column_ = np.zeros(n, np.uint64)
        column_[place] = getattr(small, name)
        spread[name] = column_
    permit = np.zeros(n, bool)
    permit[place] = small.validator_permit
    for name in ("weights", "bonds"):
        rows = getattr(small, name)
        lists = {int(place[i]): [(int(place[j]), v) for j, v in row] for i, row in enumerate(rows.to_lists())}
        spread[name] = Rows.from_dict(n, lists)
    owner = None if small.owner_uid is None else small.owner_uid * step
    wide = epoch(_replace(small, validator_permit=permit, owner_uid=owner, **spread))
    narrow = epoch(small)
    assert narrow.incentive.any()
    for name in ("incentive", "dividends", "consensus", "emission", "validator_permit"):
        assert np.array_equal(getattr(wide, name)[place], getattr(narrow, name)), name


@part
def _median(score, stake, total, kappa):
    return column.median(score, stake, score.size, total, kappa)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 2**28)), min_size=1, max_size=9), st.integers(0, ONE))
def test_median_equals_the_pivot_search(pairs, kappa):
    score, stake = [s * 7 for s, _ in pairs], [u for _, u in pairs]
    total = sum(stake)
    expected = pm.weighted_median(stake, score, list(range(len(pairs))), total - kappa, 0, total)
    assert _median(np.array(score, np.int64), np.array(stake, np.int64), total, kappa) == expected


@part
def _ratio(a, b):
    return arithmetic.ratio(a, b, arithmetic.inverse(b))


@part
def _alpha(weight, bond, consensus, limits):
    alpha, lanes, yes = np.empty(1, np.int64), np.empty((5, liquid.LANES), np.int64), np.ones(1, np.bool_)
    liquid.liquid_alphas(np.array([weight]), np.array([bond]), yes, yes, yes, 1, consensus, limits, alpha, lanes)
    return alpha[0]


UNIT = st.one_of(st.integers(0, ONE), st.sampled_from([0, 1, ONE // 2, ONE - 1, ONE]))


@settings(max_examples=300, deadline=None)
@given(
    a=st.integers(0, 2**60),
    b=st.integers(1, 2**60),
    x=UNIT,
    y=UNIT,
    count=st.integers(0, 65535),
    total=st.integers(1, 2**48),
)
def test_roundings(a, b, x, y, count, total):
    a, b = min(a, b), max(a, b)
    assert _ratio(a, b) == (a << 32) // b
    assert arithmetic.mul(x, y) == x * y >> 32
    assert arithmetic.share(count, 1.0 / max(total, count)) == (count << 32) // max(total, count)
    assert arithmetic.from_u16(count) == (count << 32) // 65535
    assert arithmetic.blend(max(x, y), min(x, y), a % ONE) == max(x, y) + ((a % ONE) * (min(x, y) - max(x, y)) >> 32)
    assert arithmetic.to_rao(x, np.uint64(b)) == x * b >> 32


@settings(max_examples=300, deadline=None)
@given(w=UNIT, b=UNIT, c=UNIT, low=UNIT, high=UNIT, steepness=st.integers(-(2**15), 2**15 - 1))
def test_liquid_alpha(w, b, c, low, high, steepness):
    resting = pm.alpha_sigmoid(0, 0, 0, low, high, from_int(steepness))
    slope = pm.div(from_int(steepness), from_int(-100))
    limits = np.array([low, high, slope, resting], np.int64)
    assert _alpha(w, b, c, limits) == pm.alpha_sigmoid(c, w, b, low, high, from_int(steepness))


def test_exp_never_overflows_where_it_is_used():
    """What the compiled series takes for granted: between -20 and 20 no term leaves the range."""
    assert all(exp(x) is not None for x in (from_int(20), from_int(-20), from_int(19) + 12345))
    assert exp_safe(from_int(25)) == exp_safe(from_int(20)) and exp(ONE) == 11_674_931_200


def test_loading_leaves_nothing_to_compile():
    """After `load_kernels` no network meets the compiler again, whatever its layout and split."""
    from raytensor.consensus import load_kernels
    from raytensor.consensus.kernels import dense, layout, sparse, stake, whole

    def compiled() -> dict[str, int]:
        return {
            f"{module.__name__}.{name}": len(value.signatures)
            for module in (dense, layout, sparse, stake, whole)
            for name, value in vars(module).items()
            if hasattr(value, "signatures") and value.py_func.__module__ == module.__name__
        }

    load_kernels()
    before = compiled()
    assert before["raytensor.consensus.kernels.whole.epoch"] == 1
    for seed in range(20):
        epoch(random_network(seed))
        epoch(random_network(seed), threads=2)
    assert compiled() == before


def test_compiled_code_goes_where_it_can_be_written(monkeypatch, tmp_path):
    from raytensor.consensus.kernels import jit

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert jit.cache_dir().startswith(str(tmp_path / "raytensor" / "kernels-"))
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert jit.cache_dir().startswith(str(tmp_path / "xdg" / "raytensor"))
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert jit.cache_dir() is None
