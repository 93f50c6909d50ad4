"""BetaBasketRuntimeApi: what root stakers may claim, as clients of newer chains ask for it (spec 435 and later).

In: a coldkey. Out: its root dividends in rao of TAO at today's prices, by validator. This chain pays them subnet by
subnet (root_claims.py) and has no baskets, so that nobody holds beta, the shares of one.
"""

from __future__ import annotations

from raytensor.devnet.pallet import RuntimeApi, api
from raytensor.devnet.subtensor.amm import SwapRefused


class BetaBasketRuntimeApi(RuntimeApi):
    name = "BetaBasketRuntimeApi"

    @property
    def module(self):
        return self.runtime.SubtensorModule

    @api("u64")
    def get_root_basket_owed(self, coldkey: "AccountId32"):
        return sum(payout for _, _, payout in self.get_root_basket_positions(coldkey))

    @api("Vec<(AccountId32, u64, u64)>")
    def get_root_basket_positions(self, coldkey: "AccountId32"):
        """(validator's hotkey, beta, rao that a claim would pay), those who owe nothing left out."""
        owed = [(hotkey, 0, self._owed(hotkey, coldkey)) for hotkey in self.module.StakingHotkeys[coldkey]]
        return [position for position in owed if position[2]]

    def _owed(self, hotkey: bytes, coldkey: bytes) -> int:
        """Each subnet's alpha sold alone; what its pool can't take is worth nothing."""
        module, total = self.module, 0
        for netuid in module.RootClaimable[hotkey]:
            try:
                total += module.quote_sell(netuid, module.owed_root_alpha(hotkey, coldkey, netuid)).out
            except SwapRefused:
                continue
        return total
