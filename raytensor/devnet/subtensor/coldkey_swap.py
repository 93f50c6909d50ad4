"""Coldkey swaps: everything that a coldkey owns moves to another coldkey, after an announcement and a delay.

    announce (hash of the new coldkey, costs KeySwapCost once) -> delay -> swap_coldkey_announced
    announce -> dispute: frozen until root resets it      announce -> delay + reannouncement delay -> clear, or announce

In: these calls by the coldkey, swap_coldkey and reset_coldkey_swap by root. Out: identity, subnets, stake, hotkeys and
balance under the new coldkey. Until then checks.py refuses most other calls of the coldkey.
Source: swap/swap_coldkey.rs, macros/dispatches.rs.
"""

from __future__ import annotations

from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Origin, StorageMap, StorageValue, call
from raytensor.devnet.subtensor.costs import ref_time
from raytensor.devnet.subtensor.hotkey_swap import KEY_SWAP_COST
from raytensor.devnet.subtensor.pools import ROOT

DAY_BLOCKS = 7_200


class ColdkeySwaps:
    ColdkeySwapAnnouncements = StorageMap([("Twox64Concat", "AccountId32")], "(u32, H256)", optional=True)
    ColdkeySwapDisputes = StorageMap([("Twox64Concat", "AccountId32")], "u32", optional=True)
    ColdkeySwapAnnouncementDelay = StorageValue("u32", default=5 * DAY_BLOCKS)
    ColdkeySwapReannouncementDelay = StorageValue("u32", default=DAY_BLOCKS)

    @call(125, weight=ref_time(55_700_000, 4, 3))
    def announce_coldkey_swap(self, origin: Origin, new_coldkey_hash: "H256"):
        """Announce the blake2-256 hash of the new coldkey; the first announcement costs KeySwapCost."""
        who, now = origin.ensure_signed(), self.runtime.block_number
        announced = self.ColdkeySwapAnnouncements[who]
        if announced is None:
            self._charge_swap(who, KEY_SWAP_COST)
        elif now < announced[0] + self.ColdkeySwapReannouncementDelay.get():
            raise self.error("ColdkeySwapReannouncedTooEarly")
        when = now + self.ColdkeySwapAnnouncementDelay.get()
        self.ColdkeySwapAnnouncements[who] = (when, new_coldkey_hash)
        self.emit("ColdkeySwapAnnounced", who, new_coldkey_hash)

    @call(126, weight=ref_time(110_700_000, 16, 11))
    def swap_coldkey_announced(self, origin: Origin, new_coldkey: "AccountId32"):
        who = origin.ensure_signed()
        when, new_hash = self._announcement(who)
        if blake2_256(new_coldkey) != new_hash:
            raise self.error("AnnouncedColdkeyHashDoesNotMatch")
        if self.runtime.block_number < when:
            raise self.error("ColdkeySwapTooEarly")
        del self.ColdkeySwapAnnouncements[who]
        self._swap_coldkey(who, new_coldkey)

    @call(127, weight=ref_time(20_750_000, 2, 1))
    def dispute_coldkey_swap(self, origin: Origin):
        """Freeze a swap that the owner did not announce; only root can reset it."""
        who = origin.ensure_signed()
        self._announcement(who)
        if who in self.ColdkeySwapDisputes:
            raise self.error("ColdkeySwapAlreadyDisputed")
        self.ColdkeySwapDisputes[who] = self.runtime.block_number
        self.emit("ColdkeySwapDisputed", who)

    @call(128, weight=ref_time(10_190_000, 0, 2))
    def reset_coldkey_swap(self, origin: Origin, coldkey: "AccountId32"):
        origin.ensure_root()
        self._forget_swap(coldkey)
        self.emit("ColdkeySwapReset", coldkey)

    @call(133, weight=ref_time(20_750_000, 2, 1))
    def clear_coldkey_swap_announcement(self, origin: Origin):
        who = origin.ensure_signed()
        when, _ = self._announcement(who)
        if self.runtime.block_number < when + self.ColdkeySwapReannouncementDelay.get():
            raise self.error("ColdkeySwapClearTooEarly")
        del self.ColdkeySwapAnnouncements[who]
        self.emit("ColdkeySwapCleared", who)

    @call(71, weight=ref_time(183_600_000, 17, 10))
    def swap_coldkey(self, origin: Origin, old_coldkey: "AccountId32", new_coldkey: "AccountId32", swap_cost: "u64"):
        """Swap immediately; root only."""
        origin.ensure_root()
        if swap_cost:
            self._charge_swap(old_coldkey, swap_cost)
        self._swap_coldkey(old_coldkey, new_coldkey)
        self._forget_swap(old_coldkey)

    @call(73, weight=ref_time(37_830_000, 1, 3))
    def schedule_swap_coldkey(self, origin: Origin, new_coldkey: "AccountId32"):
        """Replaced by announce_coldkey_swap."""
        raise self.error("Deprecated")

    def _announcement(self, who: bytes) -> tuple[int, bytes]:
        announced = self.ColdkeySwapAnnouncements[who]
        if announced is None:
            raise self.error("ColdkeySwapAnnouncementNotFound")
        return announced

    def _charge_swap(self, who: bytes, cost: int) -> None:
        self.take_balance(who, cost, "NotEnoughBalanceToPaySwapColdKey")
        self.book_burn(cost)

    def _forget_swap(self, coldkey: bytes) -> None:
        del self.ColdkeySwapAnnouncements[coldkey]
        del self.ColdkeySwapDisputes[coldkey]

    def _swap_coldkey(self, old: bytes, new: bytes) -> None:
        if self.StakingHotkeys[new]:
            raise self.error("ColdKeyAlreadyAssociated")
        if self.hotkey_exists(new):
            raise self.error("NewColdKeyIsHotkey")
        if new not in self.IdentitiesV2 and old in self.IdentitiesV2:
            self.IdentitiesV2[new] = self.IdentitiesV2[old]
            del self.IdentitiesV2[old]
        for netuid in self.netuids():
            if self.SubnetOwner.get(netuid) == old:
                self.SubnetOwner[netuid] = new
            self._hand_over_auto_stake(netuid, old, new)
            self._hand_over_stake(netuid, old, new)
        if self.StakingHotkeys[old]:
            self.StakingHotkeys[new] = self.StakingHotkeys[old]
        owned = self.OwnedHotkeys[new]
        for hotkey in self.OwnedHotkeys[old]:
            self.Owner[hotkey] = new
            owned = owned if hotkey in owned else (*owned, hotkey)
        self.OwnedHotkeys[new] = owned
        del self.StakingHotkeys[old]
        del self.OwnedHotkeys[old]
        left = self.runtime.Balances.reducible(old, keep_alive=False)
        if left:
            self.runtime.Balances.transfer(old, new, left)
        self.emit("ColdkeySwapped", old, new)

    def _hand_over_auto_stake(self, netuid: int, old: bytes, new: bytes) -> None:
        destination = self.AutoStakeDestination[old, netuid]
        if destination is None:
            return
        del self.AutoStakeDestination[old, netuid]
        self.AutoStakeDestination[new, netuid] = destination
        others = tuple(c for c in self.AutoStakeDestinationColdkeys[destination, netuid] if c not in (old, new))
        self.AutoStakeDestinationColdkeys[destination, netuid] = (*others, new)

    def _hand_over_stake(self, netuid: int, old: bytes, new: bytes) -> None:
        """Move stake by value; root stake takes its claimed dividends along."""
        for hotkey in self.StakingHotkeys[old]:
            claimable = self.RootClaimable[hotkey] if netuid == ROOT else {}
            if claimable:
                del self.RootClaimable[hotkey]  # otherwise the move would count as a deposit
            amount = self.stake_of(hotkey, old, netuid)
            self.take_stake_from(hotkey, old, netuid, amount)
            self.add_stake_to(hotkey, new, netuid, amount)
            if claimable:
                self.RootClaimable[hotkey] = claimable
            for n in claimable:
                claimed = self.RootClaimed[n, hotkey, old]
                if claimed:
                    self.RootClaimed[n, hotkey, new] = self.RootClaimed[n, hotkey, new] + claimed
                    del self.RootClaimed[n, hotkey, old]
