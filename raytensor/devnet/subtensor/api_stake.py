"""Runtime APIs of stake and prices: StakeInfoRuntimeApi, DelegateInfoRuntimeApi, SwapRuntimeApi.

In: accounts, netuids, amounts in rao. Out: structs of api_structs.py. Prices are rao of TAO for one whole alpha.
"""

from __future__ import annotations

from raytensor.devnet.pallet import RuntimeApi, api
from raytensor.devnet.subtensor import amm
from raytensor.devnet.subtensor.amm import SwapRefused
from raytensor.devnet.subtensor.api_structs import (
    DelegateInfo,
    SimSwapResult,
    StakeAvailability,
    StakeInfo,
    SubnetPrice,
)


class StakeInfoRuntimeApi(RuntimeApi):
    name = "StakeInfoRuntimeApi"

    @property
    def module(self):
        return self.runtime.SubtensorModule

    @api("Vec<StakeInfo>")
    def get_stake_info_for_coldkey(self, coldkey_account: "AccountId32"):
        stakes = self.module.coldkey_stakes(coldkey_account)
        return [self._info(hotkey, coldkey_account, netuid) for hotkey, netuid, _ in stakes]

    @api("Vec<(AccountId32, Vec<StakeInfo>)>")
    def get_stake_info_for_coldkeys(self, coldkey_accounts: "Vec<AccountId32>"):
        return [(coldkey, self.get_stake_info_for_coldkey(coldkey)) for coldkey in coldkey_accounts]

    @api("Option<StakeInfo>")
    def get_stake_info_for_hotkey_coldkey_netuid(
        self, hotkey_account: "AccountId32", coldkey_account: "AccountId32", netuid: "u16"
    ):
        """The position, also with zero stake; None if the subnet does not exist."""
        if not self.module.NetworksAdded[netuid]:
            return None
        return self._info(hotkey_account, coldkey_account, netuid)

    def _info(self, hotkey: bytes, coldkey: bytes, netuid: int) -> StakeInfo:
        module = self.module
        return StakeInfo(
            hotkey=hotkey,
            coldkey=coldkey,
            netuid=netuid,
            stake=module.stake_of(hotkey, coldkey, netuid),
            locked=0,
            emission=module.AlphaDividendsPerSubnet[netuid, hotkey],
            tao_emission=module.RootAlphaDividendsPerSubnet[netuid, hotkey],
            drain=0,
            is_registered=(netuid, hotkey) in module.Uids,
        )

    @api("BTreeMap<AccountId32, BTreeMap<u16, StakeAvailability>>")
    def get_stake_availability_for_coldkeys(self, coldkey_accounts: "Vec<AccountId32>", netuids: "Option<Vec<u16>>"):
        found: dict[bytes, dict[int, StakeAvailability]] = {}
        for coldkey in coldkey_accounts:
            totals: dict[int, int] = {}
            for _, netuid, stake in self.module.coldkey_stakes(coldkey):
                if netuids is None or netuid in netuids:
                    totals[netuid] = totals.get(netuid, 0) + stake
            found[coldkey] = {netuid: StakeAvailability(total, 0, total) for netuid, total in totals.items()}
        return found

    @api("u64")
    def get_stake_fee(
        self,
        origin: "Option<(AccountId32, u16)>",
        origin_coldkey_account: "AccountId32",
        destination: "Option<(AccountId32, u16)>",
        destination_coldkey_account: "AccountId32",
        amount: "u64",
    ):
        """Swap fee of adding (no origin), removing (no destination) or moving stake, in units of the amount."""
        module = self.module
        if origin is None and destination is None:
            return 0
        if origin is not None and destination is not None and origin[1] == destination[1]:
            return 0
        netuid = (origin or destination)[1]
        return amm.fee_of(amount, module.fee_rate(netuid))

    # This chain has no locked stake (left_out.py), so these answer zero or None.

    @api("Option<LockState>")
    def get_coldkey_lock(self, coldkey: "AccountId32", netuid: "u16"):
        return next((lock for _, lock in self.module.Lock.items(coldkey, netuid)), None)

    @api("U64F64")
    def get_hotkey_conviction(self, hotkey: "AccountId32", netuid: "u16"):
        return 0

    @api("Option<AccountId32>")
    def get_most_convicted_hotkey_on_subnet(self, netuid: "u16"):
        return None


