"""Fees of spec 475 for extrinsics of 100 bytes, and the indices of its errors and events."""

from __future__ import annotations

import pytest
from subnetkit import Kit

from raytensor.devnet.pallets.transaction_payment import BASE_FEE, length_fee, weight_fee

# Rao, read from the runtime's table of native fees.
FEES = {
    "Balances.transfer_keep_alive": 83_102,
    "Balances.transfer_allow_death": 85_547,
    "add_stake": 812_698,
    "add_stake_limit": 850_506,
    "remove_stake": 629_339,
    "unstake_all": 83_339,
    "move_stake": 369_589,
    "transfer_stake": 383_839,
    "swap_stake": 1_045_339,
    "burned_register": 1_070_870,
    "register_limit": 1_065_842,
    "register_network": 1_713_009,
    "root_register": 39_902_362,
    "claim_root": 8_251_352,
    "swap_hotkey": 168_047_089,
    "set_children": 212_254,
    "increase_take": 149_089,
    "decrease_take": 135_839,
    "start_call": 128_589,
}
FREE = """set_weights commit_weights reveal_weights batch_set_weights commit_timelocked_weights serve_axon
    serve_prometheus
    Commitments.set_commitment""".split()


def spec_of(kit: Kit, name: str):
    pallet, _, function = name.rpartition(".")
    return kit.runtime.pallets[pallet or "SubtensorModule"].calls[function]


@pytest.fixture(scope="module")
def kit():
    return Kit()


def test_a_call_of_a_hundred_bytes_costs_what_the_chain_charges(kit):
    fees = {name: kit.runtime.TransactionPayment.fee(100, spec_of(kit, name).weight) for name in FEES}
    assert fees == FEES
    assert all(spec_of(kit, name).pays is True for name in FEES)
    assert [name for name in FREE if spec_of(kit, name).pays is not False] == []


def test_each_term_is_rounded_to_the_nearest_rao_with_ties_down():
    assert BASE_FEE == 27_039
    assert [length_fee(n) for n in (0, 1, 2, 3, 100, 101)] == [0, 0, 1, 1, 50, 50]
    assert [weight_fee(n) for n in (1_999, 2_000, 2_001, 4_000, 6_000, 6_001)] == [0, 0, 1, 1, 1, 2]


def test_a_batch_of_weights_weighs_an_item_each(kit):
    weigh = spec_of(kit, "batch_set_weights").weight
    one = weigh(None, ((1,), (), ()))
    assert one == spec_of(kit, "set_weights").weight and weigh(None, ((1, 2, 3), (), ())) == 3 * one


def test_errors_and_events_have_the_indices_of_spec_475(kit):
    module = kit.module
    assert len(module.errors) == 175
    known = {58: "ColdKeyAlreadyAssociated", 96: "KeepStakeBlockedByCollateral", 98: "InsufficientTaoBalance"}
    known |= {173: "CommitPayloadTooLarge", 174: "CommitQueueFull"}
    assert {index: module.errors[index] for index in known} == known
    events = "WeightsSet NeuronRegistered SetChildren StakeTransferred TimelockedWeightsCommitted".split()
    events += ["AutoParentDelegationEnabledSet"]
    assert [module.events[name][0] for name in events] == [5, 7, 77, 92, 108, 131]
    assert not {"set_root_claim_type", "sudo_set_num_root_claims"} & set(module.calls)
    assert (kit.runtime.version.spec_version, kit.runtime.version.transaction_version) == (475, 1)
