"""Swap (28): the fee rate of each subnet's pool, and pool storage that clients read.

In: the fee rate by root or the subnet's owner. Out: storage. SubtensorModule has the pools (pools.py, amm.py). The
chain no longer has concentrated positions, so their calls fail with Deprecated.
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, Pallet, StorageMap, call
from raytensor.devnet.typedefs import declare_struct

MAX_FEE_RATE = 1_000  # of 65535
HALF = 10**18 // 2

declare_struct("Balancer", {"quote": "Perquintill"}, path="pallet_subtensor_swap::pallet::balancer::Balancer")


class Swap(Pallet):
    name, index = "Swap", 28
    FeeRate = StorageMap([("Twox64Concat", "u16")], "u16", default=33)
    SwapBalancer = StorageMap([("Twox64Concat", "u16")], "Balancer", default={"quote": HALF})
    PalSwapInitialized = StorageMap([("Twox64Concat", "u16")], "bool", default=False)
    events = {"FeeRateSet": (0, {"netuid": "u16", "rate": "u16"})}
    errors = """FeeRateTooHigh InsufficientInputAmount InsufficientLiquidity PriceLimitExceeded InsufficientBalance
        InvalidTickRange InvalidLiquidityValue ReservesTooLow MechanismDoesNotExist SubtokenDisabled
        ReservesOutOfBalance SwapInputTooLarge Deprecated""".split()

    @call(0, weight=20_000_000)
    def set_fee_rate(self, origin: Origin, netuid: "u16", rate: "u16"):
        module = self.runtime.SubtensorModule
        module.ensure_owner_or_root(origin, netuid)
        if not module.NetworksAdded[netuid]:
            raise self.error("MechanismDoesNotExist")
        if rate > MAX_FEE_RATE:
            raise self.error("FeeRateTooHigh")
        self.FeeRate[netuid] = rate
        self.emit("FeeRateSet", netuid, rate)

    @call(1, weight=20_000_000)
    def add_liquidity(
        self, origin: Origin, hotkey: "AccountId32", netuid: "u16", tick_low: "i32", tick_high: "i32", liquidity: "u64"
    ):
        raise self.error("Deprecated")

    @call(2, weight=20_000_000)
    def remove_liquidity(self, origin: Origin, hotkey: "AccountId32", netuid: "u16", position_id: "u128"):
        raise self.error("Deprecated")

    @call(3, weight=20_000_000)
    def modify_position(
        self, origin: Origin, hotkey: "AccountId32", netuid: "u16", position_id: "u128", liquidity_delta: "i64"
    ):
        raise self.error("Deprecated")

    @call(4, weight=20_000_000)
    def toggle_user_liquidity(self, origin: Origin, netuid: "u16", enable: "bool"):
        raise self.error("Deprecated")

    @call(5, weight=20_000_000)
    def disable_lp(self, origin: Origin):
        origin.ensure_root()
