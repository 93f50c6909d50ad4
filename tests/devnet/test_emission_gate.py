"""How the block's TAO is divided among subnets: against a transcription in real numbers, and exact cases."""

from __future__ import annotations

import math
import random

import pytest
from subnetkit import BOB, OWNER_HOT, RAO, Kit, account

from raytensor.devnet.subtensor import emission_gate as gate

ONE32, ONE64 = 1 << 32, 1 << 64


def transcription(prices, burned, disabled, rank, quantile, exponent):
    """Shares by the published formulas in floating point: demand, the bar, the Hill gate, then the disabled ones."""
    total = sum(prices)
    demand = [p / total * (1 - min(b, 1.0)) for p, b in zip(prices, burned)]
    demand = [d / sum(demand) for d in demand] if sum(demand) else [p / total for p in prices]
    ordered = sorted((d for d in demand if d > 0), reverse=True)
    if rank:
        bar = ordered[rank - 1] if rank <= len(ordered) else ordered[-1]
    else:
        running, bar = 0.0, ordered[-1]
        for share in ordered:
            running += share
            if running >= quantile:
                bar = share
                break
    passed = [d**exponent / (d**exponent + bar**exponent) * d if d else 0.0 for d in demand]
    passed = [p / sum(passed) for p in passed]
    if disabled:
        passed = [0.0 if i in disabled else p for i, p in enumerate(passed)]
        passed = [p / sum(passed) for p in passed]
    return passed


@pytest.mark.parametrize("seed", range(20))
def test_twenty_subnets_with_gate_burned_miners_and_disabled_subnets(seed):
    rng = random.Random(seed)
    prices = [rng.uniform(0.0005, 0.2) for _ in range(20)]
    burned = [rng.choice((0.0, 0.0, rng.random(), 1.0)) for _ in range(20)]
    disabled = set(rng.sample(range(20), rng.randint(0, 5)))
    rank, quantile = rng.choice((0, 1, 5, 12, 32)), rng.uniform(0.1, 0.99)
    exponent = rng.choice((1, 2, 3, 4.5))
    demand = gate.demand_shares(
        {i: int(p * ONE32) for i, p in enumerate(prices)}, {i: int(b * ONE32) for i, b in enumerate(burned)}
    )
    bar = gate.gate_bar(demand, rank, int(quantile * ONE64))
    shares = gate.without(gate.gated(demand, bar, int(exponent * ONE64)), disabled)
    expected = transcription(prices, burned, disabled, rank, quantile, exponent)
    for i in range(20):
        assert shares[i] / ONE64 == pytest.approx(expected[i], rel=1e-5, abs=1e-8)
    assert ONE64 - 20 <= sum(shares.values()) <= ONE64


