"""What blocks decide about extrinsics in flight: outcomes, finality, expiry, forks, extrinsics of other programs.

In: the blocks of the best chain and the final block. Out: `Settled` items with receipts; orders are moved in the
journal in the same transaction as their extrinsic. Success is reported when a block of the best chain has it; failure,
and weights that were revealed, when that block is final. Expiry is judged at final blocks only. If a block leaves the
best chain, its extrinsics are open again.
Waits for: the answers of the node. Used by the outbox, in its thread.
"""

import functools
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from raytensor.chain.calls import call_from_json
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.rpc.events import Outcome, fee, item_names
from raytensor.chain.rpc.runtime import extrinsic_hash
from raytensor.chain.rpc.versions import BlockEvents, unreadable
from raytensor.chain.writer.extrinsic_table import Extrinsic, ExtrinsicTable, Sent
from raytensor.chain.writer.foreign import Foreign, foreign_in, runtime_of
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.order_states import Event, State
from raytensor.chain.writer.receipts import is_reveal, receipt_of, reveals_of
from raytensor.chain.writer.trail import Trail
from raytensor.chain.writer.witness import Witness
from raytensor.errors import BlockUnknown
from raytensor.types import Fate, Receipt

log = logging.getLogger(__name__)

MAX_CATCH_UP = 256  # blocks that are read after a gap in which nothing was in flight
Items = list[tuple[Receipt, str]]  # a receipt, and the name of the call of its item


@dataclass(frozen=True, slots=True)
class Settled:
    """Items of an extrinsic with a known fate: a receipt and the name of the call of each.

    retried  intents that are to be sent again: nothing of them can take effect, and the journal says so.
    """

    extrinsic: Extrinsic
    receipts: tuple[Receipt, ...]
    calls: tuple[str, ...]
    retried: frozenset[str] = frozenset()


