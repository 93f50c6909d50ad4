"""Two endpoints are compared by their final blocks and nonces; this machine's clock with the chain's."""

import pytest
from test_follower import until

from raytensor.chain.intents import Transfer
from raytensor.chain.reads import follower as follower_module
from raytensor.chain.reads.agreement import EndpointsWatch, agree
from raytensor.chain.reads.follower import Follower
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.runtime import Era
from raytensor.chain.wallet import DevKey
from raytensor.devnet.launch import EmbeddedChain

ALICE = DevKey("//Alice")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two chains of the same genesis, which differ from block 1 on."""
    folder = tmp_path_factory.mktemp("pair")
    chains = [EmbeddedChain(folder / name, 3600.0, folder / "log") for name in ("a", "b")]
    yield [chain.endpoint for chain in chains]
    for chain in chains:
        chain.close()


def test_endpoints_of_one_chain_agree(pair):
    with ChainClient(pair[0]) as one, ChainClient(pair[0]) as other:
        one.rpc("dev_newBlock")
        found = agree([one, other], [ALICE.ss58])
        assert found.disagreement == "" and found.final == one.finalized()
        assert found.nonces == {ALICE.ss58: one.account_next_index(ALICE.ss58)}


def test_a_disagreement_is_told_and_the_larger_nonce_taken(pair):
    with ChainClient(pair[0]) as one, ChainClient(pair[1]) as other:
        assert one.genesis == other.genesis
        signer = ALICE.open()
        call = Transfer(signer=ALICE.ss58, dest=DevKey("//Bob").ss58, value=10**6).call()
        nonce = one.account_next_index(ALICE.ss58)
        for _ in range(2):
            one.rpc("dev_newBlock")
        other.rpc("dev_newBlock")
        assert one.submit(one.sign(call, signer, nonce=nonce, era=Era()).data) is None
        found = agree([one, other], [ALICE.ss58])
        assert found.final.number == other.finalized().number
        assert f"disagree on final block {found.final.number}" in found.disagreement
        assert all(endpoint in found.disagreement for endpoint in pair)
        assert found.nonces == {ALICE.ss58: nonce + 1}  # the pool of one has seen it used
    watch = EndpointsWatch(pair, [ALICE.ss58], every_s=0.05)
    watch.start()
    until(lambda: "disagree on final block" in watch.disagreement, "the disagreement")
    watch.close()
    assert watch.thread.errors == 0


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """A chain whose blocks carry the time of this machine."""
    folder = tmp_path_factory.mktemp("timed")
    chain = EmbeddedChain(folder / "state", 0.2, folder / "log")
    yield chain.endpoint
    chain.close()


@pytest.mark.parametrize("ahead_s", [0.0, 3600.0, -3600.0])
def test_the_clock_is_compared_with_the_chains(timed, monkeypatch, ahead_s):
    real = follower_module.time

    class Clock:
        """The clock of a machine that was set wrong."""

        monotonic = real.monotonic

        @staticmethod
        def time():
            return real.time() + ahead_s

    monkeypatch.setattr(follower_module, "time", Clock)
    follower = Follower(timed, [1], timeout_s=20)
    assert follower.clock_skew_s is None
    follower.start()
    until(lambda: follower.clock_skew_s is not None, "five blocks")
    assert abs(follower.clock_skew_s - ahead_s) < 60  # a busy machine sees a block late
    follower.close()
