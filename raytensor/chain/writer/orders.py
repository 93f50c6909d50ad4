"""The queue of orders between callers and the writer's thread, and the receipts on their way back. Thread-safe.

In: intents that the policy allows, from any thread. Out: the orders that are due at a block, for the writer's thread;
receipts, for the callers that wait for them. Of the weights of one place (signer, netuid, mechanism) only the newest
are kept: older ones that were not sent get the receipt Superseded. Weights that are set as soon as the chain allows are
in the journal before `put` returns, so they survive the process.
Waits for: its own lock and the disk. Knows nothing of the chain.
"""

import enum
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from raytensor.chain.calls import Intent
from raytensor.chain.intents import SetWeights
from raytensor.chain.writer.audit import AuditLog
from raytensor.chain.writer.journal import Journal
from raytensor.types import Fate, Receipt

Place = tuple[str, int, int]  # signer, netuid, mecid


class Stage(enum.Enum):
    WAITING = "waiting"  # to be sent
    SENT = "sent"  # in an extrinsic whose fate is open
    COMMITTED = "committed"  # weights: to be revealed


@dataclass(eq=False)
class Order:
    """An intent that is being carried out.

    blocking    a caller waits for it: it fails instead of being deferred.
    not_before  number of the head from which on it is looked at again.
    tries       extrinsics and refusals so far.
    last        the newest receipt that was reported.
    """

    intent: Intent
    blocking: bool
    stage: Stage = Stage.WAITING
    not_before: int = 0
    tries: int = 0
    last: Receipt | None = None

    @property
    def weights(self) -> SetWeights | None:
        """Its intent if that sets weights."""
        return self.intent if isinstance(self.intent, SetWeights) else None

    @property
    def place(self) -> Place | None:
        """Of weights; other orders have none."""
        return place_of(self.intent) if isinstance(self.intent, SetWeights) else None

    @property
    def untouched(self) -> bool:
        """Whether the writer's thread has not looked at it yet."""
        return self.stage is Stage.WAITING and not self.tries and not self.not_before and self.last is None


def place_of(intent: SetWeights) -> Place:
    return intent.signer, intent.netuid, intent.mecid


class Receipts:
    """Where every receipt goes: the journal, the audit log, and the callers that wait for it."""

    def __init__(self, journal: Journal, audit: AuditLog) -> None:
        self._journal, self._audit = journal, audit
        self._changed = threading.Condition()
        self._answers: dict[str, Receipt | None] = {}  # of the intents that callers wait for
        self._waiters: dict[str, int] = {}

    def report(self, receipt: Receipt) -> None:
        """Record a receipt that no block decided, and deliver it."""
        self._journal.settle([receipt])
        self._audit.reported([receipt])
        self.deliver(receipt)

    def deliver(self, receipt: Receipt) -> None:
        """Give a receipt, which the journal has already, to the callers that wait for it."""
        with self._changed:
            if receipt.intent_id in self._answers:
                self._answers[receipt.intent_id] = receipt
                self._changed.notify_all()

    def expect(self, intent_ids: Iterable[str]) -> None:
        """Keep the receipts of these intents for `collect` from now on. Pair with `forget`."""
        with self._changed:
            for intent_id in intent_ids:
                self._waiters[intent_id] = self._waiters.get(intent_id, 0) + 1
                self._answers.setdefault(intent_id, None)

    def forget(self, intent_ids: Iterable[str]) -> None:
        with self._changed:
            for intent_id in intent_ids:
                self._waiters[intent_id] -= 1
                if not self._waiters[intent_id]:
                    del self._waiters[intent_id], self._answers[intent_id]

    def collect(self, intent_ids: Sequence[str], deadline: float) -> dict[str, Receipt]:
        """The receipts of expected intents, once all have one or the monotonic deadline has passed."""
        with self._changed:
            while any(self._answers[i] is None for i in intent_ids):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return {i: found for i in intent_ids if (found := self._answers[i]) is not None}


