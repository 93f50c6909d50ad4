"""A subnet on a real node, its metagraph, and the writer: as a plain class and as a Ray actor."""

import numpy as np
import pytest

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.intents import AddStake, ServeAxon, Transfer
from raytensor.chain.reads.metagraph import read_metagraph, to_arrow, write_parquet
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.weights import weights_intent
from raytensor.chain.writer.policy import Policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.errors import ChainError, ConfigError
from raytensor.types import Fate, Weights

RAO = 10**9
ROLES = ("owner", "validator", "validator", "validator", "miner", "miner", "miner", "miner")
STAKES = (0, 1000, 700, 490, 0, 0, 0, 0)
TEMPO = 8


def key(kind, number):
    return DevKey(f"//net//{kind}//{number}")


@pytest.fixture(scope="module")
def spec():
    neurons = [
        Neuron(f"{role}-{n}", role, key("hot", n), key("cold", n), stake * RAO)
        for n, (role, stake) in enumerate(zip(ROLES, STAKES))
    ]
    return SubnetSpec(
        neurons,
        tempo=TEMPO,
        delegate=DevKey("//net//delegate"),
        hyperparameters={"sudo_set_max_allowed_validators": 3},  # so that paid miners get no permit
    )


@pytest.fixture(scope="module")
def subnet(node, shared_blocks, spec):
    """The subnet, after the epoch that gives the validators their permits."""
    told = []
    with ChainClient(node, timeout_s=60) as client:
        made = make_subnet(client, spec, progress=told.append)
        assert told[0] == "funding the coldkeys" and told[-1] == "staking for the validators"
        due = read_metagraph(client, made.netuid).next_epoch_block
        shared_blocks.up_to(due + TEMPO + 1)
    return made


@pytest.fixture(scope="module")
def hotkeys():
    return [key("hot", n).ss58 for n in range(len(ROLES))]


def signers(numbers=(1, 2, 3)):
    return {key("hot", n).ss58: key("hot", n) for n in numbers}


def weights(netuid, validator, values, block=0):
    by_hotkey = {key("hot", n).ss58: value for n, value in values.items()}
    return Weights(netuid, key("hot", validator).ss58, by_hotkey, made_at_block=block)


def test_every_neuron_has_its_uid_and_its_stake(node, spec, subnet, hotkeys):
    with ChainClient(node, timeout_s=60) as client:
        graph = read_metagraph(client, subnet.netuid)
    assert graph.tempo == TEMPO
    assert {hotkey: graph.uid(hotkey) for hotkey in hotkeys} == subnet.uids
    assert sorted(subnet.uids.values()) == list(range(len(ROLES)))
    assert [graph.coldkeys[subnet.uids[h]] for h in hotkeys] == [key("cold", n).ss58 for n in range(len(ROLES))]
    stakes = [int(graph.stake_alpha_rao[subnet.uids[h]]) for h in hotkeys]
    assert all(stake > 0 for stake in stakes[1:4])
    permits = [bool(graph.validator_permit[subnet.uids[h]]) for h in hotkeys]
    assert all(permits[1:4])


def test_a_second_run_finds_what_is_there(node, spec, subnet):
    with ChainClient(node, timeout_s=60) as client:
        nonce = client.account_nonce(DevKey("//Alice").ss58)
        stakes = read_metagraph(client, subnet.netuid).stake_alpha_rao.sum()
        told = []
        again = make_subnet(client, spec, progress=told.append)
        assert (again.netuid, again.uids) == (subnet.netuid, subnet.uids)
        assert client.account_nonce(DevKey("//Alice").ss58) == nonce
        assert told == [f"found subnet {subnet.netuid}"]
        assert read_metagraph(client, subnet.netuid).stake_alpha_rao.sum() >= stakes


