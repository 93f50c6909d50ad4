"""Rate limits: weights that come too early are held and set at the first block that allows it, the newest ones; eighty
subnets within one tempo, half of them behind commitments, in a handful of extrinsics."""

import pytest

from raytensor.chain.bulk_submitter import BulkSubmitter
from raytensor.chain.calls import Call
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.devnet.launch import EmbeddedChain
from raytensor.types import Fate, Weights

RAO, PALLET = 10**9, "SubtensorModule"
ALICE, HOTKEY = DevKey("//Alice"), DevKey("//calendar//hot")
NUM_SUBNETS, TEMPO, RATE_LIMIT = 80, 60, 40


def sudo(client, *settings):
    names = client.runtime.call_fields
    calls = [Call("AdminUtils", name, dict(zip(names("AdminUtils", name), values))) for name, *values in settings]
    step = BulkSubmitter(client, 60)
    step.add(ALICE.open(), Call("Sudo", "sudo", {"call": Call("Utility", "batch_all", {"calls": calls})}))
    step.run()


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A node with eighty subnets whose owner's hotkey may set weights everywhere, and registered a moment ago."""
    folder = tmp_path_factory.mktemp("calendar")
    node = EmbeddedChain(folder / "state", 0.3, folder / "log")
    with ChainClient(node.endpoint, timeout_s=60) as client:
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
            block, _ = client.send(Call("Utility", "force_batch", {"calls": calls}), ALICE.open(), timeout_s=60)
            client.wait_for_block(block + 2, timeout_s=60)
        starts = [Call(PALLET, "start_call", {"netuid": netuid}) for netuid in netuids]
        client.send(Call("Utility", "batch_all", {"calls": starts}), ALICE.open(), timeout_s=60)
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
        yield node.endpoint, client, netuids
    node.close()


def last_updates(client, netuids):
    return [int(client.query(PALLET, "LastUpdate", [netuid])[0]) for netuid in netuids]


def test_eighty_subnets_within_one_tempo_at_the_first_block_each_allows(chain, tmp_path):
    endpoint, client, netuids = chain
    writer = ChainWriter(
        endpoint, {HOTKEY.ss58: HOTKEY}, tmp_path / "j.db", WriterSettings(timeout_s=60, commit_kind="hash")
    )
    begin, updated = client.head().number, last_updates(client, netuids)
    assert begin - min(updated) < RATE_LIMIT, "the set-up took so long that nothing is held any more"
    older = writer.hold([Weights(netuid, HOTKEY.ss58, {HOTKEY.ss58: 1.0}) for netuid in netuids])
    newer = writer.hold([Weights(netuid, HOTKEY.ss58, {HOTKEY.ss58: 2.0}) for netuid in netuids])
    cursor, told, done = 0, {}, {}
    while len(done) < NUM_SUBNETS:
        client.wait_for_block(client.head().number + 1, timeout_s=60)
        cursor, receipts = writer.receipts_since(cursor)
        for receipt in receipts:
            told.setdefault(receipt.intent_id, []).append(receipt)
            if receipt.fate in (Fate.INCLUDED, Fate.COMMITTED):
                done[receipt.intent_id] = receipt
        assert client.head().number < begin + 2 * TEMPO, f"{len(done)} of {NUM_SUBNETS} set"
    counters = writer.counters()
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
