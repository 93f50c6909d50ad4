"""Extrinsics in flight: nonces, journal, submission; fates.py reads the blocks that decide about them.

In: planned extrinsics. Out: `Settled` items, with receipts. An extrinsic is in the journal and in the table before it
is sent. From then on it is open until a block has it, or until the final block shows that none can: its era is over, or
its nonce is used. No answer of a node closes it (error_actions.py says why). Only the same bytes are sent again, or a
rival with the same nonce: at most one of them takes effect.
Waits for: the answers of the node. Call `poll` in a loop, in one thread.
"""

import json
import logging
from collections.abc import Callable, Mapping

from raytensor.chain.errors import PoolRefusal
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.rpc.events import item_names, skeleton
from raytensor.chain.rpc.runtime import Era
from raytensor.chain.wallet import Signer
from raytensor.chain.writer.batcher import Planned
from raytensor.chain.writer.extrinsic_table import Extrinsic, ExtrinsicTable, Sent
from raytensor.chain.writer.fates import Fates, Settled
from raytensor.chain.writer.foreign import Foreign
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.order_states import Event, State
from raytensor.chain.writer.receipts import reveals_of
from raytensor.chain.writer.trail import Trail
from raytensor.chain.writer.uids import UidCheck
from raytensor.chain.writer.witness import Witness
from raytensor.errors import BlockUnknown, ChainUnavailable, FateUnknown
from raytensor.types import Receipt

log = logging.getLogger(__name__)

RESEND_AFTER_BLOCKS = 3  # after so many blocks an extrinsic that is in none is sent to the node again
SHORT_ERA = 8  # blocks, of weights: a uid may belong to another hotkey soon
LONGEST_LAG = 1000  # blocks between the best and the final block, up to which eras begin at the final one


