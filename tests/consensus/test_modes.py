"""Modes of liquid alpha, the bond cutoff after Null epochs, and Null epochs: reference against fast, and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import random_mode, random_network

from raytensor.consensus import EpochInput, Rows, epoch, epochs, plan
from raytensor.errors import ConfigError

SEEDS = st.integers(0, 2**40)


@settings(max_examples=120, deadline=None)
@given(
    seed=SEEDS,
    kind=st.sampled_from(["yuma", "yuma", "yuma", "null"]),
    threads=st.sampled_from([1, 1, 3]),
    dense_from=st.sampled_from([0.0, 0.3, 2.0]),
)
def test_fast_equals_reference_in_every_mode(seed, kind, threads, dense_from, differing):
    inputs = random_mode(random_network(seed), seed, kind)
    before = plan.DENSE_FROM
    plan.DENSE_FROM = dense_from
    try:
        assert differing(epoch(inputs, implementation="reference"), epoch(inputs, threads=threads)) == []
    finally:
        plan.DENSE_FROM = before


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, kinds=st.lists(st.sampled_from(["yuma", "null"]), min_size=2, max_size=4))
def test_switching_between_kinds_is_the_same_in_both(seed, kinds, differing):
    first = replace(random_mode(random_network(seed), seed, kinds[0]), yuma3=True, liquid_alpha=True)
    both = [
        epochs(first, len(kinds), between=lambda i, k: replace(i, epoch_kind=kinds[k]), implementation=how)
        for how in ("fast", "reference")
    ]
    assert [differing(a, b) for a, b in zip(*both, strict=True)] == [[]] * len(kinds)


def liquid_network(**changes) -> EpochInput:
    """Two validators over two miners, one of whose weights leaves the consensus."""
    n = 4
    fields = {
        "block": 1000,
        "tempo": 100,
        "activity_cutoff": 5000,
        "last_update": np.full(n, 990, np.uint64),
        "block_at_registration": np.zeros(n, np.uint64),
        "stake": [600, 400, 0, 0],
        "validator_permit": [True, True, False, False],
        "weights": Rows.from_lists([[(2, 65535), (3, 6553)], [(2, 30000), (3, 65535)], [], []]),
        "bonds": Rows.from_lists([[(2, 9000), (3, 50)], [(2, 100), (3, 20000)], [], []]),
        "max_validators": 2,
        "emission": 10**9,
        "yuma3": True,
        "liquid_alpha": True,
        "bonds_penalty": 65535,
    }
    return EpochInput(**{**fields, **changes})


def test_the_mode_decides_whose_consensus_counts(differing):
    stored = [0, 0, 1000, 60000]

    def bonds(**changes):
        return epoch(liquid_network(**changes)).bonds.to_lists()

    current = bonds()
    previous = bonds(liquid_alpha_mode="previous", previous_consensus=stored)
    assert previous != current
    assert bonds(liquid_alpha_mode="current", previous_consensus=stored) == current
    assert bonds(liquid_alpha_mode="auto", previous_consensus=stored) == previous  # the penalty is 65535
    assert bonds(liquid_alpha_mode="previous") == current  # nothing is stored yet
    below = {"bonds_penalty": 65534, "previous_consensus": stored}
    assert bonds(liquid_alpha_mode="auto", **below) == bonds(liquid_alpha_mode="current", **below)
    assert bonds(liquid_alpha_mode="previous", **below) != bonds(liquid_alpha_mode="current", **below)
    # a stored consensus of zeros turns liquid alpha off; a shorter one is padded with zeros
    zeros = bonds(previous_consensus=[0] * 4)
    assert zeros == bonds(liquid_alpha=False)
    assert bonds(previous_consensus=[0, 0, 1000]) == bonds(previous_consensus=[0, 0, 1000, 0])


def test_epochs_hand_the_consensus_on():
    first = liquid_network()
    outputs = epochs(first, 3, resubmit=True)
    second = replace(
        first,
        block=1100,
        last_update=np.array([1090, 1090, 990, 990]),
        last_mechanism_step_block=1000,
        bonds=outputs[0].bonds,
        previous_consensus=outputs[0].consensus,
    )
    assert epoch(second).bonds.to_lists() == outputs[1].bonds.to_lists()
    today, before_448 = (epochs(replace(first, liquid_alpha_mode=m), 3) for m in ("auto", "current"))
    assert today[0].bonds.to_lists() == before_448[0].bonds.to_lists()
    changed = replace(first, weights=first.weights.replace_row(0, [(2, 20000), (3, 65535)]))
    moved = [
        epochs(replace(first, liquid_alpha_mode=m), 2, between=lambda i, _: replace(i, weights=changed.weights))
        for m in ("auto", "current")
    ]
    assert moved[0][1].bonds.to_lists() != moved[1][1].bonds.to_lists()


@pytest.mark.parametrize(
    ("last_yuma", "last_step", "registered", "kept"),
    [
        (None, 0, 899, True),  # neither is stored: block - tempo
        (None, 0, 900, False),
        (None, 950, 950, True),
        (None, 950, 951, False),
        (700, 950, 700, True),  # Null epochs since: bonds count from the last Yuma epoch
        (700, 950, 701, False),
        (0, 950, 0, True),
        (0, 950, 1, False),
    ],
)
def test_the_bond_cutoff(last_yuma, last_step, registered, kept):
    ages = np.array([0, 0, registered, 0], np.uint64)
    nothing = Rows.from_lists([[(3, 65535)], [(3, 65535)], [], []])
    inputs = liquid_network(
        block_at_registration=ages,
        weights=nothing,
        liquid_alpha=False,
        last_mechanism_step_block=last_step,
        last_yuma_step_block=last_yuma,
    )
    for implementation in ("fast", "reference"):
        assert (2 in dict(epoch(inputs, implementation=implementation).bonds.row(0))) == kept


def test_a_null_epoch_keeps_bonds_and_clears_the_consensus():
    first = liquid_network(epoch_kind="null")
    outputs = epochs(first, 2, between=lambda i, _: replace(i, epoch_kind="yuma"))
    assert outputs[0].bonds.same_as(first.bonds) and not outputs[0].consensus.any()
    # zeros are stored, so that the next Yuma epoch has no liquid alpha at default settings
    second = replace(first, epoch_kind="yuma", block=1100, last_mechanism_step_block=1000, liquid_alpha=False)
    second = replace(second, validator_permit=outputs[0].validator_permit)
    assert epoch(second).bonds.to_lists() == outputs[1].bonds.to_lists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"liquid_alpha_mode": "both"}, "liquid_alpha_mode: 'both'; choose auto or current or previous"),
        ({"epoch_kind": 1}, "epoch_kind: 1; choose yuma or null"),
        ({"previous_consensus": [65536]}, "previous_consensus: 65536"),
        ({"last_yuma_step_block": -1}, "last_yuma_step_block: -1"),
        ({"pots": (1, 2)}, "pots"),
        ({"pots": (1, 2, 3)}, "their sum must be the emission of 1000000000"),
    ],
)
def test_wrong_modes_are_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        liquid_network(**changes)
