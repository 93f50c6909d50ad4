"""The work of the writer: settles what blocks have decided, and sends what is due.

In: the orders in the queue, the commits in the book. Out: extrinsics in the outbox, receipts.
    order -> preflight at a block -> plain row | commit | wait | refusal -> plan -> sign -> journal -> send
    block -> events per item -> receipt | again | commit anew;  commit + its reveal epoch -> reveal -> receipt
Waits for: the answers of the node; never for a block. `tick` does nothing twice for the same block, and only one thread
may call it. Weights that are set as soon as the chain allows are retried with exponential back-off, at most every 256
blocks.
Knows nothing of Ray, callers or threads.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raytensor.chain.error_actions import action_for
from raytensor.chain.errors import PoolRefusal
from raytensor.chain.intents import SetWeights
from raytensor.chain.reads.preflight import Refusal, SubnetView, check_weights, read_views
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.wallet import Signer
from raytensor.chain.writer.audit import AuditLog
from raytensor.chain.writer.batcher import Item, halve
from raytensor.chain.writer.commits import PendingCommits
from raytensor.chain.writer.extrinsic_table import Extrinsic
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.order_states import State
from raytensor.chain.writer.orders import Order, OrderQueue, Place
from raytensor.chain.writer.outbox import Outbox, Settled
from raytensor.chain.writer.planner import Planner
from raytensor.chain.writer.receipts import Receipts, is_reveal
from raytensor.chain.writer.renewal import Renewal
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.uids import UidCheck, once_more
from raytensor.errors import ChainError
from raytensor.types import Fate, Receipt

log = logging.getLogger(__name__)

LONGEST_PAUSE = 256  # blocks between two attempts for weights that keep failing
RECHECK = 50  # blocks after which a rate limit is read again: it may have been lowered


@dataclass(frozen=True, slots=True)
class Records:
    """What a pipeline reads orders from and writes its results to."""

    journal: Journal
    outbox: Outbox
    queue: OrderQueue
    receipts: Receipts
    audit: AuditLog


class Pipeline:
    """keys: the signers whose own key is here. delegate: a key that is a proxy of (some of) the signers.

    fence    raises if nothing may be sent any more.
    trouble  why the last tick failed, "" if it did not.
    stopped  signer -> why nothing is sent for it any more.
    """

    def __init__(
        self,
        client: ChainClient,
        records: Records,
        keys: Mapping[str, Signer],
        delegate: Signer | None,
        settings: WriterSettings,
        fence: Callable[[], None],
    ) -> None:
        self._client, self._fence = client, fence
        self._journal, self._outbox, self._queue = records.journal, records.outbox, records.queue
        self._receipts, self._audit = records.receipts, records.audit
        self._planner = Planner(client, self._outbox.table, keys, delegate, settings.limits)
        parts = self._journal, self._outbox, self._queue, self._receipts
        self.commits = PendingCommits(client, *parts, settings.commit_kind)
        places = self._queue.places, self._queue.has_weights
        self._renewal = Renewal(client, self._journal, settings.renewal, *places)
        self._uids = UidCheck(client)
        self._landed: list[Extrinsic] = []  # whose uids are to be compared
        self._setbacks: dict[Place, int] = {}  # failures in a row
        self._calendar: dict[Place, tuple[int, Refusal]] = {}  # head from which on it is looked at again, and why
        self._last_block = -1
        self.trouble = ""
        self.stopped: dict[str, str] = {}

    def tick(self) -> None:
        """Settle what new blocks have decided, and send what is due. Raises ChainUnavailable; nothing is lost then.

        After any other error `reload` has to be called before the next tick.
        """
        for settled in self._outbox.poll():
            self._settle(settled)
        self._compare_uids()
        head = self._outbox.head
        if head.number != self._last_block or self._queue.has_news:
            self._queue.follow_blocks()
            if renewed := self._renewal.due(head):
                self._queue.put(renewed, blocking=False)
            self._send(head)
            self._last_block = head.number

    def reload(self) -> None:
        """Load everything from the journal, as at a start: what is in memory may be ahead of it or behind."""
        self._outbox.restore(started=False)
        self._queue.reload()
        self.commits.reload()
        self._last_block = -1
        self._receipts.deliver_known()

    # What blocks have decided

    def _settle(self, settled: Settled) -> None:
        done = [r for r in settled.receipts if r.intent_id not in settled.retried]
        self._audit.reported(done, settled.extrinsic.nonce)
        for receipt, call in zip(settled.receipts, settled.calls):
            order = self._queue.sync(receipt.intent_id)
            if is_reveal(call):
                self.commits.reveal_ended(receipt)
            elif receipt.fate is Fate.FAILED:
                if "commit" in call:
                    self.commits.not_sent(receipt.intent_id)
                self._failed(order, receipt, retried=receipt.intent_id in settled.retried)
            else:
                if order is not None:
                    order.last = receipt
                    if receipt.fate is Fate.COMMITTED:
                        self._queue.mark_committed(order)
                    if order.place is not None:
                        self._setbacks.pop(order.place, None)
                        self._calendar.pop(order.place, None)
                self._receipts.deliver(receipt)

        if any(receipt.fate is Fate.INCLUDED for receipt in settled.receipts):
            self._landed.append(settled.extrinsic)

    def _compare_uids(self) -> None:
        """Set weights again that landed with a uid that had changed hands, for the hotkeys that they are meant for."""
        while self._landed:
            netuids = self._uids.landed_wrong(self._landed[0])
            landed = [i for i in self._landed[0].intent_ids if self._journal.state(i) in (State.IN_BLOCK, State.DONE)]
            intents = [self._journal.known_intent(i) for i in landed] if netuids else []
            weights = [one for one in intents if isinstance(one, SetWeights) and one.netuid in netuids]
            newer = self._journal.superseded(weights)
            last = [one for one in weights if one.intent_id not in newer]
            self._queue.put(list(once_more(last, self._landed[0].block or 0)), blocking=False)
            del self._landed[0]

    def _failed(self, order: Order | None, receipt: Receipt, *, retried: bool) -> None:
        """Nothing of an order can take effect: it is sent again, now or later, or a caller gets the receipt."""
        if order is None or not retried:
            self._receipts.deliver(receipt)
            return
        order.tries += 1
        self._put_off(order, receipt.error or "")

    def _put_off(self, order: Order, error: str) -> None:
        """Send an order again, after a pause if its weights keep failing."""
        block, pause, place = self._outbox.head.number, 1, order.place
        if not order.blocking and place is not None:
            pause = self._back_off(place)
            self._calendar[place] = block + pause, Refusal(error, block + pause + 1)
        if not self._queue.put_off(order, block + pause):
            self._supersede(order)
        elif pause > 1:
            self._hold(order, Refusal(error, block + pause + 1))

    def _supersede(self, order: Order) -> None:
        action = str(action_for("Superseded"))
        receipt = order.intent.receipt(Fate.NOT_SENT, "Superseded", action)
        if self._queue.withdraw(receipt):
            self._receipts.tell([receipt])

    def _back_off(self, place: Place) -> int:
        """Blocks until the next attempt: 1, 1, 2, 4, ... for failures in a row of one place."""
        self._setbacks[place] = self._setbacks.get(place, 0) + 1
        return min(LONGEST_PAUSE, 1 << max(0, self._setbacks[place] - 2))

    # What can be sent

    def _send(self, head: Head) -> None:
        self._find_rivals(head)
        orders = self._queue.due(head.number)
        busy = self._queue.places_in_flight() if orders else ()
        orders = [o for o in orders if o.place not in busy or o.state is State.OPEN]
        orders = [o for o in orders if not self._is_stopped(o) and not self._is_paused(o, head)]
        due = self.commits.due(head.number)
        if not orders and not due:
            return
        self._client.refresh_runtime()
        pairs = {(intent.netuid, intent.mecid) for o in orders if (intent := o.weights) is not None}
        pairs |= {(c.row.netuid, c.row.mecid) for c in due}
        views = read_views(self._client, pairs, head) if pairs else {}
        items = {item.intent_id: item for item in self.commits.reveals(views, head)}
        ready: dict[str, Order] = {}
        for order in orders:
            item = self._item(order, views)
            if item is not None:
                items[item.intent_id] = item
                ready[item.intent_id] = order
        self._post_all(items, ready, views)

    def _find_rivals(self, head: Head) -> None:
        """Orders whose extrinsics are over at the best block, or name a uid that has changed hands, may be signed again
        with the same nonce: the final block, which decides, may be far behind."""
        for order in self._queue.open_orders():
            intent_id = order.intent.intent_id
            carriers = self._outbox.table.carriers(intent_id)
            late = carriers and all(x.over(head.number) or self._outbox.is_outdated(x) for x in carriers)
            if late and order.rival_from is None and not carriers[-1].refusal:
                if self._queue.retries(order.intent.receipt(Fate.FAILED, "Expired", None)):
                    self._queue.put_off(order, head.number)

    def _is_stopped(self, order: Order) -> bool:
        """Whether its signer was stopped; reports that once."""
        cause = self.stopped.get(order.intent.signer)
        if cause is None:
            return False
        receipt = order.intent.receipt(Fate.NOT_SENT if order.blocking else Fate.HELD, "KeyInUse", cause)
        if not order.blocking:
            self._report_once(order, receipt)
        elif order.state is State.QUEUED:
            self._end(receipt)
        return True

    def _is_paused(self, order: Order, head: Head) -> bool:
        """Whether its place is closed for now. Newer weights do not open it sooner, so nothing is read for them."""
        paused = self._calendar.get(order.place) if order.place is not None else None
        if order.blocking or paused is None or paused[0] <= head.number:
            return False
        self._defer(order, *paused)
        return True

    def _item(self, order: Order, views: Mapping[tuple[int, int], SubnetView]) -> Item | None:
        """What can be sent of an order now; None if it was reported or deferred."""
        intent = order.intent
        if not self._planner.can_sign(intent):
            self._refuse(order, Refusal("NotProxy"))
            return None
        if not isinstance(intent, SetWeights):
            try:
                call = intent.call()
                self._client.runtime.encode_call(call)
            except (ChainError, ValueError) as error:  # one order that fits no runtime must not delay the others
                self._end(intent.receipt(Fate.NOT_SENT, "BadRequest", f"fix: {error}"))
                return None
            return Item(intent.intent_id, intent.signer, call=call, free=intent.free)
        view = views[intent.netuid, intent.mecid]
        found = check_weights(intent, view)
        if not isinstance(found, Refusal) and found.zeroed:
            log.warning("subnet %d: weights above 0 that are 0 as u16: %s", intent.netuid, ", ".join(found.zeroed))
        if not isinstance(found, Refusal) and view.commit_reveal:
            found = self.commits.make(intent, found, view)
        elif not isinstance(found, Refusal):
            found = Item(intent.intent_id, intent.signer, row=found, free=True)
        if isinstance(found, Refusal):
            self._refuse(order, found)
            return None
        return found

    def _refuse(self, order: Order, refusal: Refusal) -> None:
        """The chain would refuse it now: defer it if waiting helps and no caller waits, else report it."""
        if refusal.waits and not order.blocking:
            self._hold(order, refusal)
        elif order.state is State.QUEUED:
            self._end(order.intent.receipt(Fate.NOT_SENT, refusal.name, refusal.action, refusal.until))
        else:  # an extrinsic of it is open, and decides
            order.rival_from = None

    def _end(self, receipt: Receipt) -> None:
        """End an order of which nothing was sent."""
        if self._queue.withdraw(receipt):
            self._receipts.tell([receipt])

    def _hold(self, order: Order, refusal: Refusal) -> None:
        """Keep weights in the queue until the block before the one that allows them."""
        assert order.place is not None, "only weights are held"
        block = self._outbox.head.number
        again = refusal.until - 1 if refusal.until is not None else block + RECHECK
        self._calendar[order.place] = max(block + 1, min(again, block + RECHECK)), refusal
        self._defer(order, *self._calendar[order.place])

    def _defer(self, order: Order, not_before: int, refusal: Refusal) -> None:
        order.not_before = not_before
        if order.state is State.OPEN:
            order.rival_from = not_before
        self._report_once(order, order.intent.receipt(Fate.HELD, refusal.name, refusal.action, refusal.until))

    def _report_once(self, order: Order, receipt: Receipt) -> None:
        """Report a receipt unless it equals the order's last one."""
        if receipt != order.last:
            self._receipts.report(receipt)
            order.last = receipt

    # Sending

    def _post_all(
        self, items: Mapping[str, Item], orders: Mapping[str, Order], views: Mapping[tuple[int, int], SubnetView]
    ) -> None:
        final = self._client.finalized()
        batches = self._planner.plan_all(items)
        while batches:
            planned = batches.pop(0)
            self._fence()
            rows = [row for i in planned.intent_ids if i in items and (row := items[i].row) is not None]
            if not self._uids.hold(rows, views, self._outbox.head):
                continue  # a uid changed hands since the rows were made: the next tick makes them anew
            extrinsic = self._outbox.sign(planned, final)
            if extrinsic is None:  # its nonce is used, and the final block has not shown yet by which extrinsic
                continue
            own = [orders[i] for i in planned.intent_ids if i in orders]
            if not self._queue.claim(own, functools.partial(self._outbox.record, extrinsic)):
                continue  # newer weights came meanwhile: the next tick plans anew
            refusal = self._outbox.send(extrinsic)
            self._audit.sent(planned, extrinsic.hash, self._client.runtime.encode_call(planned.call))
            if refusal is None:
                continue
            # Too heavy, or the pool objects to one of its items: halves show which.
            if (refusal.action.split or refusal.custom is not None) and len(planned.intent_ids) > 1:
                halves = [part for half in halve(planned, items) for part in self._planner.plan(half)]
                # Both halves may go out where doing an item twice changes nothing; else the first is the rival of the
                # whole, and the rest waits until the final block has shown that the whole can't land.
                batches = (halves if planned.repeatable else halves[:1]) + batches
                continue
            for intent_id in planned.intent_ids:
                self._turned_down(intent_id, orders.get(intent_id), refusal)

    def _turned_down(self, intent_id: str, order: Order | None, refusal: PoolRefusal) -> None:
        """A node did not take an item. Its extrinsic stays open: another node may have it."""
        if order is None:
            intent = self._journal.known_intent(intent_id)
            self.commits.reveal_ended(intent.receipt(Fate.FAILED, refusal.name, str(refusal.action)))
            return
        receipt = order.intent.receipt(Fate.FAILED, refusal.name, str(refusal.action))
        retries = self._queue.retries(receipt)
        order.tries += 1
        if retries:
            self._put_off(order, refusal.name)
