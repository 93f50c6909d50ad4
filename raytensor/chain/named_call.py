"""An intent for any call of the runtime, by its name.

Its effect is not known beforehand, so that a policy must allow such calls as a whole, and no limit of a policy applies
to them. Knows nothing of encoding, nonces or connections.
"""

import json
from dataclasses import dataclass
from typing import ClassVar

from raytensor.chain.calls import Call, Intent, call_from_json


@dataclass(frozen=True, kw_only=True)
class NamedCall(Intent):
    """Sends a call as it is. call_json: `Call.to_json` as text."""

    call_json: str
    name: ClassVar[str] = "any call"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "calls"

    @classmethod
    def of(cls, signer: str, intent_id: str, call: Call) -> "NamedCall":
        return cls(signer=signer, intent_id=intent_id, call_json=json.dumps(call.to_json()))

    def call(self) -> Call:
        return call_from_json(json.loads(self.call_json))

    def netuids(self) -> set[int] | None:
        return None
