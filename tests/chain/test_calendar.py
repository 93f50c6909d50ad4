"""Rate limits: weights that come too early are held and set at the first block that allows it, the newest ones; eighty
subnets within one tempo, half of them behind commitments, in a handful of extrinsics."""

import time

import pytest

from raytensor.chain.bulk_submitter import BulkSubmitter
from raytensor.chain.calls import Call
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.types import Fate, Weights

RAO, PALLET = 10**9, "SubtensorModule"
ALICE, HOTKEY = DevKey("//Alice"), DevKey("//calendar//hot")
NUM_SUBNETS, TEMPO, RATE_LIMIT = 80, 60, 60


def sudo(client, *settings):
    names = client.runtime.call_fields
    calls = [Call("AdminUtils", name, dict(zip(names("AdminUtils", name), values))) for name, *values in settings]
    step = BulkSubmitter(client, 60)
    step.add(ALICE.open(), Call("Sudo", "sudo", {"call": Call("Utility", "batch_all", {"calls": calls})}))
    step.run()


@pytest.fixture(scope="module")
def chain(blocks):
    """A node with eighty subnets whose owner's hotkey may set weights everywhere, and registered a moment ago."""
    with ChainClient(blocks.endpoint, timeout_s=60) as client:
        sudo(
            client,
            ("sudo_set_network_rate_limit", 0),
            ("sudo_set_network_min_lock_cost", 100 * RAO),
            ("sudo_set_lock_reduction_interval", 1),
        )
        before = set(client.query_map(PALLET, "NetworksAdded"))
        for _ in range(2 * NUM_SUBNETS // 10):
            netuids = sorted(set(client.query_map(PALLET, "NetworksAdded")) - before)
            if len(netuids) == NUM_SUBNETS:
                break
            # The price doubles with each subnet in a row, and is down again two blocks later.
            calls = [Call(PALLET, "register_network", {"hotkey": HOTKEY.ss58})] * min(10, NUM_SUBNETS - len(netuids))
            block, _ = client.send(Call("Utility", "force_batch", {"calls": calls}), ALICE.open(), timeout_s=120)
            blocks.up_to(block + 2)
        starts = [Call(PALLET, "start_call", {"netuid": netuid}) for netuid in netuids]
        client.send(Call("Utility", "batch_all", {"calls": starts}), ALICE.open(), timeout_s=120)
        for number, at in enumerate(range(0, NUM_SUBNETS, 20)):
            sudo(
                client,
                *[
                    setting
                    for netuid in netuids[at : at + 20]
                    for setting in (
                        ("sudo_set_tempo", netuid, TEMPO),
                        ("sudo_set_commit_reveal_weights_enabled", netuid, number % 2 == 1),
                        ("sudo_set_weights_set_rate_limit", netuid, RATE_LIMIT),
                    )
                ],
            )
        yield blocks.endpoint, client, netuids


def last_updates(client, netuids):
    return [int(client.query(PALLET, "LastUpdate", [netuid])[0]) for netuid in netuids]


def test_eighty_subnets_within_one_tempo_at_the_first_block_each_allows(chain, blocks, tmp_path):
    endpoint, client, netuids = chain
    writer = ChainWriter(
        endpoint, {HOTKEY.ss58: HOTKEY}, tmp_path / "j.db", WriterSettings(timeout_s=60, commit_kind="hash")
    )
    with blocks.on_demand():  # no rate limit ends before the weights are held
        begin, updated = client.head().number, last_updates(client, netuids)
        assert begin - min(updated) < RATE_LIMIT, "the set-up took so many blocks that nothing is held any more"
        older = writer.hold([Weights(netuid, HOTKEY.ss58, {HOTKEY.ss58: 1.0}) for netuid in netuids])
        newer = writer.hold([Weights(netuid, HOTKEY.ss58, {HOTKEY.ss58: 2.0}) for netuid in netuids])
        end = time.monotonic() + 120
        while {r.intent_id for r in writer.receipts_since(0)[1] if r.fate is Fate.HELD} < set(newer):
            assert time.monotonic() < end, "not all are held"
            time.sleep(0.05)
        blocks.up_to(min(updated) + RATE_LIMIT - 2)
        blocks.follow(writer)
    cursor, told, done = 0, {}, {}
    while len(done) < NUM_SUBNETS:
        client.wait_for_block(client.head().number + 1, timeout_s=120)
        cursor, receipts = writer.receipts_since(cursor)
        for receipt in receipts:
            told.setdefault(receipt.intent_id, []).append(receipt)
            if receipt.fate in (Fate.INCLUDED, Fate.COMMITTED):
                done[receipt.intent_id] = receipt
        assert client.head().number < begin + 2 * TEMPO, f"{len(done)} of {NUM_SUBNETS} set"
    counters = writer.counters()
    blocks.leave(writer)
    writer.close()
    assert set(done) == set(newer) and counters["submitted"] < NUM_SUBNETS / 2 and counters["failed"] == 0, counters
    assert [told[i][-1].error for i in older] == ["Superseded"] * NUM_SUBNETS
    blocks = [done[i].block for i in newer]
    ready = [block + RATE_LIMIT for block in updated]
    # Held, then set no earlier than the chain allows, and all within a tempo from then.
    assert all(set_at >= allowed for set_at, allowed in zip(blocks, ready))
    assert max(blocks) - min(ready) < TEMPO
    held = [told[i][0] for i in newer]
    assert all(r.fate is Fate.HELD and r.error in ("SettingWeightsTooFast", "CommittingWeightsTooFast") for r in held)
    assert [r.until for r in held] == ready
    committed = [done[i] for i in newer if done[i].fate is Fate.COMMITTED]
    assert len(committed) == NUM_SUBNETS / 2 and {r.fee_rao for r in done.values()} == {0}
    assert last_updates(client, netuids) == blocks
