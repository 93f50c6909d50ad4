"""Receipts: made from the outcome of an item of an extrinsic, recorded, and given to the callers that wait for them.

In: outcomes, and receipts that no block decided. Out: the journal, the audit log and the callers have them.
Thread-safe.
Waits for: its own lock and the disk. Knows nothing of connections.
"""

import json
import threading
import time
from collections.abc import Iterable, Sequence

from raytensor.chain.calls import call_from_json
from raytensor.chain.error_actions import action_for
from raytensor.chain.errors import dispatch_error_name
from raytensor.chain.rpc.events import Outcome, item_names
from raytensor.chain.rpc.runtime import Runtime
from raytensor.chain.writer.audit import AuditLog
from raytensor.chain.writer.commit_book import CommitBook
from raytensor.chain.writer.extrinsic_table import Extrinsic
from raytensor.chain.writer.journal import Journal
from raytensor.types import Fate, Receipt

# First word of the calls that set weights in two steps; success of any other call is INCLUDED.
_FATES = {"commit": Fate.COMMITTED, "reveal": Fate.REVEALED}


def _step(call: str) -> Fate | None:
    function = call.split(".")[1]
    return _FATES.get(function.removeprefix("batch_").split("_")[0]) if "weights" in function else None


def is_reveal(call: str) -> bool:
    return _step(call) is Fate.REVEALED


def reveals_of(extrinsic: Extrinsic) -> tuple[list[str], list[str]]:
    """The intents that an extrinsic reveals, which stay committed until a final block has it; and its other intents."""
    names = item_names(call_from_json(json.loads(extrinsic.call_json)))
    reveals = [intent_id for intent_id, name in zip(extrinsic.intent_ids, names) if is_reveal(name)]
    return reveals, [intent_id for intent_id in extrinsic.intent_ids if intent_id not in reveals]


def receipt_of(
    journal: Journal, runtime: Runtime, extrinsic: Extrinsic, place: int, result: Outcome, call: str, fee_rao: int = 0
) -> Receipt:
    """The receipt of one item of an extrinsic. call: its name."""
    intent = journal.known_intent(extrinsic.intent_ids[place])
    name = None if result.error is None else dispatch_error_name(result.error, runtime.module_error)
    step = _step(call)
    due = CommitBook(journal).due(intent.intent_id) if result.ok and step is Fate.COMMITTED else None
    return Receipt(
        intent_id=intent.intent_id,
        call=call if step else intent.name,
        signer=intent.signer,
        fate=(step or Fate.INCLUDED) if result.ok else Fate.FAILED,
        netuid=intent.subnet,
        block=extrinsic.block,
        extrinsic_hash=extrinsic.hash,
        error=name,
        action=str(action_for(name)) if name else None,
        fee_rao=fee_rao,
        until=due,
    )


class Receipts:
    """Where every receipt goes: the journal, the audit log, and the callers that wait for it."""

    def __init__(self, journal: Journal, audit: AuditLog) -> None:
        self._journal, self._audit = journal, audit
        self._changed = threading.Condition()
        self._answers: dict[str, Receipt | None] = {}  # of the intents that callers wait for
        self._waiters: dict[str, int] = {}

    def report(self, receipt: Receipt) -> None:
        """Record a receipt that no block decided, and deliver it."""
        self.tell(self._journal.settle([receipt]))

    def tell(self, receipts: Sequence[Receipt]) -> None:
        """Give receipts, which the journal has already, to the audit log and to the callers that wait for them."""
        self._audit.reported(receipts)
        for receipt in receipts:
            self.deliver(receipt)

    def deliver(self, receipt: Receipt) -> None:
        """Give a receipt, which the journal has already, to the callers that wait for it."""
        with self._changed:
            if receipt.intent_id in self._answers:
                self._answers[receipt.intent_id] = receipt
                self._changed.notify_all()

    def deliver_known(self) -> None:
        """Give the callers what the journal has: after something failed between the journal and a delivery."""
        for intent_id in self.awaited_ids():
            known = self._journal.ended_receipt(intent_id)
            if known is not None:
                self.deliver(known)

    def awaited_ids(self) -> list[str]:
        with self._changed:
            return [intent_id for intent_id, found in self._answers.items() if found is None]

    def awaited(self, intent_id: str) -> bool:
        """Whether a caller waits for this intent."""
        with self._changed:
            return intent_id in self._answers

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
