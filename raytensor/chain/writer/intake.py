"""Checks intents as they are handed in: what can't be carried out gets a receipt and holds back no other.

In: intents, and the addresses whose keys a writer has. Out: the intents that can be carried out, and receipts of the
others. Pure.
"""

from collections.abc import Container, Sequence

from raytensor.chain.calls import Intent
from raytensor.chain.intents import SetWeights
from raytensor.chain.weights import fault_of
from raytensor.errors import ConfigError
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
