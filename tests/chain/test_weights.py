"""Quantisation and the calls that carry weights: exact values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytensor.chain.calls import Call
from raytensor.chain.weights import (
    Row,
    batch_call,
    fault_of,
    intent_of,
    max_upscale,
    resolve,
    single_call,
    storage_index,
)
from raytensor.types import Weights

UIDS = {"a": 3, "b": 0, "c": 7, "d": 5}


def test_largest_becomes_65535_and_the_rest_keep_their_ratio():
    assert max_upscale([0.25, 0.5, 1.0]) == [16384, 32768, 65535]  # 16383.75 and 32767.5 rounded
    assert max_upscale([3e-9, 1e-9]) == [65535, 21845]
    assert max_upscale([0.0, 0.0]) == [0, 0]
    assert max_upscale([]) == []


def test_rounding_is_half_to_even_like_the_sdk():
    assert max_upscale([2.0, 65535 / 65535]) == [65535, 32768]  # 32767.5 -> 32768, the even one
    assert max_upscale([65535.0, 0.5, 1.5, 2.5]) == [65535, 0, 2, 2]


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_a_weight_that_means_nothing_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        max_upscale([1.0, bad])


def test_rows_are_sorted_by_uid_without_zeros_and_name_what_they_dropped():
    row = resolve([("a", 1.0), ("gone", 9.0), ("b", 0.5), ("c", 0.0)], UIDS, netuid=4, version_key=8)
    assert row == Row(4, 0, (0, 3), (32768, 65535), 8, ("gone",))


def test_a_weight_of_a_hotkey_that_left_does_not_scale_the_others():
    assert resolve([("a", 1.0), ("gone", 1000.0)], UIDS, netuid=1).values == (65535,)


def test_all_zero_stays_all_zero():
    assert resolve([("a", 0.0), ("b", 0.0)], UIDS, netuid=1) == Row(1, 0, (0, 3), (0, 0), 0)


def test_short_rows_are_filled_with_zeros_up_to_the_minimum():
    row = resolve([("c", 2.0)], UIDS, netuid=1, min_length=3)
    assert (row.uids, row.values) == ((0, 3, 7), (0, 0, 65535))
    row = resolve([("c", 2.0)], UIDS, netuid=1, min_length=8)  # never more than there are neurons
    assert (row.uids, row.values) == ((0, 3, 5, 7), (0, 0, 0, 65535))


def test_the_calls_have_the_pallets_arguments():
    row = Row(4, 0, (0, 3), (32768, 65535), 8)
    assert single_call(row) == Call(
        "SubtensorModule", "set_weights", {"netuid": 4, "dests": [0, 3], "weights": [32768, 65535], "version_key": 8}
    )
    assert single_call(Row(4, 1, (0,), (65535,), 8)) == Call(
        "SubtensorModule",
        "set_mechanism_weights",
        {"netuid": 4, "mecid": 1, "dests": [0], "weights": [65535], "version_key": 8},
    )
    assert batch_call([row, Row(6, 0, (1,), (65535,), 0)]) == Call(
        "SubtensorModule",
        "batch_set_weights",
        {"netuids": [4, 6], "weights": [[(0, 32768), (3, 65535)], [(1, 65535)]], "version_keys": [8, 0]},
    )


def test_storage_index_of_a_mechanism():
    assert storage_index(5, 0) == 5
    assert storage_index(5, 2) == 8197


@given(st.lists(st.floats(0, 1e30), min_size=1, max_size=40))
def test_scaling_keeps_order_and_range(values):
    scaled = max_upscale(values)
    assert all(0 <= v <= 65535 for v in scaled)
    assert max(scaled) == (65535 if max(values) > 0 else 0)
    assert all(a <= b for a, b in zip([s for _, s in sorted(zip(values, scaled))], sorted(scaled)))


def test_positive_weights_that_become_zero_are_named():
    row = resolve([("a", 1.0), ("b", 1e-9), ("c", 0.0)], UIDS, netuid=4)
    assert (row.uids, row.values, row.zeroed) == ((3,), (65535,), ("b",))
    assert resolve([("a", 1.0), ("b", 0.5)], UIDS, netuid=4).zeroed == ()


@pytest.mark.parametrize("bad", [-1e-12, math.nan, math.inf, None, "0.5", True, [1.0]])
def test_what_is_no_weight_is_named_with_its_hotkey(bad):
    intent = intent_of(Weights(3, "v", {"a": 1.0, "b": bad}))
    assert "weight" in fault_of(intent.values)
    assert fault_of((("a", 1.0), ("b", 0))) is None


def test_values_that_are_no_mapping_of_weights_are_an_intent_that_is_refused():
    for values in ({"a": 1.0, 7: 2.0}, None, {("a",): 1.0}):
        intent = intent_of(Weights(3, "v", values, made_at_block=4))
        assert fault_of(intent.values) and intent.netuid == 3 and intent.signer == "v"
