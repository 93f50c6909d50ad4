"""The chain writer: carries out intents and sets weights for the keys that it holds, with a receipt for each.

In: `Weights` or intents of its signers. Out: receipts.
    submit(intents)      carries them out and waits for the blocks, at most `inclusion_timeout_s`
    hold(weights)        the newest weights of each (hotkey, subnet, mechanism): set in the first block that allows it,
                         committed and revealed on subnets with commit-reveal; returns at once, whatever the chain does
    set_weights(weights) `hold`, then waits until each is set, committed, held for later or refused
    receipts_since(n)    every receipt since, in order: for callers that hold and do not wait
The writer is ready when its constructor returns: it has the lease of its keys, the journal is open, and what was left
open is looked up on the chain. One thread does all the sending, at each new block; callers only wait for their
receipts. An extrinsic without a fate in time is UNKNOWN and stays watched; submitting the same intent again returns its
receipt. An extrinsic of one of its keys that it did not send stops that key.
Bounds: one writer per key and chain (lease.py). A plain class; actor.py makes it a named Ray actor.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raytensor.chain.calls import Intent
from raytensor.chain.error_actions import action_for
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import KeyRef, Signer
from raytensor.chain.weights import intent_of
from raytensor.chain.writer.audit import AuditLog
from raytensor.chain.writer.commit_book import CommitBook
from raytensor.chain.writer.foreign import refuse_beside_others, take_over
from raytensor.chain.writer.identity import check_chain
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.lease import Lease
from raytensor.chain.writer.order_states import State
from raytensor.chain.writer.orders import OrderQueue
from raytensor.chain.writer.outbox import Outbox
from raytensor.chain.writer.pipeline import Pipeline, Records
from raytensor.chain.writer.policy_check import PolicyCheck, check
from raytensor.chain.writer.receipts import Receipts
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.thread import LeaseKeeper, WriterThread
from raytensor.chain.writer.witness import Witness
from raytensor.errors import ChainRefused, ConfigError
from raytensor.types import Fate, Metagraph, Receipt, Weights


class ChainWriter:
    """Owns the nonces of its signers on one chain.

    endpoints     URLs or network names, in order of preference.
    signers       ss58 -> reference of its key.
    journal_path  the journal's SQLite file; each chain needs its own.
    delegate      a key that is a proxy of (some of) the signers: their calls then share one extrinsic.

    Raises ChainUnavailable, WalletError, ConfigError, and ChainRefused "KeyInUse" if another writer has a key.
    """

    def __init__(
        self,
        endpoints: Sequence[str] | str,
        signers: Mapping[str, KeyRef],
        journal_path: str | os.PathLike,
        settings: WriterSettings = WriterSettings(),
        *,
        delegate: KeyRef | None = None,
    ) -> None:
        self._endpoints, self._settings = endpoints, settings
        self._keys = {address: _open(address, ref) for address, ref in signers.items()}
        self._delegate = delegate.open() if delegate is not None else None
        if not self._keys and self._delegate is None:
            raise ConfigError("a chain writer needs a key: give at least one signer or a delegate")
        everyone = dict(self._keys)
        if self._delegate is not None:
            everyone[self._delegate.ss58] = self._delegate
        self._read_lock, self._reader = threading.Lock(), None
        self._undo: list[Callable[[], None]] = []
        try:
            self._client = ChainClient(endpoints, settings.timeout_s)
            self._undo.append(self._client.close)
            lease = self._acquire_lease(journal_path, list(everyone))
            self._undo.append(lease.release)
            self._keeper = LeaseKeeper(lease, settings.lease_s)
            self._journal = _journal(journal_path, self._client.genesis)
            self._undo.append(self._journal.close)
            check_chain(self._journal, self._client)
            self._identity = self._client.pin()  # a chain that is started anew meanwhile is refused
            self._audit = audit = AuditLog(settings.audit_path)
            self._undo.append(audit.close)
            self._receipts = Receipts(self._journal, audit)
            self._queue = OrderQueue(self._journal, self._receipts)
            retries = self._queue.retries
            self._witness = Witness(self._client, endpoints, settings.timeout_s)
            self._undo.append(self._witness.close)
            more = {"era_blocks": settings.era_blocks, "witness": self._witness}
            self._outbox = Outbox(self._client, self._journal, everyone, retries, **more)
            self._policy = PolicyCheck(self._read_client, self._journal, settings.policy, audit)
            records = Records(self._journal, self._outbox, self._queue, self._receipts, audit)
            signing, fence = (self._keys, self._delegate), self._keeper.fence
            self._pipeline = Pipeline(self._client, records, *signing, settings, fence)
            addresses = {signer.public_key: address for address, signer in everyone.items()}
            runs = Path(settings.lease_folder).expanduser() if settings.lease_folder else None
            refuse_beside_others(self._client, self._journal, addresses, settings.look_back_blocks, runs)
            self._outbox.restore()
            self._queue.restore()
            self._pipeline.tick()
        except BaseException:  # also an interruption: the lease and the journal must not stay open
            self._close_all()
            raise
        parts = self._pipeline, self._outbox, self._queue, self._journal, self._keeper, self._keys
        self._thread = WriterThread(*parts, stop_on_foreign=settings.stop_on_foreign)
        self._thread.start()

    def submit(self, intents: Sequence[Intent]) -> list[Receipt]:
        """Carry out intents, in as few extrinsics as the chain allows. Returns one receipt for each, in order.

        An intent whose id was carried out before is not carried out again: its receipt is returned. One that had no
        effect is tried again. Of several weights for one hotkey, subnet and mechanism the last counts.
        One that can't be carried out (an invalid weight, a signer whose key is not here) gets a receipt and holds back
        no other; if none can, ValueError or ConfigError is raised. Raises ChainRefused "KeyInUse" when another writer
        has taken over.
        """
        return self._deliver(list(intents), blocking=True)

    def set_weights(self, weights: Sequence[Weights]) -> list[Receipt]:
        """Hold weights; wait until the chain has them or the earliest block for them is known. Receipts in order."""
        return self._deliver([intent_of(one) for one in weights], blocking=False)

    def hold(self, weights: Sequence[Weights]) -> list[str]:
        """Set these weights as soon as the chain allows; they replace earlier ones of their places. Returns intent ids.

        Never waits for the chain. Nothing is lost if this process dies after the return.
        """
        intents = [intent_of(one) for one in weights]
        good, bad = self._check(intents)
        self._journal.settle([*bad.values(), *self._put([i for i in good if not self._done(i)], blocking=False)])
        return [intent.intent_id for intent in intents]

    def receipts_since(self, cursor: int | None = 0, limit: int = 1000) -> tuple[int, list[Receipt]]:
        """(the next cursor, the receipts written since `cursor`, oldest first); None: the newest cursor, no receipts.

        Receipts of the last two days are kept.
        """
        return self._journal.receipts_since(cursor, limit)

    def metagraph(self, netuid: int, mecid: int = 0) -> Metagraph:
        """The subnet at the best block."""
        with self._read_lock:
            return read_metagraph(self._read_client(), netuid, mecid=mecid)

    def head(self) -> int:
        """Number of the best block."""
        with self._read_lock:
            return self._read_client().head().number

    def counters(self) -> dict[str, int]:
        """Numbers of extrinsics since this writer started.

        submitted  accepted by a node, from this writer or from its predecessor.
        included   in a block.
        failed     refused, expired, or included with an item that failed.
        """
        return dict(self._outbox.counters)

    def state(self) -> dict[str, Any]:
        """Its state.

        block            the newest block that was read.
        trouble          why the last attempt to read or write failed, "" if none did; errors: how many did.
        unwritten        lines that the audit log lacks. malformed: answers to submissions that meant nothing.
        has_reserve      the journal keeps space for writing while the disk is full; false in the first seconds, too.
        age_s            seconds since it looked at the chain and its orders without trouble.
        stopped          keys for which nothing is sent any more, and why.
        foreign          the newest extrinsic of each key that another program sent.
        open_extrinsics  extrinsics that may yet take effect.
        """
        return {
            "block": self._outbox.head.number,
            "trouble": self._pipeline.trouble or self._witness.disagreement or self._audit.trouble,
            "unwritten": self._audit.unwritten,
            "malformed": self._outbox.malformed,
            "errors": self._thread.errors,
            "has_reserve": self._thread.has_reserve,
            "age_s": self._thread.age_s,
            "stopped": dict(self._pipeline.stopped),
            "foreign": dict(self._thread.foreign),
            "open_extrinsics": len(self._outbox.open),
        }

    def unrevealed(self) -> dict[tuple[int, str], tuple[float, int]]:
        """(netuid, hotkey) -> (Unix time of the first, number) of commits that expired since the last reveal.

        Of mechanism 0. These are weights that the chain accepted and never applied.
        """
        book, all_of = CommitBook(self._journal), {}
        for signer in self._keys:
            found = book.unrevealed_since(signer).items()
            all_of |= {(netuid, signer): since for (netuid, mecid), since in found if mecid == 0}
        return all_of

    def take_over(self) -> None:
        """Continue with keys that were stopped because another program used them. Stop that program first."""
        take_over(self._journal, list(self._pipeline.stopped), self._outbox.head.number)
        self._pipeline.stopped.clear()

    def ready(self) -> bool:
        """True once the constructor has returned; for `ray.get`."""
        return True

    def close(self) -> None:
        """End the thread, close connections and journal, release the lease. What is open stays in the journal."""
        self._thread.close(self._settings.timeout_s + 5)
        with self._read_lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None
        self._close_all()

    # Callers

    def _deliver(self, intents: list[Intent], *, blocking: bool) -> list[Receipt]:
        deadline = time.monotonic() + self._settings.inclusion_timeout_s
        good, done = self._check(intents)
        self._journal.settle(list(done.values()))
        done |= {i.intent_id: known for i in good if (known := self._done(i)) is not None}
        fresh = {i.intent_id: i for i in intents if i.intent_id not in done}
        self._receipts.expect(fresh)
        try:
            new = [i for i in fresh.values() if not self._queue.get(i.intent_id)]
            for receipt in self._put(new, blocking=blocking):
                self._receipts.deliver(receipt)
            done |= self._receipts.collect(list(fresh), deadline)
        finally:
            self._receipts.forget(fresh)
        for intent_id, intent in fresh.items():
            if intent_id not in done:
                done[intent_id] = self._late(intent, blocking)
        return [done[intent.intent_id] for intent in intents]

    def _put(self, intents: list[Intent], *, blocking: bool) -> list[Receipt]:
        """Queue what the policy allows. Returns the receipts of the rest.

        Where the policy has caps, one caller at a time: what is queued counts against the caps of the next.
        """
        known = [i for i in intents if self._in_flight(i)]  # the policy has allowed them before
        new = [i for i in intents if not self._in_flight(i)]
        if not self._policy.needs_chain(new):
            allowed, refused = self._policy.admit(new)
            self._queue.put([*known, *allowed], blocking=blocking)
            return refused
        with self._read_lock:
            allowed, refused = self._policy.admit(new)
            self._queue.put([*known, *allowed], blocking=blocking)
        return refused

    def _late(self, intent: Intent, blocking: bool) -> Receipt:
        """The receipt of an intent that has none at the deadline."""
        order = self._queue.get(intent.intent_id)
        # Even with a short deadline the thread looks at an order once, as long as the chain answers.
        soon = time.monotonic() + self._settings.timeout_s
        while order is not None and order.untouched and not self._pipeline.trouble and time.monotonic() < soon:
            time.sleep(0.01)
        if (known := self._done(intent)) is not None:
            return known  # in the journal, and about to be delivered
        trouble = self._pipeline.trouble
        name = "ChainUnavailable" if trouble else "Timeout"
        receipt = intent.receipt(Fate.NOT_SENT, name, f"retry: {trouble or 'it was not sent in time'}")
        if order is not None and order.last is not None:
            receipt = order.last
        if blocking and receipt.fate is Fate.NOT_SENT and self._queue.withdraw(receipt):
            self._receipts.tell([receipt])
            return receipt
        if not blocking and order is not None and not self._in_flight(intent):
            cause = trouble or "an extrinsic with earlier weights of this place is in flight"
            receipt = intent.receipt(Fate.HELD, "Waiting", f"wait: {cause}")
        else:
            receipt = self._unknown(intent)
        self._receipts.report(receipt)
        return receipt

    def _unknown(self, intent: Intent) -> Receipt:
        """The receipt of an intent that may take effect."""
        carriers = self._outbox.table.carriers(intent.intent_id)
        refusal = next((x.refusal for x in reversed(carriers) if x.refusal), "")
        until = max((x.death or 0 for x in carriers), default=0) or None
        if not refusal:
            text = "wait: it is watched; submit the same intent again"
            return intent.receipt(Fate.UNKNOWN, "Timeout", text, until)
        name = refusal.split(":", 1)[0]
        text = f"{action_for(name)}; a node refused it, which is no proof: it may be included up to block {until}"
        return intent.receipt(Fate.UNKNOWN, name, text, until)

    def _in_flight(self, intent: Intent) -> bool:
        return self._outbox.in_flight(intent.intent_id)

    def _check(self, intents: Sequence[Intent]) -> tuple[list[Intent], dict[str, Receipt]]:
        """The intents that can be carried out, and the receipts of the others by id. Raises if none can."""
        if self._keeper.taken_by is not None:
            text = "another writer has taken over the keys of this one: it sends nothing any more"
            fix = "fix: use the other writer, or stop it and start this one again"
            raise ChainRefused(text, name="KeyInUse", action=fix)
        return check(intents, None if self._delegate is not None else self._keys)

    def _done(self, intent: Intent) -> Receipt | None:
        """The receipt of an intent that has ended, or is committed and will be revealed."""
        state = self._journal.state(intent.intent_id)
        if state is State.COMMITTED and self._queue.get(intent.intent_id) is None:
            return None
        known = self._journal.ended_receipt(intent.intent_id)
        return None if state is State.UNSENT else known

    def _read_client(self) -> ChainClient:
        if self._reader is None:
            known = {"runtime": self._client.runtime, "identity": self._identity}  # it may get to another endpoint
            self._reader = ChainClient(self._endpoints, self._settings.timeout_s, **known)
        return self._reader

    def _acquire_lease(self, journal_path: str | os.PathLike, keys: list[str]) -> Lease:
        settings = self._settings
        folder = settings.lease_folder or Path(journal_path).expanduser().parent
        owner = settings.owner or f"the writer of {journal_path}"
        wait_s = 5.0 if settings.lease_wait_s is None else settings.lease_wait_s
        return Lease(folder, self._client.genesis, keys, owner=owner, length_s=settings.lease_s, wait_s=wait_s)

    def _close_all(self) -> None:
        while self._undo:
            self._undo.pop()()


def _journal(path: str | os.PathLike, genesis: str) -> Journal:
    try:
        return Journal(path, genesis)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _open(address: str, ref: KeyRef) -> Signer:
    signer = ref.open()
    if signer.ss58 != address:
        raise ConfigError(f"the key given for {address} belongs to {signer.ss58}: correct the reference")
    return signer
