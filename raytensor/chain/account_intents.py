"""Intents that change a coldkey's keys and what becomes of its rewards.

As those of intents.py. Knows nothing of encoding, nonces or connections.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

from raytensor.chain import ss58
from raytensor.chain.calls import Intent


@dataclass(frozen=True, kw_only=True)
class SwapHotkey(Intent):
    """Puts a new hotkey in the place of one, on one subnet (netuid) or on all (None).

    keep_stake  stake and its dividends stay with the old hotkey.
    cost        what the chain takes for it, in rao of TAO: constants KeySwapCost, KeySwapOnSubnetCost.
    """

    hotkey: str
    new_hotkey: str
    netuid: int | None
    keep_stake: bool = False
    cost: int
    name: ClassVar[str] = "SubtensorModule.swap_hotkey_v2"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "unstaking"
    spends: ClassVar[str] = "cost"

    def netuids(self) -> set[int] | None:
        return None if self.netuid is None else {self.netuid}

    def _args(self) -> dict[str, Any]:
        args = Intent._args(self)
        del args["cost"]
        return args


@dataclass(frozen=True, kw_only=True)
class AnnounceColdkeySwap(Intent):
    """Announces by its hash the coldkey that will take over. cost: as of `SwapHotkey`, 0 if it was announced before."""

    new_coldkey: str
    cost: int
    name: ClassVar[str] = "SubtensorModule.announce_coldkey_swap"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "transfers"
    spends: ClassVar[str] = "cost"

    def _args(self) -> dict[str, Any]:
        digest = hashlib.blake2b(ss58.decode(self.new_coldkey), digest_size=32)
        return {"new_coldkey_hash": "0x" + digest.hexdigest()}


@dataclass(frozen=True, kw_only=True)
class SwapColdkeyAnnounced(Intent):
    """Gives all that a coldkey has to the announced one: balance, stake, hotkeys, subnets, identity."""

    new_coldkey: str
    name: ClassVar[str] = "SubtensorModule.swap_coldkey_announced"
    moves: ClassVar[bool] = True
    right: ClassVar[str] = "transfers"
    spends: ClassVar[str] = "balance"

    def netuids(self) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class DisputeColdkeySwap(Intent):
    """Freezes the account until the chain's governance has decided."""

    name: ClassVar[str] = "SubtensorModule.dispute_coldkey_swap"


@dataclass(frozen=True, kw_only=True)
class ClearColdkeySwap(Intent):
    name: ClassVar[str] = "SubtensorModule.clear_coldkey_swap_announcement"


@dataclass(frozen=True, kw_only=True)
class SetAutoStake(Intent):
    """The hotkey on which a coldkey's mining rewards of a subnet are staked."""

    netuid: int
    hotkey: str
    name: ClassVar[str] = "SubtensorModule.set_coldkey_auto_stake_hotkey"


@dataclass(frozen=True, kw_only=True)
class ClaimRoot(Intent):
    """Sells the root dividends that a hotkey's baskets owe to this coldkey and stakes the TAO on root."""

    hotkey: str
    name: ClassVar[str] = "SubtensorModule.claim_root_with_hotkey"
