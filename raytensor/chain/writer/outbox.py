"""Extrinsics in flight: nonces, journal, submission, and the blocks that decide their fate.

In: planned extrinsics. Out: `Settled` ones, each with a receipt per intent. An extrinsic is in the journal before it is
sent and is never signed twice. If its fate is uncertain, its hash is searched in the blocks of its era and the
account's nonce is read; only the same bytes may be sent again, since they take effect at most once. Expiry is decided
on finalized blocks only. Blocks are read, not taken from a subscription. If a block leaves the best chain, its
extrinsics are open again. Extrinsics of our signers that this journal does not have are reported in `foreign`: another
program uses the key.
Waits for: the answers of the node. Call `poll` in a loop.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from raytensor.chain.calls import call_from_json
from raytensor.chain.error_actions import action_for
from raytensor.chain.errors import PoolRefusal, dispatch_error_name
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.rpc.events import Outcome, fee, item_names, skeleton
from raytensor.chain.rpc.runtime import Era, Runtime, extrinsic_hash, signer_of
from raytensor.chain.rpc.versions import BlockEvents, unreadable
from raytensor.chain.wallet import Signer
from raytensor.chain.writer.batcher import Planned
from raytensor.chain.writer.commit_book import CommitBook
from raytensor.chain.writer.journal import Extrinsic, Journal, Sent
from raytensor.errors import BlockUnknown, ChainUnavailable, FateUnknown
from raytensor.types import Fate, Receipt

log = logging.getLogger(__name__)

RESEND_AFTER_BLOCKS = 3  # after so many blocks an extrinsic that is in none is sent to the node again
MAX_CATCH_UP = 256  # blocks that are read after a gap in which nothing was in flight
# First word of the calls that set weights in two steps; success of any other call is INCLUDED.
_FATES = {"commit": Fate.COMMITTED, "reveal": Fate.REVEALED}


@dataclass(frozen=True, slots=True)
class Settled:
    """An extrinsic with a known fate, the receipts of its intents, and the call of each of its items."""

    extrinsic: Extrinsic
    receipts: tuple[Receipt, ...]
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Foreign:
    """An extrinsic of one of our signers that this journal does not have."""

    signer: str
    hash: str
    block: int


class Outbox:
    """The extrinsics of some signers on one chain. One outbox per signer and chain, or nonces collide.

    era_blocks  blocks in which an extrinsic is valid.
    foreign     extrinsics of other programs, found since the list was last emptied.
    """

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
        self._commits = CommitBook(journal)
        self.foreign: list[Foreign] = []
        self._last_sent: dict[str, int] = {}  # hash -> head when it was last sent to a node
        self._recent: dict[str, Extrinsic] = {}  # included in blocks that are not finalized yet
        self._settled: list[Settled] = []  # found and not returned yet: a poll that fails half-way loses none
        head = client.head()
        self._scanned = self._began = head.number
        self._trail: dict[int, str] = {head.number: head.hash}  # scanned blocks that are not finalized yet
        self.counters = {"submitted": 0, "included": 0, "failed": 0}

    @property
    def open(self) -> frozenset[str]:
        """Hashes of the extrinsics in flight."""
        return frozenset(self._open)

    @property
    def head(self) -> Head:
        """The newest block that was read: reads at its hash agree with what `poll` has returned."""
        return Head(self._scanned, self._trail[self._scanned], "")

    def in_flight(self, intent_id: str) -> bool:
        """Whether an open extrinsic carries this intent."""
        return self._carried[intent_id] > 0

    def restore(self) -> None:
        """Load from the journal what is open or in a block that is not finalized; its eras' blocks are read again."""
        for extrinsic in self._journal.included_after(self._client.finalized().number):
            self._journal.reopen(extrinsic)
        for extrinsic in self._journal.open_extrinsics():
            self._watch(extrinsic)
            self._last_sent[extrinsic.hash] = 0
            self._scanned = min(self._scanned, extrinsic.birth)
            self.counters["submitted"] += 1  # by the predecessor
        self._trail = {self._scanned: self._client.block_hash(self._scanned)}

    def post(self, planned: Planned, born: Head) -> str | PoolRefusal:
        """Sign, record and send one extrinsic. Returns its hash if it is or may be in flight, else the refusal.

        born  first block of the era: a finalized block not older than a few minutes.
        """
        signer = self._signers[planned.signer]
        nonce = self._next_nonce.get(signer.ss58)
        if nonce is None:
            nonce = self._client.account_next_index(signer.ss58)
        era = Era.mortal(born.number, self._era_blocks)
        signed = self._client.sign(planned.call, signer, nonce=nonce, era=era, birth_hash=born.hash)
        shape = json.dumps(skeleton(planned.call).to_json())
        valid = era.birth, era.death
        extrinsic = Extrinsic(signed.hash, signer.ss58, nonce, *valid, signed.data, shape, planned.intent_ids)
        self._journal.add_extrinsic(extrinsic)
        try:
            refusal = self._send(extrinsic)
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
        """Read the blocks since the last call, and settle what they decide."""
        head = self._client.head()
        if self._trail.get(head.number) != head.hash or self._scanned != head.number:
            try:
                final = self._client.finalized()
                self._read(final if final.number > head.number else head)
                self._expire(final)
                self._resend(head)
                self._forget_before(final.number)
            except ChainUnavailable:
                if not self._settled:  # what was found is returned first; the next call tries the rest again
                    raise
        settled, self._settled = self._settled, []
        return settled

    def _read(self, head: Head) -> None:
        """Read the blocks up to this one."""
        self._step_back()
        if not self._open and head.number - self._scanned > MAX_CATCH_UP:
            self._scanned, self._trail, self._recent = head.number, {head.number: head.hash}, {}
        while self._scanned < head.number:
            block, extrinsics = self._client.extrinsics(self._client.block_hash(self._scanned + 1))
            if block.parent != self._trail[self._scanned]:  # the best chain has changed meanwhile
                self._step_back()
                continue
            self._scan(block, extrinsics)

    def _send(self, extrinsic: Extrinsic) -> PoolRefusal | None:
        """Send the bytes of an extrinsic. It stays open unless the node refused it for certain."""
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
            signer = signer_of(data)
            address = None if signer is None else self._by_account.get(signer)
            if address is None or hash in self._open or block.number <= self._began:
                continue
            if not self._journal.knows_extrinsic(hash):
                self.foreign.append(Foreign(address, hash, block.number))
                self._next_nonce.pop(address, None)
        places = {hash: at for at, hash in enumerate(hashes) if hash in self._open}
        events = self._events(block) if places else None
        for hash, at in places.items():
            # In the journal first: to other threads an intent is always in flight or settled.
            self._settled.append(self._include(self._open[hash], block.number, events, at))
            self._unwatch(hash)
        self._trail[block.number] = block.hash
        self._scanned = block.number

    def _events(self, block: Head) -> BlockEvents | None:
        """The events of a block, as far as its runtime can decode them; None if the node has discarded its state."""
        try:
            return self._client.block_events(block.hash, block.parent)
        except BlockUnknown as error:
            if "discarded" not in str(error):
                raise
            log.warning("block %d has extrinsics of ours, and its events are gone: %s", block.number, error)
            return None

    def _include(self, extrinsic: Extrinsic, block: int, found: BlockEvents | None, index: int) -> Settled:
        """Settle an extrinsic by the events of number `index` in its block."""
        extrinsic = replace(extrinsic, state=Sent.INCLUDED, block=block)
        call = call_from_json(json.loads(extrinsic.call_json))
        calls = item_names(call)
        results = found.outcomes(call, index) if found is not None else unreadable(call)
        assert len(results) == len(extrinsic.intent_ids), f"{call.name}: {len(results)} outcomes"
        paid = fee((found and found.of(index)) or ())
        runtime = found.runtime if found is not None else self._client.runtime
        receipts = tuple(
            self._receipt(extrinsic, intent_id, result, calls[place], paid if place == 0 else 0, runtime)
            for place, (intent_id, result) in enumerate(zip(extrinsic.intent_ids, results))
        )
        self._journal.settle(receipts, (extrinsic.hash, Sent.INCLUDED, block))
        self._recent[extrinsic.hash] = extrinsic
        self.counters["included"] += 1
        self.counters["failed"] += not all(result.ok for result in results)
        return Settled(extrinsic, receipts, calls)

    def _receipt(
        self, extrinsic: Extrinsic, intent_id: str, result: Outcome, call: str, paid: int, runtime: Runtime
    ) -> Receipt:
        intent = self._journal.known_intent(intent_id)
        name = None if result.error is None else dispatch_error_name(result.error, runtime.module_error)
        step = _FATES.get(call.split(".")[1].removeprefix("batch_").split("_")[0])
        return Receipt(
            intent_id=intent_id,
            call=call if step else intent.name,
            signer=intent.signer,
            fate=(step or Fate.INCLUDED) if result.ok else Fate.FAILED,
            netuid=intent.subnet,
            block=extrinsic.block,
            extrinsic_hash=extrinsic.hash,
            error=name,
            action=str(action_for(name)) if name else None,
            fee_rao=paid,
            until=self._commits.due(intent_id) if result.ok and step is Fate.COMMITTED else None,
        )

    def _expire(self, final: Head) -> None:
        """Settle those that cannot be included any more: the era is over, or another extrinsic has used the nonce.

        Both are judged at the finalized block, which has been scanned: a later block may still contain the extrinsic.
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
                    self._receipt(expired, intent_id, result, call, 0, self._client.runtime)
                    for intent_id, call in zip(expired.intent_ids, calls)
                )
                self._journal.settle(receipts, (expired.hash, Sent.EXPIRED, None))
                self.counters["failed"] += 1
                self._settled.append(Settled(expired, receipts, calls))

    def _resend(self, head: Head) -> None:
        """Send the same bytes again for extrinsics that are in no block after `RESEND_AFTER_BLOCKS`."""
        for extrinsic in list(self._open.values()):
            if head.number - self._last_sent[extrinsic.hash] >= RESEND_AFTER_BLOCKS:
                refusal = self._send(extrinsic)
                self._last_sent[extrinsic.hash] = head.number
                if refusal is not None:  # it stays open: only the end of its era or its nonce proves expiry
                    log.warning("extrinsic %s again: %s %s", extrinsic.hash, refusal.name, refusal.text)

    def _step_back(self) -> None:
        """If scanned blocks have left the best chain, go back to the last common one and reopen their extrinsics."""
        before = self._scanned
        while self._client.find_block_hash(self._scanned) != self._trail[self._scanned]:
            del self._trail[self._scanned]
            self._scanned -= 1
            if self._scanned not in self._trail:  # below the finalized block: only on a chain without finality
                self._trail[self._scanned] = self._client.block_hash(self._scanned)
                break
        if self._scanned == before:
            return
        log.warning("blocks %d to %d left the best chain", self._scanned + 1, before)
        for extrinsic in list(self._recent.values()):
            if (extrinsic.block or 0) > self._scanned:
                del self._recent[extrinsic.hash]
                reopened = replace(extrinsic, state=Sent.POOLED, block=None)
                self._journal.reopen(reopened)
                self._watch(reopened)
                self._last_sent[extrinsic.hash] = 0
                self.counters["included"] -= 1

    def _forget_before(self, final: int) -> None:
        for number in [n for n in self._trail if n < min(final, self._scanned)]:
            del self._trail[number]
        self._recent = {hash: x for hash, x in self._recent.items() if (x.block or 0) > final}
