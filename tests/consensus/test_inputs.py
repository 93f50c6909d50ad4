"""Malformed input is refused, and the message names the field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from networks import random_network

from raytensor.consensus import DenseRows, Rows, epoch, stake_from_bits, stake_weight
from raytensor.errors import ConfigError

GOOD = random_network(53)
N = GOOD.n


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("last_update", GOOD.last_update[:-1]),
        ("last_update", np.append(GOOD.last_update, np.uint64(1))),
        ("block_at_registration", [-1] * N),
        ("stake", [float("nan")] * N),
        ("stake", [1.5] * N),
        ("stake", [-1] + [0] * (N - 1)),
        ("stake", [2**64] + [0] * (N - 1)),
        ("stake", [2**62] * N),
        ("stake", np.zeros((N, 1), np.uint64)),
        ("stake_frac", ["1"] * N),
        ("validator_permit", [1] * N),
        ("validator_permit", [True] * (N + 1)),
        ("commit_block", [None] * N),
        ("block", -1),
        ("block", 2**64),
        ("tempo", 65536),
        ("tempo", True),
        ("kappa", 65536),
        ("kappa", 0.5),
        ("kappa", float("nan")),
        ("bonds_penalty", -1),
        ("bonds_moving_average", 2**60),
        ("alpha_low", "1"),
        ("alpha_sigmoid_steepness", 32768),
        ("emission", 2**64),
        ("owner_uid", N),
        ("owner_uid", -1),
        ("yuma3", 1),
        ("weights", [[(0, 1)]] * N),
        ("weights", Rows.empty(N + 1)),
        ("bonds", Rows.empty(N - 1)),
    ],
)
def test_field_is_named(field, value):
    with pytest.raises(ConfigError, match="weights|bonds" if isinstance(value, Rows) else field):
        replace(GOOD, **{field: value})


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([[(2, 1)], []], "weights.uids: uid 2 in a network of 2"),
        ([[(-1, 1)], []], "weights.uids: -1"),
        ([[(0, 65536)], []], "weights.values: 65536"),
        ([[(0, -3)], []], "weights.values: -3"),
        ([[(0, float("nan"))], []], "weights.values: nan"),
        ([[(1, 1), (0, 5), (1, 2)], []], "row 0 names uid 1 twice"),
        ([[(1, 1, 1)], []], "not a pair"),
    ],
)
def test_rows_are_checked(rows, match):
    with pytest.raises(ConfigError, match=match):
        Rows.from_lists(rows, name="weights")


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        (([0, 2, 1], [0, 1], [1, 1]), "indptr"),
        (([1, 2], [0, 1], [1, 1]), "indptr"),
        (([0, 3], [0, 0], [1, 1]), "indptr ends at 3"),
        (([], [], []), "indptr"),
    ],
)
def test_compressed_rows_are_checked(arrays, match):
    with pytest.raises(ConfigError, match=match):
        Rows.checked(*arrays, name="bonds")


def test_matrices_are_checked():
    good = np.ones((2, 1), np.uint16)
    for arguments, match in [
        ((3, [0], [1, 3], good), "miners: uid 3"),
        ((3, [0], [2, 1], good), "miners: uids must ascend"),
        ((3, [0, 1], [1, 2], good), "values: shape"),
        ((3, [0], [1, 2], np.array([[1], [-1]])), "values: -1"),
        ((3, [0], [1, 2], good, [1]), "zeros: names a value that is not 0"),
        ((3, [0], [1, 2], good, [5]), "zeros: positions"),
    ]:
        with pytest.raises(ConfigError, match=match):
            DenseRows.checked(*arguments)


def test_implementation_is_checked():
    with pytest.raises(ConfigError, match="implementation"):
        epoch(GOOD, implementation="float")


def test_read_only_arrays_are_accepted(differing):
    stake = GOOD.stake.copy()
    stake.flags.writeable = False
    assert differing(epoch(replace(GOOD, stake=stake)), epoch(GOOD)) == []


def test_an_empty_network_has_an_empty_epoch():
    empty = np.zeros(0, np.uint64)
    inputs = replace(
        GOOD,
        last_update=empty,
        block_at_registration=empty,
        stake=empty,
        stake_frac=empty,
        commit_block=empty,
        validator_permit=np.zeros(0, bool),
        weights=Rows.empty(0),
        bonds=Rows.empty(0),
        owner_uid=None,
    )
    for implementation in ("fast", "reference"):
        assert epoch(inputs, implementation=implementation).emission.size == 0


def test_stake_weight_rounds_as_the_pallet():
    # tao_weight 0.18 of u64: 0xB8... as U96F32 is 773094113 / 2^32
    whole, frac = stake_weight([5, 2**64 - 1], [10, 0], 3_320_413_933_267_719_290)
    ratio = (3_320_413_933_267_719_290 << 32) // (2**64 - 1)
    assert ratio == 773_094_113
    assert (int(whole[0]) << 64) + int(frac[0]) == (5 << 64) + 10 * (ratio << 32)
    assert int(whole[1]) == 2**63 - 1 and int(frac[1]) == 2**64 - 1  # an I64F64 saturates
    with pytest.raises(ConfigError, match="tao_weight"):
        stake_weight([1], [1], -1)
    with pytest.raises(ConfigError, match="tao_rao"):
        stake_weight([1], [1, 2], 1)
    with pytest.raises(ConfigError, match="stake"):
        stake_from_bits([2**127])


def test_rows_made_directly_are_checked_too():
    with pytest.raises(ConfigError, match="rows.uids: uid 7 in a network of 1"):
        Rows(np.array([0, 1]), np.array([7], np.uint32), np.array([1], np.uint16))
    with pytest.raises(ConfigError, match="values: shape"):
        DenseRows(2, np.array([0], np.uint32), np.array([1], np.uint32), np.zeros((2, 2), np.uint16), np.zeros(0, int))
    assert not Rows(np.array([0, 2, 2]), np.array([1, 0]), np.array([3, 4]), ascending=True).ascending


def test_threads_are_checked():
    with pytest.raises(ConfigError, match="threads"):
        epoch(GOOD, threads=0)
