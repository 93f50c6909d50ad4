"""How intents become extrinsics: exact plans."""

import pytest

from raytensor.chain.calls import Call, Cost
from raytensor.chain.intents import AddStake
from raytensor.chain.rpc.events import count_items
from raytensor.chain.wallet import DevKey
from raytensor.chain.weights import Row, single_call
from raytensor.chain.writer.batcher import Item, Limits, halve, plan
from raytensor.chain.writer.limits import Meter, read_limits

LIMITS = Limits(max_items=100, max_ref_time=10**12, max_length=10**6)


def row(netuid, mecid=0):
    return Row(netuid, mecid, (0, 1), (65535, 7), 0)


def weights(intent_id, signer, netuid, mecid=0):
    return Item(intent_id, signer, row=row(netuid, mecid))


def stake(intent_id, signer):
    return Item(intent_id, signer, call=AddStake(signer=signer, hotkey="h", netuid=1, amount_staked=5).call())


def shape(planned):
    return [(p.signer, p.call.name, p.intent_ids) for p in planned]


def test_one_hotkey_over_many_subnets_is_one_free_extrinsic():
    planned = plan([weights(f"w{n}", "v", n) for n in (4, 5, 6)], LIMITS)
    assert shape(planned) == [("v", "SubtensorModule.batch_set_weights", ("w4", "w5", "w6"))]
    assert planned[0].call.args["netuids"] == [4, 5, 6]


def test_one_row_alone_needs_no_batch():
    assert shape(plan([weights("w", "v", 4)], LIMITS)) == [("v", "SubtensorModule.set_weights", ("w",))]


def test_without_the_native_batch_rows_go_in_a_pipeline():
    planned = plan([weights("w4", "v", 4), weights("w5", "v", 5)], LIMITS, native_batch=False)
    assert [p.call.name for p in planned] == ["SubtensorModule.set_weights"] * 2


def test_mechanisms_go_beside_the_native_batch():
    items = [weights("a", "v", 4), weights("b", "v", 5), weights("c", "v", 5, mecid=1)]
    assert shape(plan(items, LIMITS)) == [
        ("v", "SubtensorModule.batch_set_weights", ("a", "b")),
        ("v", "SubtensorModule.set_mechanism_weights", ("c",)),
    ]


def test_many_hotkeys_with_a_delegate_are_one_extrinsic_of_the_delegate():
    items = [weights("a", "v1", 4), weights("b", "v2", 4), weights("c", "v2", 5)]
    (planned,) = plan(items, LIMITS, delegates={"v1": "d", "v2": "d"})
    assert (planned.signer, planned.call.name) == ("d", "Utility.force_batch")
    assert planned.intent_ids == ("a", "b", "c")
    first, second = planned.call.args["calls"]
    assert first == Call("Proxy", "proxy", {"real": "v1", "force_proxy_type": None, "call": single_call(row(4))})
    assert second.args["call"].name == "SubtensorModule.batch_set_weights"
    assert count_items(planned.call) == 3


def test_a_single_hotkey_uses_its_own_key_when_it_is_at_hand():
    items = [weights("a", "v1", 4)]
    assert shape(plan(items, LIMITS, delegates={"v1": "d"})) == [("v1", "SubtensorModule.set_weights", ("a",))]
    (planned,) = plan(items, LIMITS, delegates={"v1": "d"}, keys=())
    assert (planned.signer, planned.call.name) == ("d", "Proxy.proxy")


def test_without_a_delegate_each_key_signs_its_own():
    planned = plan([weights("a", "v1", 4), weights("b", "v2", 4)], LIMITS)
    assert [p.signer for p in planned] == ["v1", "v2"]


def test_paid_calls_of_one_key_share_a_force_batch_and_keep_their_order():
    planned = plan([stake(f"s{n}", "c") for n in range(3)], LIMITS)
    assert shape(planned) == [("c", "Utility.force_batch", ("s0", "s1", "s2"))]
    assert shape(plan([stake("s", "c")], LIMITS)) == [("c", "SubtensorModule.add_stake", ("s",))]


