"""What passes to the journal, and the record of what passed.

In: intents and a policy; then what was sent and what became of it. Out: the intents that the policy allows, a receipt
for each of the others, and an audit log: one JSON object a line, appended and flushed to disk, never rewritten.

    {"at", "event": "denied" | "sent" | "receipt", "intent_id", "call", "signer", ...}

A denied intent leaves no trace in the journal, only here. Knows nothing of signing or nonces.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from raytensor.chain.calls import Intent
from raytensor.chain.reads.quotes import fee, slippage, spend
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.writer.batcher import Planned
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.outbox import Settled
from raytensor.chain.writer.policy import DAY_S, Facts, Policy
from raytensor.errors import ChainRefused, ChainUnavailable
from raytensor.types import Fate, Receipt


class AuditLog:
    """An append-only file of JSON lines, readable by its owner only. path None: nothing is written."""

    def __init__(self, path: str | os.PathLike | None) -> None:
        self._file = None
        if path is not None:
            file = Path(path).expanduser()
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, event: str, rows: Iterable[dict]) -> None:
        """Appends the rows in one write, on disk when this returns."""
        if self._file is None:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        lines = [json.dumps({"at": now, "event": event, **row}) for row in rows]
        if lines:
            os.write(self._file, ("\n".join(lines) + "\n").encode())
            os.fsync(self._file)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Gate:
    """Between what is asked of a writer and what it does. client: gives a connection where the policy needs facts."""

    def __init__(self, client: Callable[[], ChainClient], journal: Journal, policy: Policy, audit: AuditLog) -> None:
        self._client, self._journal, self._policy, self._audit = client, journal, policy, audit

    @property
    def reads(self) -> bool:
        """Whether `admit` may ask the chain about intents that move money."""
        return self._policy.reads

    def admit(self, intents: Sequence[Intent]) -> tuple[list[Intent], list[Receipt]]:
        """The intents that may go on, and the receipts of the others."""
        allowed, refused = [], []
        spent: int | None = None
        for intent in intents:
            try:
                # What the intent alone decides is decided before anything is read.
                reason, facts = self._policy.forbids(intent), Facts()
                if reason is None and self._policy.reads and (intent.moves or not intent.free):
                    if spent is None:
                        spent = self._spent() if self._policy.max_spend_per_day_rao is not None else 0
                    facts = self._facts(intent)
                    reason = self._policy.exceeds(facts, spent)
            except ChainUnavailable as error:
                refused.append(_refusal(intent, "ChainUnavailable", f"retry: {error}"))
                continue
            if reason is None:
                allowed.append(intent)
                spent = spent if spent is None else spent + (facts.spend_rao or 0)
            else:
                refused.append(_refusal(intent, "PolicyDenied", f"fix: {reason}"))
        self._audit.write("denied", map(_line, refused))
        return allowed, refused

    def sent(self, planned: Planned, extrinsic_hash: str, call: bytes) -> None:
        """Notes an extrinsic that was handed to a node (or may have been). call: its encoded call."""
        call_hash = "0x" + hashlib.blake2b(call, digest_size=32).hexdigest()
        row = {"extrinsic_hash": extrinsic_hash, "call": planned.call.name, "call_hash": call_hash}
        self._audit.write("sent", [{**row, "signer": planned.signer, "intent_ids": list(planned.intent_ids)}])

    def settled(self, found: Sequence[Settled]) -> None:
        """Notes the fates that an extrinsic gave its intents."""
        rows = [{**_line(receipt), "nonce": one.extrinsic.nonce} for one in found for receipt in one.receipts]
        self._audit.write("receipt", rows)

    def reported(self, receipt: Receipt) -> None:
        """Notes a fate that no block decided."""
        self._audit.write("receipt", [_line(receipt)])

    def _facts(self, intent: Intent) -> Facts:
        """What the policy's caps ask for, and no more."""
        policy = self._policy
        if not intent.moves:
            capped = policy.max_fee_rao is not None and not intent.free
            return Facts(fee_rao=fee(self._client(), intent) if capped else 0)
        capped = policy.max_spend_rao is not None or policy.max_spend_per_day_rao is not None
        try:
            lost = slippage(self._client(), intent) if policy.max_slippage is not None else 0.0
        except ChainRefused:  # the pool can't trade that much
            lost = None
        return Facts(
            spend_rao=spend(self._client(), intent) if capped else 0,
            fee_rao=fee(self._client(), intent) if policy.max_fee_rao is not None else 0,
            slippage=lost,
        )

    def _spent(self) -> int:
        """TAO that the intents of the last 24 hours have spent or may yet; a registration at today's price."""
        return sum(spend(self._client(), intent) or 0 for intent in self._journal.effective_since(time.time() - DAY_S))


def _refusal(intent: Intent, error: str, action: str) -> Receipt:
    return Receipt(
        intent.intent_id,
        intent.name,
        intent.signer,
        Fate.NOT_SENT,
        netuid=getattr(intent, "netuid", None),
        error=error,
        action=action,
    )


def _line(receipt: Receipt) -> dict:
    return {name: value for name, value in dataclasses.asdict(receipt).items() if value is not None}
