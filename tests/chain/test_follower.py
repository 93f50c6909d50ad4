"""Follower: reports every block once, every epoch with its metagraph, a silence once; what that costs a node."""

import time

from faults import FaultProxy

from raytensor.chain.reads.follower import Follower, Observer
from raytensor.chain.rpc.client import ChainClient
from raytensor.devnet.launch import EmbeddedChain

NETUID = 1  # of the genesis: tempo 100


def until(condition, what):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.005)


def test_blocks_epochs_and_a_silence(tmp_path):
    chain = EmbeddedChain(tmp_path / "state", 3600.0, tmp_path / "log")
    ticks, graphs, silences = [], [], []
    with ChainClient(chain.endpoint, timeout_s=60) as client, FaultProxy(chain.endpoint) as proxy:
        observer = Observer(lambda _, tick: ticks.append(tick), graphs.append, silences.append)
        follower = Follower(proxy.endpoint, [NETUID], observer=observer, timeout_s=60)
        follower.start()
        until(lambda: graphs, "the first metagraph")
        before, first = proxy.requests.copy(), ticks[-1].block
        for n in range(1, 4):
            client.rpc("dev_newBlock")
            until(lambda at=first + n: ticks[-1].block == at, f"block {first + n}")
        assert proxy.requests - before == {"state_queryStorageAt": 3}
        assert [tick.block for tick in ticks] == list(range(first, first + 4))
        proxy.mode = "shut"
        until(lambda: silences, "a word about the silence")
        client.rpc("dev_newBlock", [{"count": ticks[-1].blocks_until_epoch}])
        proxy.mode = "open"
        assert follower.wait_for_epoch_after(NETUID, graphs[0].last_epoch_block, timeout_s=120)
        assert (
            graphs[-1].last_epoch_block == graphs[0].next_epoch_block
            and follower.seen(NETUID).tick.block == graphs[-1].block
        )
        assert len(silences) == 1
        follower.close()
    chain.close()
