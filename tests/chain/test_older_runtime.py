"""Runtimes without what newer ones have: it is read from storage, or refused by name."""

import pytest
from raw_server import Error, RawServer, Upstream

from raytensor.chain.reads import quotes
from raytensor.chain.reads.epochs import epoch_blocks
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.errors import ChainRefused

NETUID = 1


@pytest.fixture(scope="module", params=[-32603, 4003])
def lacking(node, request):
    """The shared node behind an endpoint whose runtime has no API of its own."""
    with Upstream(node) as upstream:

        def answer(method, params):
            if method == "state_call" and not params[0].startswith("TransactionPayment"):
                return Error(request.param, "Client error: Execution failed", "Function to start was not found")
            return upstream(method, params)

        with RawServer(answer) as server, ChainClient(server.endpoint, timeout_s=20) as client:
            yield client


def test_the_metagraph_is_read_from_storage(lacking, client):
    found, right = read_metagraph(lacking, NETUID), read_metagraph(client, NETUID)
    assert found.hotkeys == right.hotkeys and found.tempo == right.tempo
    assert found.last_epoch_block == right.last_epoch_block


def test_prices_come_from_the_reserves(lacking, client):
    right = quotes.prices(client)
    found = quotes.prices(lacking)
    assert found.keys() == right.keys() and found[0] == 10**9
    for netuid, price in right.items():
        assert found[netuid] == pytest.approx(price, rel=0.01)
        assert quotes.price(lacking, netuid) == found[netuid]


@pytest.mark.parametrize(
    "ask, method",
    [
        (lambda client: quotes.buy(client, NETUID, 10**9), "SwapRuntimeApi_sim_swap_tao_for_alpha"),
        (lambda client: quotes.sell(client, NETUID, 10**9), "SwapRuntimeApi_sim_swap_alpha_for_tao"),
        (quotes.network_cost, "SubnetRegistrationRuntimeApi_get_network_registration_cost"),
        (lambda client: quotes.stakes(client, DevKey("//Alice").ss58), "StakeInfoRuntimeApi"),
    ],
)
def test_what_has_no_fallback_is_refused_by_name(lacking, ask, method):
    with pytest.raises(ChainRefused, match=method) as caught:
        ask(lacking)
    assert caught.value.name == "MissingRuntimeApi"


def test_without_last_epoch_block_the_older_rule_gives_the_next_epoch():
    """(block + netuid + 1) mod (tempo + 1) == 0 in the block of an epoch."""
    for netuid, tempo in ((1, 99), (7, 360), (3, 1)):
        for block in (0, 459, 12_345):
            last, upcoming = epoch_blocks({}, netuid, tempo, block)
            assert (upcoming + netuid + 1) % (tempo + 1) == 0 and block < upcoming <= block + tempo + 1
            assert last == max(0, upcoming - tempo - 1)
    assert epoch_blocks({"LastEpochBlock": 0}, 0, 100, 309) == (0, 0), "the root subnet has no epochs"
    assert epoch_blocks({"LastEpochBlock": 300}, 5, 100, 309) == (300, 400)
    assert epoch_blocks({"LastEpochBlock": 300, "PendingEpochAt": 320}, 5, 100, 309) == (300, 320)
    assert epoch_blocks({"LastEpochBlock": 300}, 5, 100, 450) == (300, 451), "a due epoch runs in the next block"
    assert epoch_blocks({}, 5, 0, 450) == (0, 0)
