"""Reading a subnet by one runtime call and by storage; the Parquet files of its epochs."""

import threading
import time

import numpy as np
import pyarrow.parquet
import pytest

from raytensor.chain.reads import history
from raytensor.chain.reads.metagraph import read_by_storage, read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands.metagraph import metagraph_main
from raytensor.devnet.launch import EmbeddedChain
from raytensor.errors import ConfigError

NETUID = 1  # of the genesis: one neuron, tempo 100


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A node that makes blocks only when asked."""
    folder = tmp_path_factory.mktemp("quiet")
    chain = EmbeddedChain(folder / "state", 3600.0, folder / "log")
    yield chain.endpoint
    chain.close()


@pytest.fixture
def blocks(quiet):
    """Makes blocks: blocks(3)."""
    with ChainClient(quiet, timeout_s=60) as client:
        yield lambda count=1: client.rpc("dev_newBlock", [{"count": count}])


def until(condition, what):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.005)


def test_one_call_reads_what_storage_holds(quiet, blocks):
    blocks()
    with ChainClient(quiet, timeout_s=60) as client:
        head = client.head()
        by_call = read_metagraph(client, NETUID, head=head)
        by_storage = read_by_storage(client, NETUID, head=head)
    for name in by_storage.__dataclass_fields__:
        ours, theirs = getattr(by_call, name), getattr(by_storage, name)
        if name == "stake_weight_rao":
            assert len(ours) == 1 and len(theirs) == 0
        elif isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype and ours.tolist() == theirs.tolist(), name
        else:
            assert ours == theirs, name


def test_the_files_of_a_subnets_epochs(quiet, blocks, tmp_path, capsys):
    follow = threading.Thread(
        target=metagraph_main, args=([str(NETUID), "--follow", str(tmp_path), "--epochs", "2", "--network", quiet],)
    )
    follow.start()
    until(lambda: list(tmp_path.glob("*/*.parquet")), "the first file")
    with ChainClient(quiet, timeout_s=60) as client:
        before = read_metagraph(client, NETUID, with_weights=False)
        blocks(before.next_epoch_block - before.block)
        follow.join(60)
        after = read_metagraph(client, NETUID, with_weights=False)
        by_storage = read_by_storage(client, NETUID)
    assert after.last_epoch_block == before.next_epoch_block == after.next_epoch_block - after.tempo
    assert after.validator_trust.tolist() == by_storage.validator_trust.tolist()
    found = history.epochs(tmp_path, NETUID)
    assert [epoch.block for epoch in found] == [before.block, after.block]
    table = pyarrow.parquet.read_table(found[-1].path)
    assert table.column("hotkey").to_pylist() == list(after.hotkeys)
    assert found[-1].stake_alpha_rao == int(after.stake_alpha_rao.sum())
    assert metagraph_main([str(NETUID), "--history", str(tmp_path)]) == 0
    assert f"{after.block}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="has no snapshots"):
        history.epochs(tmp_path, 7)
