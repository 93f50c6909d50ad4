"""Snapshots that many readers share: what they cost a node, how old they say they are, what is kept of them."""

import threading
import time

import numpy as np
import pyarrow.parquet
import pytest
from faults import FaultProxy

from raytensor.chain.reads import history
from raytensor.chain.reads.metagraph import read_by_storage, read_metagraph
from raytensor.chain.reads.snapshots import SnapshotReader, Snapshots, snapshot_actor
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands.metagraph import metagraph_main
from raytensor.devnet.launch import EmbeddedChain
from raytensor.errors import ChainError, ConfigError, StaleSnapshot

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
    with ChainClient(quiet, timeout_s=20) as client:
        yield lambda count=1: client.rpc("dev_newBlock", [{"count": count}])


def until(condition, what):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.005)


def test_one_call_reads_what_storage_holds(quiet, blocks):
    blocks()
    with ChainClient(quiet, timeout_s=20) as client:
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


def test_fifty_readers_cost_one_call_a_block(quiet, blocks):
    with FaultProxy(quiet) as proxy:
        snapshots, stop, seen = Snapshots(proxy.endpoint, timeout_s=20), threading.Event(), set()
        first = snapshots.latest(NETUID).metagraph.block

        def read():
            while not stop.is_set():
                seen.add(snapshots.latest(NETUID).metagraph.block)

        before = proxy.requests.copy()
        readers = [threading.Thread(target=read) for _ in range(50)]
        for reader in readers:
            reader.start()
        for n in range(1, 6):
            blocks()
            until(lambda: first + n in seen, f"block {first + n}")
        stop.set()
        for reader in readers:
            reader.join()
        assert proxy.requests - before == {"state_call": 5}  # and nothing else: not a head, not a hash
        assert seen == set(range(first, first + 6))
        assert [graph.block for graph in snapshots.kept(NETUID)] == list(range(first, first + 6))
        snapshots.close()


def test_its_age_is_known_and_can_be_limited(quiet, blocks):
    with FaultProxy(quiet) as proxy:
        snapshots = Snapshots(proxy.endpoint, timeout_s=0.5)
        fresh = snapshots.latest(NETUID)
        assert fresh.age_blocks == 0 and 0 <= fresh.age_s < 20
        time.sleep(0.06)
        with pytest.raises(StaleSnapshot, match=r"at most 0.05 are allowed: no new block for"):
            snapshots.latest(NETUID, max_age_s=0.05)
        proxy.rule = _only("state_call")
        blocks(2)
        until(lambda: snapshots.latest(NETUID).age_blocks == 2, "an age of two blocks")
        assert snapshots.latest(NETUID, max_age_blocks=2).metagraph.block == fresh.metagraph.block
        with pytest.raises(StaleSnapshot, match=r"2 blocks old .* at most 1 are allowed: state_call: no answer from"):
            until(lambda: not snapshots.latest(NETUID, max_age_blocks=1), "an error with its cause")
        proxy.rule = lambda method: None
        until(lambda: snapshots.latest(NETUID).age_blocks == 0, "a fresh snapshot")
        assert snapshots.latest(NETUID, max_age_blocks=0).metagraph.block == fresh.metagraph.block + 2
        with pytest.raises(ChainError, match="no subnet 99"):
            snapshots.latest(99)
        blocks()
        until(lambda: snapshots.latest(NETUID).metagraph.block == fresh.metagraph.block + 3, "a read beside that")
        snapshots.close()


def _only(method):
    from faults import Fault

    return lambda asked: Fault.RESET_BEFORE if asked == method else None


def test_an_epoch_is_read_whole_and_kept(quiet, blocks, tmp_path, capsys):
    snapshots = Snapshots(quiet, timeout_s=20, history=tmp_path)
    before = snapshots.latest(NETUID).metagraph
    blocks(before.next_epoch_block - before.block)
    until(lambda: snapshots.latest(NETUID).metagraph.block >= before.next_epoch_block, "the epoch's block")
    after = snapshots.latest(NETUID).metagraph
    assert after.last_epoch_block == before.next_epoch_block == after.next_epoch_block - after.tempo
    snapshots.close()
    with ChainClient(quiet, timeout_s=20) as client:
        assert after.validator_trust.tolist() == read_by_storage(client, NETUID).validator_trust.tolist()
    found = history.epochs(tmp_path, NETUID)
    assert [epoch.block for epoch in found] == [before.block, after.block]
    table = pyarrow.parquet.read_table(found[-1].path)
    assert table.column("hotkey").to_pylist() == list(after.hotkeys)
    assert found[-1].stake_alpha_rao == int(after.stake_alpha_rao.sum())
    assert metagraph_main([str(NETUID), "--history", str(tmp_path)]) == 0
    assert f"{after.block}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="has no snapshots"):
        history.epochs(tmp_path, 7)


def test_readers_of_the_ray_actor_share_one_copy(ray_session, quiet, blocks):
    ray = ray_session
    reader = snapshot_actor(quiet, timeout_s=20)
    again = snapshot_actor(quiet, timeout_s=20)
    assert reader._actor == again._actor  # named: whoever asks for this network gets the same
    blocks()

    @ray.remote(num_cpus=0.1)
    def read(reader: SnapshotReader):
        found = [reader.latest(NETUID, max_age_blocks=0) for _ in range(20)]
        arrays = found[-1].metagraph.last_update
        return len({id(one.metagraph) for one in found}), arrays.flags.writeable, found[-1].metagraph.block

    with ChainClient(quiet, timeout_s=20) as client:
        head = client.head().number
    until(lambda: reader.latest(NETUID).metagraph.block == head, "the head")
    reads = ray.get(reader._actor.state.remote(), timeout=30)["reads"]
    assert ray.get([read.remote(reader) for _ in range(4)], timeout=60) == [(1, False, head)] * 4
    assert ray.get(reader._actor.state.remote(), timeout=30)["reads"] == reads
    with pytest.raises(StaleSnapshot, match="are allowed"):
        reader.latest(NETUID, max_age_s=0.0)
    ray.kill(reader._actor)
