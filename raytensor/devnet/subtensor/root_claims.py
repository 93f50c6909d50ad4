"""Root dividends: alpha that root stakers of a hotkey can claim in proportion to their root stake.

In: claimable alpha per hotkey and subnet from the epochs; claims. Out: TAO staked on root. RootClaimable is alpha per
unit of root stake (I96F32), RootClaimed the alpha a staker has claimed. Both are adjusted when root stake moves, so
that new stake earns no past dividends (staking/claim_root.rs). A validator's claimable alpha is its basket: one holding
per subnet, which nobody trades.
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, call
from raytensor.devnet.subtensor.amm import SwapRefused
from raytensor.devnet.subtensor.costs import charged, ref_time
from raytensor.devnet.subtensor.pools import ROOT


class RootClaims:
    @call(121, weight=charged(8_251_352))
    def claim_root(self, origin: Origin, subnets: "BTreeSet<u16>"):
        """Claim from every hotkey that the coldkey stakes with, on all subnets; `subnets` is ignored."""
        coldkey = origin.ensure_signed()
        self._claim_from(coldkey, self.StakingHotkeys[coldkey])

    @call(148, weight=charged(8_251_352))
    def claim_root_with_hotkey(self, origin: Origin, hotkey: "AccountId32"):
        """As claim_root, from one hotkey."""
        coldkey = origin.ensure_signed()
        self._require_hotkey(hotkey)
        self._claim_from(coldkey, (hotkey,))

    def _claim_from(self, coldkey: bytes, hotkeys: tuple[bytes, ...]) -> None:
        tao = 0
        for hotkey in hotkeys:
            for netuid in sorted(self.RootClaimable[hotkey]):
                tao += self.attempt(lambda hotkey=hotkey, netuid=netuid: self._claim(hotkey, coldkey, netuid)) or 0
        self.emit("RootClaimed", coldkey, tao)

    @call(124, weight=ref_time(6_000_000, 2, 1))
    def sudo_set_root_claim_threshold(self, origin: Origin, netuid: "u16", new_value: "u64"):
        self.ensure_owner_or_root(origin, netuid)
        if new_value > 10_000_000:
            raise self.error("InvalidRootClaimThreshold")
        self.RootClaimableThreshold[netuid] = new_value << 32

    def add_root_claim(self, hotkey: bytes, netuid: int, amount: int) -> None:
        """Add claimable alpha for the hotkey's root stakers; recycled when the rate rounds to 0."""
        total = self.TotalHotkeyAlpha[hotkey, ROOT]
        rate = (amount << 32) // total if total else 0
        if not rate:
            self.recycle_alpha_out(netuid, amount)
            return
        rates = self.RootClaimable[hotkey]
        self.RootClaimable[hotkey] = {**rates, netuid: rates.get(netuid, 0) + rate}

    def owed_root_alpha(self, hotkey: bytes, coldkey: bytes, netuid: int) -> int:
        rate = self.RootClaimable[hotkey].get(netuid, 0)
        earned = (rate * self.stake_of(hotkey, coldkey, ROOT)) >> 32
        return max(0, earned - self.RootClaimed[netuid, hotkey, coldkey])

    def root_stake_moved(self, hotkey: bytes, coldkey: bytes, change: int) -> None:
        """Adjust RootClaimed after a change of a staker's root stake by `change` rao."""
        for netuid, rate in self.RootClaimable[hotkey].items():
            key = (netuid, hotkey, coldkey)
            # Rounded up for a deposit, so that it can't claim past dividends.
            moved = -(-rate * change >> 32) if change > 0 else (rate * change) >> 32
            self.RootClaimed[key] = max(0, self.RootClaimed[key] + moved)

    def _claim(self, hotkey: bytes, coldkey: bytes, netuid: int) -> int:
        """Sell what is owed on one subnet and stake the TAO on root. Returns the rao of TAO."""
        owed = self.owed_root_alpha(hotkey, coldkey, netuid)
        if owed << 32 < self.RootClaimableThreshold[netuid] or not owed:
            return 0
        self.RootClaimed[netuid, hotkey, coldkey] = self.RootClaimed[netuid, hotkey, coldkey] + owed
        try:
            swap = self.sell_alpha(netuid, owed)
        except SwapRefused as refused:
            raise self.swap_error(refused) from refused
        self.buy_alpha(ROOT, swap.out)
        self.add_stake_to(hotkey, coldkey, ROOT, swap.out)
        return swap.out
