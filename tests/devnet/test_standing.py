"""How many registrations a miner has left, against the embedded chain's own choice of whom it replaces."""

from __future__ import annotations

import random

import numpy as np
import pytest
from subnetkit import ALICE, BOB, Kit, account

from raytensor.chain.ss58 import encode
from raytensor.jobs.mine.standing import PruningRules, forecast, standing
from raytensor.types import Metagraph


def metagraph(kit: Kit, netuid: int) -> Metagraph:
    module, n = kit.module, kit.module.SubnetworkN[netuid]
    keys = [module.Keys[netuid, uid] for uid in range(n)]
    empty = np.zeros(n, np.uint16)
    return Metagraph(
        netuid=netuid,
        block=kit.runtime.block_number,
        block_hash="",
        tempo=10,
        last_epoch_block=0,
        next_epoch_block=10,
        hotkeys=tuple(map(encode, keys)),
        coldkeys=tuple(encode(module.Owner[key]) for key in keys),
        axons=("",) * n,
        stake_alpha_rao=np.zeros(n, np.uint64),
        validator_permit=np.zeros(n, bool),
        active=np.ones(n, bool),
        last_update=np.zeros(n, np.uint64),
        block_at_registration=np.array([module.BlockAtRegistration[netuid, uid] for uid in range(n)], np.uint64),
        incentive=np.asarray(module.Incentive[netuid]).astype(np.uint16),
        dividends=empty,
        consensus=empty,
        validator_trust=empty,
        emission_alpha_rao=np.asarray(module.Emission[netuid]).astype(np.uint64),
    )


def rules(kit: Kit, netuid: int) -> PruningRules:
    module = kit.module
    return PruningRules(
        module.ImmunityPeriod[netuid],
        module.MaxAllowedUids[netuid],
        module.MinNonImmuneUids[netuid],
        module.ImmuneOwnerUidsLimit[netuid],
        encode(module.SubnetOwnerHotkey[netuid]),
    )


@pytest.fixture(scope="module")
def kit():
    made = Kit(check=False)
    made.netuid = made.subnet()
    for number in range(13):
        made.ok(BOB if number % 3 else ALICE, "burned_register", made.netuid, account(50 + number))
        made.blocks(1)
    return made


@pytest.mark.parametrize("seed", range(12))
def test_the_chain_replaces_whom_the_forecast_names(kit, seed):
    netuid, module, draw = kit.netuid, kit.module, random.Random(seed)
    mark, n = kit.runtime.store.mark(), module.SubnetworkN[netuid]
    module.MaxAllowedUids[netuid] = n + draw.choice((0, 0, 2))
    module.MinNonImmuneUids[netuid] = draw.choice((0, 1, 3, 10))
    module.ImmuneOwnerUidsLimit[netuid] = draw.choice((1, 3))
    module.ImmunityPeriod[netuid] = draw.choice((0, 5, 100))
    now = kit.runtime.block_number
    for uid in range(n):
        module.BlockAtRegistration[netuid, uid] = now - draw.randrange(0, 10)
    module.Emission[netuid] = np.array([draw.choice((0, 0, 5, draw.randrange(100))) for _ in range(n)], np.uint64)

    graph, limits = metagraph(kit, netuid), rules(kit, netuid)
    told = forecast(graph, limits)
    happened: dict[int, int] = {}
    count = n + 6
    for number in range(1, count + 1):
        if module.SubnetworkN[netuid] < limits.max_uids:
            module.append_neuron(netuid, account(900 + number))
            continue
        uid = module.neuron_to_prune(netuid)
        if uid is None:
            break
        happened.setdefault(uid, number)
        module.replace_neuron(netuid, uid, account(900 + number))
    kit.runtime.store.rollback(mark)
    assert {uid: number for uid, number in happened.items() if uid < n} == {
        uid: left for uid, left in told.items() if left <= count
    }


def test_a_standing_names_rank_pay_and_immunity(kit):
    netuid = kit.netuid
    graph = metagraph(kit, netuid)
    n = len(graph.hotkeys)
    graph.incentive[:] = 0
    graph.incentive[[3, 5]] = 40000, 25535
    limits = PruningRules(1000, n, 0, 1, graph.hotkeys[0])
    best, second, none = (standing(graph, forecast(graph, limits), limits, graph.hotkeys[uid]) for uid in (3, 5, 6))
    assert (best.rank, second.rank, none.rank, best.num_miners) == (1, 2, 0, n)
    assert best.incentive == pytest.approx(40000 / 65535) and best.uid == 3
    assert best.immune_blocks == 1000 - (graph.block - int(graph.block_at_registration[3]))
    assert standing(graph, {}, limits, encode(account(7777))).uid is None
    assert 0 not in forecast(graph, limits)  # the owner's
