"""The work of the writer: settles what blocks have decided, and sends what is due.

In: the orders in the queue, the commits in the book. Out: extrinsics in the outbox, receipts.
    order -> preflight at a block -> plain row | commit | wait | refusal -> plan -> sign -> journal -> send
    block -> events per item -> receipt | again | commit anew;  commit + its reveal epoch -> reveal -> receipt
Waits for: the answers of the node; never for a block. `tick` does nothing twice for the same block, and only one thread
may call it. Weights that are set as soon as the chain allows are retried with exponential back-off, at most every 256
blocks.
Knows nothing of Ray, callers or threads.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raytensor.chain.calls import Call
from raytensor.chain.error_actions import Do, action_for
from raytensor.chain.errors import PoolRefusal
from raytensor.chain.intents import SetWeights
from raytensor.chain.reads.preflight import Refusal, SubnetView, check_weights, read_views
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.wallet import Signer
from raytensor.chain.writer.audit import AuditLog
from raytensor.chain.writer.batcher import Item, Planned, halve, plan
from raytensor.chain.writer.commits import PendingCommits
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.limits import Meter, read_limits
from raytensor.chain.writer.orders import Order, OrderQueue, Place, Receipts, Stage
from raytensor.chain.writer.outbox import Outbox, Settled
from raytensor.chain.writer.settings import WriterSettings
from raytensor.errors import ChainError
from raytensor.types import Fate, Receipt

log = logging.getLogger(__name__)

ATTEMPTS = 3  # of a blocking order
LONGEST_PAUSE = 256  # blocks between two attempts for weights that keep failing
RECHECK = 50  # blocks after which a rate limit is read again: it may have been lowered
# Types of a delegate's proxy that allow setting weights (chain: ProxyType).
_PROXY_TYPES = {"Any", "NonTransfer", "NonCritical", "NonFungible"}


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
        any_key = next(iter(keys.values()), delegate)
        assert any_key is not None, "a writer has at least one key"
        self._client, self._keys, self._delegate, self._fence = client, keys, delegate, fence
        self._journal, self._outbox, self._queue = records.journal, records.outbox, records.queue
        self._receipts, self._audit = records.receipts, records.audit
        self._limits = settings.limits or read_limits(client)
        self._any_public_key = any_key.public_key
        self._meter = Meter(client, any_key.public_key)
        parts = self._journal, self._outbox, self._queue, self._receipts
        self.commits = PendingCommits(client, *parts, settings.commit_kind)
        self._delegates: dict[str, str] = {}
        self._free_batches: dict[int, bool] = {}  # by spec version
        self._setbacks: dict[Place, int] = {}  # failures in a row
        self._calendar: dict[Place, tuple[int, Refusal]] = {}  # head from which on it is looked at again, and why
        self._last_block = -1
        self.trouble = ""
        self.stopped: dict[str, str] = {}

    def tick(self) -> None:
        """Settle what new blocks have decided, and send what is due. Raises ChainUnavailable; nothing is lost then."""
        for settled in self._outbox.poll():
            self._settle(settled)
        head = self._outbox.head
        if head.number != self._last_block or self._queue.has_news:
            self._send(head)
            self._last_block = head.number

    # What blocks have decided

    def _settle(self, settled: Settled) -> None:
        self._audit.reported(settled.receipts, settled.extrinsic.nonce)
        for receipt, call in zip(settled.receipts, settled.calls):
            order = self._queue.get(receipt.intent_id)
            if receipt.fate is Fate.REVEALED or (receipt.fate is Fate.FAILED and "reveal" in call):
                self.commits.reveal_ended(receipt)
            elif receipt.fate is Fate.FAILED:
                if "commit" in call:
                    self.commits.not_sent(receipt.intent_id)
                self._failed(order, receipt)
            else:
                if order is not None and receipt.fate is Fate.COMMITTED:
                    order.last = receipt
                    self._queue.mark_committed(order)
                elif order is not None:
                    self._queue.drop(receipt.intent_id)
                if order is not None and (place := order.place) is not None:
                    self._setbacks.pop(place, None)
                    self._calendar.pop(place, None)
                self._receipts.deliver(receipt)

    def _failed(self, order: Order | None, receipt: Receipt, *, recorded: bool = True) -> None:
        """An order's extrinsic, or its item of a batch, had no effect: send it again, now or later, or report it.

        recorded  the journal has the receipt already.
        """
        if order is None:  # of an earlier writer: no caller here waits for it
            self._receipts.deliver(receipt)
            return
        action, place = action_for(receipt.error or ""), order.place
        order.tries += 1
        retry = action.resend or (place is not None and action.do in (Do.RETRY, Do.WAIT, Do.REPLAN))
        if order.blocking and (not retry or order.tries >= ATTEMPTS):
            self._queue.drop(receipt.intent_id)
            (self._receipts.deliver if recorded else self._receipts.report)(receipt)
            return
        block, pause = self._outbox.head.number, 1
        if not order.blocking and place is not None:
            pause = self._back_off(place)
            self._calendar[place] = block + pause, Refusal(receipt.error or "", block + pause + 1)
        if not self._queue.put_back(order, block + pause):
            self._superseded(order)
        elif pause > 1:
            self._hold(order, Refusal(receipt.error or "", block + pause + 1))

    def _superseded(self, order: Order) -> None:
        action = str(action_for("Superseded"))
        self._receipts.report(order.intent.receipt(Fate.NOT_SENT, "Superseded", action))

    def _back_off(self, place: Place) -> int:
        """Blocks until the next attempt: 1, 1, 2, 4, ... for failures in a row of one place."""
        self._setbacks[place] = self._setbacks.get(place, 0) + 1
        return min(LONGEST_PAUSE, 1 << max(0, self._setbacks[place] - 2))

    # What can be sent

    def _send(self, head: Head) -> None:
        orders = self._queue.due(head.number)
        busy = self._queue.places_in_flight() if orders else ()
        orders = [o for o in orders if o.place not in busy and not self._is_stopped(o) and not self._is_paused(o, head)]
        due = self.commits.due(head.number)
        if not orders and not due:
            return
        self._client.refresh_runtime()
        pairs = {(intent.netuid, intent.mecid) for o in orders if (intent := o.weights) is not None}
        pairs |= {(c.row.netuid, c.row.mecid) for c in due}
        views = read_views(self._client, pairs, head) if pairs else {}
        items = {item.intent_id: item for item in self.commits.reveals(views, head)}
        ready: list[Order] = []
        for order in orders:
            item = self._item(order, views)
            if item is not None:
                items[item.intent_id] = item
                ready.append(order)
        sent = {order.intent.intent_id: order for order in self._queue.mark_sent(ready)}
        for order in ready:
            if order.intent.intent_id not in sent:  # superseded meanwhile
                self.commits.not_sent(order.intent.intent_id)
                del items[order.intent.intent_id]
        try:
            self._post_all(items, sent)
        finally:
            for order in sent.values():  # what could not be sent is queued again
                if order.stage is Stage.SENT and not self._outbox.in_flight(order.intent.intent_id):
                    self.commits.not_sent(order.intent.intent_id)
                    if not self._queue.put_back(order, head.number):
                        self._superseded(order)

    def _is_stopped(self, order: Order) -> bool:
        """Whether its signer was stopped; reports that once."""
        cause = self.stopped.get(order.intent.signer)
        if cause is not None:
            if order.blocking:
                self._queue.drop(order.intent.intent_id)
            self._report_once(order, Fate.NOT_SENT if order.blocking else Fate.HELD, "KeyInUse", cause)
        return cause is not None

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
        if intent.signer not in self._keys and intent.signer not in self._delegated(intent.signer):
            self._refuse(order, Refusal("NotProxy"))
            return None
        if not isinstance(intent, SetWeights):
            try:
                call = intent.call()
                self._client.runtime.encode_call(call)
            except (ChainError, ValueError) as error:  # one order that fits no runtime must not delay the others
                self._queue.drop(intent.intent_id)
                self._receipts.report(intent.receipt(Fate.NOT_SENT, "BadRequest", f"fix: {error}"))
                return None
            return Item(intent.intent_id, intent.signer, call=call, free=intent.free)
        view = views[intent.netuid, intent.mecid]
        found = check_weights(intent, view)
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
            return
        self._queue.drop(order.intent.intent_id)
        receipt = order.intent.receipt(Fate.NOT_SENT, refusal.name, refusal.action, refusal.until)
        self._receipts.report(receipt)

    def _hold(self, order: Order, refusal: Refusal) -> None:
        """Keep weights in the queue until the block before the one that allows them."""
        assert order.place is not None, "only weights are held"
        block = self._outbox.head.number
        again = refusal.until - 1 if refusal.until is not None else block + RECHECK
        self._calendar[order.place] = max(block + 1, min(again, block + RECHECK)), refusal
        self._defer(order, *self._calendar[order.place])

    def _defer(self, order: Order, not_before: int, refusal: Refusal) -> None:
        order.not_before = not_before
        self._report_once(order, Fate.HELD, refusal.name, refusal.action, refusal.until)

    def _report_once(self, order: Order, fate: Fate, error: str, action: str, until: int | None = None) -> None:
        """Report a receipt unless it equals the order's last one."""
        receipt = order.intent.receipt(fate, error, action, until)
        if receipt != order.last:
            order.last = receipt
            self._receipts.report(receipt)

    # Sending

    def _post_all(self, items: Mapping[str, Item], sent: Mapping[str, Order]) -> None:
        born = self._client.finalized()
        batches = self._plan(list(items.values()))
        while batches:
            planned = batches.pop(0)
            self._fence()
            refusal = self._outbox.post(planned, born)
            if not isinstance(refusal, PoolRefusal):
                self._audit.sent(planned, refusal, self._client.runtime.encode_call(planned.call))
                continue
            # Too heavy, or the pool objects to one of its items: halves show which.
            if (refusal.action.split or refusal.custom is not None) and len(planned.intent_ids) > 1:
                batches = [part for half in halve(planned, items) for part in self._plan(half)] + batches
                continue
            for intent_id in planned.intent_ids:
                self._turned_down(intent_id, sent.get(intent_id), refusal)

    def _turned_down(self, intent_id: str, order: Order | None, refusal: PoolRefusal) -> None:
        """The pool refused an item for certain."""
        intent = order.intent if order is not None else self._journal.known_intent(intent_id)
        receipt = intent.receipt(Fate.FAILED, refusal.name, str(refusal.action))
        if order is None:
            self.commits.reveal_ended(receipt)
            return
        self.commits.not_sent(intent_id)
        self._failed(order, receipt, recorded=False)

    def _plan(self, items: Sequence[Item]) -> list[Planned]:
        runtime = self._client.runtime
        return plan(
            items,
            self._limits,
            delegates=self._delegated(),
            keys=self._keys,
            cost=self._meter,
            native_batch=runtime.has_call("SubtensorModule", "batch_set_weights"),
            native_commits=runtime.has_call("SubtensorModule", "batch_commit_weights"),
            free_batches=self._batches_are_free(items),
        )

    def _batches_are_free(self, items: Sequence[Item]) -> bool:
        """Whether a force_batch of free calls costs nothing on this runtime; read once, when two free calls are due."""
        calls = [item.call for item in items if item.free and item.call is not None]
        if len(calls) < 2:
            return False
        spec = self._client.spec_version
        if spec not in self._free_batches:
            call = Call("Utility", "force_batch", {"calls": calls[:1]})
            self._free_batches[spec] = self._client.fee(call, self._any_public_key)[0] == 0
        return self._free_batches[spec]

    def _delegated(self, *more: str) -> dict[str, str]:
        """signer -> delegate, for the signers (of this writer, and `more`) that made the delegate their proxy."""
        if self._delegate is None:
            return {}
        missing = [address for address in {*self._keys, *more} if address not in self._delegates]
        if missing and self._client.runtime.has_storage("Proxy", "Proxies"):
            found = self._client.query_many([("Proxy", "Proxies", [address]) for address in missing])
            for address, (proxies, _deposit) in zip(missing, found):
                usable = [p for p in proxies if p["delay"] == 0 and p["proxy_type"] in _PROXY_TYPES]
                if any(p["delegate"] == self._delegate.ss58 for p in usable):
                    self._delegates[address] = self._delegate.ss58
        return self._delegates
