"""Calls, and the base class of intents: what can be asked of the chain.

A `Call` is one runtime call by name. An `Intent` is an effect that is wanted exactly once: it has an id, names its
signer, returns its `Call`, and declares what it spends, trades and needs permission for. `chain.intents` holds the
intents.
Knows nothing of encoding, nonces or connections.
"""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass, field
from typing import Any, ClassVar

from raytensor.chain import ss58
from raytensor.errors import ConfigError
from raytensor.types import Fate, Receipt

_NETUIDS = ("netuid", "origin_netuid", "destination_netuid")
_RECIPIENTS = ("dest", "destination_coldkey", "delegate", "new_coldkey")
_ACCOUNTS = ("signer", "hotkey", "origin_hotkey", "destination_hotkey", "new_hotkey", *_RECIPIENTS)


@dataclass(frozen=True, slots=True)
class Cost:
    """Share of a block that a call needs.

    ref_time  computation, in picoseconds on the reference machine.
    length    encoded bytes.
    """

    ref_time: int = 0
    length: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.ref_time + other.ref_time, self.length + other.length)


@dataclass(frozen=True, slots=True)
class Call:
    """One runtime call. args: values by the names of the metadata; a value may be a `Call` or a list of them."""

    module: str
    function: str
    args: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.module}.{self.function}"

    def inner(self) -> list[Call]:
        """The calls among its arguments: of a batch, a proxy, a multisig."""
        listed = [value if isinstance(value, (list, tuple)) else [value] for value in self.args.values()]
        return [one for values in listed for one in values if isinstance(one, Call)]

    def to_json(self) -> dict[str, Any]:
        """Plain data for the journal; `call_from_json` reads it back."""
        return {"call": self.name, "args": {name: _plain(value) for name, value in self.args.items()}}


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an intent trades on the pools of subnets.

    sells_on, buys_on  netuid of the pool on which alpha is sold, or bought; None: no such trade.
    amount             what is given, in rao of TAO if nothing is sold, else of alpha; None: all there is.
    limit_price        the worst price accepted; None: any.
    """

    sells_on: int | None = None
    buys_on: int | None = None
    amount: int | None = None
    limit_price: int | None = None


@dataclass(frozen=True, kw_only=True)
class Intent:
    """An effect on the chain that is wanted exactly once.

    signer     ss58 of the account in whose name the call runs.
    intent_id  the caller's id; the same id never leads to a second effect.
    role       which key of a wallet signs: "hotkey" or "coldkey".
    free       the chain asks no fee for the call (Pays::No).
    moves      the call moves or spends funds: the policy is asked.
    right      field of `Policy` that must be true for it: "transfers", "unstaking" or "proxies"; "": none.
    spends     what leaves the signer's balance besides the fee: the name of a field with an amount in rao of TAO, or a
               price that is read when needed: "burn" (of a registration), "network" (of a new subnet), "balance" (all
               that is free); "": nothing.
    """

    signer: str
    intent_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    name: ClassVar[str] = ""
    role: ClassVar[str] = "coldkey"
    free: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    right: ClassVar[str] = ""
    spends: ClassVar[str] = ""

    def call(self) -> Call:
        """The runtime call: the fields of the intent, by the names and in the order of the metadata."""
        module, function = self.name.split(".")
        return Call(module, function, self._args())

    def trades(self) -> Exchange | None:
        """What it trades on the pools of subnets, None if nothing."""
        return None

    @property
    def worst_price(self) -> int | None:
        """Its price limit, where it has one."""
        return vars(self).get("limit_price")

    @property
    def subnet(self) -> int | None:
        """Its netuid, where it has exactly one."""
        return vars(self).get("netuid")

    def netuids(self) -> set[int] | None:
        """The subnets that it touches; None: any."""
        return {vars(self)[name] for name in _NETUIDS if name in vars(self)}

    def recipients(self) -> set[str]:
        """Accounts (ss58) that get TAO, stake or rights by it."""
        return {vars(self)[name] for name in _RECIPIENTS if name in vars(self)}

    def check(self) -> None:
        """Raises ConfigError for an account that is not an ss58 address of Bittensor."""
        for name in _ACCOUNTS:
            if name in vars(self):
                try:
                    ss58.decode(vars(self)[name])
                except ValueError as error:
                    raise ConfigError(f"{self.name}: {name}={vars(self)[name]!r}: {error}") from None

    def receipt(self, fate: Fate, error: str | None, action: str | None, until: int | None = None) -> Receipt:
        """A receipt that no block decided."""
        facts = self.intent_id, self.name, self.signer, fate, self.subnet
        return Receipt(*facts, error=error, action=action, until=until)

    def _args(self) -> dict[str, Any]:
        skip = {"signer", "intent_id"}
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in skip}

    def to_json(self) -> dict[str, Any]:
        """Plain data for the journal; `intent_from_json` reads it back."""
        return {"kind": type(self).__name__, **dataclasses.asdict(self)}


def call_from_json(data: dict[str, Any]) -> Call:
    """The call of a `Call.to_json`; tuples come back as lists."""
    module, function = data["call"].split(".")
    return Call(module, function, {name: _called(value) for name, value in data["args"].items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Call):
        return value.to_json()
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _called(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"call", "args"}:
        return call_from_json(value)
    return [_called(one) for one in value] if isinstance(value, list) else value