def test_free_calls_do_not_share_an_extrinsic_with_paid_ones():
    planned = plan([stake("s1", "k"), weights("w", "k", 4), stake("s2", "k")], LIMITS)
    assert [p.intent_ids for p in planned] == [("w",), ("s1", "s2")]


def test_batches_are_cut_by_each_limit():
    items = [stake(f"s{n}", "c") for n in range(5)]
    cost = lambda call: Cost(ref_time=400, length=60)  # noqa: E731
    sizes = lambda limits: [len(p.intent_ids) for p in plan(items, limits, cost=cost)]  # noqa: E731
    assert sizes(Limits(max_items=2, max_ref_time=10**9, max_length=10**9)) == [2, 2, 1]
    assert sizes(Limits(max_items=99, max_ref_time=1200, max_length=10**9)) == [3, 2]
    assert sizes(Limits(max_items=99, max_ref_time=10**9, max_length=120)) == [2, 2, 1]
    assert sizes(Limits(max_items=99, max_ref_time=1, max_length=1)) == [1] * 5  # alone, for the chain to judge


def test_native_batches_are_cut_by_length_only():
    items = [weights(f"w{n}", "v", n) for n in range(1, 6)]
    cost = lambda call: Cost(ref_time=10**12, length=50)  # noqa: E731
    planned = plan(items, Limits(max_items=99, max_ref_time=1, max_length=100), cost=cost)
    assert [p.intent_ids for p in planned] == [("w1", "w2"), ("w3", "w4"), ("w5",)]


def test_native_batches_are_cut_by_what_one_more_item_weighs():
    items = [weights(f"w{n}", "v", n) for n in range(1, 8)]
    asked = []

    def native_time(batch):
        asked.append((batch.name, len(batch.args["netuids"])))
        return 400

    planned = plan(items, Limits(max_items=99, max_ref_time=1200, max_length=10**9), native_time=native_time)
    assert [len(p.intent_ids) for p in planned] == [3, 3, 1]
    assert asked == [("SubtensorModule.batch_set_weights", 2)]


def test_an_extrinsic_that_was_too_heavy_is_halved():
    items = {f"s{n}": stake(f"s{n}", "c") for n in range(3)}
    (planned,) = plan(list(items.values()), LIMITS)
    first, second = halve(planned, items)
    assert [[i.intent_id for i in half] for half in (first, second)] == [["s0"], ["s1", "s2"]]
    (alone,) = plan(first, LIMITS)
    with pytest.raises(ValueError, match="too heavy"):
        halve(alone, items)


def test_every_intent_is_planned_exactly_once():
    items = [weights(f"w{s}.{n}", s, n) for s in ("v1", "v2", "v3") for n in range(40)]
    items += [stake(f"s{n}", "c") for n in range(200)]
    planned = plan(items, LIMITS, delegates={"v1": "d", "v2": "d"})
    ids = [intent_id for p in planned for intent_id in p.intent_ids]
    assert sorted(ids) == sorted(i.intent_id for i in items)
    assert all(len(p.intent_ids) == count_items(p.call) for p in planned)
    assert len(planned) == 4  # one for the delegate, one for v3, two force batches of 100


def test_the_heaviest_batches_fill_a_block_of_the_chain_in_any_order(client):
    """Batches of 16 rows filled 0.64 of a block that takes 25: no second one fitted."""
    rows = {"netuids": [1, 2], "weights": [[(0, 1)], [(0, 1)]], "version_keys": [0, 0]}
    item = Meter(client, DevKey("//Alice").open().public_key).per_item(
        Call("SubtensorModule", "batch_set_weights", rows)
    )
    limit = client.constant("System", "BlockWeights")["per_class"]["normal"]["max_total"]["ref_time"] // item
    each = read_limits(client).max_ref_time // item
    assert each > 1 and limit - each + 1 >= 0.9 * limit
