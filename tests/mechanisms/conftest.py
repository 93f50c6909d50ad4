"""The benchmark's own module: its simulated miners and its measurements are used here at a smaller size."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def bench():
    folder = Path(__file__).resolve().parents[2] / "jobs" / "bench"
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("bench_mechanisms", folder / "mechanisms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(folder))