class Outbox:
    """The extrinsics of some signers on one chain. One outbox per signer and chain, or nonces collide.

    retries     whether an order is sent again after a receipt that says that it has no effect.
    era_blocks  blocks in which an extrinsic is valid; weights have `SHORT_ERA`.
    witness     a second endpoint, which has to agree on what became of money; None: nobody is asked.
    malformed   answers to submissions that meant nothing.
    """

    def __init__(
        self,
        client: ChainClient,
        journal: Journal,
        signers: Mapping[str, Signer],
        retries: Callable[[Receipt], bool],
        *,
        era_blocks: int = 64,
        witness: Witness | None = None,
    ) -> None:
        self._client, self._journal, self._signers = client, journal, signers
        self._era_blocks = era_blocks
        self.table, self._trail = ExtrinsicTable(), Trail(client)
        addresses = {signer.public_key: address for address, signer in signers.items()}
        self._fates = Fates(client, journal, self.table, self._trail, addresses, retries, witness)
        self.counters = self._fates.counters
        self._uids, self._outdated = UidCheck(client), set[str]()
        self.malformed = 0

    @property
    def open(self) -> frozenset[str]:
        """Hashes of the extrinsics in flight."""
        return frozenset(extrinsic.hash for extrinsic in self.table.open)

    @property
    def head(self) -> Head:
        """The newest block that was read: reads at its hash agree with what `poll` has returned."""
        return self._trail.head

    def is_outdated(self, extrinsic: Extrinsic) -> bool:
        """Whether it is not sent again: a uid in its rows belongs to another hotkey now."""
        return extrinsic.hash in self._outdated

    def in_flight(self, intent_id: str) -> bool:
        """Whether an open extrinsic carries this intent."""
        return self.table.carries(intent_id)

    @property
    def foreign(self) -> list[Foreign]:
        """Extrinsics of other programs, found since the list was last emptied."""
        return self._fates.foreign

    def restore(self, *, started: bool = True) -> None:
        """Load the table from the journal; the blocks of the eras of what is open are read again.

        started  a writer starts: what its predecessor left open counts as submitted.
        """
        final, first = self._client.finalized(), self._trail.head.number
        self.counters["submitted"] += len(self._journal.open_extrinsics()) if started else 0
        counted = []
        for extrinsic in self._journal.in_block():
            reveals, others = reveals_of(extrinsic)
            settled = self._journal.is_settled(extrinsic)
            settled = settled and not any(self._journal.state(i) is State.COMMITTED for i in reveals)
            if settled and self._is_final(extrinsic, final) and self._fates.is_agreed_final(extrinsic):
                self._journal.finalize([extrinsic])
            else:
                counted.append(extrinsic.hash)
                self._journal.reopen(extrinsic, others)
        self.table.reset()
        for extrinsic in self._journal.open_extrinsics():
            self.table.add(extrinsic)
            first = min(first, extrinsic.birth)
        self._fates.restart(counted)
        self._trail.jump(Head(first, self._client.block_hash(first), ""))

    def _is_final(self, extrinsic: Extrinsic, final: Head) -> bool:
        number = extrinsic.block or 0
        return number <= final.number and extrinsic.hash in self._client.block(self._client.block_hash(number))[1]

    # Sending

    def sign(self, planned: Planned, final: Head) -> Extrinsic | None:
        """A signed extrinsic, not recorded and not sent. None if its intents wait for a nonce that was used."""
        signer = self._signers[planned.signer]
        nonce = self._nonce(planned)
        if nonce is None:
            return None
        shape = skeleton(planned.call)
        weights = all("weights" in name for name in item_names(shape))
        birth, era = self._era(final, short=weights)
        signed = self._client.sign(planned.call, signer, nonce=nonce, era=era, birth_hash=birth.hash)
        valid, text = (era.birth, era.death), json.dumps(shape.to_json())
        return Extrinsic(signed.hash, signer.ss58, nonce, *valid, signed.data, text, planned.intent_ids)

    def _era(self, final: Head, *, short: bool) -> tuple[Head, Era]:
        """The first block of an era, and the era. It begins at the final block, unless that is far behind."""
        best = self._trail.head
        lag = best.number - final.number
        if short or lag > LONGEST_LAG:
            return best, Era.mortal(best.number, SHORT_ERA if short else self._era_blocks)
        blocks = self._era_blocks if 4 * lag <= self._era_blocks else min(2048, 2 * lag + 64)
        return final, Era.mortal(final.number, blocks)

    def _nonce(self, planned: Planned) -> int | None:
        signer = self._signers[planned.signer].ss58
        carriers = [x for i in planned.intent_ids for x in self.table.carriers(i) if x.signer == signer]
        if carriers:  # a rival of what may take effect
            used = self._client.account_nonce(signer, self._trail.head.hash)
            free = [x.nonce for x in carriers if x.nonce >= used]
            if free or not planned.repeatable:
                return min(free, default=None)
        known = self.table.known_nonce(signer)
        if known is not None:
            return known
        nonce = self._client.account_next_index(signer)
        if self.table.has_contested(signer):
            used = self._client.account_nonce(signer, self._trail.head.hash)
            contested = self.table.contested_nonce(signer, used)
            nonce = nonce if contested is None else min(nonce, contested)
        return nonce

    def record(self, extrinsic: Extrinsic) -> None:
        """Record a signed extrinsic: it is open from now on, whatever happens next."""
        self._journal.add_extrinsic(extrinsic)
        self.table.add(extrinsic, self._trail.head.number)

    def send(self, extrinsic: Extrinsic) -> PoolRefusal | None:
        """Send a recorded extrinsic. Returns the refusal of a node that did not take it; the extrinsic stays open."""
        refusal = self._send(extrinsic, first=True)
        self.counters["submitted" if refusal is None else "failed"] += 1
        return refusal

    def _send(self, extrinsic: Extrinsic, *, first: bool = False) -> PoolRefusal | None:
        hash = extrinsic.hash
        self.table.sent(hash, self._trail.head.number)
        try:
            refusal = self._client.submit(extrinsic.data)
        except ChainUnavailable as error:
            if isinstance(error, BlockUnknown):  # an answer to the submission that speaks of a block
                self._unanswered(extrinsic, error)
                return None
            if first:
                self._not_posted(extrinsic, str(error))
            raise
        except Exception as error:  # the bytes may have left, and whatever came back is no answer
            self.malformed += not isinstance(error, FateUnknown)
            self._unanswered(extrinsic, error)
            return None
        if refusal is None:
            self.table.pooled(hash)
            self._journal.mark(hash, Sent.POOLED)
            return None
        words = f"{refusal.name}: {refusal.text}"
        if not refusal.sure:
            self._unanswered(extrinsic, refusal.text)
            return None
        state = self.table.doubted(hash, words).state
        self._journal.mark(hash, state, detail=words)
        return refusal

    def _unanswered(self, extrinsic: Extrinsic, why: object) -> None:
        log.warning("extrinsic %s of %s: %s", extrinsic.hash, extrinsic.signer, why)
        self.table.unanswered(extrinsic.hash)

    def _not_posted(self, extrinsic: Extrinsic, why: str) -> None:
        self.table.ended(extrinsic.hash)
        with self._journal.transaction():
            self._journal.mark(extrinsic.hash, Sent.REFUSED, detail=f"no endpoint could be reached: {why}")
            free = [i for i in extrinsic.intent_ids if not self.table.carries(i)]
            self._journal.move(free, Event.NOT_POSTED)

    # Reading

    def poll(self) -> list[Settled]:
        """Read the blocks since the last call, and settle what they decide."""
        head, fates = self._client.head(), self._fates
        if not self._trail.is_at(head) or self.table.in_block or fates.unwitnessed:
            try:
                final = self._client.finalized()
                fates.read(final if final.number > head.number else head, final)
                fates.finalize(final)
                fates.expire(final)
                self._resend(head)
                self._trail.forget_before(final.number)
            except ChainUnavailable:
                if not fates.settled:  # what was found is returned first; the next call tries the rest again
                    raise
        return fates.take()

    def _resend(self, head: Head) -> None:
        """Send the same bytes again for extrinsics that are in no block after `RESEND_AFTER_BLOCKS`, except weights for
        uids that have changed hands: those are signed anew, with the same nonce."""
        self._outdated &= self.open
        for extrinsic in self.table.open:
            if extrinsic.hash in self._fates.unwitnessed:
                continue
            due = head.number - self.table.sent_at(extrinsic.hash) >= RESEND_AFTER_BLOCKS
            if due and extrinsic.state is not Sent.DOUBTED and not extrinsic.over(head.number):
                if self.is_outdated(extrinsic) or self._uids.changed(extrinsic, head.hash) != set():
                    self._outdated.add(extrinsic.hash)
                elif refusal := self._send(extrinsic):
                    log.warning("extrinsic %s again: %s %s", extrinsic.hash, refusal.name, refusal.text)
