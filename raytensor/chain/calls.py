"""Calls and intents: what can be asked of the chain.

A `Call` is one runtime call by name. An `Intent` is an effect that is wanted exactly once: it has an id, names its signer,
returns its `Call`, and declares what it spends, trades and needs permission for. Names and arguments are those of the runtime
metadata (pallets SubtensorModule, Balances, Proxy, Commitments); amounts are integers with the unit in the name.
Knows nothing of encoding, nonces or connections.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import uuid
from dataclasses import dataclass, field
from typing import Any, ClassVar

from raytensor.types import Fate, Receipt

_NETUIDS = ("netuid", "origin_netuid", "destination_netuid")
_RECIPIENTS = ("dest", "destination_coldkey", "delegate")


@dataclass(frozen=True, slots=True)
class Cost:
    """Share of a block that a call needs: computation (ref_time, picoseconds on the reference machine) and encoded bytes."""

    ref_time: int = 0
    length: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.ref_time + other.ref_time, self.length + other.length)


@dataclass(frozen=True, slots=True)
class Call:
    """One runtime call. args: values by the argument names of the metadata; a value may be a `Call` or a list of them."""

    module: str
    function: str
    args: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.module}.{self.function}"

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
    spends     what leaves the signer's balance besides the fee: the name of a field with an amount in rao of TAO, or a price that
               is read when needed: "burn" (of a registration), "network" (of a new subnet); "": nothing.
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
        """The runtime call. Its arguments are the intent's own fields, in the order and by the names of the metadata."""
        module, function = self.name.split(".")
        return Call(module, function, self._args())

    def trades(self) -> Exchange | None:
        """What it trades on the pools of subnets, None if nothing."""
        return None

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


@dataclass(frozen=True, kw_only=True)
class SetWeights(Intent):
    """A validator's weights on one mechanism of a subnet, by hotkey. The uids are looked up when the extrinsic is planned.

    values  ((hotkey ss58, weight >= 0), ...), any scale.
    """

    netuid: int
    values: tuple[tuple[str, float], ...]
    mecid: int = 0
    version_key: int = 0
    name: ClassVar[str] = "SubtensorModule.set_weights"
    role: ClassVar[str] = "hotkey"
    free: ClassVar[bool] = True

    def call(self) -> Call:
        raise AssertionError(
            "SetWeights becomes a call only after its hotkeys are resolved to uids: see weights.resolve"
        )


@dataclass(frozen=True, kw_only=True)
class AddStake(Intent):
    hotkey: str
    netuid: int
    amount_staked: int  # rao of TAO
    name: ClassVar[str] = "SubtensorModule.add_stake"
    moves: ClassVar[bool] = True
    spends: ClassVar[str] = "amount_staked"

    def trades(self) -> Exchange:
        return Exchange(None, self.netuid, self.amount_staked)


@dataclass(frozen=True, kw_only=True)
class AddStakeLimit(AddStake):
    limit_price: int  # rao of TAO for one alpha, at most
    allow_partial: bool = False
    name: ClassVar[str] = "SubtensorModule.add_stake_limit"

    def trades(self) -> Exchange:
        return Exchange(None, self.netuid, self.amount_staked, self.limit_price)


@dataclass(frozen=True, kw_only=True)
class RemoveStake(Intent):
    hotkey: str
    netuid: int
    amount_unstaked: int  # alpha, in 10^-9
    name: ClassVar[str] = "SubtensorModule.remove_stake"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "unstaking"

    def trades(self) -> Exchange:
        return Exchange(self.netuid, None, self.amount_unstaked)


@dataclass(frozen=True, kw_only=True)
class RemoveStakeLimit(RemoveStake):
    limit_price: int  # rao of TAO for one alpha, at least
    allow_partial: bool = False
    name: ClassVar[str] = "SubtensorModule.remove_stake_limit"

    def trades(self) -> Exchange:
        return Exchange(self.netuid, None, self.amount_unstaked, self.limit_price)


