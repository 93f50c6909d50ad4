"""Signed extrinsics on their way: nonces, journal, submission, and watching the blocks until each one's fate is known.

In: planned extrinsics. Out: `Settled` ones, each with a receipt per intent. Written to the journal before it is sent,
never signed twice; what has an uncertain fate is looked up on the chain, by its hash in the blocks of its era and by
the account's nonce, and only then the very same bytes may be sent again: they can take effect once at most. That one can
take effect no more is judged at final blocks alone: what a fork may undo proves nothing.
A subscription is trusted with nothing: blocks are read. A block that left the best chain is noticed, and what it
held is open again. Extrinsics of our signers that are in no journal of ours are told too: somebody else uses the key.
Waits for nothing but the node's answers; `poll` is to be called in a loop.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from raytensor.chain.calls import call_from_json
from raytensor.chain.errors import PoolRefusal, action_for, dispatch_error_name
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.rpc.events import Event, Outcome, fee, item_names, outcomes, skeleton
from raytensor.chain.rpc.runtime import Era, extrinsic_hash, signer_of
from raytensor.chain.wallet import Signer
from raytensor.chain.writer.batcher import Planned
from raytensor.chain.writer.journal import Extrinsic, Journal, Sent
from raytensor.errors import BlockUnknown, ChainUnavailable, FateUnknown
from raytensor.types import Fate, Receipt

log = logging.getLogger(__name__)

RESEND_AFTER_BLOCKS = 3  # an extrinsic that is in no block by then is handed to the node again
MAX_CATCH_UP = 256  # blocks that are read after a silence in which nothing of ours was on its way
# Calls by which weights get on the chain in two steps; what any other call's success means is INCLUDED.
_FATES = {"commit": Fate.COMMITTED, "reveal": Fate.REVEALED}


@dataclass(frozen=True, slots=True)
class Settled:
    """An extrinsic whose fate is known, what became of each of its intents, and the call that each item was."""

    extrinsic: Extrinsic
    receipts: tuple[Receipt, ...]
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Foreign:
    """An extrinsic of one of our signers that this journal does not know."""

    signer: str
    hash: str
    block: int


class Outbox:
    """The extrinsics of some signers on one chain. One outbox per signer and chain, or nonces collide."""

    def __init__(
        self, client: ChainClient, journal: Journal, signers: Mapping[str, Signer], *, era_blocks: int = 64
    ) -> None:
        self._client = client
        self._journal = journal
        self._signers = signers
        self._by_account = {signer.public_key: address for address, signer in signers.items()}
        self._era_blocks = era_blocks
        self._next_nonce: dict[str, int] = {}
        self._open: dict[str, Extrinsic] = {}
        self._carried: Counter[str] = Counter()  # intents of open extrinsics
        self.reveal_block: Callable[[str], int | None] = lambda intent_id: None  # of a committed intent
        self.foreign: list[Foreign] = []  # found since the list was last emptied
        self._last_sent: dict[str, int] = {}  # hash -> head when it was last handed to a node
        self._recent: dict[str, Extrinsic] = {}  # included in blocks that are not final yet
        self._settled: list[Settled] = []  # found and not told yet: a poll that fails half-way loses none
        head = client.head()
        self._scanned = self._began = head.number
        self._trail: dict[int, str] = {head.number: head.hash}  # scanned blocks that are not final yet
        self.counters = {"submitted": 0, "included": 0, "failed": 0}

    @property
    def open(self) -> frozenset[str]:
        """Hashes of the extrinsics whose fate is not known."""
        return frozenset(self._open)

    @property
    def head(self) -> Head:
        """The newest block that was read: reads at its hash agree with what `poll` has told."""
        hash = self._trail[self._scanned]
        return Head(self._scanned, hash, "")

    def carrying(self, intent_id: str) -> bool:
        """Whether an open extrinsic carries this intent."""
        return self._carried[intent_id] > 0

    def restore(self) -> None:
        """Takes up what the journal says is open, or in a block that is not final: the blocks of the eras are read again
        from their start."""
        for extrinsic in self._journal.included_after(self._client.finalized().number):
            self._journal.reopen(extrinsic)
        for extrinsic in self._journal.open_extrinsics():
            self._watch(extrinsic)
            self._last_sent[extrinsic.hash] = 0
            self._scanned = min(self._scanned, extrinsic.birth)
            self.counters["submitted"] += 1  # by a predecessor: what it may have sent is ours to count from here on
        self._trail = {self._scanned: self._client.block_hash(self._scanned)}

    def post(self, planned: Planned, born: Head) -> str | PoolRefusal:
        """Signs, writes and sends one extrinsic. Its hash if it is on its way (or may be), else why the node refused.

        born: a final block not older than a few minutes, the first of the era.
        """
        signer = self._signers[planned.signer]
        nonce = self._next_nonce.get(signer.ss58)
        if nonce is None:
            nonce = self._client.account_next_index(signer.ss58)
        era = Era.mortal(born.number, self._era_blocks)
        signed = self._client.sign(planned.call, signer, nonce=nonce, era=era, birth_hash=born.hash)
        shape = json.dumps(skeleton(planned.call).to_json())
        extrinsic = Extrinsic(
            signed.hash, signer.ss58, nonce, era.birth, era.death, signed.data, shape, planned.intent_ids
        )
        self._journal.add_extrinsic(extrinsic)
        try:
            refusal = self._hand_over(extrinsic)
        except ChainUnavailable:
            self._journal.mark(extrinsic.hash, Sent.REFUSED, detail="no endpoint could be reached: not sent")
            raise
        if refusal is None:
            self.counters["submitted"] += 1
            return extrinsic.hash
        self._journal.mark(extrinsic.hash, Sent.REFUSED, detail=f"{refusal.name}: {refusal.text}")
        self.counters["failed"] += 1
        return refusal

    def poll(self) -> list[Settled]:
        """Reads what blocks there are since the last call, and settles what they decide."""
        head = self._client.head()
        if self._trail.get(head.number) != head.hash or self._scanned != head.number:
            try:
                final = self._client.finalized()
                self._read(final if final.number > head.number else head)
                self._expire(final)
                self._resend(head)
                self._forget_before(final.number)
            except ChainUnavailable:
                if not self._settled:  # what was found is told first; the next look tries the rest again
                    raise
        settled, self._settled = self._settled, []
        return settled

    def _read(self, head: Head) -> None:
        """The blocks up to this one."""
        self._step_back()
        if not self._open and head.number - self._scanned > MAX_CATCH_UP:
            self._scanned, self._trail, self._recent = head.number, {head.number: head.hash}, {}
        while self._scanned < head.number:
            block, extrinsics = self._client.extrinsics(self._client.block_hash(self._scanned + 1))
            if block.parent != self._trail[self._scanned]:  # the best chain changed under our feet
                self._step_back()
                continue
            self._scan(block, extrinsics)

    def _hand_over(self, extrinsic: Extrinsic) -> PoolRefusal | None:
        """Sends an extrinsic's bytes; keeps it open unless the node refused it for certain."""
        head = self._scanned
        try:
            refusal = self._client.submit(extrinsic.data)
        except FateUnknown as error:
            log.warning("extrinsic %s of %s: %s", extrinsic.hash, extrinsic.signer, error)
            self._next_nonce.pop(extrinsic.signer, None)  # ask the chain which nonce is next
            self._watch(extrinsic)
            self._last_sent[extrinsic.hash] = head
            return None
        if refusal is not None:
            self._next_nonce.pop(extrinsic.signer, None)
            if refusal.sure:
                return refusal
            log.warning("extrinsic %s of %s: %s %s", extrinsic.hash, extrinsic.signer, refusal.name, refusal.text)
            self._watch(extrinsic)
            self._last_sent[extrinsic.hash] = head
            return None
        self._journal.mark(extrinsic.hash, Sent.POOLED)
        self._next_nonce[extrinsic.signer] = max(self._next_nonce.get(extrinsic.signer, 0), extrinsic.nonce + 1)
        self._watch(replace(extrinsic, state=Sent.POOLED))
        self._last_sent[extrinsic.hash] = head
        return None

    def forget_nonce(self, signer: str) -> None:
        """The next nonce of this signer is asked of the chain."""
        self._next_nonce.pop(signer, None)

    def _watch(self, extrinsic: Extrinsic) -> None:
        if extrinsic.hash not in self._open:
            self._carried.update(extrinsic.intent_ids)
        self._open[extrinsic.hash] = extrinsic

    def _unwatch(self, hash: str) -> Extrinsic:
        extrinsic = self._open.pop(hash)
        for intent_id in extrinsic.intent_ids:
            self._carried[intent_id] -= 1
            if not self._carried[intent_id]:
                del self._carried[intent_id]
        return extrinsic

    def _scan(self, block: Head, extrinsics: list[bytes]) -> None:
        hashes = [extrinsic_hash(data) for data in extrinsics]
        for hash, data in zip(hashes, extrinsics):
            address = self._by_account.get(signer_of(data))
            if address is None or hash in self._open or block.number <= self._began:
                continue
            if not self._journal.knows_extrinsic(hash):
                self.foreign.append(Foreign(address, hash, block.number))
                self._next_nonce.pop(address, None)
        places = {hash: at for at, hash in enumerate(hashes) if hash in self._open}
        events = self._events(block) if places else []
        for hash, at in places.items():
            own = None if events is None else [event for index, event in events if index == at]
            # In the journal first: an intent is always either carried or settled, whoever looks meanwhile.
            self._settled.append(self._include(self._open[hash], block.number, own))
            self._unwatch(hash)
        self._trail[block.number] = block.hash
        self._scanned = block.number

    def _events(self, block: Head) -> list[tuple[int | None, Event]] | None:
        """The events of a block, None if the node keeps the block but its state no more (we were away for long)."""
        try:
            return self._client.events(block.hash)
        except BlockUnknown as error:
            if "discarded" not in str(error):
                raise
            log.warning("block %d has extrinsics of ours, and its events are gone: %s", block.number, error)
            return None

    def _include(self, extrinsic: Extrinsic, block: int, events: list[Event] | None) -> Settled:
        extrinsic = replace(extrinsic, state=Sent.INCLUDED, block=block)
        call = call_from_json(json.loads(extrinsic.call_json))
        calls = item_names(call)
        # Without events nobody can tell what an item did; it counts as done, since to do it twice would be worse.
        results = outcomes(call, events) if events is not None else (Outcome(True, "OutcomeUnreadable"),) * len(calls)
        assert len(results) == len(extrinsic.intent_ids), f"{call.name}: {len(results)} outcomes"
        paid = fee(events or ())
        receipts = tuple(
            self._receipt(extrinsic, intent_id, result, calls[place], paid if place == 0 else 0)
            for place, (intent_id, result) in enumerate(zip(extrinsic.intent_ids, results))
        )
        self._journal.settle(receipts, (extrinsic.hash, Sent.INCLUDED, block))
        self._recent[extrinsic.hash] = extrinsic
        self.counters["included"] += 1
        self.counters["failed"] += not all(result.ok for result in results)
        return Settled(extrinsic, receipts, calls)

    def _receipt(self, extrinsic: Extrinsic, intent_id: str, result: Outcome, call: str, paid: int) -> Receipt:
        intent = self._journal.intent(intent_id)
        name = None if result.error is None else dispatch_error_name(result.error, self._client.runtime.module_error)
        step = _FATES.get(call.split(".")[1].removeprefix("batch_").split("_")[0])
        return Receipt(
            intent_id=intent_id,
            call=call if step else intent.name,
            signer=intent.signer,
            fate=(step or Fate.INCLUDED) if result.ok else Fate.FAILED,
            netuid=getattr(intent, "netuid", None),
            block=extrinsic.block,
            extrinsic_hash=extrinsic.hash,
            error=name,
            action=str(action_for(name)) if name else None,
            fee_rao=paid,
            until=self.reveal_block(intent_id) if result.ok and step is Fate.COMMITTED else None,
        )

    def _expire(self, final: Head) -> None:
        """Those that can't be included any more: the era is over, or another extrinsic has used the nonce.

        Both by the final block, which has been scanned: a later one might hold the very extrinsic.
        """
        nonces: dict[str, int] = {}
        for extrinsic in list(self._open.values()):
            if extrinsic.signer not in nonces:
                nonces[extrinsic.signer] = self._client.account_nonce(extrinsic.signer, final.hash)
            over = extrinsic.death is not None and final.number >= extrinsic.death
            if over or nonces[extrinsic.signer] > extrinsic.nonce:
                self._unwatch(extrinsic.hash)
                self._next_nonce.pop(extrinsic.signer, None)
                expired = replace(extrinsic, state=Sent.EXPIRED)
                result = Outcome(False, "Expired" if over else "Stale", run=False)
                calls = item_names(call_from_json(json.loads(expired.call_json)))
                receipts = tuple(
                    self._receipt(expired, intent_id, result, call, 0)
                    for intent_id, call in zip(expired.intent_ids, calls)
                )
                self._journal.settle(receipts, (expired.hash, Sent.EXPIRED, None))
                self.counters["failed"] += 1
                self._settled.append(Settled(expired, receipts, calls))

    def _resend(self, head: Head) -> None:
        """Hands the same bytes to the node again where some blocks went by without them."""
        for extrinsic in list(self._open.values()):
            if head.number - self._last_sent[extrinsic.hash] >= RESEND_AFTER_BLOCKS:
                refusal = self._hand_over(extrinsic)
                self._last_sent[extrinsic.hash] = head.number
                if refusal is not None:  # it stays open: only its era's end or its nonce is proof
                    log.warning("extrinsic %s again: %s %s", extrinsic.hash, refusal.name, refusal.text)

    def _step_back(self) -> None:
        """If scanned blocks have left the best chain, goes back to the last common one and reopens what they held."""
        before = self._scanned
        while self._client.find_block_hash(self._scanned) != self._trail[self._scanned]:
            del self._trail[self._scanned]
            self._scanned -= 1
            if self._scanned not in self._trail:  # below what was final: only a chain without finality does this
                self._trail[self._scanned] = self._client.block_hash(self._scanned)
                break
        if self._scanned == before:
            return
        log.warning("blocks %d to %d left the best chain", self._scanned + 1, before)
        for extrinsic in list(self._recent.values()):
            if extrinsic.block > self._scanned:
                del self._recent[extrinsic.hash]
                reopened = replace(extrinsic, state=Sent.POOLED, block=None)
                self._journal.reopen(reopened)
                self._watch(reopened)
                self._last_sent[extrinsic.hash] = 0
                self.counters["included"] -= 1

    def _forget_before(self, final: int) -> None:
        for number in [n for n in self._trail if n < min(final, self._scanned)]:
            del self._trail[number]
        self._recent = {hash: x for hash, x in self._recent.items() if x.block > final}
