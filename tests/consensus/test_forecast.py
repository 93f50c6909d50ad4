"""What a subnet pays: emission until the epoch, payments by the pallet's rules, stake that grows; by hand, pure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import random_mode, random_network

from raytensor.consensus import Rows, epoch
from raytensor.consensus.emission import Emission, Pots, block_emission_rao
from raytensor.consensus.forecast import Subnet, forecast
from raytensor.consensus.payout import Accounts, pay
from raytensor.consensus.snapshot import Snapshot, read_snapshot, write_snapshot
from raytensor.consensus.whatif import compare
from raytensor.devnet.subtensor import issuance
from raytensor.errors import ConfigError

ALPHA = 10**9
EMISSION = Emission(Pots(), 1000 * ALPHA, 0, 2**64 - 1, 11796, 0, emits=True, root_sells=True)
PLAIN = Accounts(("a", "b", "c"), {}, {"a": 600, "b": 300}, {}, owner="cold", owner_hotkey="o")


def test_each_block_adds_its_emission():
    """1 alpha a block: 18 % to the owner, half of the rest to miners, half to validators."""
    after = EMISSION.after(7)
    # 10^9 * 11796 / 65535 = 179,995,422.29 for the owner; half of 820,004,577.7 each; truncated in every block
    assert after.pots == Pots(7 * 410_002_288, 7 * 410_002_288, 0, 7 * 179_995_422)
    assert after.issuance_rao == 1007 * ALPHA
    assert EMISSION.after(3).after(4) == after
    assert replace(EMISSION, emits=False).after(7).pots == Pots()
    no_cut = replace(EMISSION, owner_cut=0).after(1).pots
    assert no_cut == Pots(ALPHA // 2, ALPHA // 2, 0, 0)


def test_roots_part_is_paid_or_recycled():
    rooted = replace(EMISSION, root_tao_rao=1000 * ALPHA, owner_cut=0, injected_rao=10**12)
    paid, recycled = rooted.after(1), replace(rooted, root_sells=False).after(1)
    # root's proportion is 1000 / (1000 + 1000 + 0.5 injected + 1 minted)
    assert paid.pots.root_rao == pytest.approx(ALPHA * 0.25, rel=1e-3) and paid.injected_rao == ALPHA // 2
    assert paid.pots.consensus_rao in (ALPHA, ALPHA - 1)
    assert recycled.pots.root_rao == 0 and recycled.pots.validator_rao == paid.pots.validator_rao
    assert paid.issuance_rao - recycled.issuance_rao == paid.pots.root_rao


def test_block_emission_halves_with_the_remaining_supply():
    supply = 21_000_000 * ALPHA
    for issuance_rao, emission in [
        (0, ALPHA),
        (supply // 2 - ALPHA, ALPHA),
        (supply // 2, ALPHA // 2),
        (supply * 3 // 4, ALPHA // 4),
        (supply, 0),
        (supply + 1, 0),
    ]:
        assert block_emission_rao(issuance_rao) == issuance.block_emission_rao(issuance_rao) == emission


def test_the_owner_miners_and_validators_are_paid():
    payout = pay(PLAIN, Pots(500, 400, 0, 90), [0, 30, 470], [300, 100, 0])
    assert payout.owner_cut == {"o": 90} and payout.incentive == {"b": 30, "c": 470}
    # the validators' pot in proportion to the dividends of consensus
    assert payout.dividends == {"a": 300, "b": 100} and payout.recycled_rao == 0
    assert payout.stake_after(PLAIN.alpha_rao) == {"a": 900, "b": 430, "c": 470, "o": 90}


def test_without_incentive_validators_get_the_miners_pot():
    assert pay(PLAIN, Pots(500, 400), [0, 0, 0], [1, 0, 0]).dividends == {"a": 900}


def test_owners_miners_and_other_destinations():
    accounts = replace(PLAIN, withheld=("b",), recycles=True, owner_of={"c": "cold-c"}, auto_stake={"cold-c": "x"})
    payout = pay(accounts, Pots(500, 0, 0, 0), [0, 30, 470], [0, 0, 0])
    assert payout.incentive == {"x": 470} and payout.withheld_rao == payout.recycled_rao == 30
    nobody = pay(replace(PLAIN, owner=None), Pots(0, 0, 0, 90), [0, 0, 0], [0, 0, 0])
    assert nobody.owner_cut == {} and nobody.recycled_rao == 90


def test_root_is_paid_by_either_rule():
    """a: as much root stake as alpha. Before spec 475 each validator's root part counts, later that of root's uids."""
    accounts = replace(PLAIN, alpha_rao={"a": 600, "b": 300}, root_rao={"a": 600, "b": 0}, tao_weight=2**64 - 1)
    accounts = replace(accounts, takes={"a": 32768})
    before = pay(accounts, Pots(0, 300, 100, 0), [0, 0, 1], [200, 100, 0])
    assert before.root == {"a": 99} and before.root_take == {"a": 50}  # 99.99 of 100; each half is truncated
    assert sum(before.dividends.values()) in range(297, 301)
    assert before.dividends["b"] == 150 and before.stake_after({})["a"] == before.dividends["a"] + 50
    later = pay(replace(accounts, root_hotkeys=("b",)), Pots(0, 300, 100, 0), [0, 0, 1], [200, 100, 0])
    assert later.root == {} and later.recycled_rao == 100


def test_a_child_shares_with_its_parent():
    """b's dividends: its parent a gave it half of its 600, b has 300 itself; a take of 50 % stays with the child."""
    accounts = replace(
        PLAIN,
        owner_of={"a": "cold-a", "b": "cold-b"},
        parents={"b": ((2**63, "a"),)},
        children={"a": ((2**63, "b"),)},
        child_takes={"b": 32768},
    )
    assert (accounts.inherited_rao("a"), accounts.inherited_rao("b")) == (300, 600)
    payout = pay(accounts, Pots(0, 1000, 0, 0), [0, 0, 1], [0, 1000, 0])
    assert payout.dividends["a"] in range(248, 251) and payout.dividends["b"] in range(748, 752)
    same = replace(accounts, owner_of={"a": "cold", "b": "cold"})
    assert pay(same, Pots(0, 1000, 0, 0), [0, 0, 1], [0, 1000, 0]).dividends["a"] in range(498, 501)


