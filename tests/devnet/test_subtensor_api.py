"""Runtime APIs: what a client decodes from state_call, against storage; declarations against the chain's facts."""

from __future__ import annotations

import pytest
from subnetkit import ALICE, BOB, CHARLIE, RAO, Kit, account

from raytensor.consensus import stake_weight
from raytensor.devnet.pallets.commitments import CommitmentInfo
from raytensor.devnet.subtensor.api_structs import METAGRAPH_FIELDS, SELECTIVE_FIELDS

OWNER_HOT, VALIDATOR, MINER = account(1), account(2), account(3)


@pytest.fixture(scope="module")
def kit():
    kit = Kit()
    kit.netuid = netuid = kit.subnet(hotkey=OWNER_HOT)
    kit.neuron(netuid, BOB, VALIDATOR, stake_tao=100)
    kit.neuron(netuid, CHARLIE, MINER)
    kit.ok(CHARLIE, "add_stake", VALIDATOR, netuid, 50 * RAO)
    kit.ok(CHARLIE, "add_stake", VALIDATOR, 0, 5 * RAO)
    kit.ok(MINER, "serve_axon", netuid, 3, 16_909_060, 9_000, 4, 1, 0, 0)
    kit.ok(MINER, "Commitments.set_commitment", netuid, CommitmentInfo((("Raw3", b"abc"),)))
    kit.ok(ALICE, "set_subnet_identity", netuid, b"lab", *[b""] * 7)
    kit.until(lambda: kit.module.ValidatorPermit[netuid][1])
    kit.ok(VALIDATOR, "set_weights", netuid, (0, 2), (0, 1), 0)
    epoch = kit.module.SubnetEpochIndex[netuid]
    kit.until(lambda: kit.module.SubnetEpochIndex[netuid] == epoch + 1)
    return kit


def ask(kit, name, *args):
    """A runtime API through its bytes, as a client does it."""
    trait, method = name.split("_", 1)
    inputs, output = kit.runtime.apis[trait].methods[method]
    data = b"".join(kit.runtime.codecs(type_).encode(value) for type_, value in zip(inputs.values(), args))
    return kit.runtime.codecs(output).decode(kit.runtime.api_call(name, data))


def test_a_metagraph_shows_the_subnet_as_it_is(kit):
    module, netuid = kit.module, kit.netuid
    graph = ask(kit, "SubnetInfoRuntimeApi_get_metagraph", netuid)
    assert graph.netuid == netuid and bytes(graph.name) == b"lab" and bytes(graph.symbol) == "β".encode()
    assert graph.hotkeys == (OWNER_HOT, VALIDATOR, MINER) and graph.coldkeys == (ALICE, BOB, CHARLIE)
    assert graph.block == kit.runtime.block_number and graph.tempo == 10 and graph.num_uids == 3
    assert graph.validator_permit[1] and graph.incentives[2] == 65_535 and graph.axons[2].port == 9_000
    assert graph.last_update == tuple(module.LastUpdate[netuid].tolist())
    assert graph.emission == tuple(module.Emission[netuid].tolist())
    assert graph.alpha_in == module.SubnetAlphaIn[netuid] and graph.tao_in == module.SubnetTAO[netuid]
    assert graph.moving_price == module.SubnetMovingPrice[netuid] > 0
    assert graph.alpha_stake[1] == module.TotalHotkeyAlpha[VALIDATOR, netuid]
    # TAO on root is reported unweighted (get_stake_weights_for_network); the total counts it by TaoWeight
    assert graph.tao_stake[1] == module.TotalHotkeyAlpha[VALIDATOR, 0] >= 5 * RAO - 10
    weighted, _ = stake_weight([graph.alpha_stake[1]], [graph.tao_stake[1]], module.TaoWeight.get())
    assert graph.total_stake[1] == weighted[0] < graph.alpha_stake[1] + graph.tao_stake[1]
    state = ask(kit, "SubnetInfoRuntimeApi_get_subnet_state", netuid)
    assert (state.alpha_stake, state.tao_stake) == (graph.alpha_stake, graph.tao_stake)
    assert dict(graph.alpha_dividends_per_hotkey)[VALIDATOR] == module.AlphaDividendsPerSubnet[netuid, VALIDATOR] > 0
    assert ask(kit, "SubnetInfoRuntimeApi_get_metagraph", 77) is None
    assert [g.netuid for g in ask(kit, "SubnetInfoRuntimeApi_get_all_metagraphs")] == [0, 1, netuid]
    assert ask(kit, "SubnetInfoRuntimeApi_get_mechagraph", netuid, 1) is None


def test_metagraph_fields_have_the_chains_numbers():
    """Positions by which clients ask for fields (metagraph.rs, SelectiveMetagraphIndex)."""
    names = list(SELECTIVE_FIELDS)
    known = {
        0: "netuid",
        7: "block",
        21: "moving_price",
        32: "burn",
        45: "serving_rate_limit",
        52: "hotkeys",
        57: "validator_permit",
        60: "emission",
        62: "incentives",
        69: "total_stake",
        72: "validators",
        73: "commitments",
    }
    assert {i: names[i] for i in known} == known and len(METAGRAPH_FIELDS) == 72


