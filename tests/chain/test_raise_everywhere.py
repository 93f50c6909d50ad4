"""An exception at every line between the journal and the receipt: money moves once and weights are set, says the chain.

Every line of the writer that a first, undisturbed order runs is a point, and so is every line that only the recovery
runs. At each one an exception is raised once, of five kinds in turn (tests/chain/raising.py), at several points per
order. By default every sixth point is taken, RAYTENSOR_SLOW=1 takes all of them; the number of points is printed.
"""

import os
import time

import pytest
from raising import Raising

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.intents import Transfer
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer import thread
from raytensor.chain.writer.pipeline import Pipeline
from raytensor.chain.writer.policy import Policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.devnet.launch import EmbeddedChain
from raytensor.types import Fate, Weights

RAO, TEMPO = 10**9, 6
ALICE, VALIDATOR = DevKey("//Alice"), DevKey("//raise//validator//hot")
MINERS = [DevKey(f"//raise//miner{n}//hot") for n in (0, 1)]
EVERY = 1 if os.environ.get("RAYTENSOR_SLOW") else 6
AT_ONCE = 20
DEADLINE_S = 500


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raising")
    node = EmbeddedChain(folder / "state", 0.1, folder / "log", 60.0)
    yield node.endpoint
    node.close()


@pytest.fixture(scope="module")
def client(chain):
    with ChainClient(chain, timeout_s=20) as client:
        yield client


@pytest.fixture(scope="module")
def netuids(client):
    """[a subnet with plain weights, one with commit-reveal]."""
    made = []
    cold = DevKey("//raise//validator//cold").ss58  # it stakes on both
    client.send(Transfer(signer=ALICE.ss58, dest=cold, value=2000 * RAO).call(), ALICE.open(), timeout_s=30)
    for number, hidden in enumerate((False, True)):
        neurons = [
            Neuron(f"o{number}", "owner", DevKey(f"//raise//o{number}//hot"), DevKey(f"//raise//o{number}")),
            Neuron("v", "validator", VALIDATOR, DevKey("//raise//validator//cold"), 500 * RAO),
            *(Neuron(f"m{n}", "miner", key, DevKey(f"//raise//miner{n}//cold")) for n, key in enumerate(MINERS)),
        ]
        settings = {"sudo_set_commit_reveal_weights_enabled": hidden}
        made.append(make_subnet(client, SubnetSpec(neurons, tempo=TEMPO, hyperparameters=settings)).netuid)
    client.wait_for_block(read_metagraph(client, made[-1]).next_epoch_block + TEMPO + 1, timeout_s=60)
    return made


@pytest.fixture
def raising_in(monkeypatch):
    """Makes a `Raising` of a thread; after an error the next try follows at once."""
    monkeypatch.setattr(thread, "SLOWEST_POLL_S", 0.02)
    monkeypatch.setattr(thread, "OFFLINE_PAUSE_S", 0.02)
    made = []

    def resumed(method):
        def call(self):
            for one in made:
                one.resume()
            return method(self)

        return call

    for name in ("tick", "reload"):
        monkeypatch.setattr(Pipeline, name, resumed(getattr(Pipeline, name)))

    def new(name):
        made.append(Raising(name))
        return made[-1]

    return new


def raise_at_each(raising, carry_out):
    """Carry out orders until an exception was raised at every line that they run. Returns the number of points."""
    carry_out()  # undisturbed
    done, deadline = set(), time.monotonic() + DEADLINE_S
    while todo := sorted(point for point in raising.seen - done if point[1] % EVERY == 0):
        assert time.monotonic() < deadline, f"{len(todo)} of {len(raising.seen)} points are left"
        print(f"{len(raising.seen)} points seen, {len(raising.raised)} raised, {len(todo)} to do", flush=True)
        points = todo[:AT_ONCE]
        raising.armed = set(points)
        before = len(raising.raised)
        carry_out()
        missed = raising.armed
        raising.armed = set()
        assert len(raising.raised) == before + len(points) - len(missed)
        done |= set(points)  # a line that only another state runs is not reached by this order
    return len(raising.raised)


