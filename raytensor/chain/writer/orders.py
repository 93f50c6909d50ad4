"""The orders that wait on a writer's desk: what callers hand in, and what the pump works off. Thread-safe.

In: intents that the policy let pass, from any thread. Out: orders that are due at a block, to the pump's thread; to
callers the receipts of what they wait for. Of the weights of one place (signer, netuid, mechanism) only the newest
waits: an older one that has not been sent is told Superseded. Weights that are to be set as soon as the chain allows
are written to the journal before `put` returns, so they outlive the process. Knows nothing of the chain; waits for
nothing but its own lock and the disk.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from raytensor.chain.calls import Intent, SetWeights
from raytensor.chain.writer.journal import Journal
from raytensor.types import Fate, Receipt

Place = tuple[str, int, int]  # signer, netuid, mecid


class Stage(enum.Enum):
    WAITING = "waiting"  # to be sent
    SENT = "sent"  # in an extrinsic whose fate is open
    COMMITTED = "committed"  # weights: to be revealed


@dataclass(eq=False)
class Order:
    """An intent on its way. once: handed in by somebody who waits, and reported rather than kept for later.

    not_before  number of the head from which on it is looked at again.
    tries       how many extrinsics (or refusals) it has cost.
    """

    intent: Intent
    once: bool
    stage: Stage = Stage.WAITING
    not_before: int = 0
    tries: int = 0
    last: Receipt | None = None

    @property
    def place(self) -> Place | None:
        return place_of(self.intent)

    @property
    def untouched(self) -> bool:
        """Whether the pump has not come to it yet."""
        return self.stage is Stage.WAITING and not self.tries and not self.not_before and self.last is None


def place_of(intent: Intent) -> Place | None:
    return (intent.signer, intent.netuid, intent.mecid) if isinstance(intent, SetWeights) else None


class Desk:
    """tell: called with each receipt that no block decided, outside of the desk's lock."""

    def __init__(self, journal: Journal, tell: Callable[[Receipt], None]) -> None:
        self._journal, self._tell = journal, tell
        self._changed = threading.Condition(threading.RLock())
        self._orders: dict[str, Order] = {}
        self._standing: dict[Place, str] = {}
        self._answers: dict[str, Receipt | None] = {}  # of the intents that somebody waits for
        self._waiters: dict[str, int] = {}
        self._new = False

    def restore(self, carried: Callable[[str], bool], committed: Iterable[str]) -> None:
        """Takes up what the journal says is standing. carried: whether an open extrinsic has an intent; committed:
        the intents with a pending commit."""
        committed = set(committed)
        with self._changed:
            for intent in self._journal.standing():
                order = Order(intent, once=False)
                if carried(intent.intent_id):
                    order.stage = Stage.SENT
                elif intent.intent_id in committed:
                    order.stage = Stage.COMMITTED
                self._orders[intent.intent_id] = order
                self._standing[order.place] = intent.intent_id
            self._new = True

    def put(self, intents: Sequence[Intent], *, once: bool) -> None:
        """Lays intents on the desk; one that lies there already stays as it is.

        Weights that are handed in again after newer ones of their place are told Superseded, not set; what was done
        between the caller's look and now is not done again.
        """
        superseded, finished = [], []
        with self._changed:
            fresh = [i for i in intents if i.intent_id not in self._orders]
            with self._journal.transaction():
                self._journal.add_intents(fresh)
                overtaken = self._journal.overtaken(i for i in fresh if isinstance(i, SetWeights))
                for intent in fresh:
                    known = self._journal.receipt(intent.intent_id)
                    if known is not None and known.fate.done:
                        finished.append(known)
                        continue
                    if intent.intent_id in overtaken:
                        superseded.append(intent)
                        continue
                    order = Order(intent, once)
                    if order.place is not None:
                        older = self._orders.get(self._standing.get(order.place, ""))
                        if older is not None and older.stage is Stage.WAITING:
                            del self._orders[older.intent.intent_id]
                            superseded.append(older.intent)
                        self._standing[order.place] = intent.intent_id
                        if once:
                            self._lay_down_at(order.place)
                        else:
                            self._journal.stand([intent])
                    self._orders[intent.intent_id] = order
            self._new = bool(fresh) or self._new
            self._changed.notify_all()
        for receipt in finished:
            self.answer(receipt)
        for intent in superseded:
            self._tell(receipt_of(intent, Fate.NOT_SENT, "Superseded", "give up: newer weights were given"))

    def due(self, block: int) -> list[Order]:
        """The orders to be looked at now, oldest first."""
        with self._changed:
            self._new = False
            return [o for o in self._orders.values() if o.stage is Stage.WAITING and o.not_before <= block]

    def take(self, orders: Iterable[Order]) -> list[Order]:
        """Marks orders as sent, so that newer weights leave them alone; those that were superseded are left out."""
        with self._changed:
            taken = [o for o in orders if self._orders.get(o.intent.intent_id) is o and o.stage is Stage.WAITING]
            for order in taken:
                order.stage = Stage.SENT
            return taken

    def put_back(self, order: Order, not_before: int) -> bool:
        """It was not carried out and is to be tried again; False if newer weights have taken its place meanwhile."""
        with self._changed:
            if order.place is not None and self._standing.get(order.place) != order.intent.intent_id:
                self._orders.pop(order.intent.intent_id, None)
                return False
            order.stage, order.not_before = Stage.WAITING, not_before
            self._orders[order.intent.intent_id] = order
            return True

    def committed(self, order: Order) -> None:
        """Its commit is in a block. It stays the newest of its place until it is revealed, or newer ones come."""
        with self._changed:
            order.stage, order.once = Stage.COMMITTED, False
            if self._standing.get(order.place) == order.intent.intent_id:
                self._journal.stand([order.intent])
            else:
                self._orders.pop(order.intent.intent_id, None)

    def drop(self, intent_id: str) -> None:
        """It has ended."""
        with self._changed:
            order = self._orders.pop(intent_id, None)
            self._journal.lay_down(intent_id)
            if order is not None and self._standing.get(order.place) == intent_id:
                del self._standing[order.place]

    def get(self, intent_id: str) -> Order | None:
        with self._changed:
            return self._orders.get(intent_id)

    def newest(self, place: Place) -> Order | None:
        """The newest order of a place, None if nothing stands there."""
        with self._changed:
            return self._orders.get(self._standing.get(place, ""))

    def places_sent(self) -> set[Place]:
        """The places for which an extrinsic with weights is on its way."""
        with self._changed:
            return {o.place for o in self._orders.values() if o.stage is Stage.SENT and o.place is not None}

    @property
    def has_news(self) -> bool:
        """Whether something was put here since `due` was last asked."""
        return self._new

    # Waiting for answers

    def expect(self, intent_ids: Iterable[str]) -> None:
        """From now on the receipts of these intents are kept for `collect`. Pair with `forget`."""
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

    def answer(self, receipt: Receipt) -> None:
        """Gives a receipt to whoever waits for it."""
        with self._changed:
            if receipt.intent_id in self._answers:
                self._answers[receipt.intent_id] = receipt
                self._changed.notify_all()

    def collect(self, intent_ids: Sequence[str], deadline: float) -> dict[str, Receipt]:
        """Waits until all have an answer, at most until the monotonic deadline. Those that have one."""
        with self._changed:
            while any(self._answers[i] is None for i in intent_ids):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return {i: self._answers[i] for i in intent_ids if self._answers[i] is not None}

    def wait_for_news(self, timeout_s: float) -> None:
        """Returns when something is put here, or at the time-out."""
        with self._changed:
            if not self._new:
                self._changed.wait(timeout_s)

    def withdraw(self, intent_id: str) -> bool:
        """Takes an order that was not sent off the desk; False if it was sent, or is not here."""
        with self._changed:
            order = self._orders.get(intent_id)
            if order is None or order.stage is not Stage.WAITING:
                return False
            self.drop(intent_id)
            return True

    def _lay_down_at(self, place: Place) -> None:
        with self._journal.transaction() as db:
            db.execute("DELETE FROM standing WHERE signer = ? AND netuid = ? AND mecid = ?", place)


def receipt_of(intent: Intent, fate: Fate, error: str | None, action: str | None, until: int | None = None) -> Receipt:
    """The receipt of an intent whose fate no block decided."""
    return Receipt(
        intent.intent_id,
        intent.name,
        intent.signer,
        fate,
        netuid=getattr(intent, "netuid", None),
        error=error,
        action=action,
        until=until,
    )
