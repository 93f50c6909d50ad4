"""Who gets which text: pure, spread, and private to each miner."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raytensor.data import assign


@given(st.integers(0, 2**31), st.integers(0, 10_000), st.text(max_size=48), st.integers(1, 64), st.integers(64, 10_000))
def test_windows_lie_inside(seed, round, hotkey, window, num_tokens):
    starts = assign.training_starts(seed, round, hotkey, 50, window, num_tokens)
    assert starts.min() >= 0 and starts.max() + window <= num_tokens
    assert np.array_equal(starts, assign.training_starts(seed, round, hotkey, 50, window, num_tokens))


def test_draws_are_the_same_in_another_process_and_do_not_depend_on_order():
    call = "assign.question_starts(7, 3, 'validator', 5, 25, 80_000).tolist()"
    assign.training_starts(1, 1, "x", 100, 10, 1000)
    here = eval(call)
    there = subprocess.run(
        [sys.executable, "-c", f"from raytensor.data import assign; print({call})"],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert str(here) == there.stdout.strip()


def test_every_argument_matters():
    base = assign.training_starts(0, 1, "a", 20, 10, 100_000)
    others = [
        assign.training_starts(1, 1, "a", 20, 10, 100_000),
        assign.training_starts(0, 2, "a", 20, 10, 100_000),
        assign.training_starts(0, 1, "b", 20, 10, 100_000),
        assign.question_starts(0, 1, "a", 20, 10, 100_000),
    ]
    assert all((base != other).mean() > 0.9 for other in others)
    # ("ab", "c") and ("a", "bc") are different names, though they read alike when joined.
    assert assign.seed_of(0, "ab", "c") != assign.seed_of(0, "a", "bc")


def test_training_covers_the_text_evenly():
    starts = np.concatenate(
        [assign.training_starts(0, r, f"m{m}", 400, 33, 10_000) for r in range(25) for m in range(4)]
    )
    counts = np.histogram(starts, bins=10, range=(0, 9968))[0]
    expected = len(starts) / 10
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 27.9  # 0.999 quantile of chi-square with 9 degrees of freedom


def test_cuts_are_private_to_a_miner():
    cuts = {m: assign.question_cuts(0, 1, "v", m, 1000, 8, 24) for m in ("a", "b")}
    assert all(c.min() == 8 and c.max() == 24 for c in cuts.values())
    assert abs((cuts["a"] == cuts["b"]).mean() - 1 / 17) < 0.04  # no more equal than chance


def test_contexts_and_targets():
    tokens = np.arange(100, 200, dtype=np.uint16)
    contexts, targets = assign.cut_windows(tokens, np.array([0, 10, 95]), np.array([1, 3, 4], dtype=np.int32), 4)
    assert contexts.tolist() == [[100, 0, 0, 0], [110, 111, 112, 0], [195, 196, 197, 198]]
    assert targets.tolist() == [101, 113, 199]
    assert contexts.dtype == targets.dtype == np.int32
