"""The only writer: intents and weights in, a receipt for each out, whatever happens on the way.

In: `Weights` or intents, for the accounts whose keys (or whose proxies' key) it holds. Out: receipts.
    submit(intents)      carried out now or reported: waits for the blocks, at most `inclusion_timeout_s`
    hold(weights)        the newest opinion of each (hotkey, subnet, mechanism): set at the first block that allows it,
                         committed and revealed where the subnet wants that; returns at once, whatever the chain does
    set_weights(weights) `hold`, and then waits until each is set, committed, held for later or refused
    receipts_since(n)    every fate that was told since, in order: for those who hold and do not wait
It is ready when its constructor returns: it has the lease of its keys, the journal is open, and what was left open has
been looked up on the chain. All writing is done by one thread, the pump, which looks at the chain with every block;
callers wait for their receipts and for nothing else. What has no fate in time is UNKNOWN, stays watched, and is answered
when the same intent is handed in again. An extrinsic of one of its keys that it did not send stops that key.
A plain class; writer_actor.py makes it a named Ray actor. One writer per key and chain: see lease.py.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raytensor.chain.calls import Intent, SetWeights
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import KeyRef, Signer
from raytensor.chain.weights import max_upscale, weights_intent
from raytensor.chain.writer.batcher import Limits
from raytensor.chain.writer.commit_book import HASH, TIMELOCKED, CommitBook
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.lease import LEASE_S, Lease
from raytensor.chain.writer.orders import Desk, receipt_of
from raytensor.chain.writer.outbox import Outbox
from raytensor.chain.writer.pipeline import Pipeline
from raytensor.chain.writer.policy import Policy
from raytensor.chain.writer.policy_check import AuditLog, Gate
from raytensor.chain.writer.thread import LeaseKeeper, Pump
from raytensor.errors import ChainRefused, ConfigError
from raytensor.types import Fate, Metagraph, Receipt, Weights


class ChainWriter:
    """Owns the nonces of its signers on one chain.

    endpoints     URLs or network names, in order of preference.
    signers       ss58 -> reference of its key.
    delegate      a key that is a proxy of (some of) the signers: their calls then share one extrinsic.
    limits        of one extrinsic; None reads them from the chain.
    policy        what may be done with money; by default no transfers and no unstaking.
    audit_path    file of the audit log; None writes none.
    owner         what the lease calls this writer.
    lease_folder  where the leases lie; by default beside the journal. lease_wait_s: how long to wait for a holder.
    commit_kind   "hash" or "timelocked" where a subnet has commit-reveal; None takes what the chain can open.
    stop_on_foreign  stop a key when the chain has an extrinsic of it that is not ours.
    Raises ChainUnavailable, WalletError, ConfigError, and ChainRefused "KeyInUse" if another writer has a key.
    """

    def __init__(
        self,
        endpoints: Sequence[str] | str,
        signers: Mapping[str, KeyRef],
        journal_path: str | os.PathLike,
        *,
        delegate: KeyRef | None = None,
        timeout_s: float = 20.0,
        inclusion_timeout_s: float = 30.0,
        era_blocks: int = 64,
        limits: Limits | None = None,
        policy: Policy = Policy(),
        audit_path: str | os.PathLike | None = None,
        owner: str = "",
        lease_folder: str | os.PathLike | None = None,
        lease_s: float = LEASE_S,
        lease_wait_s: float = 5.0,
        commit_kind: str | None = None,
        stop_on_foreign: bool = True,
    ) -> None:
        if commit_kind not in (None, HASH, TIMELOCKED):
            raise ConfigError(
                f"commit_kind {commit_kind!r}: it is {HASH!r}, {TIMELOCKED!r}, or None for the chain's own"
            )
        self._endpoints, self._timeout_s, self._inclusion_s = endpoints, timeout_s, inclusion_timeout_s
        self._keys = {address: _open(address, ref) for address, ref in signers.items()}
        self._delegate = delegate.open() if delegate is not None else None
        if not self._keys and self._delegate is None:
            raise ConfigError("a chain writer without keys can't write: give at least one signer or a delegate")
        everyone = dict(self._keys)
        if self._delegate is not None:
            everyone[self._delegate.ss58] = self._delegate
        self._read_lock, self._reader = threading.Lock(), None
        self._undo: list[Callable[[], None]] = []
        try:
            self._client = ChainClient(endpoints, timeout_s)
            self._undo.append(self._client.close)
            folder = Path(journal_path).expanduser().parent if lease_folder is None else lease_folder
            lease = Lease(
                folder,
                self._client.genesis,
                list(everyone),
                owner=owner or f"the writer of {journal_path}",
                length_s=lease_s,
                wait_s=lease_wait_s,
            )
            self._undo.append(lease.release)
            self._keeper = LeaseKeeper(lease, lease_s)
            self._journal = _journal(journal_path, self._client.genesis)
            self._undo.append(self._journal.close)
            self._audit = AuditLog(audit_path)
            self._undo.append(self._audit.close)
            self._outbox = Outbox(self._client, self._journal, everyone, era_blocks=era_blocks)
            self._gate = Gate(self._read_client, self._journal, policy, self._audit)
            self._desk = Desk(self._journal, self._tell)
            self._pipeline = Pipeline(
                self._client,
                self._journal,
                self._outbox,
                self._desk,
                self._gate,
                self._keys,
                self._delegate,
                limits,
                fence=self._keeper.fence,
                commit_kind=commit_kind,
            )
            self._outbox.restore()
            self._desk.restore(self._outbox.carrying, self._pipeline.commits.intent_ids)
            self._pipeline.tick()
        except BaseException:
            self._close_all()
            raise
        self._pump = Pump(
            self._pipeline,
            self._outbox,
            self._desk,
            self._journal,
            self._keeper,
            self._keys,
            stop_on_foreign=stop_on_foreign,
        )
        self._pump.start()

    def submit(self, intents: Sequence[Intent]) -> list[Receipt]:
        """Carries intents out, in as few extrinsics as the chain allows; one receipt for each, in order.

        An intent whose id was carried out already is not carried out again: its receipt is returned. One that had no
        effect is tried anew. Of several weights for one hotkey, subnet and mechanism the last counts.
        Raises ConfigError for a signer whose key is not here, ValueError for a weight that is none, ChainRefused "KeyInUse"
        when another writer took over.
        """
        return self._deliver(list(intents), once=True)

    def set_weights(self, weights: Sequence[Weights]) -> list[Receipt]:
        """Holds weights, and waits until the chain has them, or the earliest block for them is known. In order."""
        return self._deliver([weights_intent(one) for one in weights], once=False)

    def hold(self, weights: Sequence[Weights]) -> list[str]:
        """These are the newest weights of their places: they are set as soon as the chain allows. Their intents' ids.

        Never waits for the chain. Nothing is lost if this process dies after the return.
        """
        intents = [weights_intent(one) for one in weights]
        self._check(intents)
        allowed, refused = self._gate.admit([i for i in intents if not self._done(i)])
        self._desk.put(allowed, once=False)
        self._journal.settle(refused)
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
        """Extrinsics since this writer started: submitted (taken by a node, by this writer or by the one before it),
        included (in a block), failed (refused, expired, or included with an item that failed)."""
        return dict(self._outbox.counters)

    def state(self) -> dict[str, Any]:
        """How it is doing: newest block, what went wrong last ("" if nothing), keys that were stopped and why."""
        return {
            "block": self._outbox.head.number,
            "trouble": self._pipeline.trouble,
            "errors": self._pump.errors,
            "stopped": dict(self._pipeline.stopped),
            "open_extrinsics": len(self._outbox.open),
        }

    def unrevealed(self) -> dict[tuple[int, str], tuple[float, int]]:
        """(netuid, hotkey) -> (time of the first, number) of the commits of mechanism 0 that ended without a reveal since
        the last reveal: weights that the chain took and never counted."""
        book = CommitBook(self._journal)
        return {
            (netuid, signer): found
            for signer in self._keys
            for (netuid, mecid), found in book.unrevealed_since(signer).items()
            if mecid == 0
        }

    def take_over(self) -> None:
        """Goes on with keys that were stopped because somebody else used them. The other must have been stopped."""
        self._pipeline.stopped.clear()

    def ready(self) -> bool:
        """Answers once the constructor has returned."""
        return True

    def close(self) -> None:
        """Ends the pump, closes connections and journal, gives the lease back; what is open stays in the journal."""
        self._pump.close(self._timeout_s + 5)
        with self._read_lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None
        self._close_all()

    # Callers

    def _deliver(self, intents: list[Intent], *, once: bool) -> list[Receipt]:
        deadline = time.monotonic() + self._inclusion_s
        self._check(intents)
        done = {i.intent_id: known for i in intents if (known := self._done(i)) is not None}
        fresh = {i.intent_id: i for i in intents if i.intent_id not in done}
        self._desk.expect(fresh)
        try:
            under_way = [i for i in fresh.values() if self._desk.get(i.intent_id) or self._outbox.carrying(i.intent_id)]
            known = {i.intent_id for i in under_way}
            allowed, refused = self._admit([i for i in fresh.values() if i.intent_id not in known])
            for receipt in refused:
                self._desk.answer(receipt)
            self._desk.put(allowed, once=once)
            done |= self._desk.collect(list(fresh), deadline)
        finally:
            self._desk.forget(fresh)
        for intent_id, intent in fresh.items():
            if intent_id not in done:
                done[intent_id] = self._late(intent, once)
        return [done[intent.intent_id] for intent in intents]

    def _late(self, intent: Intent, once: bool) -> Receipt:
        """The receipt of an intent that has none at the deadline."""
        order = self._desk.get(intent.intent_id)
        # However short the caller's patience, an order is looked at once while the chain answers.
        soon = time.monotonic() + self._timeout_s
        while order is not None and order.untouched and not self._pipeline.trouble and time.monotonic() < soon:
            time.sleep(0.01)
        if (known := self._done(intent)) is not None:
            return known  # written, and about to be told
        if once and self._desk.withdraw(intent.intent_id):
            if order.last is not None:
                return order.last
            why = self._pipeline.trouble
            name = "ChainUnavailable" if why else "Timeout"
            receipt = receipt_of(intent, Fate.NOT_SENT, name, f"retry: {why or 'it was not sent in time'}")
        elif not once and order is not None and not self._outbox.carrying(intent.intent_id):
            why = self._pipeline.trouble or "earlier weights of this place are on their way"
            receipt = receipt_of(intent, Fate.HELD, "Waiting", f"wait: {why}")
        else:
            advice = "wait: it is watched; hand the same intent in again"
            receipt = receipt_of(intent, Fate.UNKNOWN, "Timeout", advice)
        self._tell(receipt)
        return receipt

    def _check(self, intents: Sequence[Intent]) -> None:
        if self._keeper.taken_by is not None:
            raise ChainRefused(
                "another writer has taken over the keys of this one: it sends nothing any more",
                name="KeyInUse",
                action="fix: use the other writer, or stop it and start this one again",
            )
        for intent in intents:
            if isinstance(intent, SetWeights):
                max_upscale([value for _, value in intent.values])  # raises for what can't be a weight
            if intent.signer not in self._keys and self._delegate is None:
                raise ConfigError(f"{intent.name}: this writer has no key for {intent.signer}: add it to its signers")

    def _done(self, intent: Intent) -> Receipt | None:
        """The receipt of an intent that has its effect, or is committed and will be revealed."""
        known = self._journal.receipt(intent.intent_id)
        if known is None or known.fate is Fate.COMMITTED and self._desk.get(intent.intent_id) is None:
            return None
        return known if known.fate.done or known.fate is Fate.COMMITTED else None

    def _admit(self, intents: list[Intent]) -> tuple[list[Intent], list[Receipt]]:
        if self._gate.reads and any(intent.moves or not intent.free for intent in intents):
            with self._read_lock:
                return self._gate.admit(intents)
        return self._gate.admit(intents)

    def _tell(self, receipt: Receipt) -> None:
        self._journal.settle([receipt])
        self._gate.reported(receipt)
        self._desk.answer(receipt)

    def _read_client(self) -> ChainClient:
        if self._reader is None:
            self._reader = ChainClient(self._endpoints, self._timeout_s, runtime=self._client.runtime)
        return self._reader

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
        raise ConfigError(f"the key given for {address} is that of {signer.ss58}: correct the reference")
    return signer