def test_a_selective_metagraph_has_what_was_asked_for_and_nothing_else(kit):
    graph = ask(kit, "SubnetInfoRuntimeApi_get_selective_metagraph", kit.netuid, (52, 62, 72, 73, 999))
    assert graph.hotkeys == (OWNER_HOT, VALIDATOR, MINER) and graph.incentives == (0, 0, 65_535)
    assert 1 in graph.validators and graph.commitments[0][0] == MINER
    others = set(graph._fields) - {"netuid", "hotkeys", "incentives", "validators", "commitments"}
    assert all(getattr(graph, field) is None for field in others)


def test_neurons_full_and_lite(kit):
    lite = ask(kit, "NeuronInfoRuntimeApi_get_neurons_lite", kit.netuid)
    full = ask(kit, "NeuronInfoRuntimeApi_get_neurons", kit.netuid)
    assert [n.uid for n in lite] == [n.uid for n in full] == [0, 1, 2]
    assert full[1].weights == ((2, 65_535),) and full[1].bonds[0][0] == 2
    assert lite[1].stake == ((BOB, kit.module.TotalHotkeyAlpha[VALIDATOR, kit.netuid]),)
    assert lite[2].incentive == 65_535 and lite[1].validator_permit and lite[2].axon_info.ip == 16_909_060
    assert ask(kit, "NeuronInfoRuntimeApi_get_neuron", kit.netuid, 1) == full[1]
    assert ask(kit, "NeuronInfoRuntimeApi_get_neuron_lite", kit.netuid, 3) is None
    assert ask(kit, "NeuronInfoRuntimeApi_get_neurons", 77) == ()


def test_hyperparameters_in_three_shapes(kit):
    first = ask(kit, "SubnetInfoRuntimeApi_get_subnet_hyperparams", kit.netuid)
    second = ask(kit, "SubnetInfoRuntimeApi_get_subnet_hyperparams_v2", kit.netuid)
    entries = ask(kit, "SubnetInfoRuntimeApi_get_subnet_hyperparams_v3", kit.netuid)
    third = {entry.name.decode(): entry.value for entry in entries}
    assert first == second[: len(first)]
    assert second.yuma_version == 3 and second.subnet_is_active and second.alpha_sigmoid_steepness == 1_000 << 32
    assert {name: third[name][1] for name in second._fields} == second._asdict()
    assert third["tempo"] == ("U16", 10) and third["max_burn"] == ("TaoBalance", RAO)
    assert third["weights_rate_limit"] == ("U64", 0) and third["commit_reveal_weights_enabled"] == ("Bool", False)
    assert ask(kit, "SubnetInfoRuntimeApi_get_subnet_hyperparams_v3", 77) is None


def test_pools_prices_and_quotes(kit):
    module, netuid = kit.module, kit.netuid
    info = ask(kit, "SubnetInfoRuntimeApi_get_dynamic_info", netuid)
    assert (info.tao_in, info.alpha_in, info.tempo) == (module.SubnetTAO[netuid], module.SubnetAlphaIn[netuid], 10)
    assert [i.netuid for i in ask(kit, "SubnetInfoRuntimeApi_get_all_dynamic_info")] == [0, 1, netuid]
    price = ask(kit, "SwapRuntimeApi_current_alpha_price", netuid)
    assert price == info.tao_in * RAO // info.alpha_in
    assert dict(ask(kit, "SwapRuntimeApi_current_alpha_price_all")) == {0: RAO, 1: RAO, netuid: price}
    quote = ask(kit, "SwapRuntimeApi_sim_swap_tao_for_alpha", netuid, 10 * RAO)
    before = module.stake_of(VALIDATOR, BOB, netuid)
    mark = kit.runtime.store.mark()
    kit.ok(BOB, "add_stake", VALIDATOR, netuid, 10 * RAO)
    assert abs(module.stake_of(VALIDATOR, BOB, netuid) - before - quote.alpha_amount) <= 1
    kit.runtime.store.rollback(mark)
    assert quote.tao_fee == 10 * RAO * 33 // 65_535 and quote.alpha_slippage > 0
    back = ask(kit, "SwapRuntimeApi_sim_swap_alpha_for_tao", netuid, quote.alpha_amount)
    assert back.tao_amount < 10 * RAO and back.alpha_fee > 0
    assert ask(kit, "SwapRuntimeApi_sim_swap_tao_for_alpha", netuid, 2**63).alpha_amount == 0
    assert ask(kit, "SubnetRegistrationRuntimeApi_get_network_registration_cost") == module.lock_cost_rao()