@pytest.mark.parametrize("where", ["chain-writer", "MainThread"])
def test_money_moves_once_whatever_line_raises(chain, client, fresh, raising_in, tmp_path, where):
    payer, dest, orders = fresh("payer"), fresh("dest"), []
    client.send(Transfer(signer=ALICE.ss58, dest=payer.ss58, value=900 * RAO).call(), ALICE.open(), timeout_s=30)
    settings = WriterSettings(
        timeout_s=5, era_blocks=16, inclusion_timeout_s=15, policy=Policy(transfers=True), audit_path=tmp_path / "a"
    )
    with raising_in(where) as raising:
        writer = ChainWriter(chain, {payer.ss58: payer}, tmp_path / "j.db", settings)

        def pay_once():
            order = Transfer(signer=payer.ss58, dest=dest.ss58, value=RAO, intent_id=f"order-{len(orders)}")
            orders.append(order)
            while True:  # whoever did not get a receipt hands in the same order again
                raising.resume()
                try:
                    (receipt,) = writer.submit([order])
                except BaseException as error:
                    assert where == "MainThread", error
                    continue
                if receipt.fate is Fate.INCLUDED:
                    return
                assert receipt.fate in (Fate.UNKNOWN, Fate.NOT_SENT) or receipt.error in ("Expired", "Stale"), receipt

        points = raise_at_each(raising, pay_once)
        raising.armed = set()
        client.wait_for_block(client.head().number + 18, timeout_s=30)  # every era is over
        writer.close()
    print(f"\n{where}: {points} points, {len(orders)} orders")
    assert client.balance(dest.ss58) == len(orders) * RAO, "each order is paid once"
    assert client.account_nonce(payer.ss58) == len(orders)
    assert points >= (350 if where == "chain-writer" else 60) / EVERY / 2


def row_on_chain(client, netuid):
    graph = read_metagraph(client, netuid)
    by_uid = dict(graph.weights.get(graph.uid(VALIDATOR.ss58), ()))
    return tuple(by_uid.get(graph.uid(key.ss58), 0) for key in MINERS)


@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "commit and reveal"])
def test_weights_are_set_whatever_line_raises(chain, client, netuids, raising_in, tmp_path, hidden):
    netuid, count = netuids[hidden], [0]
    settings = WriterSettings(timeout_s=5, commit_kind="hash", audit_path=tmp_path / "a")
    with raising_in("chain-writer") as raising:
        writer = ChainWriter(chain, {VALIDATOR.ss58: VALIDATOR}, tmp_path / "j.db", settings)

        def set_once():
            count[0] += 1
            made = {MINERS[0].ss58: 1000.0, MINERS[1].ss58: 1000.0 - count[0]}
            expected = (65535, round((1000 - count[0]) / 1000 * 65535))
            (intent_id,) = writer.hold([Weights(netuid, VALIDATOR.ss58, made, made_at_block=count[0])])
            deadline = time.monotonic() + 60
            while row_on_chain(client, netuid) != expected:
                assert time.monotonic() < deadline, (
                    raising.raised[-3:],
                    writer.state(),
                    writer.receipts_since(0)[1][-3:],
                )
                time.sleep(0.05)
            fate = Fate.REVEALED if hidden else Fate.INCLUDED
            while not any(r.intent_id == intent_id and r.fate is fate for r in writer.receipts_since(0, 9999)[1]):
                assert time.monotonic() < deadline, "the chain has them, and no receipt says so"
                time.sleep(0.05)

        points = raise_at_each(raising, set_once)
        writer.close()
    print(f"\n{'commit and reveal' if hidden else 'plain weights'}: {points} points, {count[0]} rows of weights")
    assert points >= (500 if hidden else 400) / EVERY / 2
