"""Helpers of the consensus tests: comparing two outputs to the last bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from raytensor.consensus import EpochOutput, load_kernels


def differing_fields(a: EpochOutput, b: EpochOutput) -> list[str]:
    names = [field.name for field in dataclasses.fields(EpochOutput) if field.name not in ("bonds", "raw")]
    bad = [name for name in names if not _same(getattr(a, name), getattr(b, name))]
    raw = [field.name for field in dataclasses.fields(a.raw)]
    bad += [f"raw.{name}" for name in raw if not _same(getattr(a.raw, name), getattr(b.raw, name))]
    return bad + (["bonds"] if a.bonds.to_lists() != b.bonds.to_lists() else [])


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)


@pytest.fixture(scope="session", autouse=True)
def kernels():
    """Compiled once per machine, even if another process compiles them now."""
    load_kernels()


@pytest.fixture(scope="session")
def differing():
    return differing_fields
