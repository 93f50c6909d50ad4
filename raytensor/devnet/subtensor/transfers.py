"""Calls that move stake: between hotkeys, coldkeys and subnets.

In: a coldkey's extrinsic. Out: moved stake, or one of the pallet's errors in the order of staking/move_stake.rs.
A move inside a subnet is free; a move between two is a sale and a purchase, with the fee of the sale.
"""

from __future__ import annotations

from typing import NamedTuple

from raytensor.devnet.pallet import Origin, call
from raytensor.devnet.subtensor import amm
from raytensor.devnet.subtensor.amm import SwapRefused
from raytensor.devnet.subtensor.costs import charged, ref_time
from raytensor.devnet.subtensor.pools import MIN_STAKE_RAO, U64_MAX


class Place(NamedTuple):
    """A stake position."""

    coldkey: bytes
    hotkey: bytes
    netuid: int


class MoveCalls:
    @call(85, weight=charged(369_589))
    def move_stake(
        self,
        origin: Origin,
        origin_hotkey: "AccountId32",
        destination_hotkey: "AccountId32",
        origin_netuid: "u16",
        destination_netuid: "u16",
        alpha_amount: "u64",
    ):
        coldkey = origin.ensure_signed()
        source = Place(coldkey, origin_hotkey, origin_netuid)
        target = Place(coldkey, destination_hotkey, destination_netuid)
        tao = self._move(source, target, alpha_amount)
        self.emit("StakeMoved", coldkey, origin_hotkey, origin_netuid, destination_hotkey, destination_netuid, tao)

    @call(86, weight=charged(383_839))
    def transfer_stake(
        self,
        origin: Origin,
        destination_coldkey: "AccountId32",
        hotkey: "AccountId32",
        origin_netuid: "u16",
        destination_netuid: "u16",
        alpha_amount: "u64",
    ):
        coldkey = origin.ensure_signed()
        source = Place(coldkey, hotkey, origin_netuid)
        target = Place(destination_coldkey, hotkey, destination_netuid)
        tao = self._move(source, target, alpha_amount, transfer=True)
        self.emit("StakeTransferred", coldkey, destination_coldkey, hotkey, origin_netuid, destination_netuid, tao)

    @call(87, weight=charged(1_045_339))
    def swap_stake(
        self,
        origin: Origin,
        hotkey: "AccountId32",
        origin_netuid: "u16",
        destination_netuid: "u16",
        alpha_amount: "u64",
    ):
        self._swap(Place(origin.ensure_signed(), hotkey, origin_netuid), destination_netuid, alpha_amount)

    @call(90, weight=ref_time(413_000_000, 36, 22))
    def swap_stake_limit(
        self,
        origin: Origin,
        hotkey: "AccountId32",
        origin_netuid: "u16",
        destination_netuid: "u16",
        alpha_amount: "u64",
        limit_price: "u64",
        allow_partial: "bool",
    ):
        """`limit_price`: minimum price of origin alpha in destination alpha after the move, times 10^9."""
        source = Place(origin.ensure_signed(), hotkey, origin_netuid)
        self._swap(source, destination_netuid, alpha_amount, limit_price, allow_partial)

    @call(143, weight=charged(383_839))
    def transfer_stake_and_hotkey(
        self,
        origin: Origin,
        destination_coldkey: "AccountId32",
        origin_hotkey: "AccountId32",
        destination_hotkey: "AccountId32",
        origin_netuid: "u16",
        destination_netuid: "u16",
        alpha_amount: "u64",
    ):
        coldkey = origin.ensure_signed()
        source = Place(coldkey, origin_hotkey, origin_netuid)
        target = Place(destination_coldkey, destination_hotkey, destination_netuid)
        tao = self._move(source, target, alpha_amount, transfer=True)
        places = (origin_hotkey, destination_hotkey, origin_netuid, destination_netuid)
        self.emit("StakeAndHotkeyTransferred", coldkey, destination_coldkey, *places, tao)

    @call(149, weight=charged(1_045_339))
    def move_stake_limit(
        self,
        origin: Origin,
        origin_hotkey: "AccountId32",
        destination_hotkey: "AccountId32",
        origin_netuid: "u16",
        destination_netuid: "u16",
        alpha_amount: "u64",
        limit_price: "u64",
        allow_partial: "bool",
    ):
        """`limit_price`: as in swap_stake_limit; a move inside a subnet has no price and ignores it."""
        coldkey = origin.ensure_signed()
        source = Place(coldkey, origin_hotkey, origin_netuid)
        target = Place(coldkey, destination_hotkey, destination_netuid)
        limit = None if origin_netuid == destination_netuid else limit_price
        tao = self._move(source, target, alpha_amount, limit=limit, allow_partial=allow_partial)
        self.emit("StakeMoved", coldkey, origin_hotkey, origin_netuid, destination_hotkey, destination_netuid, tao)

    def _swap(self, source: Place, netuid: int, alpha: int, limit: int | None = None, partial: bool = False) -> None:
        tao = self._move(source, source._replace(netuid=netuid), alpha, limit=limit, allow_partial=partial)
        self.emit("StakeSwapped", source.coldkey, source.hotkey, source.netuid, netuid, tao)

    def _move(
        self,
        source: Place,
        target: Place,
        alpha: int,
        *,
        limit: int | None = None,
        allow_partial: bool = False,
        transfer: bool = False,
    ) -> int:
        """Move alpha between positions, all of it for u64::MAX; returns its value in rao of TAO."""
        if source == target:
            raise self.error("SameNetuid")
        for place in (source, target):
            self.require_trading(place.netuid)
        for place in (source, target):
            self._require_hotkey(place.hotkey)
        held = self.stake_of(source.hotkey, source.coldkey, source.netuid)
        alpha = held if alpha == U64_MAX else alpha
        if alpha > held:
            raise self.error("NotEnoughStakeToWithdraw")
        self.require_staking_slot(target.coldkey, target.hotkey)
        if limit is not None:
            alpha = self._within_ratio(source.netuid, target.netuid, alpha, limit, allow_partial)
        try:
            tao = self.quote_sell(source.netuid, alpha).out
        except SwapRefused as refused:
            raise self.swap_error(refused) from refused
        if tao <= MIN_STAKE_RAO:
            raise self.error("AmountTooLow")
        if transfer and not (self.TransferToggle[source.netuid] and self.TransferToggle[target.netuid]):
            raise self.error("TransferDisallowed")
        if source.netuid == target.netuid:
            self.take_stake_from(source.hotkey, source.coldkey, source.netuid, alpha)
            self.add_stake_to(target.hotkey, target.coldkey, target.netuid, alpha)
            return alpha * self.alpha_price_rao(source.netuid) // amm.PRICE_UNIT
        return self._trade_over(source, target, alpha)

    def _trade_over(self, source: Place, target: Place, alpha: int) -> int:
        self.take_stake_from(source.hotkey, source.coldkey, source.netuid, alpha)
        try:
            sold = self.sell_alpha(source.netuid, alpha)
            bought = self.buy_alpha(target.netuid, sold.out, fees=False)
        except SwapRefused as refused:
            raise self.swap_error(refused) from refused
        if not bought.out:
            raise self.error("InsufficientLiquidity")
        self.add_stake_to(target.hotkey, target.coldkey, target.netuid, bought.out)
        self._after_removal(source.coldkey, source.hotkey, source.netuid)
        return sold.out

    def _within_ratio(self, from_netuid: int, to_netuid: int, alpha: int, limit: int, allow_partial: bool) -> int:
        """The largest part of `alpha` that leaves the price ratio at or above the limit."""
        if self._ratio_after(from_netuid, to_netuid, alpha) >= limit:
            return alpha
        low, high = 0, alpha
        while low < high:
            middle = (low + high + 1) // 2
            if self._ratio_after(from_netuid, to_netuid, middle) >= limit:
                low = middle
            else:
                high = middle - 1
        if not low or not allow_partial:
            raise self.error("SlippageTooHigh")
        return low

    def _ratio_after(self, from_netuid: int, to_netuid: int, alpha: int) -> int:
        """10^9 * origin price / destination price after moving `alpha`; -1 if a pool refuses."""
        try:
            sold = self.quote_sell(from_netuid, alpha)
            bought = self.quote_buy(to_netuid, sold.out, fees=False)
        except SwapRefused:
            return -1
        tao, alpha = self.SubnetTAO, self.SubnetAlphaIn
        from_price = to_price = amm.PRICE_UNIT
        if self.is_dynamic(from_netuid):
            from_price = amm.price_rao(tao[from_netuid] - sold.out, alpha[from_netuid] + sold.paid_in)
        if self.is_dynamic(to_netuid):
            to_price = amm.price_rao(tao[to_netuid] + bought.paid_in, alpha[to_netuid] - bought.out)
        return from_price * amm.PRICE_UNIT // to_price if to_price else -1
