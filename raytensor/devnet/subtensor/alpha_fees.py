"""Fees paid in alpha by accounts that have stake but no TAO.

In: the payer, the call, the fee in rao of TAO. Out: the stake position that pays; its alpha is sold for the author.
A call that turns alpha into TAO can be paid from the position that it uses, if it names exactly one. Calls inside a
proxy or a batch count too, two levels deep. There is no refund.
Source: pallets/transaction-fee. Knows nothing of when fees are taken (executive.py).
"""

from __future__ import annotations

from typing import NamedTuple

from raytensor.devnet.pallet import Call
from raytensor.devnet.pallets.utility import BATCHES
from raytensor.devnet.subtensor.amm import SwapRefused

MAX_DEPTH = 2
# Calls that may be paid in alpha -> the arguments that name the position.
ONE_POSITION = {
    "remove_stake": ("hotkey", "netuid"),
    "remove_stake_limit": ("hotkey", "netuid"),
    "remove_stake_full_limit": ("hotkey", "netuid"),
    "move_stake": ("origin_hotkey", "origin_netuid"),
    "transfer_stake": ("hotkey", "origin_netuid"),
    "swap_stake": ("hotkey", "origin_netuid"),
    "swap_stake_limit": ("hotkey", "origin_netuid"),
    "recycle_alpha": ("hotkey", "netuid"),
    "burn_alpha": ("hotkey", "netuid"),
}
ALL_POSITIONS = ("unstake_all", "unstake_all_alpha")


class AlphaFee(NamedTuple):
    """A fee in rao of alpha and the stake position that pays it."""

    hotkey: bytes
    netuid: int
    alpha: int


class AlphaFees:
    def alpha_fee(self, who: bytes, call: Call, fee: int) -> AlphaFee | None:
        """The alpha that pays `fee` rao of TAO; None if the call does not allow it or the stake is too small."""
        positions = self._fee_positions(who, call, MAX_DEPTH)
        if len(positions) != 1:
            return None
        ((hotkey, netuid),) = positions
        held = self.stake_of(hotkey, who, netuid)
        needed = self._alpha_for_fee(netuid, fee) or held
        return AlphaFee(hotkey, netuid, needed) if 0 < needed <= held else None

    def pay_in_alpha(self, who: bytes, fee: AlphaFee) -> bool:
        """Sell the alpha for the block's author, without the pool's fee. False, and no change, if the pool refuses."""
        try:
            self.quote_sell(fee.netuid, fee.alpha, fees=False)
        except SwapRefused:
            return False
        self.take_stake_from(fee.hotkey, who, fee.netuid, fee.alpha)
        swap = self.sell_alpha(fee.netuid, fee.alpha, fees=False)
        self.give_balance(self.runtime.author, swap.out)
        self.emit("TransactionFeePaidWithAlpha", who, fee.netuid, fee.alpha, swap.out)
        return True

    def _alpha_for_fee(self, netuid: int, tao: int) -> int:
        """Alpha that buys `tao` rao from the pool without its fee; 0 when the pool holds no more than that."""
        if not self.is_dynamic(netuid):
            return tao
        pool = self.SubnetTAO[netuid]
        return self.SubnetAlphaIn[netuid] * tao // (pool - tao) if tao < pool else 0

    def _fee_positions(self, who: bytes, call: Call, depth: int) -> list[tuple[bytes, int]]:
        if call.pallet == self.name:
            if call.name in ONE_POSITION:
                hotkey, netuid = ONE_POSITION[call.name]
                return [(call[hotkey], call[netuid])]
            if call.name in ALL_POSITIONS:
                hotkey = call["hotkey"]
                trading = [netuid for netuid in self.netuids() if self.SubtokenEnabled[netuid]]
                return [(hotkey, netuid) for netuid in trading if self.stake_of(hotkey, who, netuid)]
            return []
        if depth and call.pallet == "Proxy" and call.name == "proxy":
            return self._fee_positions(who, call["call"], depth - 1)
        if depth and call.pallet == "Utility" and call.name in BATCHES:
            return [position for inner in call["calls"] for position in self._fee_positions(who, inner, depth - 1)]
        return []
