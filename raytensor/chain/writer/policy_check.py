"""Checks intents against the spending policy before they are queued.

In: intents and a `Policy`. Out: the intents that it allows, and a receipt for each of the others, which the audit log
gets.
Waits for: the chain, where a cap needs facts about an intent that moves funds. Knows nothing of signing or nonces.
"""

import time
from collections.abc import Callable, Sequence

from raytensor.chain.calls import Intent
from raytensor.chain.reads.quotes import fee, slippage, spend
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.writer.audit import AuditLog
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.policy import DAY_S, Facts, Policy
from raytensor.errors import ChainRefused, ChainUnavailable
from raytensor.types import Fate, Receipt


class PolicyCheck:
    """client: returns a connection, where the policy needs facts."""

    def __init__(self, client: Callable[[], ChainClient], journal: Journal, policy: Policy, audit: AuditLog) -> None:
        self._client, self._journal, self._policy, self._audit = client, journal, policy, audit

    def needs_chain(self, intents: Sequence[Intent]) -> bool:
        """Whether `admit` reads the chain for these intents."""
        return self._policy.reads and any(intent.moves or not intent.free for intent in intents)

    def admit(self, intents: Sequence[Intent]) -> tuple[list[Intent], list[Receipt]]:
        """The intents that are allowed, and the receipts of the others."""
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
                refused.append(intent.receipt(Fate.NOT_SENT, "ChainUnavailable", f"retry: {error}"))
                continue
            if reason is None:
                allowed.append(intent)
                spent = spent if spent is None else spent + (facts.spend_rao or 0)
            else:
                refused.append(intent.receipt(Fate.NOT_SENT, "PolicyDenied", f"fix: {reason}"))
        self._audit.denied(refused)
        return allowed, refused

    def _facts(self, intent: Intent) -> Facts:
        """What the caps of the policy need, and nothing else."""
        policy = self._policy
        if not intent.moves:
            capped = policy.max_fee_rao is not None and not intent.free
            return Facts(fee_rao=fee(self._client(), intent) if capped else 0)
        capped = policy.max_spend_rao is not None or policy.max_spend_per_day_rao is not None
        try:
            lost = slippage(self._client(), intent) if policy.max_slippage is not None else 0.0
        except ChainRefused:  # the pool is too small for the trade
            lost = None
        spend_rao = spend(self._client(), intent) if capped else 0
        fee_rao = fee(self._client(), intent) if policy.max_fee_rao is not None else 0
        return Facts(spend_rao, fee_rao, lost)

    def _spent(self) -> int:
        """TAO that the intents of the last 24 hours have spent or may still spend; registrations at today's price."""
        return sum(spend(self._client(), intent) for intent in self._journal.effective_since(time.time() - DAY_S))
