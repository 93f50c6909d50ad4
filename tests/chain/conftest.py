"""A real node for the chain's tests: the embedded chain in a process of its own, reached through its websocket.

It makes a block when its pool has an extrinsic, and else every quarter of a second (blocks.py).
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
from blocks import Blocks

from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey

sys.path.insert(0, str(Path(__file__).parent.parent / "devnet"))

from nodes import Node

_numbers = itertools.count()


def on_a_node():
    node = Node("--block-time", "manual")
    with Blocks(node.endpoint) as blocks:
        yield blocks
    node.stop()


@pytest.fixture(scope="session")
def shared_blocks():
    """The blocks of the node that all tests of the session share; each test uses accounts of its own."""
    yield from on_a_node()


@pytest.fixture(scope="module")
def blocks():
    """The blocks of a node for one module, which may hold them up."""
    yield from on_a_node()


@pytest.fixture(scope="session")
def node(shared_blocks):
    """The endpoint of the shared node."""
    return shared_blocks.endpoint


@pytest.fixture
def client(node):
    with ChainClient(node, timeout_s=60) as client:
        yield client


@pytest.fixture
def fresh():
    """Makes development keys that no other test uses."""
    base = f"//test//{next(_numbers)}"
    return lambda name: DevKey(f"{base}//{name}")
