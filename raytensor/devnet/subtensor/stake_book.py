"""Stake: hotkeys' pools of alpha, coldkeys' shares in them, stake weights with parents and children.

In: accounts, netuids, rao of alpha (TAO on root). Out: changed pools and shares, stake as integers, stake weights.
Knows nothing of prices or permissions (pools.py, staking.py).
"""

from __future__ import annotations

from raytensor.consensus import stake_weight
from raytensor.devnet.subtensor import shares
from raytensor.devnet.subtensor.storage import ZERO_ACCOUNT
from raytensor.devnet.subtensor.structs import SafeFloat

U64_MAX = 2**64 - 1
ROOT = 0
MAX_STAKING_HOTKEYS = 256


class StakeBook:
    def hotkey_exists(self, hotkey: bytes) -> bool:
        return hotkey in self.Owner

    def owns(self, coldkey: bytes, hotkey: bytes) -> bool:
        return self.Owner.get(hotkey) == coldkey

    def own_hotkey(self, coldkey: bytes, hotkey: bytes) -> None:
        """Associate a hotkey with a coldkey; no effect if it has an owner."""
        if hotkey in self.Owner:
            return
        self.Owner[hotkey] = coldkey
        self.OwnedHotkeys[coldkey] = (*self.OwnedHotkeys[coldkey], hotkey)
        self._stakes_with(coldkey, hotkey)

    def require_staking_slot(self, coldkey: bytes, hotkey: bytes) -> None:
        """A coldkey stakes with at most 256 hotkeys by its own calls; payments of an epoch have no limit."""
        hotkeys = self.StakingHotkeys[coldkey]
        if len(hotkeys) >= MAX_STAKING_HOTKEYS and hotkey not in hotkeys:
            raise self.error("TooManyStakingHotkeys")

    def _stakes_with(self, coldkey: bytes, hotkey: bytes) -> None:
        hotkeys = self.StakingHotkeys[coldkey]
        if hotkey not in hotkeys:
            self.StakingHotkeys[coldkey] = (*hotkeys, hotkey)

    def stake_of(self, hotkey: bytes, coldkey: bytes, netuid: int) -> int:
        """Rao of alpha that the coldkey could withdraw from this hotkey, rounded down."""
        mine = self.AlphaV2[hotkey, coldkey, netuid].mantissa
        if not mine:
            return 0
        total = self.TotalHotkeySharesV2[hotkey, netuid].mantissa
        return shares.value(self.TotalHotkeyAlpha[hotkey, netuid], total, mine)

    def has_members(self, hotkey: bytes, netuid: int) -> bool:
        return self.TotalHotkeySharesV2[hotkey, netuid].mantissa > 0

    def add_stake_to(self, hotkey: bytes, coldkey: bytes, netuid: int, amount: int) -> None:
        if not amount:
            return
        pool = self.TotalHotkeyAlpha[hotkey, netuid]
        total = self.TotalHotkeySharesV2[hotkey, netuid].mantissa
        new = shares.shares_for_deposit(pool, total, amount)
        mine = self.AlphaV2[hotkey, coldkey, netuid].mantissa
        if netuid == ROOT:
            self.root_stake_moved(hotkey, coldkey, amount)
        self.TotalHotkeyAlpha[hotkey, netuid] = pool + amount
        self.TotalHotkeySharesV2[hotkey, netuid] = SafeFloat(total + new, shares.EXPONENT)
        self.AlphaV2[hotkey, coldkey, netuid] = SafeFloat(mine + new, shares.EXPONENT)
        if not mine:
            self._stakes_with(coldkey, hotkey)

    def take_stake_from(self, hotkey: bytes, coldkey: bytes, netuid: int, amount: int) -> None:
        """Remove stake; `amount` must be at most `stake_of`."""
        if not amount:
            return
        pool = self.TotalHotkeyAlpha[hotkey, netuid]
        total = self.TotalHotkeySharesV2[hotkey, netuid].mantissa
        mine = self.AlphaV2[hotkey, coldkey, netuid].mantissa
        taken = shares.shares_for_withdrawal(pool, total, mine, amount)
        if netuid == ROOT:
            self.root_stake_moved(hotkey, coldkey, -amount)
        self.TotalHotkeyAlpha[hotkey, netuid] = pool - amount
        if taken == total:
            del self.TotalHotkeySharesV2[hotkey, netuid]
        else:
            self.TotalHotkeySharesV2[hotkey, netuid] = SafeFloat(total - taken, shares.EXPONENT)
        if taken == mine:
            del self.AlphaV2[hotkey, coldkey, netuid]
        else:
            self.AlphaV2[hotkey, coldkey, netuid] = SafeFloat(mine - taken, shares.EXPONENT)

    def grow_stake(self, hotkey: bytes, netuid: int, amount: int) -> None:
        """Add alpha to all stakers of the hotkey in proportion to shares; to its owner if there are none."""
        if not amount:
            return
        if self.has_members(hotkey, netuid):
            self.TotalHotkeyAlpha[hotkey, netuid] = self.TotalHotkeyAlpha[hotkey, netuid] + amount
        else:
            self.add_stake_to(hotkey, self.Owner[hotkey], netuid, amount)

    def inherited(self, hotkey: bytes, on_netuid: int, family_netuid: int) -> int:
        """A hotkey's alpha on `on_netuid`, less its children's parts on `family_netuid`, plus its parents' parts.

        Proportions are u64 / u64::MAX with 32 fractional bits (get_inherited_for_hotkey_on_subnet).
        """
        own = self.TotalHotkeyAlpha[hotkey, on_netuid]
        children = self.ChildKeys.get((hotkey, family_netuid))
        parents = self.ParentKeys.get((hotkey, family_netuid))
        if not children and not parents:
            return own
        total = own << 32
        for proportion, _ in children or ():
            total -= own * ((proportion << 32) // U64_MAX)
        for proportion, parent in parents or ():
            total += self.TotalHotkeyAlpha[parent, on_netuid] * ((proportion << 32) // U64_MAX)
        return min(max(total, 0) >> 32, U64_MAX)

    def hotkeys(self, netuid: int) -> list[bytes]:
        keys = self.Keys
        return [keys[netuid, uid] for uid in range(self.SubnetworkN[netuid])]

    def stake_parts(self, netuid: int, hotkeys: list[bytes]) -> tuple[list[int], list[int]]:
        """(alpha, root TAO) of each hotkey in rao, the stake that consensus uses on this subnet."""
        alpha = [self.inherited(hotkey, netuid, netuid) for hotkey in hotkeys]
        if netuid == ROOT:
            return alpha, [0] * len(hotkeys)
        return alpha, [self.inherited(hotkey, ROOT, netuid) for hotkey in hotkeys]

    def total_stake_weight(self, hotkey: bytes, netuid: int) -> int:
        """Stake weight in whole rao: alpha + root TAO * TaoWeight."""
        alpha, tao = self.stake_parts(netuid, [hotkey])
        whole, _ = stake_weight(alpha, tao, self.TaoWeight.get())
        return int(whole[0])

    def meets_stake_threshold(self, hotkey: bytes, netuid: int) -> bool:
        """Whether the hotkey has enough stake to set weights; always true for the subnet owner's neuron."""
        owner_uid = self.owner_uid(netuid)
        if owner_uid is not None and self.Uids[netuid, hotkey] == owner_uid:
            return True
        threshold = self.StakeThreshold.get()
        return not threshold or self.total_stake_weight(hotkey, netuid) >= threshold

    def owner_uid(self, netuid: int) -> int | None:
        """Uid of the subnet owner's hotkey, if it is registered."""
        hotkey = self.SubnetOwnerHotkey[netuid]
        return None if hotkey == ZERO_ACCOUNT else self.Uids[netuid, hotkey]

    def coldkey_stakes(self, coldkey: bytes) -> list[tuple[bytes, int, int]]:
        """(hotkey, netuid, rao of alpha) of everything the coldkey has staked, by hotkey and netuid."""
        found = []
        for hotkey in self.StakingHotkeys[coldkey]:
            for netuid in self.AlphaV2.keys(hotkey, coldkey):
                stake = self.stake_of(hotkey, coldkey, netuid)
                if stake:
                    found.append((hotkey, netuid, stake))
        return found

    def nominators(self, hotkey: bytes) -> dict[bytes, list[tuple[int, int]]]:
        """Stake on the hotkey by coldkey: {coldkey: [(netuid, rao of alpha)]}."""
        found: dict[bytes, list[tuple[int, int]]] = {}
        for coldkey, netuid in self.AlphaV2.keys(hotkey):
            stake = self.stake_of(hotkey, coldkey, netuid)
            if stake:
                found.setdefault(coldkey, []).append((netuid, stake))
        return found
