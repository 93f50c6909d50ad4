"""Calls that add and remove stake.

In: a coldkey's extrinsic. Out: balances, pools and shares changed together, or one of the pallet's errors.
Checks follow the chain's order (staking/stake_utils.rs, validate_add_stake and validate_remove_stake). Limit prices
are rao of TAO for one whole alpha. Knows nothing of moves between subnets (transfers.py).
"""

from __future__ import annotations

from raytensor.devnet.pallet import DispatchError, Origin, call
from raytensor.devnet.subtensor import amm
from raytensor.devnet.subtensor.amm import Swap, SwapRefused
from raytensor.devnet.subtensor.costs import charged, ref_time
from raytensor.devnet.subtensor.pools import MIN_STAKE_RAO, ROOT, U64_MAX

ADD, ADD_LIMIT, REMOVE = charged(812_698), charged(850_506), charged(629_339)


class StakeCalls:
    @call(2, weight=ADD)
    def add_stake(self, origin: Origin, hotkey: "AccountId32", netuid: "u16", amount_staked: "u64"):
        self.do_add_stake(origin.ensure_signed(), hotkey, netuid, amount_staked)

    @call(88, weight=ADD_LIMIT)
    def add_stake_limit(
        self,
        origin: Origin,
        hotkey: "AccountId32",
        netuid: "u16",
        amount_staked: "u64",
        limit_price: "u64",
        allow_partial: "bool",
    ):
        self.do_add_stake(origin.ensure_signed(), hotkey, netuid, amount_staked, limit_price, allow_partial)

    @call(3, weight=REMOVE)
    def remove_stake(self, origin: Origin, hotkey: "AccountId32", netuid: "u16", amount_unstaked: "u64"):
        self.do_remove_stake(origin.ensure_signed(), hotkey, netuid, amount_unstaked)

    @call(89, weight=REMOVE)
    def remove_stake_limit(
        self,
        origin: Origin,
        hotkey: "AccountId32",
        netuid: "u16",
        amount_unstaked: "u64",
        limit_price: "u64",
        allow_partial: "bool",
    ):
        self.do_remove_stake(origin.ensure_signed(), hotkey, netuid, amount_unstaked, limit_price, allow_partial)

    @call(103, weight=REMOVE)
    def remove_stake_full_limit(self, origin: Origin, hotkey: "AccountId32", netuid: "u16", limit_price: "Option<u64>"):
        coldkey = origin.ensure_signed()
        self.do_remove_stake(coldkey, hotkey, netuid, U64_MAX, limit_price, partial=False)

    @call(83, weight=charged(83_339))
    def unstake_all(self, origin: Origin, hotkey: "AccountId32"):
        """Remove all stake of the coldkey on the hotkey; subnets that refuse stay unchanged."""
        coldkey = origin.ensure_signed()
        self._require_hotkey(hotkey)
        for netuid in self.AlphaV2.keys(hotkey, coldkey):
            self.attempt(lambda netuid=netuid: self.do_remove_stake(coldkey, hotkey, netuid, U64_MAX))

    @call(84, weight=ref_time(358_000_000, 36, 21))
    def unstake_all_alpha(self, origin: Origin, hotkey: "AccountId32"):
        """As unstake_all, but stake the TAO on the root subnet with the same hotkey."""
        coldkey = origin.ensure_signed()
        self._require_hotkey(hotkey)
        proceeds = 0
        for netuid in list(self.AlphaV2.keys(hotkey, coldkey)):
            alpha = self.stake_of(hotkey, coldkey, netuid)
            if netuid == ROOT or not alpha or not self.SubtokenEnabled[netuid]:
                continue
            swap = self.attempt(lambda netuid=netuid, alpha=alpha: self._unstake(coldkey, hotkey, netuid, alpha))
            proceeds += swap.out if swap else 0
        if proceeds:
            self._stake(coldkey, hotkey, ROOT, proceeds)

    @call(101, weight=ref_time(76_000_000, 10, 4))
    def recycle_alpha(self, origin: Origin, hotkey: "AccountId32", amount: "u64", netuid: "u16"):
        coldkey, amount = self._take_alpha_away(origin, hotkey, amount, netuid)
        self.recycle_alpha_out(netuid, amount)
        self.emit("AlphaRecycled", coldkey, hotkey, amount, netuid)

    @call(102, weight=ref_time(76_000_000, 9, 3))
    def burn_alpha(self, origin: Origin, hotkey: "AccountId32", amount: "u64", netuid: "u16"):
        """Destroy alpha that stays in the issuance, so it can't be minted again."""
        coldkey, amount = self._take_alpha_away(origin, hotkey, amount, netuid)
        self.emit("AlphaBurned", coldkey, hotkey, amount, netuid)

    @call(132, weight=ref_time(368_000_000, 29, 17))
    def add_stake_burn(self, origin: Origin, hotkey: "AccountId32", netuid: "u16", amount: "u64", limit: "Option<u64>"):
        """Buy alpha as the subnet owner and destroy it; once per tempo."""
        coldkey = self.ensure_owner(origin, netuid)
        key, block = ("AddStakeBurn", netuid), self.runtime.block_number
        last = self.LastRateLimitedBlock[key]
        if last and block - last < self.Tempo[netuid]:
            raise self.error("AddStakeBurnRateLimitExceeded")
        swap = self.do_add_stake(coldkey, hotkey, netuid, amount, limit, partial=False)
        self.LastRateLimitedBlock[key] = block
        burned = min(swap.out, self.stake_of(hotkey, coldkey, netuid))
        self.take_stake_from(hotkey, coldkey, netuid, burned)
        self.emit("AddStakeBurn", netuid, hotkey, amount, burned)

    def _take_alpha_away(self, origin: Origin, hotkey: bytes, amount: int, netuid: int) -> tuple[bytes, int]:
        coldkey = origin.ensure_signed()
        self.require_subnet(netuid)
        if netuid == ROOT:
            raise self.error("CannotBurnOrRecycleOnRootSubnet")
        self._require_hotkey(hotkey)
        amount = min(amount, self.stake_of(hotkey, coldkey, netuid))
        if not amount:
            raise self.error("NotEnoughStakeToWithdraw")
        if amount > self.SubnetAlphaOut[netuid]:
            raise self.error("NotEnoughAlphaOutToRecycle")
        self.take_stake_from(hotkey, coldkey, netuid, amount)
        return coldkey, amount

    def do_add_stake(
        self, coldkey: bytes, hotkey: bytes, netuid: int, amount: int, limit: int | None = None, partial: bool = True
    ) -> Swap:
        self.require_trading(netuid)
        if self.is_dynamic(netuid) and amount > amm.MAX_INPUT_FACTOR * self.SubnetTAO[netuid]:
            raise self.error("InsufficientLiquidity")
        if amount < MIN_STAKE_RAO + amm.fee_of(amount, self.fee_rate(netuid)):
            raise self.error("AmountTooLow")
        swap = self._quote_within_limit(self.quote_buy, netuid, amount, limit, partial)
        if amount > self.spendable(coldkey):
            raise self.error("NotEnoughBalanceToStake")
        self._require_hotkey(hotkey)
        self.require_staking_slot(coldkey, hotkey)
        if not swap.out:
            raise self.error("InsufficientLiquidity")
        self.take_balance(coldkey, swap.given)
        return self._stake(coldkey, hotkey, netuid, swap.given, limit)

    def _stake(self, coldkey: bytes, hotkey: bytes, netuid: int, tao: int, limit_rao: int | None = None) -> Swap:
        """Stake TAO that the caller has withdrawn."""
        swap = self.buy_alpha(netuid, tao, limit_rao)
        assert swap.given == tao, "the part within the limit was quoted before"
        self.add_stake_to(hotkey, coldkey, netuid, swap.out)
        self.LastColdkeyHotkeyStakeBlock[coldkey, hotkey] = self.runtime.block_number
        self.emit("StakeAdded", coldkey, hotkey, tao, swap.out, netuid, swap.fee)
        return swap

    def do_remove_stake(
        self, coldkey: bytes, hotkey: bytes, netuid: int, alpha: int, limit: int | None = None, partial: bool = True
    ) -> Swap:
        self.require_trading(netuid)
        self._require_hotkey(hotkey)
        available = self.stake_of(hotkey, coldkey, netuid)
        alpha = min(alpha, available)
        if not alpha:
            raise self.error("AmountTooLow")
        swap = self._quote_within_limit(self.quote_sell, netuid, alpha, limit, partial)
        if swap.out < MIN_STAKE_RAO and swap.given != available:
            raise self.error("AmountTooLow")
        swap = self._unstake(coldkey, hotkey, netuid, swap.given, limit)
        self.give_balance(coldkey, swap.out)
        self._after_removal(coldkey, hotkey, netuid)
        return swap

    def _unstake(self, coldkey: bytes, hotkey: bytes, netuid: int, alpha: int, limit_rao: int | None = None) -> Swap:
        """Sell stake; the caller must deposit the TAO."""
        self.take_stake_from(hotkey, coldkey, netuid, alpha)
        try:
            swap = self.sell_alpha(netuid, alpha, limit_rao)
        except SwapRefused as refused:
            raise self.swap_error(refused) from refused
        assert swap.given == alpha, "the part within the limit was quoted before"
        self.emit("StakeRemoved", coldkey, hotkey, swap.out, alpha, netuid, swap.fee)
        return swap

    def _after_removal(self, coldkey: bytes, hotkey: bytes, netuid: int) -> None:
        """Unstake a nomination below the minimum; drop scheduled children of a hotkey below the stake threshold."""
        minimum = self.NominatorMinRequiredStake.get()
        left = self.stake_of(hotkey, coldkey, netuid)
        if minimum and 0 < left < minimum and not self.owns(coldkey, hotkey):
            swap = self.attempt(lambda: self._unstake(coldkey, hotkey, netuid, left))
            if swap:
                self.give_balance(coldkey, swap.out)
        threshold = self.StakeThreshold.get()
        if (netuid, hotkey) in self.PendingChildKeys and self.total_stake_weight(hotkey, netuid) < threshold:
            del self.PendingChildKeys[netuid, hotkey]

    def _quote_within_limit(self, quote, netuid: int, amount: int, limit_rao: int | None, allow_partial: bool) -> Swap:
        """The trade up to the limit price; SlippageTooHigh if it is empty, or incomplete without allow_partial."""
        if limit_rao is not None and not self.is_dynamic(netuid):
            buying = quote == self.quote_buy
            if (buying and limit_rao < amm.PRICE_UNIT) or (not buying and limit_rao > amm.PRICE_UNIT):
                raise self.error("SlippageTooHigh")
        try:
            swap = quote(netuid, amount, limit_rao)
        except SwapRefused as refused:
            raise self.swap_error(refused) from refused
        if not swap.paid_in or (swap.given < amount and not allow_partial):
            raise self.error("SlippageTooHigh")
        return swap

    def require_subnet(self, netuid: int) -> None:
        if not self.NetworksAdded[netuid]:
            raise self.error("SubnetNotExists")

    def require_trading(self, netuid: int) -> None:
        self.require_subnet(netuid)
        if not self.SubtokenEnabled[netuid]:
            raise self.error("SubtokenDisabled")

    def _require_hotkey(self, hotkey: bytes) -> None:
        if not self.hotkey_exists(hotkey):
            raise self.error("HotKeyAccountNotExists")

    def attempt(self, action):
        """Run an action; on a DispatchError undo its writes and events and return None."""
        mark, num_events = self.runtime.store.mark(), len(self.runtime.events)
        try:
            return action()
        except DispatchError:
            self.runtime.store.rollback(mark)
            del self.runtime.events[num_events:]
            return None
