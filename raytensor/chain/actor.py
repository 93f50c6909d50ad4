"""The only writer: intents and weights in, a receipt for each out, whatever happens on the way.

In: `Weights` or intents, for the accounts whose keys (or whose proxies' key) it holds. Out: one `Receipt` per intent.
    intent -> policy -> journal -> preflight -> plan -> sign -> journal -> send -> watch -> events per item -> receipt
It is ready when its constructor returns: the journal is open and what was left open has been looked up on the chain.
Waits for: the chain's answers (`timeout_s` each) and inclusion (`inclusion_timeout_s` per call of `submit`); what has
no fate by then is UNKNOWN, stays watched, and is answered when the same intent is handed in again.
A plain class; `ray.remote(ChainWriter)` is applied where it is used. Reads have a connection of their own, so that with
`max_concurrency=2` a metagraph does not wait for a block. One writer per key and chain.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence

from raytensor.chain.batcher import Item, Limits, Planned, halve, plan
from raytensor.chain.calls import Intent, SetWeights
from raytensor.chain.client import ChainClient
from raytensor.chain.errors import PoolRefusal
from raytensor.chain.gate import AuditLog, Gate
from raytensor.chain.journal import Journal
from raytensor.chain.limits import Meter, read_limits
from raytensor.chain.metagraph import read_metagraph
from raytensor.chain.outbox import Outbox
from raytensor.chain.policy import Policy
from raytensor.chain.preflight import Refusal, check_weights, read_views
from raytensor.chain.wallet import KeyRef, Signer
from raytensor.errors import ChainUnavailable, ConfigError
from raytensor.types import Fate, Metagraph, Receipt, Weights

log = logging.getLogger(__name__)

Failed = tuple[Fate, str, str]  # fate, error and action of an intent that may be tried again

ATTEMPTS = 3
OFFLINE_PAUSE_S = 0.5
# Refusals and ends after which the same intent may go in a new extrinsic: the old one certainly has no effect.
_AGAIN = {"Stale", "BadProof", "AncientBirthBlock", "PriorityTooLow", "PoolFull", "Expired"}
# Proxy types that may set weights and do the like (chain: ProxyType), for delegates.
_PROXY_TYPES = {"Any", "NonTransfer", "NonCritical", "NonFungible"}


class ChainWriter:
    """Owns the nonces of its signers on one chain.

    endpoints  URLs or network names, in order of preference.
    signers    ss58 -> reference of its key.
    delegate   a key that is a proxy of (some of) the signers: their calls then share one extrinsic.
    limits     of one extrinsic; None reads them from the chain.
    policy     what may be done with money; by default no transfers and no unstaking.
    audit_path file of the audit log; None writes none.
    Raises ChainUnavailable, WalletError, ConfigError.
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
    ) -> None:
        self._endpoints, self._timeout_s, self._inclusion_s = endpoints, timeout_s, inclusion_timeout_s
        self._keys = {address: _open(address, ref) for address, ref in signers.items()}
        self._delegate = delegate.open() if delegate is not None else None
        if not self._keys and self._delegate is None:
            raise ConfigError("a chain writer without keys can't write: give at least one signer or a delegate")
        self._lock, self._read_lock = threading.RLock(), threading.Lock()
        self._client = ChainClient(endpoints, timeout_s)
        self._reader: ChainClient | None = None
        try:
            self._journal = Journal(journal_path, self._client.genesis)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        everyone = dict(self._keys)
        if self._delegate is not None:
            everyone[self._delegate.ss58] = self._delegate
        self._outbox = Outbox(self._client, self._journal, everyone, era_blocks=era_blocks)
        self._limits = limits or read_limits(self._client)
        self._meter = Meter(self._client, next(iter(everyone.values())).public_key)
        self._delegates: dict[str, str] = {}
        self._audit = AuditLog(audit_path)
        self._gate = Gate(self._client, self._journal, policy, self._audit)
        self._outbox.restore()
        if self._outbox.open:
            settled = self._outbox.poll()
            self._gate.settled(settled)
            log.info("journal: %d extrinsics settled, %d still open", len(settled), len(self._outbox.open))

    def set_weights(self, weights: Sequence[Weights]) -> list[Receipt]:
        """Sets weights, one receipt for each in order. See `submit`."""
        return self.submit([weights_intent(one) for one in weights])

    def submit(self, intents: Sequence[Intent]) -> list[Receipt]:
        """Carries intents out, in as few extrinsics as the chain allows; one receipt for each, in order.

        An intent whose id was carried out already is not carried out again: its receipt is returned. One that had no
        effect is tried anew. Of several weights for one hotkey, subnet and mechanism the last counts.
        Raises ConfigError for a signer whose key is not here.
        """
        with self._lock:
            return self._submit(list(intents))

    def metagraph(self, netuid: int, mecid: int = 0) -> Metagraph:
        """The subnet at the best block."""
        with self._read_lock:
            return read_metagraph(self._read_client(), netuid, mecid=mecid)

    def head(self) -> int:
        """Number of the best block."""
        with self._read_lock:
            return self._read_client().head().number

    def counters(self) -> dict[str, int]:
        """Extrinsics since this writer started: submitted (taken by a node), included (in a block), failed (refused,
        expired, or included with an item that failed)."""
        return dict(self._outbox.counters)

    def ready(self) -> bool:
        """Answers once the constructor has returned."""
        return True

    def close(self) -> None:
        """Closes connections and journal; what is open stays in the journal for the next writer."""
        with self._lock, self._read_lock:
            self._client.close()
            if self._reader is not None:
                self._reader.close()
            self._journal.close()
            self._audit.close()

    # The pipeline

    def _submit(self, intents: list[Intent]) -> list[Receipt]:
        deadline = time.monotonic() + self._inclusion_s
        done: dict[str, Receipt] = {}
        for intent in intents:
            known = self._journal.receipt(intent.intent_id)
            if known is not None and known.fate is Fate.INCLUDED:
                done[intent.intent_id] = known
            elif intent.signer not in self._keys and intent.signer not in self._delegated(intent.signer):
                raise ConfigError(f"{intent.name}: this writer has no key for {intent.signer}: add it to its signers")
        fresh = [intent for intent in intents if intent.intent_id not in done]
        fresh = self._admitted(fresh, done)
        self._journal.add_intents(fresh)
        todo = {i.intent_id: i for i in fresh if not self._outbox.carrying(i.intent_id)}
        self._supersede(todo, done)
        attempt, failed = 0, {}
        while True:
            failed, offline = self._attempt(todo, done)
            waiting = {i.intent_id for i in fresh} - done.keys() - failed.keys()
            failed |= self._watch(waiting, done, deadline)
            todo = {i.intent_id: i for i in fresh if i.intent_id in failed}
            attempt += not offline  # a chain that can't be reached is asked until the deadline
            if not todo or attempt == ATTEMPTS or time.monotonic() >= deadline:
                break
            self._next_block(deadline)
        for intent in fresh:
            if intent.intent_id in failed:
                self._settle(done, intent, *failed[intent.intent_id])
            elif intent.intent_id not in done:
                advice = "wait: it is watched; hand the same intent in again"
                self._settle(done, intent, Fate.UNKNOWN, "Timeout", advice)
        return [done[intent.intent_id] for intent in intents]

    def _admitted(self, fresh: list[Intent], done: dict[str, Receipt]) -> list[Intent]:
        """Those that the policy allows; what is on its way already was allowed then."""
        under_way = {i.intent_id for i in fresh if self._outbox.carrying(i.intent_id)}
        allowed, refused = self._gate.admit([i for i in fresh if i.intent_id not in under_way])
        done |= {receipt.intent_id: receipt for receipt in refused}
        under_way |= {i.intent_id for i in allowed}
        return [i for i in fresh if i.intent_id in under_way]

    def _attempt(self, todo: dict[str, Intent], done: dict[str, Receipt]) -> tuple[dict[str, Failed], bool]:
        """Plans and sends. What certainly was not taken but may be tried; whether the chain was out of reach."""
        failed: dict[str, Failed] = {}
        if not todo:
            return failed, False
        try:
            self._client.refresh_runtime()
            items = self._prepare(todo, done)
            born = self._client.finalized()
            queue = self._plan(list(items.values()))
            while queue:
                planned = queue.pop(0)
                refusal = self._outbox.post(planned, born)
                if not isinstance(refusal, PoolRefusal):
                    self._gate.sent(planned, refusal)
                    continue
                if refusal.name == "ExhaustsResources" and len(planned.intent_ids) > 1:
                    queue = [part for half in halve(planned, items) for part in self._plan(half)] + queue
                    continue
                for intent_id in planned.intent_ids:
                    why = (Fate.FAILED, refusal.name, str(refusal.action))
                    if refusal.name in _AGAIN:
                        failed[intent_id] = why
                    else:
                        self._settle(done, todo[intent_id], *why)
        except ChainUnavailable as error:
            log.warning("%s", error)
            left = [i for i in todo if i not in done and i not in failed and not self._outbox.carrying(i)]
            return failed | {i: (Fate.NOT_SENT, "ChainUnavailable", f"retry: {error}") for i in left}, True
        return failed, False

    def _prepare(self, todo: dict[str, Intent], done: dict[str, Receipt]) -> dict[str, Item]:
        """What can be sent, after the preflight; the rest has its receipt."""
        weights = [intent for intent in todo.values() if isinstance(intent, SetWeights)]
        views = read_views(self._client, {(i.netuid, i.mecid) for i in weights}, self._client.head()) if weights else {}
        items = {}
        for intent_id, intent in todo.items():
            if not isinstance(intent, SetWeights):
                items[intent_id] = Item(intent_id, intent.signer, call=intent.call(), free=intent.free)
                continue
            row = check_weights(intent, views[intent.netuid, intent.mecid])
            if isinstance(row, Refusal):
                self._settle(done, intent, Fate.NOT_SENT, row.name, row.action)
            else:
                items[intent_id] = Item(intent_id, intent.signer, row=row, free=True)
        return items

    def _plan(self, items: Sequence[Item]) -> list[Planned]:
        return plan(
            items,
            self._limits,
            delegates=self._delegated(),
            keys=self._keys,
            cost=self._meter,
            native_batch=self._client.runtime.has_call("SubtensorModule", "batch_set_weights"),
        )

    def _watch(self, ids: set[str], done: dict[str, Receipt], deadline: float) -> dict[str, Failed]:
        """Polls until each id is in `done`, at most to the deadline. Those whose extrinsic ended without any effect."""
        failed: dict[str, Failed] = {}
        pause = 0.05
        while ids - done.keys() - failed.keys():
            try:
                found = self._outbox.poll()
                self._gate.settled(found)
                for settled in found:
                    for receipt in settled.receipts:
                        if receipt.error in _AGAIN and receipt.intent_id in ids:
                            failed[receipt.intent_id] = (receipt.fate, receipt.error, receipt.action)
                        else:
                            done[receipt.intent_id] = receipt
            except ChainUnavailable as error:
                log.warning("%s", error)
            if time.monotonic() >= deadline:
                break
            time.sleep(pause)
            pause = min(1.0, pause * 1.2)
        return failed

    def _next_block(self, deadline: float) -> None:
        """Waits for one more block: what was refused for the pool's state is judged anew then."""
        try:
            head = self._client.head().number
            self._client.wait_for_block(head + 1, max(0.0, deadline - time.monotonic()))
        except ChainUnavailable as error:
            log.warning("%s", error)
            time.sleep(OFFLINE_PAUSE_S)

    def _supersede(self, todo: dict[str, Intent], done: dict[str, Receipt]) -> None:
        newest: dict[tuple, str] = {}
        for intent_id, intent in list(todo.items()):
            if isinstance(intent, SetWeights):
                place = (intent.signer, intent.netuid, intent.mecid)
                if place in newest:
                    older = todo.pop(newest[place])
                    self._settle(done, older, Fate.NOT_SENT, "Superseded", "give up: newer weights were given")
                newest[place] = intent_id

    def _settle(self, done: dict[str, Receipt], intent: Intent, fate: Fate, error: str, action: str) -> None:
        receipt = Receipt(
            intent.intent_id, intent.name, intent.signer, fate,
            netuid=getattr(intent, "netuid", None), error=error, action=action,
        )  # fmt: skip
        self._journal.settle([receipt])
        self._gate.reported(receipt)
        done[intent.intent_id] = receipt

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

    def _read_client(self) -> ChainClient:
        if self._reader is None:
            self._reader = ChainClient(self._endpoints, self._timeout_s, runtime=self._client.runtime)
        return self._reader


def weights_intent(weights: Weights) -> SetWeights:
    """The intent of some weights. Weights that know their block have an id made of their content: handed in twice, they
    are set once. Others get an id of their own each time."""
    values = tuple(sorted(weights.values.items()))
    made = {}
    if weights.made_at_block > 0:
        content = [weights.hotkey, weights.netuid, weights.mecid, weights.version_key, weights.made_at_block, values]
        made["intent_id"] = "weights-" + hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
    return SetWeights(
        signer=weights.hotkey,
        netuid=weights.netuid,
        values=values,
        mecid=weights.mecid,
        version_key=weights.version_key,
        **made,
    )


def _open(address: str, ref: KeyRef) -> Signer:
    signer = ref.open()
    if signer.ss58 != address:
        raise ConfigError(f"the key given for {address} is that of {signer.ss58}: correct the reference")
    return signer
