"""A reader is judged by the blocks that it sees: whatever an endpoint says, it ends no thread and hides no silence."""

import time

from raw_server import RawServer, Upstream, header, node_like
from test_follower import until

from raytensor.chain.reads import follower as follower_module
from raytensor.chain.reads.follower import Follower
from raytensor.chain.rpc.client import ChainClient
from raytensor.devnet.launch import EmbeddedChain

GARBAGE = (None, {"number": None}, [], {"number": "0x7"}, "0x")


def test_a_head_without_content_ends_nothing(node):
    """The endpoint pushes `result: null` between a real node's heads."""
    with Upstream(node) as upstream, RawServer(upstream) as server:
        follower = Follower(server.endpoint, [1], timeout_s=20, poll_s=0.05)
        follower.start()

        def connected(times):
            until(lambda: server.requests["state_subscribeRuntimeVersion"] == times, f"connection {times}")

        try:
            connected(1)
            for number, garbage in enumerate(GARBAGE, 1):
                server.push(garbage)
                connected(number + 1)
                assert follower.thread.errors == number
            assert follower.thread.alive
            until(lambda: server.push(upstream.rpc("chain_getHeader")) or follower.newest[0] > 0, "a block")
            until(lambda: follower.silence == (0.0, ""), "the end of the silence")
        finally:
            follower.close()


def test_a_node_that_answers_and_makes_no_block_is_silent(tmp_path, monkeypatch):
    still = EmbeddedChain(tmp_path / "state", 3600.0, tmp_path / "log")
    monkeypatch.setattr(follower_module, "QUIET_S", 0.5)
    follower = Follower(still.endpoint, [1], timeout_s=20)
    follower.start()
    try:
        with ChainClient(still.endpoint) as client:
            client.rpc("dev_newBlock")
            until(lambda: follower.newest[0] == 1, "block 1")
            until(lambda: follower.silence[0] > 0.5, "the silence")
            seconds, why = follower.silence
            assert why == "it answers, and has made no block after 1" and follower.thread.errors == 0
            time.sleep(0.05)
            assert follower.silence[0] > seconds  # the caller's clock, not the thread's
            client.rpc("dev_newBlock")
            until(lambda: follower.silence == (0.0, ""), "the end of the silence")
    finally:
        follower.close()
        still.close()


def test_a_chain_that_was_started_anew_is_another_chain(tmp_path):
    first = EmbeddedChain(tmp_path / "first", 3600.0, tmp_path / "log")
    second = EmbeddedChain(tmp_path / "second", 3600.0, tmp_path / "log")  # the same genesis
    with Upstream(first.endpoint) as upstream, RawServer(upstream) as server:
        genesis = upstream.rpc("chain_getBlockHash", [0])
        upstream.rpc("dev_newBlock", [{"count": 3}])
        follower = Follower(server.endpoint, [1], timeout_s=20, poll_s=0.05)
        follower.start()
        until(lambda: server.push(upstream.rpc("chain_getHeader")) or follower.newest[0] == 3, "block 3")
        upstream.endpoint = second.endpoint
        assert upstream.rpc("chain_getBlockHash", [0]) == genesis
        server.push(None)  # the connection ends
        until(lambda: "below block 3, which was final" in follower.silence[1], "the refusal of a lower chain")
        upstream.rpc("dev_newBlock", [{"count": 9}])
        until(lambda: "another block 3" in follower.silence[1], "the refusal of another block 3")
        assert "started anew" in follower.silence[1] and follower.newest[0] == 3
        follower.close()
    first.close()
    second.close()


def test_unknown_answers_of_a_node_are_told_as_malformed():
    special = {"chain_getBlockHash": "0x" + "11" * 32, "chain_getHeader": header(7)}
    with RawServer(lambda method, params: special.get(method, node_like(method, params))) as server:
        follower = Follower(server.endpoint, [1], timeout_s=20, poll_s=0.05)
        follower.start()
        until(lambda: "malformed" in follower.silence[1], "the word about the answer")
        follower.close()