class Fates:
    """The blocks from `trail` on, for the extrinsics in `table`.

    retries    whether an order is sent again after a receipt that says that it has no effect.
    witness    has to agree before money counts as applied, failed or expired; None: nobody is asked.
    addresses  public key -> address of each signer.
    settled    what was found and not taken yet: a read that fails half-way loses none.
    foreign    extrinsics of other programs, found since the list was last emptied.
    counters   "included" and "failed" are counted here.
    """

    def __init__(
        self,
        client: ChainClient,
        journal: Journal,
        table: ExtrinsicTable,
        trail: Trail,
        addresses: Mapping[bytes, str],
        retries: Callable[[Receipt], bool],
        witness: Witness | None = None,
    ) -> None:
        self._client, self._journal, self._table, self._trail = client, journal, table, trail
        self._by_account, self._retries, self._witness = addresses, retries, witness
        self._seen: dict[str, tuple[Head, int]] = {}  # hash -> block and place of money that the witness has not seen
        self._began = trail.head.number
        self._later: dict[str, Items] = {}  # by hash, in blocks that are not final: what is reported when they are
        self._counted: set[str] = set()  # extrinsics whose inclusion an earlier writer has counted
        self.settled: list[Settled] = []
        self.foreign: list[Foreign] = []
        self.counters = {"submitted": 0, "included": 0, "failed": 0}

    def restart(self, counted: Iterable[str] = ()) -> None:
        """The table was loaded from the journal. counted: hashes that count as included already."""
        self._later, self._seen = {}, {}
        self._counted |= set(counted)

    @property
    def unwitnessed(self) -> frozenset[str]:
        """Hashes of the extrinsics that a block here has, and that a second endpoint has not confirmed."""
        return frozenset(self._seen)

    def take(self) -> list[Settled]:
        settled, self.settled = self.settled, []
        return settled

    def read(self, head: Head, final: Head) -> None:
        """Read the blocks up to this one."""
        self._step_back()
        self._ask_again()
        while (number := self._trail.head.number) < head.number:
            waits = any(not extrinsic.over(number) for extrinsic in self._table.open)
            waits = waits or any((extrinsic.block or 0) > final.number for extrinsic in self._table.in_block)
            if not waits and head.number - number > MAX_CATCH_UP:
                self._trail.jump(head)
                return
            found = self._trail.next_block()
            if found is None:  # the best chain has changed meanwhile
                self._step_back()
                continue
            self._scan(*found)
            self._trail.add(found[0])

    def _scan(self, block: Head, extrinsics: list[bytes]) -> None:
        hashes = [extrinsic_hash(data) for data in extrinsics]
        for hash, data in zip(hashes, extrinsics):
            if self._table.find_open(hash) or block.number <= self._began:
                continue
            runtime = functools.partial(runtime_of, self._client, block)
            for found in foreign_in(data, block.number, self._by_account, runtime, self._journal.knows_extrinsic):
                self.foreign.append(found)
                self._table.forget_nonce(found.signer)
        places = {hash: at for at, hash in enumerate(hashes) if self._table.find_open(hash)}
        events = self._events(block) if places else None
        for hash, at in places.items():
            extrinsic = self._table.find_open(hash)
            assert extrinsic is not None
            self._include(extrinsic, block, events, at)

    def _ask_again(self) -> None:
        """Include what the witness sees now."""
        for hash, (block, at) in list(self._seen.items()):
            if (extrinsic := self._table.find_open(hash)) is None:
                del self._seen[hash]
            else:
                self._include(extrinsic, block, self._events(block), at)

    def is_agreed_final(self, extrinsic: Extrinsic) -> bool:
        """Whether the block of an extrinsic, which is final here, counts as final."""
        if self._witness is None or not self._moves_money(extrinsic):
            return True
        return self._witness.has_finalized(extrinsic)

    def _moves_money(self, extrinsic: Extrinsic) -> bool:
        return any(self._journal.known_intent(intent_id).moves for intent_id in extrinsic.intent_ids)

    def _events(self, block: Head) -> BlockEvents | None:
        """The events of a block, as far as its runtime can decode them; None if the node has discarded its state."""
        try:
            return self._client.block_events(block.hash, block.parent)
        except BlockUnknown as error:
            if "discarded" not in str(error):
                raise
            log.warning("block %d has extrinsics of ours, and its events are gone: %s", block.number, error)
            return None

    def _include(self, extrinsic: Extrinsic, block: Head, events: BlockEvents | None, index: int) -> None:
        """A block of the best chain has it, as number `index`. In the journal first: to other threads an intent is
        always in flight or settled. Money waits for the witness."""
        number = block.number
        in_block = replace(extrinsic, state=Sent.INCLUDED, block=number)
        call = call_from_json(json.loads(extrinsic.call_json))
        calls = item_names(call)
        results = events.outcomes(call, index) if events is not None else unreadable(call)
        assert len(results) == len(extrinsic.intent_ids), f"{call.name}: {len(results)} outcomes"
        if self._witness is not None and self._moves_money(extrinsic):
            if not self._witness.has_included(extrinsic, block, index, call, results):
                self._seen[extrinsic.hash] = block, index
                return
            self._seen.pop(extrinsic.hash, None)
        paid = fee((events and events.of(index)) or ())
        runtime = events.runtime if events is not None else self._client.runtime
        found = [
            receipt_of(self._journal, runtime, in_block, place, result, calls[place], paid * (place == 0))
            for place, result in enumerate(results)
        ]
        later = {r.intent_id for r, name in zip(found, calls) if r.fate is Fate.FAILED or is_reveal(name)}
        now = [(receipt, name) for receipt, name in zip(found, calls) if receipt.intent_id not in later]
        with self._journal.transaction():
            recorded = self._journal.settle([r for r, _ in now], (extrinsic.hash, Sent.INCLUDED, number))
            self._journal.move(later, Event.RAN)
        self._table.included(extrinsic.hash, number)
        self._settle_items(in_block, [(r, name) for r, name in now if r in recorded])
        self._later[extrinsic.hash] = [(r, name) for r, name in zip(found, calls) if r.intent_id in later]
        if extrinsic.hash in self._counted:
            self._counted.remove(extrinsic.hash)
            return
        self.counters["included"] += 1
        self.counters["failed"] += not all(result.ok for result in results)

    def _settle_items(self, extrinsic: Extrinsic, items: Items, retried: Iterable[str] = ()) -> None:
        if items:
            receipts, calls = zip(*items)
            self.settled.append(Settled(extrinsic, receipts, calls, frozenset(retried)))

    def finalize(self, final: Head) -> None:
        """What is in final blocks is done, or has failed for good."""
        done = [x for x in self._table.in_block if (x.block or 0) <= final.number]
        for extrinsic in done:
            if not self.is_agreed_final(extrinsic):
                continue
            with self._journal.transaction():
                self._journal.finalize([extrinsic])
                items, retried = self._end(self._later.get(extrinsic.hash, []))
            self._table.leave(extrinsic.hash)
            self._later.pop(extrinsic.hash, None)
            self._settle_items(extrinsic, items, retried)

    def _end(self, items: Items) -> tuple[Items, set[str]]:
        """Record items that have failed for good, or were revealed. Returns those that count, and which are retried."""
        ended, retried = [], set()
        for receipt, name in items:
            failed = receipt.fate is Fate.FAILED
            if failed and is_reveal(name):
                pass  # its commit decides what happens next
            elif failed and self._retries(receipt):
                retried.add(receipt.intent_id)
                self._journal.move([receipt.intent_id], Event.RETRIED)
            elif not self._journal.settle([receipt]):
                continue
            ended.append((receipt, name))
        return ended, retried

    def expire(self, final: Head) -> None:
        """Settle those that cannot be included any more: the era is over, or another extrinsic has used the nonce.

        Both are judged at the finalized block, which has been scanned: a later block may still contain the extrinsic.
        """
        nonces: dict[str, int] = {}
        for extrinsic in self._table.open:
            if extrinsic.hash in self._seen:
                continue
            if extrinsic.signer not in nonces:
                nonces[extrinsic.signer] = self._client.account_nonce(extrinsic.signer, final.hash)
            over = extrinsic.over(final.number)
            if over or nonces[extrinsic.signer] > extrinsic.nonce:
                if self._witness is not None and self._moves_money(extrinsic):
                    if not self._witness.has_ended(extrinsic, final):
                        continue
                self._ended(extrinsic, "Expired" if over else "Stale")

    def _ended(self, extrinsic: Extrinsic, cause: str) -> None:
        error = extrinsic.refusal.split(":", 1)[0] or cause
        if len(extrinsic.intent_ids) > 1:
            error = cause  # which of its items the node refused is not known
        calls = item_names(call_from_json(json.loads(extrinsic.call_json)))
        result = Outcome(False, error, run=False)
        expired = replace(extrinsic, state=Sent.EXPIRED)
        items = []
        for place, intent_id in enumerate(extrinsic.intent_ids):
            if len(self._table.carriers(intent_id)) < 2 and not self._has_landed(intent_id, calls[place]):
                items.append(
                    (
                        receipt_of(self._journal, self._client.runtime, expired, place, result, calls[place]),
                        calls[place],
                    )
                )
        with self._journal.transaction():
            self._journal.mark(extrinsic.hash, Sent.EXPIRED, detail=cause)
            items, retried = self._end(items)
        self._table.ended(extrinsic.hash)
        self.counters["failed"] += extrinsic.state is not Sent.DOUBTED  # refusals were counted
        self._settle_items(expired, items, retried)

    def _has_landed(self, intent_id: str, call: str) -> bool:
        """Whether a rival took effect: a block has the order, or its commit unless this is the reveal."""
        state = self._journal.state(intent_id)
        committed = state is State.COMMITTED and not is_reveal(call)
        return committed or state in (State.IN_BLOCK, State.DONE, State.FAILED)

    def _step_back(self) -> None:
        """If scanned blocks have left the best chain, go back to the last common one and reopen their extrinsics."""
        before = self._trail.head.number
        number = self._trail.step_back()
        if number is None:
            return
        log.warning("blocks %d to %d left the best chain", number + 1, before)
        self._seen = {hash: seen for hash, seen in self._seen.items() if seen[0].number <= number}
        for extrinsic in [x for x in self._table.in_block if (x.block or 0) > number]:
            self._journal.reopen(extrinsic, reveals_of(extrinsic)[1])
            self._table.reopen(extrinsic.hash)
            self._later.pop(extrinsic.hash, None)
            self.counters["included"] -= 1