def subnet_of(seed: int, kind: str = "yuma", count: int = 1) -> Subnet:
    first = replace(random_mode(random_network(seed), seed, kind), pots=None, emission=0)
    mechanisms = (first, replace(first, weights=first.bonds, bonds=Rows.empty(first.n)))[:count]
    names = tuple(f"hot{uid}" for uid in range(first.n))
    stakes = {name: int(stake) for name, stake in zip(names, first.stake, strict=True)}
    accounts = Accounts(names, dict.fromkeys(names, "cold"), stakes, {}, owner="o", owner_hotkey="hot0")
    emission = replace(EMISSION, pots=Pots(10**10, 10**10 - 1, 5, 7))
    return Subnet(mechanisms, (49151, 16384) if count == 2 else None, first.block + 20, emission, accounts)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**40), kind=st.sampled_from(["yuma", "null"]), count=st.sampled_from([1, 2]))
def test_fast_and_reference_forecast_the_same(seed, kind, count):
    subnet = subnet_of(seed, kind, count)
    ways = [forecast(subnet, lambda one, how=how: epoch(one, implementation=how), 3) for how in ("fast", "reference")]
    assert [one.payout for one in ways[0]] == [one.payout for one in ways[1]]
    tempo = max(subnet.mechanisms[0].tempo, 1)
    first = subnet.next_epoch_block
    assert [one.block for one in ways[0]] == [first, first + tempo, first + 2 * tempo]


def test_stake_grows_by_what_is_paid():
    subnet = subnet_of(53)
    seen = []

    def run(inputs):
        seen.append(inputs)
        return epoch(inputs)

    one = forecast(subnet, run, 2)[0]
    for uid, hotkey in enumerate(subnet.accounts.hotkeys):
        assert int(seen[1].stake[uid]) - int(seen[0].stake[uid]) == one.payout.total(hotkey)
    assert seen[1].last_mechanism_step_block == seen[0].block == subnet.next_epoch_block
    with pytest.raises(ConfigError, match="num_epochs"):
        forecast(subnet, run, 0)
    with pytest.raises(ConfigError, match="next_epoch_block"):
        replace(subnet, next_epoch_block=subnet.mechanisms[0].block)


def test_a_snapshot_of_all_mechanisms_survives_the_file(tmp_path):
    subnet = subnet_of(53, count=2)
    names = subnet.accounts.hotkeys
    snapshot = Snapshot(3, 0, names, names, subnet.mechanisms[0], "a test", subnet)
    write_snapshot(snapshot, tmp_path / "subnet.parquet")
    again = read_snapshot(tmp_path / "subnet.parquet")
    assert again.subnet is not None and again.subnet.emission == subnet.emission
    assert len(again.subnet.mechanisms) == 2
    for changes in ([], ["set.epoch_kind=null"], ["set.emission=1000"], ["set.tempo=77"], ["set.stake.uid:0=0"]):
        rows = [compare(one, changes, epoch, 2).rows() for one in (snapshot, again)]
        assert rows[0] == rows[1]
    fixed = compare(snapshot, ["set.emission=1000"], epoch).after[0]
    paid = sum(sum(fixed.paid[part].values()) for part in ("incentive", "dividends"))
    assert paid in range(900, 1001)  # each share is truncated