def test_at_the_bar_half_of_the_weight_passes():
    shares = {1: ONE64 // 2, 2: ONE64 // 2}
    assert gate.gated(shares, ONE64 // 2, 3 << 64) == shares
    two = {1: 2 * ONE64 // 3, 2: ONE64 // 3}
    # bar at the second: 1/2 of 1/3 against 8/9 of 2/3, 9 to 32
    passed = gate.gated(two, two[2], 3 << 64)
    assert passed[2] / ONE64 == pytest.approx(9 / 41, rel=1e-6)
    assert gate.gated(two, 0, 3 << 64) == two, "no bar, no gate"


def test_a_bar_that_cuts_everything_cuts_nothing():
    shares = dict.fromkeys(range(3), 1)
    assert gate.gated(shares, ONE64, 8 << 64) == shares


def test_burned_demand_that_is_all_of_it_counts_as_unburned():
    assert gate.demand_shares({1: ONE32, 2: ONE32}, {1: ONE32, 2: ONE32}) == {1: ONE64 // 2, 2: ONE64 // 2}
    assert gate.demand_shares({1: ONE32, 2: ONE32}, {1: ONE32}) == {1: 0, 2: ONE64}
    assert gate.demand_shares({1: 0, 2: 0}, {}) == {1: 0, 2: 0}


@pytest.mark.parametrize("value", [0.001, 0.5, 0.999, 1, 1.5, 2, 3, 1_000.25])
def test_the_logarithm(value):
    assert gate.ln32(int(value * ONE32)) / ONE32 == pytest.approx(math.log(value), rel=1e-6, abs=1e-6)
    assert gate.ln32(0) is None and gate.ln32(ONE32) == 0


@pytest.fixture
def kit():
    kit = Kit()
    kit.netuid = kit.subnet(hotkey=OWNER_HOT)
    kit.other = kit.subnet(BOB, account(50))
    return kit


def test_the_bar_is_set_at_first_then_every_360_blocks_and_after_a_change(kit):
    module, pair = kit.module, [kit.netuid, kit.other]
    module.SubnetMovingPrice[kit.netuid], module.SubnetMovingPrice[kit.other] = ONE32 // 10, ONE32 // 5
    module.EmissionGateBar.set(0)
    kit.runtime.block_number = 361
    shares = module.tao_emissions32(pair, RAO)
    third = module.EmissionGateBar.get()
    assert third == pytest.approx(ONE64 / 3, rel=1e-9)
    assert shares[kit.netuid] / ONE32 == pytest.approx(RAO * 9 / 41, rel=1e-6)
    module.SubnetMovingPrice[kit.netuid] = ONE32 // 5
    module.tao_emissions32(pair, RAO)
    assert module.EmissionGateBar.get() == third, "not before the interval"
    kit.runtime.block_number = 720
    shares = module.tao_emissions32(pair, RAO)
    assert module.EmissionGateBar.get() == ONE64 // 2 and shares[kit.netuid] == shares[kit.other]
    kit.admin("emission_bar_rank", 1)
    assert (module.EmissionGateBar.get(), module.EmissionBarRank.get()) == (0, 1)
    kit.admin("emission_bar_quantile", ONE64 // 2)
    kit.admin("emission_gate_exponent", 4 << 64)
    assert (module.EmissionBarQuantile.get(), module.EmissionGateExponent.get()) == (ONE64 // 2, 4 << 64)
    for exponent in (0, ONE64 - 1, (8 << 64) + 1):
        kit.refused(None, "InvalidValue", "AdminUtils.sudo_set_emission_gate_exponent", exponent)
    kit.refused(None, "InvalidValue", "AdminUtils.sudo_set_emission_bar_quantile", ONE64 + 1)
    kit.refused(BOB, "BadOrigin", "AdminUtils.sudo_set_emission_bar_rank", 3)


def test_the_gate_counts_disabled_subnets_which_get_nothing(kit):
    module, pair = kit.module, [kit.netuid, kit.other]
    module.SubnetMovingPrice[kit.netuid], module.SubnetMovingPrice[kit.other] = ONE32 // 10, ONE32 // 5
    kit.admin("subnet_emission_enabled", kit.other, False)
    shares = module.tao_emissions32(pair, RAO)
    assert shares[kit.other] == 0 and RAO - 1 <= shares[kit.netuid] / ONE32 <= RAO


def test_the_excess_buys_at_the_price_before_the_injection(kit):
    module, netuid = kit.module, kit.netuid
    tao, alpha = module.SubnetTAO[netuid], module.SubnetAlphaIn[netuid]
    used = module._inject(netuid, (RAO // 2) << 32)
    injected, excess = module.SubnetTaoInEmission[netuid], module.SubnetExcessTao[netuid]
    assert injected + excess == used and RAO // 2 - 1 <= used <= RAO // 2 and excess > 0
    bought = alpha * excess // (tao + excess)
    assert module.SubnetTAO[netuid] == tao + used
    assert module.SubnetAlphaIn[netuid] == alpha - bought + module.SubnetAlphaInEmission[netuid]
