"""Every interleaving of orders, answers, exceptions, crashes, blocks, forks, expiry, finality: nothing is paid twice.

The writer's own pipeline, queue, outbox and journal on a model of a chain (chain_model.py); hypothesis plays against
it.
An order is known by its amount, which no other has.
"""

import functools
import sqlite3
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from chain_model import ANSWERS, REFUSALS, ModelChain, key_of
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from raytensor.chain.intents import Transfer
from raytensor.chain.writer.audit import AuditLog
from raytensor.chain.writer.batcher import Limits
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.order_states import State
from raytensor.chain.writer.orders import OrderQueue
from raytensor.chain.writer.outbox import Outbox
from raytensor.chain.writer.pipeline import Pipeline, Records
from raytensor.chain.writer.receipts import Receipts
from raytensor.chain.writer.settings import WriterSettings
from raytensor.types import Fate

ERA, SIGNER = 8, key_of("signer")


class LockableJournal(Journal):
    """A journal that is locked at the n-th transaction from now on, before or after it is on disk."""

    until_locked: int | None = None
    after = False

    def transaction(self):
        if self.until_locked is not None and not self._db.in_transaction:
            self.until_locked -= 1
            if self.until_locked < 0:
                self.until_locked = None
                if not self.after:
                    raise sqlite3.OperationalError("database is locked")
                return _Raises(super().transaction())
        return super().transaction()


class _Raises:
    """The transaction is on disk, and what comes next does not happen."""

    def __init__(self, inner):
        self._inner = inner

    def __enter__(self):
        return self._inner.__enter__()

    def __exit__(self, *exc):
        self._inner.__exit__(*exc)
        if exc == (None, None, None):
            raise OSError(28, "No space left on device")


class Orders(RuleBasedStateMachine):
    @initialize(lag=st.integers(0, 4), items=st.integers(1, 3))
    def start(self, lag, items):
        self.folder = tempfile.TemporaryDirectory()
        self.chain, self.lag, self.items = ModelChain(), lag, items
        self.orders: list[Transfer] = []
        self.failed: set[str] = set()  # told FAILED, which is final
        self.journal = None
        self.restart()

    def restart(self):
        if self.journal is not None:
            self.journal.close()
        self.journal = LockableJournal(Path(self.folder.name) / "j.db", "0x01")
        self.journal._db.execute("PRAGMA synchronous=OFF")
        audit = AuditLog(None)
        self.receipts = Receipts(self.journal, audit)
        self.queue = OrderQueue(self.journal, self.receipts)
        keys = {SIGNER.ss58: SIGNER}
        self.outbox = Outbox(self.chain, self.journal, keys, self.queue.retries, era_blocks=ERA)
        records = Records(self.journal, self.outbox, self.queue, self.receipts, audit)
        chosen = WriterSettings(limits=Limits(max_items=self.items))
        self.pipeline = Pipeline(self.chain, records, keys, None, chosen, lambda: None)
        self.behind = True

    def try_(self, what):
        """As the writer's thread and its callers do: after an exception everything is loaded from the journal."""
        try:
            what()
        except Exception:
            self.behind = True

    def tick(self):
        if self.behind:
            self.pipeline.reload()
            self.behind = False
        self.pipeline.tick()

    def quiet(self):
        self.chain.calls_until_error = self.journal.until_locked = None
        self.chain.answer, self.chain.taken = "accepted", True

    @rule(count=st.integers(1, 3), awaited=st.booleans())
    def hand_in(self, count, awaited):
        new = [self._order(len(self.orders) + n) for n in range(count)]
        self.orders += new
        if awaited:
            self.receipts.expect([order.intent_id for order in new])
        self.try_(lambda: self.queue.put(new, blocking=True))

    def _order(self, number):
        return Transfer(signer=SIGNER.ss58, dest="d", value=1000 + number, intent_id=f"order-{number}")

    @rule(data=st.data(), awaited=st.booleans())
    def hand_in_again(self, data, awaited):
        if self.orders:
            order = data.draw(st.sampled_from(self.orders))
            if awaited:
                self.receipts.expect([order.intent_id])
            self.try_(lambda: self.queue.put([order], blocking=True))

    @rule()
    def give_up_waiting(self):
        for order in self.orders:
            if not self.outbox.in_flight(order.intent_id):
                receipt = order.receipt(Fate.NOT_SENT, "Timeout", "retry")
                self.try_(functools.partial(self.queue.withdraw, receipt))

    @rule(answer=st.sampled_from(ANSWERS), taken=st.booleans(), ticks=st.integers(1, 2))
    def send(self, answer, taken, ticks):
        self.chain.answer, self.chain.taken = answer, taken or answer == "accepted"
        for _ in range(ticks):
            self.try_(self.tick)

    @rule(calls=st.integers(0, 12))
    def endpoint_breaks(self, calls):
        self.chain.calls_until_error = calls

    @rule(transactions=st.integers(0, 6), after=st.booleans())
    def journal_breaks(self, transactions, after):
        self.journal.until_locked, self.journal.after = transactions, after

    @rule()
    def crash(self):
        self.restart()

    @rule(count=st.integers(1, 3))
    def blocks(self, count):
        for _ in range(count):
            self.chain.make_block()
        self.chain.finalize(self.lag)
        self.try_(self.tick)

    @rule()
    def an_era_passes(self):
        for _ in range(ERA + 1):
            self.chain.make_block()
        self.chain.finalize(self.lag)

    @rule(count=st.integers(1, 4), keep=st.booleans())
    def fork(self, count, keep):
        self.chain.lose_blocks(count, keep)

    @rule(data=st.data())
    def will_fail_in_a_block(self, data):
        if self.orders:
            order = data.draw(st.sampled_from(self.orders))
            if not self.chain.landed(order.value):
                self.chain.fails.add(str(order.value))

    @rule()
    def pool_is_lost(self):
        self.chain.pool.clear()

    def _check(self, order):
        landed, state = self.chain.landed(order.value), self.journal.state(order.intent_id)
        assert landed <= 1, f"{order.intent_id} was paid {landed} times"
        if state is State.FAILED:
            self.failed.add(order.intent_id)
        if order.intent_id in self.failed:
            assert state is State.FAILED and not landed, f"{order.intent_id} had failed"
        if state is State.DONE:
            assert self.chain.landed(order.value, self.chain.final) == 1, f"{order.intent_id} is done and was not paid"
        if state is State.UNSENT:
            assert not any(str(order.value) in values for values in self.chain.may_land()), "it may still land"

    @invariant()
    def nothing_is_paid_twice(self):
        for order in getattr(self, "orders", ()):
            self._check(order)

    def teardown(self):
        if not hasattr(self, "chain"):  # hypothesis may end before `start`
            return
        self.quiet()
        self.receipts.expect([order.intent_id for order in self.orders])
        for _ in range(3 * ERA + 12):
            self.tick()
            self.chain.make_block()
            self.chain.finalize(self.lag)
        self.tick()
        for order in self.orders:
            self._check(order)
            state = self.journal.state(order.intent_id)
            ended = state in (None, State.DONE, State.FAILED, State.UNSENT)
            forgotten = state is State.QUEUED and self.queue.get(order.intent_id) is None  # its caller got an exception
            assert ended or forgotten, f"{order.intent_id} is lost: {state}"
            if self.chain.landed(order.value):
                assert state is State.DONE and self.journal.receipt(order.intent_id).fate is Fate.INCLUDED
        assert len(self.outbox.open) == 0
        self.journal.close()
        self.folder.cleanup()


assert set(REFUSALS) <= set(ANSWERS)
TestOrders = Orders.TestCase
TestOrders.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