class DelegateInfoRuntimeApi(RuntimeApi):
    name = "DelegateInfoRuntimeApi"

    @property
    def module(self):
        return self.runtime.SubtensorModule

    @api("Vec<DelegateInfo>")
    def get_delegates(self):
        return [self._info(hotkey) for hotkey in self.module.Delegates.keys()]

    @api("Option<DelegateInfo>")
    def get_delegate(self, delegate_account: "AccountId32"):
        return self._info(delegate_account) if delegate_account in self.module.Delegates else None

    @api("Vec<(DelegateInfo, (Compact<u16>, Compact<u64>))>")
    def get_delegated(self, delegatee_account: "AccountId32"):
        module = self.module
        stakes = module.coldkey_stakes(delegatee_account)
        return [(self._info(hot), (netuid, stake)) for hot, netuid, stake in stakes if hot in module.Delegates]

    def _info(self, hotkey: bytes) -> DelegateInfo:
        module = self.module
        places = [(netuid, uid) for netuid in module.netuids() if (uid := module.Uids[netuid, hotkey]) is not None]
        permits = [netuid for netuid, uid in places if module.ValidatorPermit[netuid][uid]]
        daily = sum(self._daily_return(hotkey, netuid) for netuid, _ in places)
        staked = sum(module.TotalHotkeyAlpha[hotkey, netuid] for netuid, _ in places)
        return DelegateInfo(
            delegate_ss58=hotkey,
            take=module.Delegates[hotkey],
            nominators=list(module.nominators(hotkey).items()),
            owner_ss58=module.Owner[hotkey],
            registrations=[netuid for netuid, _ in places],
            validator_permits=permits,
            return_per_1000=daily * 1000 * 10**9 // staked if staked else 0,
            total_daily_return=daily,
        )

    def _daily_return(self, hotkey: bytes, netuid: int) -> int:
        """Rao of alpha per day at the last epoch's dividends, for blocks of 12 s."""
        tempo = self.module.Tempo[netuid]
        return self.module.AlphaDividendsPerSubnet[netuid, hotkey] * 7_200 // tempo if tempo else 0


class SwapRuntimeApi(RuntimeApi):
    name = "SwapRuntimeApi"

    @property
    def module(self):
        return self.runtime.SubtensorModule

    @api("u64")
    def current_alpha_price(self, netuid: "u16"):
        return self.module.alpha_price_rao(netuid)

    @api("Vec<SubnetPrice>")
    def current_alpha_price_all(self):
        module = self.module
        return [SubnetPrice(netuid, module.alpha_price_rao(netuid)) for netuid in module.netuids()]

    @api("SimSwapResult")
    def sim_swap_tao_for_alpha(self, netuid: "u16", tao: "u64"):
        """All zeros when the pool refuses the trade. Slippage: output at the current price minus the output."""
        try:
            swap = self.module.quote_buy(netuid, tao)
        except SwapRefused:
            return SimSwapResult(0, 0, 0, 0, 0, 0)
        price = self.module.alpha_price_rao(netuid)
        ideal = swap.paid_in * amm.PRICE_UNIT // price if price else 0
        return SimSwapResult(swap.paid_in, swap.out, swap.fee, 0, 0, max(0, ideal - swap.out))

    @api("SimSwapResult")
    def sim_swap_alpha_for_tao(self, netuid: "u16", alpha: "u64"):
        try:
            swap = self.module.quote_sell(netuid, alpha)
        except SwapRefused:
            return SimSwapResult(0, 0, 0, 0, 0, 0)
        ideal = swap.paid_in * self.module.alpha_price_rao(netuid) // amm.PRICE_UNIT
        return SimSwapResult(swap.out, swap.paid_in, 0, swap.fee, max(0, ideal - swap.out), 0)
