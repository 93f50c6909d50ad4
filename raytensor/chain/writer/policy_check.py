"""Checks intents before they are queued: they can be carried out, and the spending policy allows them.

In: intents, the addresses whose keys a writer has, a `Policy`. Out: the intents that pass, and a receipt for each of
the others, which hold back none; the audit log gets what the policy refuses.
Waits for: the chain, where a cap needs facts about an intent that moves funds. Knows nothing of signing or nonces.
"""

import time
from collections.abc import Callable, Container, Sequence

from raytensor.chain.calls import Intent
from raytensor.chain.intents import BurnedRegister, SetWeights
from raytensor.chain.reads.quotes import burn_price, fee, slippage, spend
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.weights import fault_of
from raytensor.chain.writer.audit import AuditLog
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.policy import DAY_BLOCKS, DAY_S, Facts, Policy
from raytensor.errors import BlockUnknown, ChainRefused, ChainUnavailable, ConfigError
from raytensor.types import Fate, Receipt


def check(intents: Sequence[Intent], keys: Container[str] | None) -> tuple[list[Intent], dict[str, Receipt]]:
    """The intents that can be carried out, and the receipts of the others by id. keys: None if a delegate may sign.

    Raises ValueError or ConfigError, the reason of the first, if none can.
    """
    good: list[Intent] = []
    bad: dict[str, Receipt] = {}
    first: ValueError | None = None
    for intent in intents:
        try:
            _check_one(intent, keys)
        except ValueError as error:  # ConfigError is one
            name = "InvalidWeights" if isinstance(intent, SetWeights) else "BadRequest"
            name = "NoKey" if keys is not None and intent.signer not in keys else name
            bad[intent.intent_id] = intent.receipt(Fate.NOT_SENT, name, f"fix: {error}")
            first = first or error
        else:
            good.append(intent)
    if first is not None and not good:
        raise first
    return good, bad


def _check_one(intent: Intent, keys: Container[str] | None) -> None:
    intent.check()
    if isinstance(intent, SetWeights) and (fault := fault_of(intent.values)):
        raise ValueError(fault)
    if keys is not None and intent.signer not in keys:
        raise ConfigError(f"{intent.name}: this writer has no key for {intent.signer}: add it to its signers")


class PolicyCheck:
    """client: returns a connection, where the policy needs facts."""

    def __init__(self, client: Callable[[], ChainClient], journal: Journal, policy: Policy, audit: AuditLog) -> None:
        self._client, self._journal, self._policy, self._audit = client, journal, policy, audit
        self._prices: dict[str, int] = {}  # of registrations in blocks, by intent id

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
        """TAO that the intents of the last day have spent or may still spend.

        Of the last 24 hours by the clock, and of the last `DAY_BLOCKS`: a clock that is set forward frees nothing.
        """
        since = max(0, self._client().head().number - DAY_BLOCKS)
        return sum(map(self._cost, self._journal.effective_since(time.time() - DAY_S, since)))

    def _cost(self, intent: Intent) -> int:
        """What an intent spent, or may spend. A registration that is in a block: the price before that block, not its
        limit; where that can't be read any more, the limit, or the present price without one."""
        receipt = self._journal.receipt(intent.intent_id)
        if not isinstance(intent, BurnedRegister) or receipt is None or receipt.block is None:
            return spend(self._client(), intent)
        if intent.intent_id not in self._prices:
            try:
                before = self._client().block_hash(receipt.block - 1)
                price = burn_price(self._client(), intent.netuid, before)
            except BlockUnknown:
                return spend(self._client(), intent)
            self._prices[intent.intent_id] = price
        return self._prices[intent.intent_id]
