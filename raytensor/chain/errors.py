"""What went wrong on the chain, by name, and what to do about it.

In: a pool's answer (JSON-RPC error) or a dispatch error of an event. Out: a name and an `Action`. One table, from which
the documentation's table is made as well (`python -m raytensor.chain.errors`). Module errors are known by their metadata name only: their indices move
between runtimes.
Sources: pallet subtensor `CustomTransactionError` and its checks; FRAME `InvalidTransaction`, `DispatchError`;
JSON-RPC codes of substrate's author pool.
Knows nothing of connections; pure.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class Do(str, enum.Enum):
    """What to do about an error."""

    RETRY = "retry"  # the same intent in a new extrinsic, soon
    WAIT = "wait"  # until a block, then again
    REPLAN = "replan"  # read the chain again: the plan was made on another state
    FIX = "fix"  # a person or a setting has to change something
    GIVE_UP = "give up"  # it can't succeed as asked


@dataclass(frozen=True, slots=True)
class Action:
    do: Do
    text: str

    def __str__(self) -> str:
        return f"{self.do.value}: {self.text}"


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
    0: "ColdkeySwapAnnounced", 1: "StakeAmountTooLow", 2: "BalanceTooLow", 3: "SubnetNotExists",
    4: "HotKeyAccountNotExists", 5: "NotEnoughStakeToWithdraw", 6: "RateLimitExceeded", 7: "InsufficientLiquidity",
    8: "SlippageTooHigh", 9: "TransferDisallowed", 10: "HotKeyNotRegisteredInNetwork", 11: "InvalidIpAddress",
    12: "ServingRateLimitExceeded", 13: "InvalidPort", 14: "ZeroMaxAmount", 15: "InvalidRevealRound",
    16: "NoWeightsCommitFound", 17: "RevealTooEarly", 18: "InputLengthsUnequal", 19: "HotKeyNotRegisteredInSubNet",
    20: "EvmKeyAssociateRateLimitExceeded", 21: "ColdkeySwapDisputed", 22: "InvalidRealAccount",
    23: "FailedShieldedTxParsing", 24: "InvalidShieldedTxPubKeyHash", 25: "NonAssociatedColdKey",
    26: "DelegateTakeTooLow", 27: "DelegateTakeTooHigh", 255: "BadRequest",
}  # fmt: skip

_WEIGHTS_WAIT = Action(Do.WAIT, "until block LastUpdate + WeightsSetRateLimit of this hotkey and subnet")
_TO_REGISTER = Action(Do.FIX, "register the hotkey on this subnet; it may have been pruned")
_LATER_SUBNET = Action(Do.FIX, "check the netuid")
_MORE_STAKE = Action(Do.FIX, "add stake to the hotkey until it passes StakeThreshold")
_FUNDS = Action(Do.FIX, "fund the signing account")
_AMOUNT = Action(Do.FIX, "ask for a larger amount; the chain's minimum is 0.002 TAO plus the swap fee")
_PRICE = Action(Do.FIX, "allow more slippage or ask for a smaller amount")
_COLDKEY = Action(Do.FIX, "sign with the coldkey that owns this hotkey")
_SWAP = Action(Do.GIVE_UP, "the coldkey has announced a swap: only the swap's own calls are accepted")
_REPLAN = Action(Do.REPLAN, "the subnet changed since the plan was made: read it again")
_OURS = Action(Do.GIVE_UP, "the call is malformed: please report it")
_TAKE = Action(Do.FIX, "choose a take within the chain's bounds, above (increase) or below (decrease) today's")
_ADDRESS = Action(Do.FIX, "serve an address that others can reach: not loopback, not 0, port 1 to 65535")

ACTIONS: dict[str, Action] = {
    # the pool, code 1010
    "Stale": Action(Do.RETRY, "the nonce was used already: look the extrinsic up, then take a new nonce"),
    "Future": Action(Do.WAIT, "until the nonces before it are in a block"),
    "BadProof": Action(Do.RETRY, "bad signature or an era that ended: sign again with the present runtime and block"),
    "AncientBirthBlock": Action(Do.RETRY, "the era's first block is too old: sign again with a newer one"),
    "Payment": _FUNDS,
    "ExhaustsResources": Action(Do.RETRY, "too heavy for one block: split the batch"),
    "Call": Action(Do.GIVE_UP, "the runtime does not accept this call from outside"),
    "BadSigner": Action(Do.FIX, "sign with the account that may make this call (for Sudo: the sudo key)"),
    "Banned": Action(Do.WAIT, "until its era ends: this very extrinsic is banned for some minutes; then sign anew"),
    "AlreadyImported": Action(Do.WAIT, "the node has this extrinsic already: watch the blocks for it"),
    "PriorityTooLow": Action(Do.WAIT, "another extrinsic with this nonce is in the pool: look which one gets in"),
    "PoolFull": Action(Do.RETRY, "the node's pool is full: one block later, or another endpoint"),
    "Expired": Action(Do.RETRY, "its era ended without it: it can't be included any more"),
    "RateLimitExceeded": _WEIGHTS_WAIT,
    "StakeAmountTooLow": Action(Do.FIX, "below the minimum amount, or the hotkey has too little stake to set weights"),
    "BalanceTooLow": _FUNDS,
    "ZeroMaxAmount": _PRICE,
    "InvalidRealAccount": Action(Do.FIX, "name the real account of the proxy"),
    "FailedShieldedTxParsing": _OURS,
    "InvalidShieldedTxPubKeyHash": Action(Do.RETRY, "the shield key rotated: encrypt with the present one"),
    "BadRequest": _OURS,
    # weights
    "SettingWeightsTooFast": _WEIGHTS_WAIT,
    "CommittingWeightsTooFast": _WEIGHTS_WAIT,
    "NeuronNoValidatorPermit": Action(Do.WAIT, "until an epoch gives the permit; it needs more stake than others have"),
    "NotEnoughStakeToSetWeights": _MORE_STAKE,
    "HotKeyNotRegisteredInSubNet": _TO_REGISTER,
    "HotKeyNotRegisteredInNetwork": _TO_REGISTER,
    "IncorrectWeightVersionKey": Action(Do.REPLAN, "the subnet asks for a newer version key: upgrade, read again"),
    "CommitRevealEnabled": Action(Do.REPLAN, "the subnet went to commit-reveal: plan a commit"),
    "CommitRevealDisabled": Action(Do.REPLAN, "the subnet left commit-reveal: set weights plainly"),
    "WeightVecNotEqualSize": _OURS,
    "InputLengthsUnequal": _OURS,
    "DuplicateUids": _OURS,
    "UidVecContainInvalidOne": _REPLAN,
    "UidsLengthExceedUidsInSubNet": _REPLAN,
    "WeightVecLengthIsLow": Action(Do.FIX, "give weights to at least MinAllowedWeights miners"),
    "MaxWeightExceeded": Action(Do.FIX, "spread the weights"),
    "CanNotSetRootNetworkWeights": Action(Do.GIVE_UP, "the root network takes no weights"),
    "MechanismDoesNotExist": Action(Do.FIX, "check the netuid and the mechanism's number"),
    "NoWeightsCommitFound": Action(Do.REPLAN, "nothing is committed: commit again"),
    "InvalidRevealCommitHashNotMatch": Action(Do.GIVE_UP, "the revealed weights are not those that were committed"),
    "ExpiredWeightCommit": Action(Do.REPLAN, "its reveal epoch has passed: commit again"),
    "RevealTooEarly": Action(Do.WAIT, "until the reveal epoch: commit epoch + RevealPeriodEpochs"),
    "TooManyUnrevealedCommits": Action(Do.WAIT, "until a commit is revealed or expires (10 at most)"),
    "IncorrectCommitRevealVersion": Action(Do.REPLAN, "read CommitRevealWeightsVersion again"),
    "InvalidRevealRound": Action(Do.REPLAN, "the reveal round is in the past: encrypt for a later one"),
    "BeaconDown": Action(Do.WAIT, "until the chain stores the beacon's pulses again, or commit by hash"),
    "TimelockedCommitDropped": Action(Do.REPLAN, "the chain could not open or apply it: commit again"),
    "OutcomeUnreadable": Action(Do.FIX, "its block's events are gone: look at the account whether it had its effect"),
    "KeyInUse": Action(Do.FIX, "stop the other program that writes with this key"),
    "Superseded": Action(Do.GIVE_UP, "newer weights were given"),
    # registration and subnets
    "SubnetNotExists": _LATER_SUBNET,
    "SubNetworkDoesNotExist": _LATER_SUBNET,
    "RegistrationNotPermittedOnRootSubnet": Action(Do.FIX, "use root_register for the root network"),
    "SubNetRegistrationDisabled": Action(Do.WAIT, "until the owner allows registration"),
    "HotKeyAlreadyRegisteredInSubNet": Action(Do.GIVE_UP, "it is registered already"),
    "NoNeuronIdAvailable": Action(Do.WAIT, "until a neuron's immunity ends"),
    "RegistrationPriceLimitExceeded": Action(Do.WAIT, "until the burn price falls, or raise the limit"),
    "TooManyRegistrationsThisBlock": Action(Do.WAIT, "until the next block"),
    "TooManyRegistrationsThisInterval": Action(Do.WAIT, "until the next interval"),
    "NetworkTxRateLimitExceeded": Action(Do.WAIT, "until NetworkRateLimit blocks after the last new subnet"),
    "SubnetLimitReached": Action(Do.WAIT, "until a subnet can be pruned"),
    "CannotAffordLockCost": _FUNDS,
    "NeedWaitingMoreBlocksToStarCall": Action(Do.WAIT, "until StartCallDelay blocks after the subnet's registration"),
    "FirstEmissionBlockNumberAlreadySet": Action(Do.GIVE_UP, "the subnet is started already"),
    "NotSubnetOwner": Action(Do.FIX, "sign with the subnet owner's coldkey"),
    "AdminActionProhibitedDuringWeightsWindow": Action(Do.WAIT, "until the subnet's next epoch has run"),
    "TxRateLimitExceeded": Action(Do.WAIT, "until this call's own rate limit has passed"),
    # stake and money
    "SubtokenDisabled": Action(Do.WAIT, "until the subnet is started (start_call)"),
    "AmountTooLow": _AMOUNT,
    "NotEnoughStake": Action(Do.FIX, "ask for no more than is staked"),
    "NotEnoughStakeToWithdraw": Action(Do.FIX, "ask for no more than is staked"),
    "NotEnoughBalanceToStake": _FUNDS,
    "InsufficientBalance": _FUNDS,
    "InsufficientTaoBalance": _FUNDS,
    "FundsUnavailable": _FUNDS,
    "BalanceWithdrawalError": _FUNDS,
    "HotKeyAccountNotExists": Action(Do.FIX, "the hotkey has no owner yet: register it on any subnet first"),
    "InsufficientLiquidity": _PRICE,
    "SlippageTooHigh": _PRICE,
    "PriceLimitExceeded": _PRICE,
    "StakeUnavailable": Action(Do.WAIT, "until the lock on this stake ends"),
    "SameNetuid": Action(Do.FIX, "choose two different subnets"),
    "TransferDisallowed": Action(Do.GIVE_UP, "the subnet's owner has switched stake transfers off"),
    "NonAssociatedColdKey": _COLDKEY,
    "ColdkeySwapAnnounced": _SWAP,
    "ColdkeySwapDisputed": _SWAP,
    "DelegateTakeTooLow": _TAKE,
    "DelegateTakeTooHigh": _TAKE,
    "DelegateTxRateLimitExceeded": Action(Do.WAIT, "until 216000 blocks after the last change of take"),
    # serving
    "ServingRateLimitExceeded": Action(Do.WAIT, "until ServingRateLimit blocks after the last serve"),
    "InvalidIpType": _ADDRESS,
    "InvalidIpAddress": _ADDRESS,
    "InvalidPort": _ADDRESS,
    "SpaceLimitExceeded": Action(Do.WAIT, "until the next epoch: the commitments of this one are used up"),
    "AccountNotAllowedCommit": _TO_REGISTER,
    # FRAME
    "BadOrigin": Action(Do.FIX, "sign with the account that may make this call"),
    "RequireSudo": Action(Do.FIX, "sign with the sudo key"),
    "CallFiltered": Action(Do.GIVE_UP, "the runtime filters this call here (a batch inside a batch, for one)"),
    "NotProxy": Action(Do.FIX, "make the delegate a proxy of the account, of a type that allows the call"),
    "Unproxyable": Action(Do.FIX, "make the delegate a proxy of a type that allows the call"),
    "Duplicate": Action(Do.GIVE_UP, "it is set already"),
    "TooManyCalls": Action(Do.RETRY, "split the batch"),
    "Underflow": _FUNDS,
    "Exhausted": Action(Do.RETRY, "too heavy for the block: split the batch"),
    "NotRun": Action(Do.RETRY, "an earlier call of the batch failed and stopped it"),
}

UNKNOWN = Action(Do.FIX, "no rule for this error: look it up by its name in the runtime's metadata")


def action_for(name: str) -> Action:
    """What to do about an error, by its name without the pallet."""
    return ACTIONS.get(name.rsplit(".", 1)[-1], UNKNOWN)


# Words of a node's 1010 answers (FRAME `InvalidTransaction` as text), and their names.
_WORDS = (
    ("outdated", "Stale"), ("bad signature", "BadProof"), ("valid in the future", "Future"),
    ("pay some fees", "Payment"), ("block limit", "ExhaustsResources"), ("exhaust", "ExhaustsResources"),
    ("ancient birth", "AncientBirthBlock"), ("not expected", "Call"), ("invalid signing address", "BadSigner"),
)  # fmt: skip
_KEYS = {
    "stale": "Stale", "future": "Future", "badproof": "BadProof", "payment": "Payment", "call": "Call",
    "exhaustsresources": "ExhaustsResources", "ancientbirthblock": "AncientBirthBlock", "badsigner": "BadSigner",
}  # fmt: skip
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
