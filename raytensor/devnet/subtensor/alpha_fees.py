"""Fees paid in alpha, by who has stake but no TAO.

In: who pays, the call, the fee in rao of TAO. Out: the one position that can pay it, and its sale for the author.
A call that turns alpha into TAO may be paid out of the position that it draws on, where it names exactly one; it is
also found inside a proxy or a batch, two levels deep. Nothing is given back afterwards.
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
    """Rao of alpha of one position that pay a fee."""

    hotkey: bytes
    netuid: int
    alpha: int


class AlphaFees:
    def alpha_fee(self, who: bytes, call: Call, fee: int) -> AlphaFee | None:
        """What would pay `fee` rao of TAO; None when the call does not admit it or the stake is too small."""
        positions = self._fee_positions(who, call, MAX_DEPTH)
        if len(positions) != 1:
            return None
        ((hotkey, netuid),) = positions
        held = self.stake_of(hotkey, who, netuid)
        needed = self._alpha_for_fee(netuid, fee) or held
        return AlphaFee(hotkey, netuid, needed) if 0 < needed <= held else None

    def pay_in_alpha(self, who: bytes, fee: AlphaFee) -> bool:
        """Sell the alpha, without the pool's fee, for the block's author; False, with nothing changed, if no pool
        takes it.
        """
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
        """Alpha that the pool wants for `tao` rao, without its fee; 0 when it holds no more than that."""
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
                return [
                    (hotkey, n) for n in self.netuids() if self.SubtokenEnabled[n] and self.stake_of(hotkey, who, n)
                ]
            return []
        if depth and call.pallet == "Proxy" and call.name == "proxy":
            return self._fee_positions(who, call["call"], depth - 1)
        if depth and call.pallet == "Utility" and call.name in BATCHES:
            return [position for inner in call["calls"] for position in self._fee_positions(who, inner, depth - 1)]
        return []