@dataclass(frozen=True, kw_only=True)
class RemoveStakeFullLimit(Intent):
    """Removes all stake, including what has accrued until the call runs."""

    hotkey: str
    netuid: int
    limit_price: int | None = None  # rao of TAO for one alpha, at least
    name: ClassVar[str] = "SubtensorModule.remove_stake_full_limit"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "unstaking"

    def trades(self) -> Exchange:
        return Exchange(self.netuid, None, None, self.limit_price)


@dataclass(frozen=True, kw_only=True)
class UnstakeAll(Intent):
    hotkey: str
    name: ClassVar[str] = "SubtensorModule.unstake_all"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "unstaking"

    def trades(self) -> Exchange:
        return Exchange()

    def netuids(self) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class UnstakeAllAlpha(UnstakeAll):
    """Removes all stake from all subnets and stakes the TAO on root."""

    name: ClassVar[str] = "SubtensorModule.unstake_all_alpha"


@dataclass(frozen=True, kw_only=True)
class MoveStake(Intent):
    origin_hotkey: str
    destination_hotkey: str
    origin_netuid: int
    destination_netuid: int
    alpha_amount: int
    name: ClassVar[str] = "SubtensorModule.move_stake"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "unstaking"

    def trades(self) -> Exchange:
        return Exchange(self.origin_netuid, self.destination_netuid, self.alpha_amount)


@dataclass(frozen=True, kw_only=True)
class TransferStake(Intent):
    destination_coldkey: str
    hotkey: str
    origin_netuid: int
    destination_netuid: int
    alpha_amount: int
    name: ClassVar[str] = "SubtensorModule.transfer_stake"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "transfers"

    def trades(self) -> Exchange:
        return Exchange(self.origin_netuid, self.destination_netuid, self.alpha_amount)


@dataclass(frozen=True, kw_only=True)
class SwapStake(Intent):
    hotkey: str
    origin_netuid: int
    destination_netuid: int
    alpha_amount: int
    name: ClassVar[str] = "SubtensorModule.swap_stake"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "unstaking"

    def trades(self) -> Exchange:
        return Exchange(self.origin_netuid, self.destination_netuid, self.alpha_amount)


@dataclass(frozen=True, kw_only=True)
class SwapStakeLimit(SwapStake):
    limit_price: int  # alpha of the destination for 10^9 alpha of the origin, in 10^-9, at least
    allow_partial: bool = False
    name: ClassVar[str] = "SubtensorModule.swap_stake_limit"

    def trades(self) -> Exchange:
        return Exchange(self.origin_netuid, self.destination_netuid, self.alpha_amount, self.limit_price)


@dataclass(frozen=True, kw_only=True)
class Transfer(Intent):
    """Sends TAO. Fails where the sender would fall below the existential deposit."""

    dest: str
    value: int  # rao of TAO
    name: ClassVar[str] = "Balances.transfer_keep_alive"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "transfers"
    spends: ClassVar[str] = "value"


@dataclass(frozen=True, kw_only=True)
class BurnedRegister(Intent):
    netuid: int
    hotkey: str
    name: ClassVar[str] = "SubtensorModule.burned_register"
    moves: ClassVar[bool] = True
    spends: ClassVar[str] = "burn"


@dataclass(frozen=True, kw_only=True)
class RegisterLimit(BurnedRegister):
    limit_price: int  # rao of TAO, at most
    name: ClassVar[str] = "SubtensorModule.register_limit"
    spends: ClassVar[str] = "limit_price"


@dataclass(frozen=True, kw_only=True)
class RootRegister(Intent):
    hotkey: str
    name: ClassVar[str] = "SubtensorModule.root_register"


@dataclass(frozen=True, kw_only=True)
class RegisterNetwork(Intent):
    hotkey: str
    name: ClassVar[str] = "SubtensorModule.register_network"
    moves: ClassVar[bool] = True
    spends: ClassVar[str] = "network"


@dataclass(frozen=True, kw_only=True)
class StartCall(Intent):
    netuid: int
    name: ClassVar[str] = "SubtensorModule.start_call"


