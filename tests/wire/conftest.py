"""Two hotkeys that every test of the wire knows."""

from __future__ import annotations

import pytest
from wirekit import key

from raytensor.wire.auth import Key


@pytest.fixture(scope="session")
def validator() -> Key:
    return key("validator")


@pytest.fixture(scope="session")
def miner() -> Key:
    return key("miner")
