"""The writer's work, one look at the chain at a time: what blocks have decided, what has become possible, what is due.

In: the orders on the desk, the commits in the book. Out: extrinsics in the outbox, receipts.
    order -> preflight at a block -> plain row | commit | wait | refusal -> plan -> sign -> journal -> send
    block -> events per item -> receipt | again | commit anew;  commit + its reveal epoch -> reveal -> receipt
`tick` never waits for a block and does nothing twice for the same block; only one thread may call it. Weights that are
to be set as soon as the chain allows are never given up: what the chain refuses is tried again, at most once in
ever longer pauses, so that a failing validator is no flood. Knows nothing of Ray, callers or threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from raytensor.chain.calls import Call, SetWeights
from raytensor.chain.errors import Do, PoolRefusal, action_for
from raytensor.chain.reads.preflight import Refusal, check_weights, read_views
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.wallet import Signer
from raytensor.chain.writer.batcher import Item, Limits, Planned, halve, plan
from raytensor.chain.writer.commits import CommitDesk
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.limits import Meter, read_limits
from raytensor.chain.writer.orders import Desk, Order, Stage, receipt_of
from raytensor.chain.writer.outbox import Outbox, Settled
from raytensor.chain.writer.policy_check import Gate
from raytensor.errors import ChainError
from raytensor.types import Fate, Receipt

log = logging.getLogger(__name__)

ATTEMPTS = 3  # of an order whose caller waits
LONGEST_PAUSE = 256  # blocks between two tries of standing weights that keep failing
RECHECK = 50  # blocks after which a rate limit is read again, which may have been lowered
# Refusals and ends after which the same intent may go in a new extrinsic: the old one certainly has no effect.
_AGAIN = {"Stale", "BadProof", "AncientBirthBlock", "PriorityTooLow", "PoolFull", "Expired"}
# Proxy types that may set weights and do the like (chain: ProxyType), for delegates.
_PROXY_TYPES = {"Any", "NonTransfer", "NonCritical", "NonFungible"}


class Pipeline:
    """keys: signers whose own key is here. delegate: a key that is a proxy of (some of) the signers.

    limits: of one extrinsic; None reads them from the chain. fence: raises if nothing may be sent any more.
    commit_kind: see CommitDesk.
    """

    def __init__(
        self,
        client: ChainClient,
        journal: Journal,
        outbox: Outbox,
        desk: Desk,
        gate: Gate,
        keys: Mapping[str, Signer],
        delegate: Signer | None,
        limits: Limits | None = None,
        fence: Callable[[], None] = lambda: None,
        commit_kind: str | None = None,
    ) -> None:
        self._client, self._journal, self._outbox = client, journal, outbox
        self._desk, self._gate, self._keys, self._delegate, self._fence = desk, gate, keys, delegate, fence
        self._limits = limits or read_limits(client)
        self._meter = Meter(client, next(iter(keys.values()), delegate).public_key)
        self.commits = CommitDesk(client, journal, outbox, desk, self.tell, commit_kind)
        self._delegates: dict[str, str] = {}
        self._free_batches: dict[int, bool] = {}  # by spec version
        self._setbacks: dict[tuple, int] = {}  # place -> failures in a row
        self._calendar: dict[tuple, tuple[int, Refusal]] = {}  # place -> (head from which it is looked at again, why)
        self._looked = -1
        self.trouble = ""  # why the last look at the chain failed, "" if it did not
        self.stopped: dict[str, str] = {}  # signer -> why nothing of it is sent any more

    def tick(self) -> None:
        """One look. Raises ChainUnavailable; nothing is lost by that."""
        for settled in self._outbox.poll():
            self._settled(settled)
        head = self._outbox.head
        if head.number != self._looked or self._desk.has_news:
            self._send(head)
            self._looked = head.number

    def tell(self, receipt: Receipt) -> None:
        """A fate that no block decided: to the journal, the audit log and whoever waits."""
        self._journal.settle([receipt])
        self._gate.reported(receipt)
        self._desk.answer(receipt)

    # What blocks decided

    def _settled(self, settled: Settled) -> None:
        self._gate.settled([settled])
        for receipt, call in zip(settled.receipts, settled.calls):
            order = self._desk.get(receipt.intent_id)
            if receipt.fate is Fate.REVEALED or (receipt.fate is Fate.FAILED and "reveal" in call):
                self.commits.reveal_ended(receipt)
            elif receipt.fate is Fate.FAILED:
                if "commit" in call:
                    self.commits.refused(receipt.intent_id)
                self._failed(order, receipt)
            elif receipt.fate is Fate.COMMITTED:
                if order is not None:
                    self._opened(order)
                    order.last = receipt
                    self._desk.committed(order)
                self._desk.answer(receipt)
            else:
                if order is not None:
                    self._opened(order)
                    self._desk.drop(receipt.intent_id)
                self._desk.answer(receipt)

    def _failed(self, order: Order | None, receipt: Receipt, *, told: bool = True) -> None:
        """An order's extrinsic (or its part of one) had no effect: again, later, or reported.

        told: the journal has the receipt already.
        """
        if order is None:  # of a predecessor: nobody here waits for it
            self._desk.answer(receipt)
            return
        name, weights = receipt.error, isinstance(order.intent, SetWeights)
        order.tries += 1
        passing = name in _AGAIN or (weights and action_for(name).do in (Do.RETRY, Do.WAIT, Do.REPLAN))
        if order.once and (not passing or order.tries >= ATTEMPTS):
            self._desk.drop(receipt.intent_id)
            self._desk.answer(receipt) if told else self.tell(receipt)
            return
        block, pause = self._outbox.head.number, 1
        if not order.once:
            pause = self._setback(order.place)
            self._calendar[order.place] = block + pause, Refusal(name, block + pause + 1)
        if not self._desk.put_back(order, block + pause):
            self._overtaken(order)
        elif pause > 1:
            self._hold(order, Refusal(name, block + pause + 1))

    def _overtaken(self, order: Order) -> None:
        self.tell(receipt_of(order.intent, Fate.NOT_SENT, "Superseded", str(action_for("Superseded"))))

    def _setback(self, place: tuple) -> int:
        """Blocks to wait: 1, 1, 2, 4, ... for failures in a row of one place."""
        self._setbacks[place] = self._setbacks.get(place, 0) + 1
        return min(LONGEST_PAUSE, 1 << max(0, self._setbacks[place] - 2))

    def _opened(self, order: Order) -> None:
        """The chain took weights of this place."""
        self._setbacks.pop(order.place, None)
        self._calendar.pop(order.place, None)

    # What can be sent

    def _send(self, head: Head) -> None:
        orders = self._desk.due(head.number)
        busy = self._desk.places_sent() if orders else ()
        orders = [o for o in orders if o.place not in busy and not self._stopped(o) and not self._paused(o, head)]
        due = self.commits.due(head.number)
        if not orders and not due:
            return
        self._client.refresh_runtime()
        pairs = {(o.intent.netuid, o.intent.mecid) for o in orders if o.place is not None}
        pairs |= {(c.row.netuid, c.row.mecid) for c in due}
        views = read_views(self._client, pairs, head) if pairs else {}
        items = {item.intent_id: item for item in self.commits.steps(views, head)}
        ready: list[Order] = []
        for order in orders:
            item = self._item(order, views)
            if item is not None:
                items[item.intent_id] = item
                ready.append(order)
        taken = {order.intent.intent_id: order for order in self._desk.take(ready)}
        for order in ready:
            if order.intent.intent_id not in taken:  # newer weights came in between
                self.commits.refused(order.intent.intent_id)
                del items[order.intent.intent_id]
        try:
            self._post_all(items, taken)
        finally:
            # What could not be sent waits on.
            for order in taken.values():
                if order.stage is Stage.SENT and not self._outbox.carrying(order.intent.intent_id):
                    self.commits.refused(order.intent.intent_id)
                    if not self._desk.put_back(order, head.number):
                        self._overtaken(order)

    def _stopped(self, order: Order) -> bool:
        why = self.stopped.get(order.intent.signer)
        if why is not None:
            receipt = receipt_of(order.intent, Fate.NOT_SENT if order.once else Fate.HELD, "KeyInUse", why)
            if order.once:
                self._desk.drop(order.intent.intent_id)
            if receipt != order.last:
                order.last = receipt
                self.tell(receipt)
        return why is not None

    def _paused(self, order: Order, head: Head) -> bool:
        """Whether its place is closed for now; newer weights do not make the chain take them sooner, so nothing is read."""
        again, refusal = self._calendar.get(order.place, (0, None))
        if order.once or again <= head.number:
            return False
        self._keep(order, again, refusal)
        return True

    def _item(self, order: Order, views: Mapping) -> Item | None:
        """What can be sent of an order now, None if it is told or kept."""
        intent = order.intent
        if intent.signer not in self._keys and intent.signer not in self._delegated(intent.signer):
            self._refuse(order, Refusal("NotProxy"))
            return None
        if not isinstance(intent, SetWeights):
            try:
                call = intent.call()
                self._client.runtime.encode_call(call)
            except (ChainError, ValueError) as error:  # one order that fits no runtime must not hold up the others
                self._desk.drop(intent.intent_id)
                self.tell(receipt_of(intent, Fate.NOT_SENT, "BadRequest", f"fix: {error}"))
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
        """The chain would not take it now: kept if time can change that and nobody waits, else told."""
        if refusal.waits and not order.once:
            self._hold(order, refusal)
            return
        self._desk.drop(order.intent.intent_id)
        self.tell(receipt_of(order.intent, Fate.NOT_SENT, refusal.name, refusal.action, refusal.until))

    def _hold(self, order: Order, refusal: Refusal) -> None:
        """It stays on the desk until the block before the one that allows it, and says so once."""
        block = self._outbox.head.number
        again = refusal.until - 1 if refusal.until is not None else block + RECHECK
        self._calendar[order.place] = max(block + 1, min(again, block + RECHECK)), refusal
        self._keep(order, *self._calendar[order.place])

    def _keep(self, order: Order, again: int, refusal: Refusal) -> None:
        order.not_before = again
        receipt = receipt_of(order.intent, Fate.HELD, refusal.name, refusal.action, refusal.until)
        if receipt != order.last:
            order.last = receipt
            self.tell(receipt)

    # Sending

    def _post_all(self, items: Mapping[str, Item], taken: Mapping[str, Order]) -> None:
        born = self._client.finalized()
        queue = self._plan(list(items.values()))
        while queue:
            planned = queue.pop(0)
            self._fence()
            refusal = self._outbox.post(planned, born)
            if not isinstance(refusal, PoolRefusal):
                self._gate.sent(planned, refusal, self._client.runtime.encode_call(planned.call))
                continue
            # Too heavy, or one of its items is what the pool does not like: halves tell which.
            if (refusal.name == "ExhaustsResources" or refusal.custom is not None) and len(planned.intent_ids) > 1:
                queue = [part for half in halve(planned, items) for part in self._plan(half)] + queue
                continue
            for intent_id in planned.intent_ids:
                self._turned_down(items[intent_id], taken.get(intent_id), refusal)

    def _turned_down(self, item: Item, order: Order | None, refusal: PoolRefusal) -> None:
        intent = order.intent if order is not None else self._journal.intent(item.intent_id)
        receipt = receipt_of(intent, Fate.FAILED, refusal.name, str(refusal.action))
        if order is None:
            self.commits.reveal_ended(receipt)
            return
        self.commits.refused(item.intent_id)
        self._failed(order, receipt, told=False)

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
        """Whether a force_batch of free calls costs nothing on this runtime; asked where it would matter."""
        calls = [item.call for item in items if item.free and item.call is not None]
        if len(calls) < 2:
            return False
        spec = self._client.spec_version
        if spec not in self._free_batches:
            call = Call("Utility", "force_batch", {"calls": calls[:1]})
            key = next(iter(self._keys.values()), self._delegate).public_key
            self._free_batches[spec] = self._client.fee(call, key)[0] == 0
        return self._free_batches[spec]

    def _delegated(self, *more: str) -> dict[str, str]:
        """signer -> delegate, for the signers (ours and `more`) that made our delegate their proxy."""
        if self._delegate is None:
            return {}
        missing = [address for address in {*self._keys, *more} if address not in self._delegates]
        if missing and self._client.runtime.has_storage("Proxy", "Proxies"):
            found = self._client.query_many([("Proxy", "Proxies", [address]) for address in missing])
            for address, (proxies, _deposit) in zip(missing, found):
                if any(
                    p["delegate"] == self._delegate.ss58 and p["delay"] == 0 and p["proxy_type"] in _PROXY_TYPES
                    for p in proxies
                ):
                    self._delegates[address] = self._delegate.ss58
        return self._delegates