@dataclass(frozen=True, kw_only=True)
class IncreaseTake(Intent):
    hotkey: str
    take: int  # u16, 65535 = 100 %
    name: ClassVar[str] = "SubtensorModule.increase_take"
    free: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class DecreaseTake(IncreaseTake):
    name: ClassVar[str] = "SubtensorModule.decrease_take"


@dataclass(frozen=True, kw_only=True)
class SetChildkeyTake(Intent):
    hotkey: str
    netuid: int
    take: int  # u16, 65535 = 100 %
    name: ClassVar[str] = "SubtensorModule.set_childkey_take"


@dataclass(frozen=True, kw_only=True)
class SetChildren(Intent):
    hotkey: str
    netuid: int
    children: tuple[tuple[int, str], ...]  # (proportion of u64::MAX, hotkey)
    name: ClassVar[str] = "SubtensorModule.set_children"


@dataclass(frozen=True, kw_only=True)
class AddProxy(Intent):
    delegate: str
    proxy_type: str = "NonTransfer"
    delay: int = 0
    name: ClassVar[str] = "Proxy.add_proxy"
    role: ClassVar[str] = "hotkey"
    right: ClassVar[str] = "proxies"


@dataclass(frozen=True, kw_only=True)
class RemoveProxy(AddProxy):
    name: ClassVar[str] = "Proxy.remove_proxy"
    right: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class SetIdentity(Intent):
    """Public identity of a coldkey that has a registered hotkey. title: the display name ("name" in the call)."""

    title: str
    url: str = ""
    github_repo: str = ""
    image: str = ""
    discord: str = ""
    description: str = ""
    additional: str = ""
    name: ClassVar[str] = "SubtensorModule.set_identity"

    def _args(self) -> dict[str, Any]:
        args = {field: value.encode() for field, value in Intent._args(self).items()}
        return {"name": args.pop("title"), **args}


@dataclass(frozen=True, kw_only=True)
class ServeAxon(Intent):
    """Publishes the address of a neuron. ip: IPv4 or IPv6 text; the chain refuses 127.0.0.1 and ::1."""

    netuid: int
    ip: str
    port: int
    version: int = 1
    protocol: int = 4
    name: ClassVar[str] = "SubtensorModule.serve_axon"
    role: ClassVar[str] = "hotkey"
    free: ClassVar[bool] = True

    def _args(self) -> dict[str, Any]:
        address = ipaddress.ip_address(self.ip)
        return {
            "netuid": self.netuid,
            "version": self.version,
            "ip": int(address),
            "port": self.port,
            "ip_type": address.version,
            "protocol": self.protocol,
            "placeholder1": 0,
            "placeholder2": 0,
        }


@dataclass(frozen=True, kw_only=True)
class SetCommitment(Intent):
    """Publishes up to 128 bytes under a hotkey and subnet (pallet Commitments)."""

    netuid: int
    text: str
    name: ClassVar[str] = "Commitments.set_commitment"
    role: ClassVar[str] = "hotkey"
    free: ClassVar[bool] = True

    def _args(self) -> dict[str, Any]:
        raw = self.text.encode()
        if len(raw) > 128:
            raise ValueError(f"a commitment holds at most 128 bytes, got {len(raw)}: publish a hash or a link instead")
        return {"netuid": self.netuid, "info": {"fields": [{f"Raw{len(raw)}": "0x" + raw.hex()}]}}


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


def kinds() -> dict[str, type[Intent]]:
    """Every intent class by its name."""
    found, queue = {}, [Intent]
    while queue:
        for kind in queue.pop().__subclasses__():
            found[kind.__name__] = kind
            queue.append(kind)
    return found


def intent_from_json(data: dict[str, Any]) -> Intent:
    """The intent of an `Intent.to_json`."""
    data = dict(data)
    kind = kinds()[data.pop("kind")]
    for name in ("values", "children"):
        if name in data:
            data[name] = tuple(tuple(pair) for pair in data[name])
    return kind(**data)
