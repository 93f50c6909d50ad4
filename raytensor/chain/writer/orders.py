"""The queue of orders between callers and the writer's thread. Thread-safe.

In: intents that the policy allows, from any thread. Out: the orders that are due at a block, for the writer's thread.
Of the weights of one place (signer, netuid, mechanism) only the newest are kept: older ones that were not sent get the
receipt Superseded. Weights that are set as soon as the chain allows are in the journal before `put` returns, so they
survive the process. The state of an order is the journal's (order_states.py); the queue holds a copy.
Waits for: its own lock and the disk. Knows nothing of the chain.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raytensor.chain.calls import Intent
from raytensor.chain.error_actions import Do, action_for
from raytensor.chain.intents import SetWeights
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.order_states import Event, State
from raytensor.chain.writer.receipts import Receipts
from raytensor.types import Fate, Receipt

Place = tuple[str, int, int]  # signer, netuid, mecid
ATTEMPTS = 3  # of a blocking order
SUPERSEDED = "give up: newer weights were given"


@dataclass(eq=False)
class Order:
    """An intent that is being carried out.

    blocking    a caller waits for it: it fails instead of being deferred.
    not_before  number of the head from which on it is looked at again.
    rival_from  OPEN: number of the head from which on another extrinsic with the same nonce may be signed for it; None:
                it waits for the extrinsic that it has.
    tries       extrinsics and refusals so far.
    last        the newest receipt that was reported.
    """

    intent: Intent
    blocking: bool
    state: State = State.QUEUED
    not_before: int = 0
    rival_from: int | None = None
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
        return self.state is State.QUEUED and not self.tries and not self.not_before and self.last is None

    def is_due(self, block: int) -> bool:
        if self.state is State.OPEN:
            return self.rival_from is not None and self.rival_from <= block
        return self.state is State.QUEUED and self.not_before <= block


def place_of(intent: SetWeights) -> Place:
    return intent.signer, intent.netuid, intent.mecid


class OrderQueue:
    """The orders of one writer, in memory; those for the newest weights are in the journal as well."""

    def __init__(self, journal: Journal, receipts: Receipts) -> None:
        self._journal, self._receipts = journal, receipts
        self._changed = threading.Condition(threading.RLock())
        self._orders: dict[str, Order] = {}
        self._newest: dict[Place, str] = {}  # intent id
        self._has_news = False
        self._handed_in: set[Place] = set()

    def restore(self) -> None:
        """Load the newest weights from the journal."""
        with self._changed:
            for intent in self._journal.standing():
                order = self._orders[intent.intent_id] = Order(intent, blocking=False)
                self._newest[place_of(intent)] = intent.intent_id
                self._read_state(order)
            self._has_news = True

    def reload(self) -> None:
        """Read the states of all orders from the journal: something failed, and what is in memory may be behind it."""
        with self._changed:
            for order in list(self._orders.values()):
                self._read_state(order)
                order.rival_from = None
            self._has_news = True

    def _read_state(self, order: Order) -> None:
        state = self._journal.state(order.intent.intent_id)
        assert state is not None, "an order is in the journal before it is queued"
        order.state = state
        if state.terminal or state is State.UNSENT:
            self.drop(order.intent.intent_id)

    def put(self, intents: Sequence[Intent], *, blocking: bool) -> None:
        """Queue intents. One that is queued already stays as it is.

        Weights older than others of their place get the receipt Superseded. An intent that has ended is not queued
        again: its receipt is delivered.
        """
        superseded: list[Receipt] = []
        finished, orders = [], {}
        with self._changed:
            fresh = {i.intent_id: i for i in intents if i.intent_id not in self._orders}
            with self._journal.transaction():
                self._journal.add_intents(fresh.values())
                self._journal.move(fresh, Event.SUBMITTED)
                outdated = self._journal.superseded(i for i in fresh.values() if isinstance(i, SetWeights))
                replaced: dict[Place, SetWeights] = {}
                for intent in fresh.values():
                    known = self._journal.ended_receipt(intent.intent_id)
                    state = self._journal.state(intent.intent_id)
                    if known is not None and state is not State.COMMITTED:
                        finished.append(known)
                    elif intent.intent_id in outdated:
                        superseded.append(_superseded(intent))
                    else:
                        orders[intent.intent_id] = self._new_order(intent, blocking, state)
                        if isinstance(intent, SetWeights):
                            replaced[place_of(intent)] = intent
                for place, intent in replaced.items():
                    superseded += self._outdate(place, intent, orders, blocking)
                superseded = self._journal.settle(superseded)
            for intent_id, order in orders.items():
                self._orders[intent_id] = order
                if order.place is not None:
                    self._newest[order.place] = intent_id
                    self._handed_in.add(order.place)
            for receipt in superseded:
                self._orders.pop(receipt.intent_id, None)
            self._has_news = bool(fresh) or self._has_news
            self._changed.notify_all()
        self._receipts.tell(superseded)
        for receipt in finished:
            self._receipts.deliver(receipt)

    def _new_order(self, intent: Intent, blocking: bool, state: State | None) -> Order:
        if state is State.COMMITTED:  # nobody reveals it any more
            self._journal.move([intent.intent_id], Event.RETRIED)
            state = State.QUEUED
        return Order(intent, blocking, state or State.QUEUED)

    def _outdate(self, place: Place, newest: SetWeights, orders: dict[str, Order], blocking: bool) -> list[Receipt]:
        """Make weights the newest of their place. Returns the receipts of older ones that were not sent yet."""
        if blocking:
            self._journal.remove_standing_at(place)
        else:
            self._journal.add_standing([newest])
        older = [*self._orders.values(), *orders.values()]
        queued = [o for o in older if o.place == place and o.state is State.QUEUED and o.intent is not newest]
        return [_superseded(order.intent) for order in queued]

    def due(self, block: int) -> list[Order]:
        """The orders to look at now, oldest first."""
        with self._changed:
            self._has_news = False
            return [order for order in self._orders.values() if order.is_due(block)]

    def open_orders(self) -> list[Order]:
        with self._changed:
            return [order for order in self._orders.values() if order.state is State.OPEN]

    def claim(self, orders: Sequence[Order], record: Callable[[], None]) -> bool:
        """Record an extrinsic with these orders. False, and nothing recorded, if newer weights replaced one of them."""
        with self._changed:
            if any(self._orders.get(order.intent.intent_id) is not order for order in orders):
                return False
            record()
            for order in orders:
                order.rival_from = None
                self._read_state(order)
            return True

    def follow_blocks(self) -> None:
        """Read the states of what blocks have: they become final, or leave the best chain."""
        with self._changed:
            for order in list(self._orders.values()):
                if order.state in (State.IN_BLOCK, State.COMMITTED):
                    self._read_state(order)

    def sync(self, intent_id: str) -> Order | None:
        """The order with the state that the journal has now; one that has ended leaves the queue."""
        with self._changed:
            order = self._orders.get(intent_id)
            if order is not None:
                self._read_state(order)
            return order

    def retries(self, receipt: Receipt) -> bool:
        """Whether an order is sent again after a receipt that proves that it has no effect."""
        with self._changed:
            order = self._orders.get(receipt.intent_id)
            if order is None or not self.is_newest(order):
                return False
            if not order.blocking:
                return True
            action = action_for(receipt.error or "")
            helps = action.resend or (order.place is not None and action.do in (Do.RETRY, Do.WAIT, Do.REPLAN))
            reported = order.last is not None and order.last.fate is Fate.INCLUDED
            waited_for = reported or self._receipts.awaited(receipt.intent_id)
            return helps and waited_for and order.tries + 1 < ATTEMPTS

    def is_newest(self, order: Order) -> bool:
        """False for weights of a place that has newer ones."""
        return order.place is None or self._newest.get(order.place, order.intent.intent_id) == order.intent.intent_id

    def put_off(self, order: Order, not_before: int) -> bool:
        """Look at an order that is sent again from this head on. False if newer weights have taken its place."""
        with self._changed:
            if not self.is_newest(order):
                return False
            if order.state is State.OPEN:
                order.rival_from = not_before
            order.not_before = not_before
            return True

    def mark_committed(self, order: Order) -> None:
        """Its commit is in a block. It stays the newest of its place until it is revealed or replaced."""
        intent = order.weights
        assert intent is not None, "only weights are committed"
        with self._changed:
            order.blocking = False
            if self.is_newest(order):
                self._journal.add_standing([intent])
            else:
                self._orders.pop(intent.intent_id, None)

    def requeue(self, intent_id: str) -> bool:
        """Send committed weights again. False if newer weights have taken their place."""
        with self._changed:
            order = self._orders.get(intent_id)
            if order is None or not self.is_newest(order):
                return False
            self._journal.move([intent_id], Event.RETRIED)
            self._read_state(order)
            order.not_before, order.last = 0, None
            return True

    def drop(self, intent_id: str) -> None:
        """Remove an order that has ended."""
        with self._changed:
            self._journal.remove_standing(intent_id)
            order = self._orders.pop(intent_id, None)
            if order is not None and (place := order.place) is not None and self._newest.get(place) == intent_id:
                del self._newest[place]

    def withdraw(self, receipt: Receipt) -> bool:
        """End an order that was not sent, with this receipt. False if it was sent, or is not queued."""
        with self._changed:
            order = self._orders.get(receipt.intent_id)
            if order is None or order.state is not State.QUEUED:
                return False
            with self._journal.transaction():
                self._journal.settle([receipt])
                self._journal.remove_standing(receipt.intent_id)
            self.drop(receipt.intent_id)
            return True

    def get(self, intent_id: str) -> Order | None:
        with self._changed:
            return self._orders.get(intent_id)

    def places(self) -> set[Place]:
        """The places for which weights were handed in since the start."""
        with self._changed:
            return set(self._handed_in)

    def has_weights(self, place: Place) -> bool:
        """Whether weights of a place are queued, in flight or committed."""
        with self._changed:
            return any(order.place == place and order.state is not State.IN_BLOCK for order in self._orders.values())

    def places_in_flight(self) -> set[Place]:
        """The places for which an extrinsic with weights is in flight."""
        with self._changed:
            return {place for o in self._orders.values() if o.state is State.OPEN and (place := o.place) is not None}

    @property
    def has_news(self) -> bool:
        """Whether something was put since the last call of `due`."""
        return self._has_news

    def wait_for_news(self, timeout_s: float) -> None:
        """Return when something is put, or at the time-out."""
        with self._changed:
            if not self._has_news:
                self._changed.wait(timeout_s)


def _superseded(intent: Intent) -> Receipt:
    return intent.receipt(Fate.NOT_SENT, "Superseded", SUPERSEDED)
