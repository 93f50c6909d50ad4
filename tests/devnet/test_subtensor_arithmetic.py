"""Pools, issuance, burn prices, shares and the epoch clock: pure integers against formulas and published vectors."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytensor.devnet.subtensor import amm, clock, issuance, shares
from raytensor.devnet.subtensor.weights import max_upscaled

TAO, ALPHA, FEE = 10**9, 4 * 10**9, 33


# Swap pallet, test_swap_basic: TAO 1e9, alpha 4e9, fee floor(in * 33 / 65535).
@pytest.mark.parametrize("amount", [1_000, 2_000, 123_456, 10**9, 10**10])
def test_buy_follows_the_published_vector(amount):
    net = amount - amount * 33 // 65_535
    expected = ALPHA * (1 - Fraction(TAO, TAO + net))
    assert abs(amm.buy(TAO, ALPHA, amount, FEE).out - expected) <= 1


@pytest.mark.parametrize("amount", [1_000, 2_000, 123_456])
def test_sell_follows_the_published_vector(amount):
    net = amount - amount * 33 // 65_535
    expected = TAO * (1 - Fraction(ALPHA, ALPHA + net))
    assert abs(amm.sell(TAO, ALPHA, amount, FEE).out - expected) <= 1


def test_input_of_a_thousand_reserves_passes_and_more_does_not():
    assert amm.buy(10**8, 10**12, 1000 * 10**8).out
    with pytest.raises(amm.SwapRefused, match="SwapInputTooLarge"):
        amm.buy(10**8, 10**12, 1000 * 10**8 + 1)


def test_a_thin_pool_is_not_traded():
    with pytest.raises(amm.SwapRefused, match="ReservesTooLow"):
        amm.buy(999_999, 10**9, 1_000)


reserves = st.integers(10**7, 10**16)


@given(tao=reserves, alpha=reserves, share=st.integers(1, 10**4), selling=st.booleans())
def test_a_trade_never_lowers_the_product_and_a_round_trip_never_gains(tao, alpha, share, selling):
    amount = (alpha if selling else tao) * share // 1_000
    try:
        if selling:
            there = amm.sell(tao, alpha, amount, FEE)
            back = amm.buy(tao - there.out, alpha + there.paid_in, there.out, FEE)
            product = (tao - there.out) * (alpha + there.paid_in)
        else:
            there = amm.buy(tao, alpha, amount, FEE)
            back = amm.sell(tao + there.paid_in, alpha - there.out, there.out, FEE)
            product = (tao + there.paid_in) * (alpha - there.out)
    except amm.SwapRefused:
        return
    assert product >= tao * alpha
    assert back.out <= amount
    assert there.given == amount


@given(tao=reserves, alpha=reserves, percent=st.integers(101, 400))
def test_a_limited_purchase_stops_at_the_limit(tao, alpha, percent):
    price = amm.price_rao(tao, alpha)
    limit = price * percent // 100
    if limit <= price or alpha < 10**9:
        return
    swap = amm.buy(tao, alpha, tao * 10, FEE, limit)
    assert swap.given < tao * 10, "the price would rise 121-fold"
    after = (tao + swap.paid_in) * amm.PRICE_UNIT
    assert after <= (limit + 1) * (alpha - swap.out) or swap.paid_in == 0
    one_more = tao + swap.paid_in + 2
    assert one_more * one_more * amm.PRICE_UNIT >= limit * tao * alpha, "nothing more would have fitted"


@given(tao=reserves, alpha=reserves, percent=st.integers(5, 99))
def test_a_limited_sale_stops_at_the_limit(tao, alpha, percent):
    limit = amm.price_rao(tao, alpha) * percent // 100
    if limit < 1_000:
        return
    swap = amm.sell(tao, alpha, alpha * 10, FEE, limit)
    assert swap.given < alpha * 10
    assert (alpha + swap.paid_in) ** 2 * limit <= tao * alpha * amm.PRICE_UNIT
    assert (alpha + swap.paid_in + 1) ** 2 * limit > tao * alpha * amm.PRICE_UNIT


# --- issuance: 1 TAO, halved when half of what is left has been issued


@pytest.mark.parametrize(
    "issued_tao, emission",
    [
        (0, 10**9),
        (10_499_999, 10**9),
        (10_500_000, 5 * 10**8),
        (15_750_000, 25 * 10**7),
        (18_375_000, 125 * 10**6),
        (21_000_000, 0),
        (22_000_000, 0),
    ],
)
def test_emission_halves_with_what_is_left(issued_tao, emission):
    assert issuance.block_emission_rao(issued_tao * 10**9) == emission


def test_the_whole_supply_is_never_exceeded():
    issued, step = 0, 10**14
    while issued < issuance.TOTAL_SUPPLY_RAO - step:
        assert issuance.block_emission_rao(issued) <= issuance.FULL_EMISSION_RAO
        issued += step
    assert issuance.block_emission_rao(issuance.TOTAL_SUPPLY_RAO - 1) < 10


@pytest.mark.parametrize("half_life", [1, 2, 10, 360, 5_000])
def test_a_price_halves_in_its_half_life(half_life):
    price = 10**12
    for _ in range(half_life):
        price = issuance.decayed_burn_rao(price, half_life, 0, 10**13)
    assert abs(price - 5 * 10**11) < 5 * 10**11 * 1e-5


def test_a_price_stays_inside_its_bounds():
    assert issuance.decayed_burn_rao(600_000, 1, 500_000, 10**9) == 500_000
    assert issuance.decayed_burn_rao(600_000, 0, 500_000, 10**9) == 600_000
    assert issuance.bumped_burn_rao(10**9, (126 << 64) // 100, 0, 10**12) == 1_259_999_999
    assert issuance.bumped_burn_rao(10**9, (126 << 64) // 100, 0, 10**9) == 10**9


def test_lock_cost_doubles_and_falls():
    assert issuance.lock_cost_rao(1_000, 1_000, 50, 100, 1) == 1_000
    assert issuance.lock_cost_rao(1_000, 1_000, 0, 100, 2) == 2_000
    assert issuance.lock_cost_rao(1_000, 1_000, 50, 100, 2) == 1_500
    assert issuance.lock_cost_rao(1_000, 1_000, 10_000, 100, 2) == 1_000


# --- clock: emission.rs, blocks_until_next_auto_epoch with LastEpochBlock 0


@pytest.mark.parametrize(
    "tempo, block, left",
    [(10, 5, 5), (20, 15, 5), (30, 25, 5), (10, 9, 1), (20, 21, 0), (65_535, 0, 65_535), (0, 100, 2**64 - 1)],
)
def test_blocks_until_the_next_epoch(tempo, block, left):
    assert clock.blocks_until_auto(tempo, block, 0) == left


def test_the_period_is_exactly_the_tempo():
    last, fired = 7, []
    for block in range(8, 60):
        if clock.is_due(tempo=10, block=block, last_epoch=last, pending_at=0, blocks_since_step=block - last):
            fired.append(block)
            last = block
    assert fired == [17, 27, 37, 47, 57]


def test_a_trigger_or_a_long_silence_fires_at_once():
    base = {"tempo": 360, "block": 100, "last_epoch": 90}
    assert clock.is_due(**base, pending_at=100, blocks_since_step=10)
    assert not clock.is_due(**base, pending_at=101, blocks_since_step=10)
    assert clock.is_due(**base, pending_at=0, blocks_since_step=50_401)
    assert not clock.is_due(**{**base, "tempo": 0}, pending_at=100, blocks_since_step=50_401)
    assert clock.next_start(360, 90, 0) == 450 and clock.next_start(360, 90, 120) == 120
    assert clock.next_start(0, 90, 0) is None


# --- shares


moves = st.lists(st.tuples(st.sampled_from("dwg"), st.integers(0, 4), st.integers(1, 10**15)), min_size=1, max_size=60)


@given(moves)
def test_members_never_own_more_than_the_pool_and_never_lose_to_others(steps):
    pool, total, mine = 0, 0, [0] * 5
    for kind, who, amount in steps:
        before = [shares.value(pool, total, s) for s in mine]
        if kind == "d":
            new = shares.shares_for_deposit(pool, total, amount)
            pool, total, mine[who] = pool + amount, total + new, mine[who] + new
        elif kind == "g":
            pool += amount if total else 0
        else:
            amount = min(amount, before[who])
            taken = shares.shares_for_withdrawal(pool, total, mine[who], amount)
            pool, total, mine[who] = pool - amount, total - taken, mine[who] - taken
        after = [shares.value(pool, total, s) for s in mine]
        assert sum(after) <= pool and total == sum(mine)
        assert all(a >= b for i, (a, b) in enumerate(zip(after, before)) if i != who)
        if kind == "w":
            assert after[who] <= before[who] - amount, "what was drawn can't be drawn again"


# --- max upscale: math.rs, vec_u16_max_upscale_to_u16


@pytest.mark.parametrize(
    "given_, expected",
    [
        ([0, 1, 65_534], [0, 1, 65_535]),
        ([0, 1], [0, 65_535]),
        ([0, 0], [0, 0]),
        ([0, 1, 65_535], [0, 1, 65_535]),
        ([], []),
        ([16_383, 49_149, 65_535], [16_383, 49_149, 65_535]),
        ([43_690, 21_845], [65_535, 32_768]),
    ],
)
def test_weights_are_upscaled_as_published(given_, expected):
    assert max_upscaled(np.array(given_, np.uint16)).tolist() == expected


@given(st.lists(st.integers(0, 65_535), min_size=1, max_size=30))
def test_upscaling_equals_the_fixed_point_formula(values):
    top = max(values)
    scaled = max_upscaled(np.array(values, np.uint16)).tolist()
    if top in (0, 65_535):
        assert scaled == values
        return
    one = 1 << 32
    if top > 32_768:
        factor = 65_535 * one // top
        expected = [(value * factor + one // 2) >> 32 for value in values]
    else:
        expected = [((value * 65_535 * one) // top + one // 2) >> 32 for value in values]
    assert scaled == expected and max(scaled) == 65_535