class OrderQueue:
    """The orders of one writer, in memory; those for the newest weights are in the journal as well."""

    def __init__(self, journal: Journal, receipts: Receipts) -> None:
        self._journal, self._receipts = journal, receipts
        self._changed = threading.Condition(threading.RLock())
        self._orders: dict[str, Order] = {}
        self._newest: dict[Place, str] = {}  # intent id
        self._has_news = False

    def restore(self, in_flight: Callable[[str], bool], committed: Iterable[str]) -> None:
        """Load the newest weights from the journal.

        in_flight  whether an open extrinsic carries an intent. committed: the intents with a pending commit.
        """
        committed = set(committed)
        with self._changed:
            for intent in self._journal.standing():
                order = Order(intent, blocking=False)
                if in_flight(intent.intent_id):
                    order.stage = Stage.SENT
                elif intent.intent_id in committed:
                    order.stage = Stage.COMMITTED
                self._orders[intent.intent_id] = order
                self._newest[place_of(intent)] = intent.intent_id
            self._has_news = True

    def put(self, intents: Sequence[Intent], *, blocking: bool) -> None:
        """Queue intents. One that is queued already stays as it is.

        Weights older than others of their place get the receipt Superseded. An intent that was carried out between the
        caller's check and now is not queued: its receipt is delivered.
        """
        superseded, finished = [], []
        with self._changed:
            fresh = [i for i in intents if i.intent_id not in self._orders]
            with self._journal.transaction():
                self._journal.add_intents(fresh)
                outdated = self._journal.superseded(i for i in fresh if isinstance(i, SetWeights))
                for intent in fresh:
                    known = self._journal.receipt(intent.intent_id)
                    if known is not None and known.fate.done:
                        finished.append(known)
                        continue
                    if intent.intent_id in outdated:
                        superseded.append(intent)
                        continue
                    if isinstance(intent, SetWeights):
                        superseded += self._replace(intent, blocking)
                    self._orders[intent.intent_id] = Order(intent, blocking)
            self._has_news = bool(fresh) or self._has_news
            self._changed.notify_all()
        for receipt in finished:
            self._receipts.deliver(receipt)
        for intent in superseded:
            self._receipts.report(intent.receipt(Fate.NOT_SENT, "Superseded", "give up: newer weights were given"))

    def _replace(self, intent: SetWeights, blocking: bool) -> list[Intent]:
        """Make weights the newest of their place. Returns older ones that were not sent yet."""
        place = place_of(intent)
        older = self._orders.get(self._newest.get(place, ""))
        self._newest[place] = intent.intent_id
        if blocking:
            self._journal.remove_standing_at(place)
        else:
            self._journal.add_standing([intent])
        if older is None or older.stage is not Stage.WAITING:
            return []
        del self._orders[older.intent.intent_id]
        return [older.intent]

    def due(self, block: int) -> list[Order]:
        """The orders to look at now, oldest first."""
        with self._changed:
            self._has_news = False
            return [o for o in self._orders.values() if o.stage is Stage.WAITING and o.not_before <= block]

    def mark_sent(self, orders: Iterable[Order]) -> list[Order]:
        """Mark orders as sent, so that newer weights do not replace them. Leaves out those superseded meanwhile."""
        with self._changed:
            taken = [o for o in orders if self._orders.get(o.intent.intent_id) is o and o.stage is Stage.WAITING]
            for order in taken:
                order.stage = Stage.SENT
            return taken

    def put_back(self, order: Order, not_before: int) -> bool:
        """Queue an order again that was not carried out. False if newer weights have taken its place."""
        with self._changed:
            place = order.place
            if place is not None and self._newest.get(place) != order.intent.intent_id:
                self._orders.pop(order.intent.intent_id, None)
                return False
            order.stage, order.not_before = Stage.WAITING, not_before
            self._orders[order.intent.intent_id] = order
            return True

    def mark_committed(self, order: Order) -> None:
        """Its commit is in a block. It stays the newest of its place until it is revealed or replaced."""
        intent = order.weights
        assert intent is not None, "only weights are committed"
        with self._changed:
            order.stage, order.blocking = Stage.COMMITTED, False
            if self._newest.get(place_of(intent)) == intent.intent_id:
                self._journal.add_standing([intent])
            else:
                self._orders.pop(intent.intent_id, None)

    def drop(self, intent_id: str) -> None:
        """Remove an order that has ended."""
        with self._changed:
            order = self._orders.pop(intent_id, None)
            self._journal.remove_standing(intent_id)
            if order is not None and (place := order.place) is not None and self._newest.get(place) == intent_id:
                del self._newest[place]

    def withdraw(self, intent_id: str) -> bool:
        """Remove an order that was not sent. False if it was sent, or is not queued."""
        with self._changed:
            order = self._orders.get(intent_id)
            if order is None or order.stage is not Stage.WAITING:
                return False
            self.drop(intent_id)
            return True

    def get(self, intent_id: str) -> Order | None:
        with self._changed:
            return self._orders.get(intent_id)

    def places_in_flight(self) -> set[Place]:
        """The places for which an extrinsic with weights is in flight."""
        with self._changed:
            return {place for o in self._orders.values() if o.stage is Stage.SENT and (place := o.place) is not None}

    @property
    def has_news(self) -> bool:
        """Whether something was put since the last call of `due`."""
        return self._has_news

    def wait_for_news(self, timeout_s: float) -> None:
        """Return when something is put, or at the time-out."""
        with self._changed:
            if not self._has_news:
                self._changed.wait(timeout_s)
