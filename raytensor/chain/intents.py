"""Intents: one dataclass for each effect on the chain that the project asks for.

Names and arguments are those of the runtime metadata (pallets SubtensorModule, Balances, Proxy, Commitments); amounts
are integers. `Intent.to_json` and `intent_from_json` store an intent in a journal.
Knows nothing of encoding, nonces or connections.
"""

import ipaddress
from dataclasses import dataclass
from typing import Any, ClassVar

from raytensor.chain import account_intents, named_call, owner_intents  # noqa: F401 (a journal has their kinds, too)
from raytensor.chain.calls import Call, Exchange, Intent


@dataclass(frozen=True, kw_only=True)
class SetWeights(Intent):
    """A validator's weights on one mechanism of a subnet, by hotkey. The uids are looked up when it is planned.

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
        raise AssertionError("SetWeights becomes a call only after weights.resolve has replaced hotkeys by uids")


@dataclass(frozen=True, kw_only=True)
class AddStake(Intent):
    hotkey: str
    netuid: int
    amount_staked: int  # rao of TAO
    name: ClassVar[str] = "SubtensorModule.add_stake"
    moves: ClassVar[bool] = True
    spends: ClassVar[str] = "amount_staked"

    def trades(self) -> Exchange:
        return Exchange(None, self.netuid, self.amount_staked, self.worst_price)


@dataclass(frozen=True, kw_only=True)
class AddStakeLimit(AddStake):
    limit_price: int  # rao of TAO for one alpha, at most
    allow_partial: bool = False
    name: ClassVar[str] = "SubtensorModule.add_stake_limit"


@dataclass(frozen=True, kw_only=True)
class RemoveStake(Intent):
    hotkey: str
    netuid: int
    amount_unstaked: int  # alpha, in 10^-9
    name: ClassVar[str] = "SubtensorModule.remove_stake"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "unstaking"

    def trades(self) -> Exchange:
        return Exchange(self.netuid, None, self.amount_unstaked, self.worst_price)


@dataclass(frozen=True, kw_only=True)
class RemoveStakeLimit(RemoveStake):
    limit_price: int  # rao of TAO for one alpha, at least
    allow_partial: bool = False
    name: ClassVar[str] = "SubtensorModule.remove_stake_limit"


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
class MoveStakeLimit(MoveStake):
    """Newer runtimes only: ask `Runtime.call_fields` first."""

    limit_price: int  # alpha of the destination for 10^9 alpha of the origin, in 10^-9, at least
    allow_partial: bool = False
    name: ClassVar[str] = "SubtensorModule.move_stake_limit"

    def trades(self) -> Exchange:
        return Exchange(self.origin_netuid, self.destination_netuid, self.alpha_amount, self.worst_price)


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
        return Exchange(self.origin_netuid, self.destination_netuid, self.alpha_amount, self.worst_price)


@dataclass(frozen=True, kw_only=True)
class SwapStakeLimit(SwapStake):
    limit_price: int  # alpha of the destination for 10^9 alpha of the origin, in 10^-9, at least
    allow_partial: bool = False
    name: ClassVar[str] = "SubtensorModule.swap_stake_limit"


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
class TransferAll(Intent):
    """Sends all free TAO that remains after the fee; with `keep_alive` the existential deposit stays."""

    dest: str
    keep_alive: bool = True
    name: ClassVar[str] = "Balances.transfer_all"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "transfers"
    spends: ClassVar[str] = "balance"


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
class IncreaseTake(Intent):
    hotkey: str
    take: int  # u16, 65535 = 100 %
    name: ClassVar[str] = "SubtensorModule.increase_take"


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
        args = {name: value.encode() for name, value in Intent._args(self).items()}
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
        where = {"ip": int(address), "port": self.port, "ip_type": address.version, "protocol": self.protocol}
        return {"netuid": self.netuid, "version": self.version, **where, "placeholder1": 0, "placeholder2": 0}


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
