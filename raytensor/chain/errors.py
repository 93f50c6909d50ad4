"""What went wrong on the chain, by name, and what to do about it.

In: a pool's answer (JSON-RPC error) or a dispatch error of an event. Out: a name and an `Action` (actions.py). The
documentation's table is made here (`python -m raytensor.chain.errors`). Module errors are known by their metadata name
only: their indices move between runtimes.
Sources: pallet subtensor `CustomTransactionError`; FRAME `InvalidTransaction`; JSON-RPC codes of substrate's author pool.
Knows nothing of connections; pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raytensor.chain.error_actions import ACTIONS, Action, Do, action_for

__all__ = [
    "ACTIONS",
    "CUSTOM",
    "Action",
    "Do",
    "PoolRefusal",
    "action_for",
    "dispatch_error_name",
    "pool_refusal",
    "table",
]


@dataclass(frozen=True, slots=True)
class PoolRefusal:
    """Why a node did not take an extrinsic. `sure`: this very submission certainly has had no effect and will have none.

    It is not when the reason is that something with this hash or nonce was there before: that may be this submission
    itself, sent once more by whoever stands between us and the node.
    """

    name: str
    text: str
    code: int
    custom: int | None = None
    sure: bool = True

    @property
    def action(self) -> Action:
        return action_for(self.name)


# Custom(N) of pallet subtensor's transaction extension, by number.
CUSTOM = {
    0: "ColdkeySwapAnnounced",
    1: "StakeAmountTooLow",
    2: "BalanceTooLow",
    3: "SubnetNotExists",
    4: "HotKeyAccountNotExists",
    5: "NotEnoughStakeToWithdraw",
    6: "RateLimitExceeded",
    7: "InsufficientLiquidity",
    8: "SlippageTooHigh",
    9: "TransferDisallowed",
    10: "HotKeyNotRegisteredInNetwork",
    11: "InvalidIpAddress",
    12: "ServingRateLimitExceeded",
    13: "InvalidPort",
    14: "ZeroMaxAmount",
    15: "InvalidRevealRound",
    16: "NoWeightsCommitFound",
    17: "RevealTooEarly",
    18: "InputLengthsUnequal",
    19: "HotKeyNotRegisteredInSubNet",
    20: "EvmKeyAssociateRateLimitExceeded",
    21: "ColdkeySwapDisputed",
    22: "InvalidRealAccount",
    23: "FailedShieldedTxParsing",
    24: "InvalidShieldedTxPubKeyHash",
    25: "NonAssociatedColdKey",
    26: "DelegateTakeTooLow",
    27: "DelegateTakeTooHigh",
    255: "BadRequest",
}

# Words of a node's 1010 answers (FRAME `InvalidTransaction` as text), and their names.
_WORDS = (
    ("outdated", "Stale"),
    ("bad signature", "BadProof"),
    ("valid in the future", "Future"),
    ("pay some fees", "Payment"),
    ("block limit", "ExhaustsResources"),
    ("exhaust", "ExhaustsResources"),
    ("ancient birth", "AncientBirthBlock"),
    ("not expected", "Call"),
    ("invalid signing address", "BadSigner"),
)
_KEYS = {
    "stale": "Stale",
    "future": "Future",
    "badproof": "BadProof",
    "payment": "Payment",
    "call": "Call",
    "exhaustsresources": "ExhaustsResources",
    "ancientbirthblock": "AncientBirthBlock",
    "badsigner": "BadSigner",
}
_UNSURE = {"Stale", "Banned", "AlreadyImported", "PriorityTooLow"}
_CODES = {1012: "Banned", 1013: "AlreadyImported", 1014: "PriorityTooLow", 1016: "PoolFull"}


def pool_refusal(error: Mapping[str, Any]) -> PoolRefusal:
    """Names a JSON-RPC error of author_submitExtrinsic.

    error: {"code", "message", "data"?}, data being the node's words or a JSON object.
    A code of none of the pool's kinds is `sure=False`: the node may have taken the extrinsic all the same.
    """
    code = int(error.get("code", 0))
    text = " ".join(str(error[key]) for key in ("message", "data") if error.get(key) is not None)
    if code in _CODES:
        return PoolRefusal(_CODES[code], text, code, sure=_CODES[code] not in _UNSURE)
    if found := re.search(r"[Cc]ustom(?: error)?\"?\s*[:(]\s*(\d+)", text):
        number = int(found.group(1))
        return PoolRefusal(CUSTOM.get(number, f"Custom{number}"), text, code, custom=number)
    lowered = text.lower()
    for words, name in _WORDS:
        if words in lowered:
            return PoolRefusal(name, text, code, sure=name not in _UNSURE)
    if (start := text.find("{")) >= 0:
        try:
            key = next(iter(json.loads(text[start:])["invalid"])).lower()
        except (ValueError, KeyError, TypeError, StopIteration):
            key = ""
        if key in _KEYS:
            return PoolRefusal(_KEYS[key], text, code, sure=_KEYS[key] not in _UNSURE)
    return PoolRefusal(f"Rpc{code}", text, code, sure=1000 <= code < 2000)


def dispatch_error_name(error: Any, module_error: Callable[[int, int], str]) -> str:
    """The name of a decoded DispatchError: "SettingWeightsTooFast", "BadOrigin", "Underflow", ...

    error         a decoded enum: "BadOrigin", {"Module": {"index": 7, "error": "0x1d000000"}}, {"Token": "..."}.
    module_error  (pallet index, error index) -> name, from the metadata.
    """
    if isinstance(error, str):
        return error
    assert isinstance(error, Mapping) and len(error) == 1, f"not a DispatchError: {error!r}"
    kind, detail = next(iter(error.items()))
    if kind != "Module":
        return detail if isinstance(detail, str) else kind
    index, code = (detail["index"], detail["error"]) if isinstance(detail, Mapping) else detail
    if isinstance(code, str):  # [u8; 4] as hex: the first byte is the error's index
        code = int(code[2:4], 16)
    elif not isinstance(code, int):
        code = code[0]
    return module_error(index, code)


def table() -> str:
    """The documentation's table of errors and actions, in Markdown."""
    custom = {}
    for number, name in CUSTOM.items():
        custom.setdefault(name, []).append(str(number))
    rows = ["| error | 1010 Custom | do | how |", "|---|---|---|---|"]
    for name, action in sorted(ACTIONS.items()):
        rows.append(f"| `{name}` | {', '.join(custom.get(name, []))} | {action.do.value} | {action.text} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
