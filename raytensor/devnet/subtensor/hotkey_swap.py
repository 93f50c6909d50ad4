"""Hotkey swaps: a coldkey replaces one of its hotkeys by another, on one subnet or on all.

In: swap_hotkey, swap_hotkey_v2 by the coldkey. Out: the old hotkey's state under the new hotkey: neuron, axon, commits,
parents and children, stake of all nominators (unless it is kept), dividends, root claims.
Source: swap/swap_hotkey.rs, without the minimum age of the chain that later versions require for the first swap.
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, StorageMap, call
from raytensor.devnet.subtensor.costs import charged
from raytensor.devnet.subtensor.pools import ROOT
from raytensor.devnet.subtensor.storage import ACCOUNT, NETUID, RAO
from raytensor.devnet.subtensor.subnets import is_subnet_account

KEY_SWAP_COST = RAO // 10
KEY_SWAP_ON_SUBNET_COST = 1_000_000
SWAP_INTERVAL_BLOCKS = 36_000
STAKE_MOVE_COOLDOWN_BLOCKS = 7_200
SWAP = charged(168_047_089)


class HotkeySwaps:
    LastHotkeySwapOnNetuid = StorageMap([NETUID, ACCOUNT], "u64", default=0)
    # By destination hotkey: until this block its stake stays with it, so that nominators can withdraw.
    StakeMoveCooldownUntil = StorageMap([NETUID, ACCOUNT], "u64", default=0)
    constants = {
        "KeySwapCost": ("u64", KEY_SWAP_COST),
        "KeySwapOnSubnetCost": ("u64", KEY_SWAP_ON_SUBNET_COST),
        "HotkeySwapOnSubnetInterval": ("u64", SWAP_INTERVAL_BLOCKS),
    }

    @call(70, weight=SWAP)
    def swap_hotkey(self, origin: Origin, hotkey: "AccountId32", new_hotkey: "AccountId32", netuid: "Option<u16>"):
        self._swap_hotkey(origin, hotkey, new_hotkey, netuid, keep_stake=False)

    @call(72, weight=SWAP)
    def swap_hotkey_v2(
        self,
        origin: Origin,
        hotkey: "AccountId32",
        new_hotkey: "AccountId32",
        netuid: "Option<u16>",
        keep_stake: "bool",
    ):
        """With `keep_stake` the stake and its dividends stay with the old hotkey."""
        self._swap_hotkey(origin, hotkey, new_hotkey, netuid, keep_stake)

    def drop_old_swap_records(self, netuids: list[int], block: int) -> None:
        """Delete expired swap records; each subnet is visited in one block of the interval."""
        netuid = block % SWAP_INTERVAL_BLOCKS
        if netuid in netuids:
            for coldkey, swapped_at in self.LastHotkeySwapOnNetuid.items(netuid):
                if swapped_at + SWAP_INTERVAL_BLOCKS < block:
                    del self.LastHotkeySwapOnNetuid[netuid, coldkey]
            for hotkey, until in self.StakeMoveCooldownUntil.items(netuid):
                if until <= block:
                    del self.StakeMoveCooldownUntil[netuid, hotkey]

    def _swap_hotkey(self, origin: Origin, old: bytes, new: bytes, netuid: int | None, keep_stake: bool) -> None:
        coldkey = origin.ensure_signed()
        if netuid is not None:
            self.require_subnet(netuid)
        if not self.owns(coldkey, old) or (self.hotkey_exists(new) and not self.owns(coldkey, new)):
            raise self.error("NonAssociatedColdKey")
        if old == new:
            raise self.error("NewHotKeyIsSameWithOld")
        everywhere = self.netuids()
        if any((n, new) in self.Uids for n in (everywhere if netuid is None else (netuid,))):
            raise self.error("HotKeyAlreadyRegisteredInSubNet")
        if netuid in (None, ROOT) and (self.RootClaimable[new] or self.TotalHotkeyAlpha[new, ROOT]):
            raise self.error("NewHotKeyNotCleanForRootSwap")
        if not keep_stake:
            self._check_stake_cooldown(old, everywhere if netuid is None else [netuid])
        for clock in (self.LastTxBlockDelegateTake, self.LastTxBlockChildKeyTake):
            clock[new] = clock[old]
        if netuid is not None:
            self._check_swap_interval(netuid, coldkey)
            if is_subnet_account(new):
                raise self.error("CannotUseSystemAccount")
            self._pay_for_swap(coldkey, KEY_SWAP_ON_SUBNET_COST)
            self.Owner[new] = coldkey
            self._rename_owned(coldkey, None, new)
            self._swap_on(old, new, netuid, keep_stake)
            self.LastHotkeySwapOnNetuid[netuid, coldkey] = self.runtime.block_number
            self.emit("HotkeySwappedOnSubnet", coldkey, old, new, netuid)
            return
        touched = [n for n in everywhere if self.IsNetworkMember[old, n] or self.ChildKeys[old, n]]
        for n in touched:
            self._check_swap_interval(n, coldkey)
        self._pay_for_swap(coldkey, KEY_SWAP_COST)
        self._swap_everywhere(coldkey, old, new, everywhere, keep_stake)
        for n in touched:
            self.LastHotkeySwapOnNetuid[n, coldkey] = self.runtime.block_number
        self.emit("HotkeySwapped", coldkey, old, new)

    def _check_swap_interval(self, netuid: int, coldkey: bytes) -> None:
        last = self.LastHotkeySwapOnNetuid[netuid, coldkey]
        if last and last + SWAP_INTERVAL_BLOCKS >= self.runtime.block_number:
            raise self.error("HotKeySwapOnSubnetIntervalNotPassed")

    def _check_stake_cooldown(self, hotkey: bytes, netuids: list[int]) -> None:
        block = self.runtime.block_number
        for netuid in netuids:
            if self.has_members(hotkey, netuid) and block < self.StakeMoveCooldownUntil[netuid, hotkey]:
                raise self.error("HotKeySwapOnSubnetIntervalNotPassed")

    def _pay_for_swap(self, coldkey: bytes, cost: int) -> None:
        self.take_balance(coldkey, cost, "NotEnoughBalanceToPaySwapHotKey")
        self.book_burn(cost)

    def _rename_owned(self, coldkey: bytes, old: bytes | None, new: bytes) -> None:
        owned = self.OwnedHotkeys[coldkey]
        owned = (*owned, new) if new not in owned else owned
        self.OwnedHotkeys[coldkey] = tuple(key for key in owned if key != old)

    def _swap_everywhere(self, coldkey: bytes, old: bytes, new: bytes, netuids: list[int], keep_stake: bool) -> None:
        holders = [] if keep_stake else sorted({holder for holder, _ in self.AlphaV2.keys(old)})
        if not keep_stake:
            del self.Owner[old]
        self.Owner[new] = coldkey
        self._rename_owned(coldkey, None if keep_stake else old, new)
        for netuid in netuids:
            self._swap_on(old, new, netuid, keep_stake)
        for item in (self.LastTxBlock, self.LastTxBlockDelegateTake, self.LastTxBlockChildKeyTake):
            del item[old]
        if old in self.Delegates:
            self.Delegates[new] = self.Delegates[old]
            del self.Delegates[old]
        for holder in holders:
            hotkeys = self.StakingHotkeys[holder]
            if old in hotkeys:
                self.StakingHotkeys[holder] = (*(key for key in hotkeys if key not in (old, new)), new)

    def _swap_on(self, old: bytes, new: bytes, netuid: int, keep_stake: bool) -> None:
        if self.IsNetworkMember[old, netuid]:
            self._swap_neuron(old, new, netuid)
        _move(self.ChildkeyTake, (old, netuid), (new, netuid))
        self.swap_family(old, new, netuid)
        coldkeys = self.AutoStakeDestinationColdkeys.get((old, netuid))
        if coldkeys is not None:
            for coldkey in coldkeys:
                self.AutoStakeDestination[coldkey, netuid] = new
            _move(self.AutoStakeDestinationColdkeys, (old, netuid), (new, netuid))
        if self.SubnetOwnerHotkey.get(netuid) == old:
            self.SubnetOwnerHotkey[netuid] = new
            self.emit("SubnetOwnerHotkeySet", netuid, new)
        if keep_stake:
            return
        for item, key, new_key in (
            (self.TotalHotkeyAlphaLastEpoch, (old, netuid), (new, netuid)),
            (self.AlphaDividendsPerSubnet, (netuid, old), (netuid, new)),
            (self.RootAlphaDividendsPerSubnet, (netuid, old), (netuid, new)),
        ):
            if item[key]:
                item[new_key] = item[new_key] + item[key]
            del item[key]
        self._swap_stake_of_all(old, new, netuid)
        if netuid == ROOT:
            _move(self.AutoParentDelegationEnabled, old, new)

    def _swap_neuron(self, old: bytes, new: bytes, netuid: int) -> None:
        self.IsNetworkMember[new, netuid] = True
        del self.IsNetworkMember[old, netuid]
        uid = self.Uids[netuid, old]
        _move(self.Uids, (netuid, old), (netuid, new))
        self.Keys[netuid, uid] = new
        for item in (self.Prometheus, self.Axons, self.NeuronCertificates):
            _move(item, (netuid, old), (netuid, new))
        for index in self.mechanism_indices(netuid):
            _move(self.WeightCommits, (index, old), (index, new))

    def _swap_stake_of_all(self, old: bytes, new: bytes, netuid: int) -> None:
        """Move every nominator's stake by value; root stake takes claimable and claimed dividends along."""
        holders = [holder for holder, n in self.AlphaV2.keys(old) if n == netuid]
        if holders:
            self.StakeMoveCooldownUntil[netuid, new] = self.runtime.block_number + STAKE_MOVE_COOLDOWN_BLOCKS
        claimable = self.RootClaimable[old] if netuid == ROOT else {}
        if claimable:
            del self.RootClaimable[old]  # otherwise the move would count as a deposit
        for holder in holders:
            amount = self.stake_of(old, holder, netuid)
            self.take_stake_from(old, holder, netuid, amount)
            self.add_stake_to(new, holder, netuid, amount)
            for n in claimable:
                _move(self.RootClaimed, (n, old, holder), (n, new, holder))
        if claimable:
            self.RootClaimable[new] = claimable


def _move(item, old, new) -> None:
    value = item.get(old)
    if value is not None:
        item[new] = value
        del item[old]