def test_specs_that_can_not_work(node):
    with ChainClient(node, timeout_s=60) as client:
        twice = [Neuron("a", "miner", key("x", 0), key("y", 0)), Neuron("b", "miner", key("x", 0), key("y", 1))]
        with pytest.raises(ConfigError, match="same hotkey"):
            make_subnet(client, SubnetSpec(twice))
        owned = [Neuron("a", "owner", key("x", 0), key("y", 0)), Neuron("b", "miner", key("x", 1), key("y", 0))]
        with pytest.raises(ConfigError, match="burns the incentive"):
            make_subnet(client, SubnetSpec(owned))
        with pytest.raises(ConfigError, match="role king"):
            make_subnet(client, SubnetSpec([Neuron("a", "king", key("x", 0), key("y", 0))]))


def test_the_writer_sets_all_validators_weights_in_one_extrinsic(node, subnet, tmp_path, hotkeys):
    writer = ChainWriter(node, signers(), tmp_path / "journal.db", delegate=DevKey("//net//delegate"))
    asked = [weights(subnet.netuid, v, {4: 1.0, 5: 0.5, 6: 0.25, 7: 0.0}) for v in (1, 2, 3)]
    receipts = writer.set_weights(asked)
    assert [r.fate for r in receipts] == [Fate.INCLUDED] * 3, receipts
    assert [r.signer for r in receipts] == hotkeys[1:4]
    assert len({r.extrinsic_hash for r in receipts}) == 1
    assert receipts[0].fee_rao > 0 and receipts[1].fee_rao == 0  # the delegate pays once
    assert writer.counters() == {"submitted": 1, "included": 1, "failed": 0}
    graph = writer.metagraph(subnet.netuid)
    expected = tuple(sorted((subnet.uids[hotkeys[n]], w) for n, w in ((4, 65535), (5, 32768), (6, 16384))))
    assert [graph.weights[subnet.uids[hotkeys[v]]] for v in (1, 2, 3)] == [expected] * 3
    assert int(graph.last_update[subnet.uids[hotkeys[1]]]) == receipts[0].block
    assert writer.head() >= receipts[0].block
    writer.close()


def test_without_a_delegate_each_hotkey_signs_and_pays_nothing(node, subnet, tmp_path):
    writer = ChainWriter(node, signers(), tmp_path / "journal.db")
    receipts = writer.set_weights([weights(subnet.netuid, v, {4: 1.0, 5: 2.0}) for v in (1, 2, 3)])
    assert [r.fate for r in receipts] == [Fate.INCLUDED] * 3, receipts
    assert len({r.extrinsic_hash for r in receipts}) == 3
    assert [r.fee_rao for r in receipts] == [0, 0, 0]
    assert writer.counters() == {"submitted": 3, "included": 3, "failed": 0}
    writer.close()


def test_what_the_chain_would_refuse_is_not_sent(node, subnet, tmp_path):
    everyone = signers(range(1, 5)) | {key("nobody", 0).ss58: key("nobody", 0)}
    writer = ChainWriter(node, everyone, tmp_path / "journal.db")
    stranger = Weights(subnet.netuid, key("nobody", 0).ss58, {key("hot", 4).ss58: 1.0})
    older, newer = weights(subnet.netuid, 1, {4: 1.0}), weights(subnet.netuid, 1, {5: 1.0})
    nowhere = weights(999, 1, {4: 1.0})
    receipts = writer.set_weights([weights(subnet.netuid, 4, {5: 1.0}), stranger, older, newer, nowhere])
    refused = [Fate.NOT_SENT] * 2
    assert [r.fate for r in receipts] == [Fate.HELD, *refused, Fate.INCLUDED, Fate.NOT_SENT], receipts
    assert [r.error for r in receipts] == [
        "NeuronNoValidatorPermit",
        "HotKeyNotRegisteredInSubNet",
        "Superseded",
        None,
        "MechanismDoesNotExist",
    ]
    assert receipts[0].action.startswith("wait: until an epoch grants the permit")
    assert writer.counters() == {"submitted": 1, "included": 1, "failed": 0}
    with pytest.raises(ConfigError, match="no key for"):
        writer.set_weights([weights(subnet.netuid, 5, {4: 1.0})])
    writer.close()


