"""Fixtures of the embedded chain's tests: a node for the session, and nodes in other block modes."""

from __future__ import annotations

import pytest
from nodes import Node, RawClient


@pytest.fixture(scope="session")
def devnet():
    """One node with fast blocks that tests share; they must not rely on untouched balances."""
    node = Node("--block-time", "0.25")
    yield node
    node.stop()


@pytest.fixture
def instant():
    """A fresh node that seals a block for every extrinsic, at once."""
    node = Node("--block-time", "instant")
    yield node
    node.stop()


@pytest.fixture
def manual():
    """A fresh node that makes blocks only when asked."""
    node = Node("--block-time", "manual")
    yield node
    node.stop()


@pytest.fixture
def raw():
    """Makes raw clients, and closes them."""
    clients: list[RawClient] = []

    def make(node: Node) -> RawClient:
        clients.append(RawClient(node.endpoint))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
