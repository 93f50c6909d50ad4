"""The journal: what is written survives, and only what is open is asked about again."""

import pytest

from raytensor.chain.intents import AddStake, SetWeights, intent_from_json, kinds
from raytensor.chain.writer.audit import AuditLog
from raytensor.chain.writer.journal import Extrinsic, Journal, Sent
from raytensor.chain.writer.orders import OrderQueue, Receipts
from raytensor.types import Fate, Receipt


def intent(name="i1", **changes):
    return SetWeights(signer="v", intent_id=name, netuid=3, values=(("h", 0.5), ("g", 1.0)), **changes)


def extrinsic(hash="0xaa", ids=("i1",), nonce=4):
    return Extrinsic(hash, "v", nonce, birth=10, death=73, data=b"\x84\0", call_json="{}", intent_ids=ids)


def receipt(name="i1", fate=Fate.INCLUDED, **changes):
    return Receipt(name, "SubtensorModule.set_weights", "v", fate, netuid=3, block=12, **changes)


def test_intents_come_back_as_they_were(tmp_path):
    stake = AddStake(signer="c", intent_id="s", hotkey="h", netuid=3, amount_staked=2_000_000)
    Journal(tmp_path / "j.db").add_intents([intent(), stake])
    again = Journal(tmp_path / "j.db")
    assert again.effective_since(0.0) == [intent(), stake]
    assert again.intent("s") == stake
    assert again.intent("none") is None


def test_every_kind_of_intent_reads_back():
    made = {
        "netuid": 1,
        "hotkey": "h",
        "values": (("h", 1.0),),
        "amount_staked": 1,
        "limit_price": 2,
        "amount_unstaked": 3,
        "origin_hotkey": "a",
        "destination_hotkey": "b",
        "origin_netuid": 1,
        "destination_netuid": 2,
        "alpha_amount": 4,
        "destination_coldkey": "c",
        "dest": "d",
        "value": 5,
        "take": 6,
        "children": ((7, "k"),),
        "delegate": "e",
        "ip": "1.2.3.4",
        "port": 80,
        "text": "hello",
        "title": "t",
        "function": "AdminUtils.sudo_set_kappa",
        "call_json": "{}",
        "new_hotkey": "n",
        "new_coldkey": "m",
        "cost": 8,
    }
    for kind in kinds().values():
        names = kind.__dataclass_fields__
        one = kind(signer="s", **{name: value for name, value in made.items() if name in names})
        assert intent_from_json(one.to_json()) == one


def test_an_open_extrinsic_is_found_until_it_is_settled(tmp_path):
    journal = Journal(tmp_path / "j.db")
    journal.add_intents([intent("i1"), intent("i2")])
    journal.add_extrinsic(extrinsic(ids=("i2", "i1")))
    assert journal.open_extrinsics() == [extrinsic(ids=("i2", "i1"))]
    journal.mark("0xaa", Sent.POOLED)
    assert [x.state for x in Journal(tmp_path / "j.db").open_extrinsics()] == [Sent.POOLED]
    failed = receipt("i2", Fate.FAILED, error="SettingWeightsTooFast")
    journal.settle([receipt("i1"), failed], ("0xaa", Sent.INCLUDED, 12))
    assert journal.open_extrinsics() == []
    assert Journal(tmp_path / "j.db").receipt("i2") == failed
    assert journal.count() == {"included": 1} and journal.count("intents") == {"failed": 1, "included": 1}


def test_an_unknown_fate_stays_open(tmp_path):
    journal = Journal(tmp_path / "j.db")
    journal.add_intents([intent()])
    journal.settle([receipt(fate=Fate.UNKNOWN)])
    assert journal.receipt("i1") is None
    assert journal.effective_since(0.0) == [intent()]


def test_the_same_intent_is_written_once_and_keeps_its_fate(tmp_path):
    journal = Journal(tmp_path / "j.db")
    journal.add_intents([intent()])
    journal.settle([receipt()])
    journal.add_intents([intent(version_key=9)])
    assert journal.receipt("i1") == receipt()
    assert journal.intent("i1") == intent()


def test_a_journal_of_another_chain_is_refused(tmp_path):
    Journal(tmp_path / "j.db", genesis="0x01").close()
    Journal(tmp_path / "j.db", genesis="0x01").close()
    with pytest.raises(ValueError, match="another journal file"):
        Journal(tmp_path / "j.db", genesis="0x02")


def test_marking_what_was_never_written_is_our_mistake(tmp_path):
    with pytest.raises(AssertionError):
        Journal(tmp_path / "j.db").mark("0xbb", Sent.POOLED)


def test_who_does_not_know_is_not_heard_once_the_chain_has_spoken(tmp_path):
    journal = Journal(tmp_path / "j.db")
    journal.add_intents([intent(), intent("i2")])
    journal.settle([receipt("i1", Fate.NOT_SENT, error="Timeout"), receipt("i2")])
    journal.settle([receipt("i1", Fate.UNKNOWN), receipt("i2", Fate.UNKNOWN)])
    assert journal.receipt("i1") is None and journal.receipt("i2").fate is Fate.INCLUDED
    journal.add_extrinsic(extrinsic(ids=("i2",)))
    journal.reopen(extrinsic(ids=("i2",)))  # a fork may take it back all the same
    assert journal.receipt("i2") is None


def test_weights_are_overtaken_by_newer_ones_of_their_place_that_had_a_chance(tmp_path):
    journal = Journal(tmp_path / "j.db")
    other = intent("other", mecid=1)
    journal.add_intents([intent("old"), other, intent("new")])
    assert journal.superseded([intent("old"), other, intent("new")]) == {"old"}
    journal.settle([receipt("new", Fate.FAILED)])
    assert journal.superseded([intent("old")]) == set()
    journal.settle([receipt("new", Fate.INCLUDED)])
    assert journal.superseded([intent("old")]) == {"old"}


def test_an_intent_carried_out_meanwhile_is_not_queued_again(tmp_path):
    journal = Journal(tmp_path / "j.db")
    receipts = Receipts(journal, AuditLog(None))
    queue = OrderQueue(journal, receipts)
    stake = AddStake(signer="c", intent_id="s", hotkey="h", netuid=3, amount_staked=2_000_000)
    journal.add_intents([stake])
    done = Receipt("s", stake.name, "c", Fate.INCLUDED, netuid=3, block=12)
    journal.settle([done])
    receipts.expect(["s"])
    queue.put([stake], blocking=True)
    assert queue.due(99) == [] and receipts.collect(["s"], 0.0) == {"s": done}
    assert journal.receipts_since(0)[1] == [done] and journal.receipts_since(None) == (1, [])
