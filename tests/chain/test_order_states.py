"""The life of an order and the table of extrinsics: every state with every event; a journal of an earlier version."""

import itertools
import sqlite3
from pathlib import Path

import pytest

from raytensor.chain.intents import SetWeights, Transfer
from raytensor.chain.writer.extrinsic_table import Extrinsic, ExtrinsicTable, Sent
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.order_states import EVENT_OF, Event, State, move
from raytensor.types import Fate, Receipt

OLD_JOURNAL = Path(__file__).parent / "data" / "journal_v0.sql"


def extrinsic(hash, nonce=0, ids=("a",), death=73, **more):
    return Extrinsic(hash, "s", nonce, 10, death, b"\x84\0", "{}", ids, **more)


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_state_knows_every_event(state, event):
    after = move(state, event)
    if state.terminal:
        shown = event in (Event.INCLUDED, Event.REVEALED)
        assert after is (State.DONE if shown else state), "nothing revives an order that has ended"
    if event is Event.REPORTED:
        assert after is state
    if after is State.QUEUED and state is not State.QUEUED:
        # Only what proves that nothing of it can land, or a caller, queues an order.
        queued_by = {Event.NOT_POSTED, Event.RETRIED} if state is not State.UNSENT else {Event.SUBMITTED}
        assert event in queued_by


def test_from_an_end_no_events_lead_to_a_state_that_sends():
    for first, second, third in itertools.product(Event, repeat=3):
        for state in (State.DONE, State.FAILED):
            assert move(move(move(state, first), second), third).terminal


def test_every_fate_has_its_event():
    assert set(EVENT_OF) == set(Fate)


def test_an_open_extrinsic_carries_its_intents_until_it_ended_or_a_block_has_it():
    table = ExtrinsicTable()
    table.add(extrinsic("0x1", ids=("a", "b")), sent_at=11)
    assert table.carries("a") and table.sent_at("0x1") == 11 and table.waits("b", 20)
    table.doubted("0x1", "Payment: words")
    assert table.carries("a") and not table.waits("a", 20), "a refusal closes nothing"
    table.pooled("0x1")
    assert table.doubted("0x1", "Stale: words").state is Sent.POOLED, "what one node has is not undone by another"
    table.included("0x1", 12)
    assert not table.carries("a") and [x.block for x in table.in_block] == [12]
    table.reopen("0x1")
    assert table.carries("a") and table.open[0].state is Sent.POOLED and table.in_block == []
    table.ended("0x1")
    assert not table.carries("b") and table.open == []


def test_a_nonce_is_free_while_every_extrinsic_with_it_was_refused():
    table = ExtrinsicTable()
    assert table.contested_nonce("s", 0) is None
    table.add(extrinsic("0x1", nonce=4))
    table.doubted("0x1", "BadProof: words")
    assert table.contested_nonce("s", 0) == 4 and table.contested_nonce("s", 5) is None
    assert table.contested_nonce("other", 0) is None
    table.add(extrinsic("0x2", nonce=4, ids=("c",)))
    assert table.contested_nonce("s", 0) is None, "the second may be on its way"
    table.pooled("0x2")
    assert table.known_nonce("s") == 5
    table.unanswered("0x2")
    assert table.known_nonce("s") is None


@pytest.fixture
def old(tmp_path):
    """A journal that a writer without states of orders made."""
    db = sqlite3.connect(tmp_path / "old.db")
    db.executescript(OLD_JOURNAL.read_text())
    db.execute("UPDATE extrinsics SET at = 0")
    db.commit()
    db.close()
    return tmp_path / "old.db"


def test_a_journal_of_an_earlier_version_opens_with_the_states_of_its_orders(old):
    for _ in range(2):
        journal = Journal(old, "0x01")
        states = {
            name: journal.state(name)
            for name in ("done", "paid-today", "payment", "stale", "open", "never-signed", "denied", "w-held")
        }
        assert states == {
            "done": State.DONE,
            "paid-today": State.DONE,
            "payment": State.FAILED,
            "stale": State.UNSENT,
            "open": State.OPEN,
            "never-signed": State.QUEUED,
            "denied": State.UNSENT,
            "w-held": State.QUEUED,
        }
        assert journal.state("w-committed") is State.COMMITTED
        assert [x.hash for x in journal.open_extrinsics()] == ["0x11"]
        assert [x.hash for x in journal.in_block()] == [], "all of them are older than a day"
        assert journal.receipt("payment").error == "Payment"
        assert [i.intent_id for i in journal.standing()] == ["w-held", "w-committed"]
        journal.close()


def test_what_an_earlier_version_included_a_moment_ago_is_looked_at_again(old):
    db = sqlite3.connect(old)
    db.execute("UPDATE extrinsics SET at = unixepoch() WHERE hash = '0x0e'")
    db.commit()
    db.close()
    journal = Journal(old, "0x01")
    (recent,) = journal.in_block()
    assert (recent.hash, recent.block) == ("0x0e", 13)
    assert journal.state("paid-today") is State.IN_BLOCK and journal.receipt("paid-today").fate is Fate.INCLUDED
    journal.reopen(recent)
    assert journal.state("paid-today") is State.OPEN and journal.receipt("paid-today") is None


def test_a_receipt_after_the_end_is_neither_recorded_nor_believed(tmp_path):
    journal = Journal(tmp_path / "j.db")
    pay = Transfer(signer="c", intent_id="p", dest="d", value=5)
    journal.add_intents([pay])
    ended = Receipt("p", pay.name, "c", Fate.FAILED, error="Payment")
    assert journal.settle([ended]) == [ended] and journal.state("p") is State.FAILED
    journal.move(["p"], Event.SUBMITTED)
    journal.add_extrinsic(extrinsic("0x1", ids=("p",)))
    assert journal.settle([Receipt("p", pay.name, "c", Fate.NOT_SENT, error="Timeout")]) == []
    assert journal.state("p") is State.FAILED and journal.receipt("p") == ended
    # If the chain shows it all the same, the record says what the chain says.
    done = Receipt("p", pay.name, "c", Fate.INCLUDED, block=12)
    assert journal.settle([done]) == [done] and journal.state("p") is State.DONE


def test_what_is_held_is_not_told_of_weights_that_were_replaced(tmp_path):
    journal = Journal(tmp_path / "j.db")
    weights = SetWeights(signer="v", intent_id="w", netuid=3, values=(("h", 1.0),))
    journal.add_intents([weights])
    journal.settle([weights.receipt(Fate.NOT_SENT, "Superseded", "x")])
    assert journal.settle([weights.receipt(Fate.HELD, "SettingWeightsTooFast", "x")]) == []