def test_an_intent_is_carried_out_once(node, subnet, tmp_path):
    writer = ChainWriter(node, signers(), tmp_path / "journal.db")
    block = writer.head()
    first = writer.set_weights([weights(subnet.netuid, 1, {4: 3.0}, block)])
    again = writer.set_weights([weights(subnet.netuid, 1, {4: 3.0}, block)])
    assert again == first and first[0].fate is Fate.INCLUDED
    assert writer.counters()["submitted"] == 1
    writer.close()
    reopened = ChainWriter(node, signers(), tmp_path / "journal.db")
    assert reopened.set_weights([weights(subnet.netuid, 1, {4: 3.0}, block)]) == first
    assert reopened.counters()["submitted"] == 0
    reopened.close()


def test_paid_calls_share_a_batch_and_fail_one_by_one(node, subnet, tmp_path, hotkeys):
    cold = key("cold", 4)
    writer = ChainWriter(
        node, {cold.ss58: cold}, tmp_path / "journal.db", WriterSettings(policy=Policy(transfers=True))
    )
    intents = [
        AddStake(signer=cold.ss58, hotkey=hotkeys[4], netuid=subnet.netuid, amount_staked=RAO),
        AddStake(signer=cold.ss58, hotkey=hotkeys[4], netuid=subnet.netuid, amount_staked=10),
        Transfer(signer=cold.ss58, dest=key("dest", 0).ss58, value=12345678),
    ]
    receipts = writer.submit(intents)
    assert [r.fate for r in receipts] == [Fate.INCLUDED, Fate.FAILED, Fate.INCLUDED], receipts
    assert receipts[1].error == "AmountTooLow" and receipts[1].action.startswith("fix: ")
    assert len({r.extrinsic_hash for r in receipts}) == 1 and receipts[0].fee_rao > 0
    assert writer.counters() == {"submitted": 1, "included": 1, "failed": 1}
    with ChainClient(node) as client:
        assert client.balance(key("dest", 0).ss58) == 12345678
    writer.close()


def test_an_axon_is_served_and_shown(node, subnet, tmp_path, hotkeys):
    writer = ChainWriter(node, signers((6,)), tmp_path / "journal.db")
    (receipt,) = writer.submit([ServeAxon(signer=hotkeys[6], netuid=subnet.netuid, ip="10.1.2.3", port=8091)])
    assert receipt.fate is Fate.INCLUDED, receipt
    graph = writer.metagraph(subnet.netuid)
    assert graph.axons[subnet.uids[hotkeys[6]]] == "10.1.2.3:8091"
    assert graph.axons[subnet.uids[hotkeys[5]]] == ""
    writer.close()


def test_a_key_that_is_not_the_address_is_refused(node, tmp_path):
    with pytest.raises(ConfigError, match="correct the reference"):
        ChainWriter(node, {key("hot", 1).ss58: key("hot", 2)}, tmp_path / "journal.db")
    with pytest.raises(ConfigError, match="needs a key"):
        ChainWriter(node, {}, tmp_path / "journal.db")


def test_the_metagraph_as_a_table(node, subnet, tmp_path, hotkeys):
    import pyarrow.parquet

    with ChainClient(node) as client:
        graph = read_metagraph(client, subnet.netuid)
        with pytest.raises(ChainError, match="no subnet 999"):
            read_metagraph(client, 999)
    table = to_arrow(graph)
    assert table.column("hotkey").to_pylist() == list(graph.hotkeys)
    assert table.schema.metadata[b"block"] == str(graph.block).encode()
    write_parquet(graph, tmp_path / "graph.parquet")
    back = pyarrow.parquet.read_table(tmp_path / "graph.parquet")
    assert back.column("stake_alpha_rao").to_pylist() == graph.stake_alpha_rao.tolist()
    uid = subnet.uids[hotkeys[1]]
    assert [(w["uid"], w["weight"]) for w in back.column("weights").to_pylist()[uid]] == list(graph.weights[uid])
    assert graph.last_update.dtype == np.uint64 and graph.validator_permit.dtype == bool


