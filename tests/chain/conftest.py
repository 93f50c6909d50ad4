"""A real node for the chain's tests: the embedded chain in a process of its own, reached through its websocket."""

from __future__ import annotations

import itertools

import pytest

from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.devnet.launch import EmbeddedChain

BLOCK_TIME_S = 0.25
_numbers = itertools.count()


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    """The endpoint of a node that all tests of the session share; each test uses accounts of its own."""
    folder = tmp_path_factory.mktemp("node")
    chain = EmbeddedChain(folder / "state", BLOCK_TIME_S, folder / "log")
    yield chain.endpoint
    chain.close()


@pytest.fixture
def client(node):
    with ChainClient(node, timeout_s=10) as client:
        yield client


@pytest.fixture
def fresh():
    """Makes development keys that no other test uses."""
    base = f"//test//{next(_numbers)}"
    return lambda name: DevKey(f"{base}//{name}")