def test_stake_of_a_coldkey_and_a_delegate(kit):
    module, netuid = kit.module, kit.netuid
    infos = ask(kit, "StakeInfoRuntimeApi_get_stake_info_for_coldkey", CHARLIE)
    stakes = {(info.hotkey, info.netuid): info.stake for info in infos}
    assert stakes[VALIDATOR, netuid] == module.stake_of(VALIDATOR, CHARLIE, netuid) and stakes[VALIDATOR, 0] == 5 * RAO
    assert ask(kit, "StakeInfoRuntimeApi_get_stake_info_for_coldkeys", (CHARLIE,)) == ((CHARLIE, infos),)
    none = ask(kit, "StakeInfoRuntimeApi_get_stake_info_for_hotkey_coldkey_netuid", MINER, ALICE, netuid)
    assert none.stake == 0 and none.is_registered
    free = ask(kit, "StakeInfoRuntimeApi_get_stake_availability_for_coldkeys", (CHARLIE,), (0,))
    assert free[CHARLIE][0].available == 5 * RAO and list(free[CHARLIE]) == [0]
    assert ask(kit, "StakeInfoRuntimeApi_get_stake_fee", None, ALICE, (VALIDATOR, netuid), ALICE, 65_535) == 33
    assert ask(kit, "DelegateInfoRuntimeApi_get_delegate", VALIDATOR) is None
    kit.ok(BOB, "decrease_take", VALIDATOR, 100)
    delegate = ask(kit, "DelegateInfoRuntimeApi_get_delegate", VALIDATOR)
    assert (delegate.take, delegate.owner_ss58, delegate.registrations) == (100, BOB, (netuid,))
    assert {who for who, _ in delegate.nominators} == {BOB, CHARLIE} and delegate.validator_permits == (netuid,)
    mine = ask(kit, "DelegateInfoRuntimeApi_get_delegated", CHARLIE)
    assert {place for _, (place, _) in mine} == {0, netuid}


def test_epoch_and_subnet_facts(kit):
    module, netuid = kit.module, kit.netuid
    assert ask(kit, "SubnetInfoRuntimeApi_get_next_epoch_start_block", netuid) == module.LastEpochBlock[netuid] + 10
    assert ask(kit, "SubnetInfoRuntimeApi_get_next_epoch_start_block", 77) is None
    info = ask(kit, "SubnetInfoRuntimeApi_get_subnet_info_v2", netuid)
    assert info.owner == ALICE and info.subnetwork_n == 3 and info.identity.subnet_name == b"lab"
    state = ask(kit, "SubnetInfoRuntimeApi_get_subnet_state", netuid)
    assert state.hotkeys == (OWNER_HOT, VALIDATOR, MINER) and state.incentives[2] == 65_535


def test_calls_have_the_chains_indices_and_arguments(kit):
    """A sample over the pallet, the ones that clients compose (call_index attributes of dispatches.rs)."""
    expected = {
        "set_weights": (0, "netuid dests weights version_key"),
        "set_mechanism_weights": (119, "netuid mecid dests weights version_key"),
        "commit_timelocked_mechanism_weights": (118, "netuid mecid commit reveal_round commit_reveal_version"),
        "batch_reveal_weights": (98, "netuid uids_list values_list salts_list version_keys"),
        "add_stake_limit": (88, "hotkey netuid amount_staked limit_price allow_partial"),
        "swap_stake_limit": (90, "hotkey origin_netuid destination_netuid alpha_amount limit_price allow_partial"),
        "register": (6, "netuid block_number nonce work hotkey coldkey"),
        "serve_axon": (4, "netuid version ip port ip_type protocol placeholder1 placeholder2"),
        "register_network_with_identity": (79, "hotkey identity"),
        "lock_stake": (136, "hotkey netuid amount"),
    }
    for name, (index, args) in expected.items():
        spec = kit.module.calls[name]
        assert (spec.index, " ".join(spec.args)) == (index, args), name
    free = {name for name, spec in kit.module.calls.items() if spec.pays is False}
    assert {"set_weights", "batch_reveal_weights", "serve_axon", "pow_register"} <= free
    assert not {"add_stake", "burned_register", "set_children", "increase_take"} & free
    kit.refused(BOB, "CallDisabled", "lock_stake", VALIDATOR, kit.netuid, 1)


def test_each_subnet_has_an_account_that_nobody_can_own(kit):
    netuid = kit.netuid
    theirs = b"modlsubtensr" + netuid.to_bytes(2, "little") + bytes(18)
    assert ask(kit, "SubnetInfoRuntimeApi_get_subnet_account_id", netuid) == theirs
    assert ask(kit, "SubnetInfoRuntimeApi_get_subnet_account_id", 77) is None
    kit.refused(CHARLIE, "CannotUseSystemAccount", "swap_hotkey", MINER, theirs, netuid)
    kit.refused(CHARLIE, "CannotUseSystemAccount", "register_network", theirs)


def test_nothing_is_locked_where_nobody_can_lock(kit):
    assert ask(kit, "StakeInfoRuntimeApi_get_coldkey_lock", BOB, kit.netuid) is None
    assert ask(kit, "StakeInfoRuntimeApi_get_hotkey_conviction", VALIDATOR, kit.netuid) == 0
    assert ask(kit, "StakeInfoRuntimeApi_get_most_convicted_hotkey_on_subnet", kit.netuid) is None
    kit.refused(BOB, "CallDisabled", "lock_stake", VALIDATOR, kit.netuid, 1)