def test_the_writer_as_a_ray_actor(ray_session, node, subnet, tmp_path):
    ray = ray_session
    Writer = ray.remote(num_cpus=0, max_concurrency=2)(ChainWriter)
    writer = Writer.remote(node, signers(), str(tmp_path / "journal.db"), delegate=DevKey("//net//delegate"))
    asked = [weights(subnet.netuid, v, {6: 1.0, 7: 3.0}) for v in (1, 2, 3)]
    pending = writer.set_weights.remote(asked)
    graph = ray.get(writer.metagraph.remote(subnet.netuid), timeout=240)  # does not wait for the weights
    receipts = ray.get(pending, timeout=240)
    assert [r.fate for r in receipts] == [Fate.INCLUDED] * 3
    assert len(graph.hotkeys) == len(ROLES)
    assert ray.get(writer.counters.remote(), timeout=60) == {"submitted": 1, "included": 1, "failed": 0}
    ray.kill(writer)
    again = Writer.remote(node, signers(), str(tmp_path / "journal.db"))
    assert ray.get(again.ready.remote(), timeout=240)
    ray.kill(again)


def test_weights_that_were_overtaken_are_not_set_when_they_are_handed_in_again(node, subnet, tmp_path):
    with ChainClient(node, timeout_s=60) as client:
        block = client.head().number
    older, newer = (
        weights(subnet.netuid, 1, {4: 1.0, 5: 9.0}, block),
        weights(subnet.netuid, 1, {4: 9.0, 5: 1.0}, block),
    )
    writer = ChainWriter(node, signers(), tmp_path / "journal.db")
    first = writer.submit([weights_intent(older), weights_intent(newer)])
    assert [(r.fate, r.error) for r in first] == [(Fate.NOT_SENT, "Superseded"), (Fate.INCLUDED, None)]
    writer.close()
    writer = ChainWriter(node, signers(), tmp_path / "journal.db")
    again = writer.submit([weights_intent(older), weights_intent(newer)])
    assert (again[0].fate, again[0].error) == (Fate.NOT_SENT, "Superseded") and again[1] == first[1]
    assert int(writer.metagraph(subnet.netuid).last_update[subnet.uids[older.hotkey]]) == first[1].block
    writer.close()


def test_the_costs_of_a_set_up_are_what_left_the_accounts(node):
    """To the rao: fees, the subnet's price and the registrations are what the accounts have less, but for the stake."""
    neurons = [
        Neuron(f"{role}-{n}", role, key("costs-hot", n), key("costs-cold", n), stake * RAO)
        for n, (role, stake) in enumerate((("owner", 0), ("validator", 20), ("miner", 0)))
    ]
    payers = [key("costs-cold", n).ss58 for n in range(3)] + [DevKey("//Alice").ss58]

    def balances(client):
        accounts = client.query_many([("System", "Account", [one]) for one in payers])
        return sum(one["data"]["free"] + one["data"]["reserved"] for one in accounts)

    with ChainClient(node, timeout_s=60) as client:
        before = balances(client)
        made = make_subnet(client, SubnetSpec(neurons, tempo=TEMPO))
        costs, paid = made.costs_rao, before - balances(client)
        again = make_subnet(client, SubnetSpec(neurons, tempo=TEMPO)).costs_rao
    assert set(costs) == {"fees", "subnet", "registrations"} and all(rao > 0 for rao in costs.values())
    assert sum(costs.values()) + 20 * RAO == paid
    assert again == {"fees": 0, "subnet": 0, "registrations": 0}, "nothing was missing"
