"""Names of the errors that a node or a runtime answers with.

In: the answer of a transaction pool (a JSON-RPC error), or the dispatch error of an event. Out: the error's name; what
to do about it is in error_actions.py. `python -m raytensor.chain.errors docs/chain.md` writes the tables of the
documentation. Module errors are identified by their metadata name, since their indices change between runtimes.
Sources: pallet subtensor `CustomTransactionError`; FRAME `InvalidTransaction`; JSON-RPC codes of substrate's pool.
Knows nothing of connections; pure.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytensor.chain.error_actions import ACTIONS, Action, Do, action_for


@dataclass(frozen=True, slots=True)
class PoolRefusal:
    """Why a node did not accept an extrinsic.

    sure    this node did not take the extrinsic, which proves nothing of others; see `Action.sure`.
    custom  N of `InvalidTransaction::Custom(N)`, None for other errors.
    """

    name: str
    text: str
    code: int
    custom: int | None = None
    sure: bool = True

    @property
    def action(self) -> Action:
        return action_for(self.name)


# Custom(N) of the transaction extension of pallet subtensor, by number.
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

# Phrases of a node's answers with code 1010 (FRAME `InvalidTransaction` as text), and the error's name.
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
_CODES = {1001: "BadFormat", 1012: "Banned", 1013: "AlreadyImported", 1014: "PriorityTooLow", 1016: "PoolFull"}


def pool_refusal(error: Mapping[str, Any]) -> PoolRefusal:
    """The refusal behind a JSON-RPC error of author_submitExtrinsic.

    error  {"code", "message", "data"?}; data is text or a JSON object.

    A code that is not one of the pool's gives `sure=False`: the node may have accepted the extrinsic.
    """
    code = int(error.get("code", 0))
    text = " ".join(str(error[key]) for key in ("message", "data") if error.get(key) is not None)
    if code in _CODES:
        return _named(_CODES[code], text, code)
    if found := re.search(r"[Cc]ustom(?: error)?\"?\s*[:(]\s*(\d+)", text):
        number = int(found.group(1))
        return PoolRefusal(CUSTOM.get(number, f"Custom{number}"), text, code, custom=number)
    lowered = text.lower()
    for words, name in _WORDS:
        if words in lowered:
            return _named(name, text, code)
    if (start := text.find("{")) >= 0:
        try:
            key = next(iter(json.loads(text[start:])["invalid"])).lower()
        except (ValueError, KeyError, TypeError, StopIteration):
            key = ""
        if key in _KEYS:
            return _named(_KEYS[key], text, code)
    return PoolRefusal(f"Rpc{code}", text, code, sure=1000 <= code < 2000)


def _named(name: str, text: str, code: int) -> PoolRefusal:
    return PoolRefusal(name, text, code, sure=action_for(name).sure)


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
    if isinstance(code, str):  # [u8; 4] in hexadecimal: the first byte is the error's index
        code = int(code[2:4], 16)
    elif not isinstance(code, int):
        code = code[0]
    return module_error(index, code)


def table() -> str:
    """The table of errors and actions of the documentation, in Markdown."""
    custom = {}
    for number, name in CUSTOM.items():
        custom.setdefault(name, []).append(str(number))
    rows = ["| error | 1010 Custom | do | how |", "|---|---|---|---|"]
    for name, action in sorted(ACTIONS.items()):
        rows.append(f"| `{name}` | {', '.join(custom.get(name, []))} | {action.do.value} | {action.text} |")
    return "\n".join(rows) + "\n"


def with_tables(text: str) -> str:
    """A page of documentation with the present tables in place of those that it has."""
    for head, new in (("| answer | name | proves | done |", proofs()), ("| error | 1010 Custom | do | how |", table())):
        start = text.index(head)
        end = start + len(re.match(r"(?:\|[^\n]*\n?)+", text[start:])[0])  # type: ignore[index]
        text = text[:start] + new + text[end:]
    return text


_POSTED = "nothing of others: the answer may be that of one node of many, which lags or has another runtime"
_EXISTS = "nothing: an extrinsic of this hash or nonce exists, which may be this very one"
_OPEN = "open until its era is over or its nonce used, at a final block; then `failed` with this error"
_RIVAL = "open; a rival with the same nonce, signed for the present block and runtime"
_SAME = "open; the same bytes again after 3 blocks, until its era is over"
_OTHERS = (
    ("no connection", "no byte has left: nothing can happen", "queued again, or `not_sent`"),
    ("no answer, or one that means nothing", "nothing: the bytes may have left", _SAME),
    ("any other code", "nothing: the node may have taken it", _SAME),
    ("success", "this node has it; a fork or a restart of the node may lose it", _SAME),
    ("a dispatch error in a block", "its item had no effect, once the block is final", "`failed`, or weights again"),
    ("events that can't be read", "nothing: it ran", "`included` with OutcomeUnreadable; never sent again"),
    ("the nonce is used, at a final block", "it can't land any more", "`failed` with Stale, or sent again"),
    ("its era is over, at a final block", "it can't land any more", "`failed` with Expired, or sent again"),
)


def proofs() -> str:
    """The table of every answer to a submission: what it proves, and what is done, in Markdown."""
    rows = ["| answer | name | proves | done |", "|---|---|---|---|"]
    named = [(f"1010 {words}", name) for words, name in _WORDS]
    named += [(f"1010 Custom {number}", name) for number, name in CUSTOM.items()]
    named += [(str(code), name) for code, name in _CODES.items()]
    for answer, name in named:
        action = action_for(name)
        done = _SAME if not action.sure else "open; in halves, with the same nonce" if action.split else _OPEN
        done = _RIVAL if action.sure and (action.resend or action.do is Do.REPLAN) else done
        rows.append(f"| {answer} | `{name}` | {_POSTED if action.sure else _EXISTS} | {done} |")
    rows += [f"| {answer} | | {proves} | {done} |" for answer, proves, done in _OTHERS]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if page is None:
        print(proofs())
        print(table(), end="")
    else:
        page.write_text(with_tables(page.read_text()))
