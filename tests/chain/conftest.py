"""A real node for the chain's tests: the embedded chain in a process of its own, reached through its websocket.

It makes a block when its pool has an extrinsic, and else every quarter of a second (blocks.py).
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path

import pytest
from blocks import Blocks

from raytensor.chain.intents import Transfer
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey

sys.path.insert(0, str(Path(__file__).parent.parent / "devnet"))

from nodes import Node

RAO = 10**9
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


@pytest.fixture
def fund(client):
    """Pays a key from the development account that has everything."""
    alice = DevKey("//Alice")

    def pay(ref, rao):
        client.send(Transfer(signer=alice.ss58, dest=ref.ss58, value=rao).call(), alice.open(), timeout_s=120)

    return pay


@pytest.fixture
def payer(fresh, fund):
    """A development key with 100 TAO that only this test uses."""
    ref = fresh("payer")
    fund(ref, 100 * RAO)
    return ref


@pytest.fixture
def ask(capsys):
    """Runs a command with --json: (status, the object it printed)."""

    def run(command, *argv):
        status = command([*map(str, argv), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def no_wallet(monkeypatch, tmp_path):
    """No wallet, network or policy of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("BT_", "RAYTENSOR_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RAYTENSOR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BT_WALLET_PATH", str(tmp_path / "wallets"))
