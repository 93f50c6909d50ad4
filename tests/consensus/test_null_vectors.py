"""Null epochs: the vectors N1 to N11 of the pallet's own tests, exact, with both implementations.

n = 4, stakes of uids 0 and 1, weights by the winner, one emission E unless pots are given.
"""

from __future__ import annotations

import numpy as np
import pytest

from raytensor.consensus import EpochInput, EpochOutput, Rows, epoch, epoch_with_mechanisms
from raytensor.consensus.epochs import split_emissions, split_pots

BOTH = pytest.mark.parametrize("implementation", ["fast", "reference"])
U64 = 2**64 - 1


def null(stake: list[int], rows: dict[int, list], emission: int = 10**6, n: int = 4, **changes) -> EpochInput:
    fields = {
        "block": 10_000,
        "tempo": 360,
        "activity_cutoff": 1,  # everybody is inactive
        "last_update": np.full(n, 100, np.uint64),
        "block_at_registration": np.zeros(n, np.uint64),
        "stake": stake + [0] * (n - len(stake)),
        "validator_permit": np.zeros(n, bool),
        "weights": Rows.from_dict(n, rows),
        "bonds": Rows.empty(n),
        "max_validators": 1,
        "epoch_kind": "null",
    }
    return EpochInput(**{**fields, "emission": emission, **changes})


def paid(output: EpochOutput) -> tuple[list[int], list[int]]:
    assert np.array_equal(output.emission, output.server_emission + output.validator_emission)
    return output.server_emission.tolist(), output.validator_emission.tolist()


@BOTH
@pytest.mark.parametrize(
    ("stake", "rows", "server", "validator"),
    [
        ([300 * 10**6, 100 * 10**6], {0: [(2, 3), (3, 1)]}, [0, 0, 375_000, 125_000], [375_000, 125_000, 0, 0]),  # N1
        ([10**8, 10**8], {0: [(2, 1)], 1: [(3, 1)]}, [0, 0, 500_000, 0], [250_000, 250_000, 0, 0]),  # N2: first uid
        ([10**8, 0], {1: [(2, 1)]}, [125_000] * 4, [500_000, 0, 0, 0]),  # N3: the winner has no row
        ([10**9, 10**9 + 1], {0: [(2, 1)], 1: [(3, 1)]}, [0, 0, 0, 500_000], None),  # N4
        ([0, 0], {}, [250_000] * 4, [0, 0, 0, 0]),  # N6: without stake the miners get all
    ],
    ids=["N1", "N2", "N3", "N4", "N6"],
)
def test_one_row_pays(implementation, stake, rows, server, validator):
    output = epoch(null(stake, rows), implementation=implementation)
    assert paid(output)[0] == server
    if validator is not None:
        assert paid(output)[1] == validator
    assert not output.active.any() and not output.consensus.any() and not output.validator_trust.any()
    assert sum(output.incentive.tolist()) in range(65532, 65536)


@BOTH
def test_n5_a_miner_registered_after_the_row_was_set(implementation):
    late = np.array([0, 0, 100, 0], np.uint64)
    output = epoch(null([10**8], {0: [(2, 1)]}, block_at_registration=late), implementation=implementation)
    assert paid(output)[0] == [125_000] * 4
    commit = {"commit_reveal": True, "block_at_registration": np.array([0, 0, 50, 0], np.uint64)}
    for block, server in ((49, [125_000] * 4), (50, [0, 0, 500_000, 0])):
        inputs = null([10**8], {0: [(2, 1)]}, **commit, commit_block=[block, 0, 0, 0])
        assert paid(epoch(inputs, implementation=implementation))[0] == server


@BOTH
@pytest.mark.parametrize("emission", [0, 1, 3, 131_071, U64])
def test_n7_every_rao_is_paid(implementation, emission):
    output = epoch(null([10**8], {0: [(2, 65534), (3, 1)]}, emission), implementation=implementation)
    server, validator = paid(output)
    assert sum(server) == emission - emission // 2 and sum(validator) == emission // 2


@BOTH
@pytest.mark.parametrize("pot", [0, 1, 7, 4097, 1_000_003, U64])
def test_n8_2500_uids(implementation, pot):
    n = 2500
    shares = [65535] * n
    shares[0], shares[100] = 1, 0
    inputs = null([10**8], {0: list(enumerate(shares))}, pot, n, pots=(pot, 0, 0), owner_uid=0)
    server, _ = paid(epoch(inputs, implementation=implementation))
    total = sum(shares)
    floors = [share * pot // total for share in shares]
    assert all(paid_ - floor in (0, 1) for paid_, floor in zip(server, floors, strict=True))
    assert sum(server) == pot and server[100] == 0


@BOTH
def test_n9_the_permit_is_the_winners(implementation):
    output = epoch(null([300 * 10**6, 400 * 10**6], {}, 700, owner_uid=0), implementation=implementation)
    assert paid(output)[1] == [150, 200, 0, 0]
    assert output.validator_permit.tolist() == [False, True, False, False]


@BOTH
def test_n10_without_stake_roots_pot_is_recycled(implementation):
    output = epoch(null([], {}, 1000, pots=(500, 200, 300)), implementation=implementation)
    assert sum(paid(output)[0]) == 700 and sum(paid(output)[1]) == 0


@BOTH
def test_n11_four_mechanisms(implementation):
    pots = split_pots((501, 200, 300), 4)
    assert [sum(column) for column in zip(*pots, strict=True)] == [501, 200, 300]
    each = [null([10**8], {0: [(2, 1), (3, 2)]}, sum(part), pots=part) for part in pots]
    together = epoch_with_mechanisms(each, implementation=implementation)
    assert together.server_emission.sum() == 501 and together.validator_emission.sum() == 500
    assert together.emission.sum() == 1001  # a plain sum
    each = [null([10**8], {}, part) for part in split_emissions(1002, 4)]
    together = epoch_with_mechanisms(each, implementation=implementation)
    assert together.server_emission.sum() == 501 and together.validator_emission.sum() == 501


@BOTH
def test_own_weight_counts_for_the_owner_only(implementation):
    for owner, server in ((0, [250_000, 0, 250_000, 0]), (1, [0, 0, 500_000, 0])):
        inputs = null([10**8], {0: [(0, 5), (2, 5)]}, owner_uid=owner)
        assert paid(epoch(inputs, implementation=implementation))[0] == server


@BOTH
def test_stake_below_the_threshold_is_paid_but_has_no_stake_weight(implementation):
    inputs = null([300, 100], {0: [(2, 1)]}, 800, stake_threshold=200)
    output = epoch(inputs, implementation=implementation)
    assert paid(output)[1] == [300, 100, 0, 0] and output.stake_weight.tolist() == [65535, 0, 0, 0]


def test_stake_of_any_size(differing):
    """Fractions of a rao and the type's limits, beside the plain integers."""
    whole = [2**62, 2**61 + 3, 0, 7]
    inputs = null(whole, {0: [(1, 65535), (3, 1)]}, U64, stake_frac=[1, 2**64 - 1, 5, 0])
    assert differing(epoch(inputs), epoch(inputs, implementation="reference")) == []
    wide = null([1], {0: [(j, 65535) for j in range(40_000)]}, U64, 40_000)
    assert differing(epoch(wide), epoch(wide, implementation="reference")) == []
