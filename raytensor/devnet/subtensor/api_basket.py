"""BetaBasketRuntimeApi: claimable root dividends, in the API of newer chains (spec_version 435 and later).

In: a coldkey. Out: its root dividends by validator, in rao of TAO at current prices. This chain pays dividends per
subnet (root_claims.py) and has no baskets, so every amount of beta (a basket's shares) is 0.
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
        """(validator's hotkey, beta, rao that a claim would pay) of each validator that owes something."""
        owed = [(hotkey, 0, self._owed(hotkey, coldkey)) for hotkey in self.module.StakingHotkeys[coldkey]]
        return [position for position in owed if position[2]]

    def _owed(self, hotkey: bytes, coldkey: bytes) -> int:
        """Sum over subnets, each subnet's alpha sold alone; alpha that its pool refuses counts as 0."""
        module, total = self.module, 0
        for netuid in module.RootClaimable[hotkey]:
            try:
                total += module.quote_sell(netuid, module.owed_root_alpha(hotkey, coldkey, netuid)).out
            except SwapRefused:
                continue
        return total
