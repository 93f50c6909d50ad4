"""Takes and child hotkeys: a validator's cut of dividends, and a parent's stake delegated to child hotkeys.

In: a coldkey's extrinsic. Out: takes; children scheduled and, after a cooldown, active; dividends split with parents.
Proportions are u64 / u64::MAX of the parent's stake (staking/set_children.rs).
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, call
from raytensor.devnet.subtensor.costs import charged, ref_time
from raytensor.devnet.subtensor.pools import ROOT

U64_MAX = 2**64 - 1
MAX_CHILDREN = 5
ONE32 = 1 << 32


class DelegationCalls:
    @call(66, weight=charged(149_089))
    def increase_take(self, origin: Origin, hotkey: "AccountId32", take: "u16"):
        """Raise the cut of dividends (take / 65535); at most once per TxDelegateTakeRateLimit blocks."""
        coldkey = origin.ensure_signed()
        self.check_take(coldkey, hotkey, take, "increase_take")
        block, last = self.runtime.block_number, self.LastTxBlockDelegateTake[hotkey]
        if last and block - last < self.TxDelegateTakeRateLimit.get():
            raise self.error("DelegateTxRateLimitExceeded")
        self.LastTxBlockDelegateTake[hotkey] = block
        self.Delegates[hotkey] = take
        self.emit("TakeIncreased", coldkey, hotkey, take)

    @call(65, weight=charged(135_839))
    def decrease_take(self, origin: Origin, hotkey: "AccountId32", take: "u16"):
        coldkey = origin.ensure_signed()
        self.check_take(coldkey, hotkey, take, "decrease_take")
        self.Delegates[hotkey] = take
        self.emit("TakeDecreased", coldkey, hotkey, take)

    def check_take(self, coldkey: bytes, hotkey: bytes, take: int, name: str) -> None:
        self._require_hotkey(hotkey)
        if not self.owns(coldkey, hotkey):
            raise self.error("NonAssociatedColdKey")
        current = self.Delegates[hotkey]
        if name == "increase_take":
            if take <= current:
                raise self.error("DelegateTakeTooLow")
            if take > self.MaxDelegateTake.get():
                raise self.error("DelegateTakeTooHigh")
        elif take >= current or take < self.MinDelegateTake.get():
            raise self.error("DelegateTakeTooLow")

    @call(75, weight=ref_time(50_000_000, 5, 2))
    def set_childkey_take(self, origin: Origin, hotkey: "AccountId32", netuid: "u16", take: "u16"):
        """Set the child's cut (take / 65535) of the dividends it earns for parents of other coldkeys."""
        coldkey = origin.ensure_signed()
        if not self.owns(coldkey, hotkey):
            raise self.error("NonAssociatedColdKey")
        low = max(self.MinChildkeyTake.get(), self.MinChildkeyTakePerSubnet[netuid])
        if not low <= take <= self.MaxChildkeyTake.get():
            raise self.error("InvalidChildkeyTake")
        block, last = self.runtime.block_number, self.TransactionKeyLastBlock[hotkey, netuid, 1]
        if take > self.ChildkeyTake[hotkey, netuid]:
            if last and block - last < self.TxChildkeyTakeRateLimit.get():
                raise self.error("TxChildkeyTakeRateLimitExceeded")
            self.TransactionKeyLastBlock[hotkey, netuid, 1] = block
        self.ChildkeyTake[hotkey, netuid] = take
        self.emit("ChildKeyTakeSet", hotkey, take)

    @call(67, weight=charged(212_254))
    def set_children(self, origin: Origin, hotkey: "AccountId32", netuid: "u16", children: "Vec<(u64, AccountId32)>"):
        """Schedule the children of a hotkey on a subnet; active after PendingChildKeyCooldown blocks."""
        self._plan_children(origin.ensure_signed(), hotkey, netuid, children)

    @call(135, weight=ref_time(20_000_000, 2, 1))
    def set_auto_parent_delegation_enabled(self, origin: Origin, hotkey: "AccountId32", enabled: "bool"):
        """Whether a root validator delegates to the owner of each new subnet; enabled by default."""
        if not self.owns(origin.ensure_signed(), hotkey):
            raise self.error("NonAssociatedColdKey")
        self.AutoParentDelegationEnabled[hotkey] = enabled
        self.emit("AutoParentDelegationEnabledSet", hotkey, enabled)

    def delegate_from_root(self, netuid: int) -> None:
        """Root validators delegate all their stake on a new subnet to its owner (do_set_root_validators_for_subnet)."""
        owner_hotkey = self.SubnetOwnerHotkey[netuid]
        children = ((U64_MAX, owner_hotkey),)
        for _, hotkey in self.Keys.items(ROOT):
            if hotkey != owner_hotkey and self.AutoParentDelegationEnabled[hotkey]:
                self.attempt(lambda key=hotkey: self._plan_children(self.Owner[key], key, netuid, children))

    def _plan_children(self, coldkey: bytes, hotkey: bytes, netuid: int, children: tuple) -> None:
        if netuid == ROOT:
            raise self.error("RegistrationNotPermittedOnRootSubnet")
        self.require_subnet(netuid)
        if not self.owns(coldkey, hotkey):
            raise self.error("NonAssociatedColdKey")
        self.pass_rate_limit("SetChildren", hotkey, netuid)
        self._check_children(hotkey, netuid, children)
        if not self.SubtokenEnabled[netuid]:
            self._set_children_now(hotkey, netuid, children)
            return
        cooldown_block = self.runtime.block_number + self.PendingChildKeyCooldown.get()
        self.PendingChildKeys[netuid, hotkey] = (children, cooldown_block)
        self.emit("SetChildrenScheduled", hotkey, netuid, cooldown_block, children)

    def _check_children(self, hotkey: bytes, netuid: int, children: tuple) -> None:
        if len(children) > MAX_CHILDREN:
            raise self.error("TooManyChildren")
        keys = [child for _, child in children]
        if hotkey in keys:
            raise self.error("InvalidChild")
        if len(set(keys)) != len(keys):
            raise self.error("DuplicateChild")
        if sum(proportion for proportion, _ in children) > U64_MAX:
            raise self.error("ProportionOverflow")
        self._check_family(hotkey, netuid, children)
        if children and self.total_stake_weight(hotkey, netuid) < self.StakeThreshold.get():
            raise self.error("NotEnoughStakeToSetChildkeys")

    def _check_family(self, hotkey: bytes, netuid: int, children: tuple) -> None:
        """Refuse a child that is a parent of the hotkey (a cycle)."""
        parents = {parent for _, parent in self.ParentKeys[hotkey, netuid]}
        if parents & {child for _, child in children}:
            raise self.error("ChildParentInconsistency")

    def _set_children_now(self, hotkey: bytes, netuid: int, children: tuple) -> None:
        old = {child for _, child in self.ChildKeys[hotkey, netuid]}
        for child in old | {child for _, child in children}:
            parents = [entry for entry in self.ParentKeys[child, netuid] if entry[1] != hotkey]
            parents += [(proportion, hotkey) for proportion, key in children if key == child]
            self._put_or_drop(self.ParentKeys, (child, netuid), tuple(parents))
        self._put_or_drop(self.ChildKeys, (hotkey, netuid), tuple(children))
        self.emit("SetChildren", hotkey, netuid, children)

    def swap_family(self, old: bytes, new: bytes, netuid: int) -> None:
        """Move parents, children and scheduled children to another hotkey; that one's own relations are dropped.
        InvalidChild when one is parent or child of the other (staking/set_children.rs, parent_child_swap_hotkey).
        """
        children = {child: part for part, child in self.ChildKeys[old, netuid]}
        parents = {parent: part for part, parent in self.ParentKeys[old, netuid]}
        if new in children or new in parents:
            raise self.error("InvalidChild")
        mine = {(self.ParentKeys, child): part for child, part in children.items()}
        mine |= {(self.ChildKeys, parent): part for parent, part in parents.items()}
        stale = {(self.ParentKeys, child) for _, child in self.ChildKeys[new, netuid]}
        stale |= {(self.ChildKeys, parent) for _, parent in self.ParentKeys[new, netuid]}
        for item, relative in {**mine, **dict.fromkeys(stale)}:
            entries = [entry for entry in item[relative, netuid] if entry[1] not in (old, new)]
            if (item, relative) in mine:
                entries.append((mine[item, relative], new))
            self._put_or_drop(item, (relative, netuid), tuple(entries))
        for item, family in ((self.ChildKeys, children), (self.ParentKeys, parents)):
            del item[old, netuid]
            self._put_or_drop(item, (new, netuid), tuple((part, key) for key, part in sorted(family.items())))
        plan = self.PendingChildKeys.get((netuid, old))
        if plan is not None:
            if any(child == new for _, child in plan[0]):
                raise self.error("InvalidChild")
            del self.PendingChildKeys[netuid, old]
            self.PendingChildKeys[netuid, new] = plan
        for hotkey, (planned, cooldown_block) in self.PendingChildKeys.items(netuid):
            parts = [part for part, child in planned if child == old]
            if parts:
                kept = tuple(entry for entry in planned if entry[1] != old)
                self.PendingChildKeys[netuid, hotkey] = ((*kept, (parts[0], new)), cooldown_block)

    @staticmethod
    def _put_or_drop(item, key: tuple, value: tuple) -> None:
        if value:
            item[key] = value
        else:
            del item[key]

    def apply_pending_children(self, netuid: int) -> None:
        """Activate children whose cooldown is over; those that would now form a cycle are dropped."""
        block = self.runtime.block_number
        for hotkey, (children, cooldown_block) in self.PendingChildKeys.items(netuid):
            if block < cooldown_block:
                continue
            del self.PendingChildKeys[netuid, hotkey]
            self.attempt(lambda hotkey=hotkey, children=children: self._apply_children(hotkey, netuid, children))

    def _apply_children(self, hotkey: bytes, netuid: int, children: tuple) -> None:
        self._check_family(hotkey, netuid, children)
        self._set_children_now(hotkey, netuid, children)

    @call(69, weight=ref_time(5_000_000, 0, 1))
    def sudo_set_tx_childkey_take_rate_limit(self, origin: Origin, tx_rate_limit: "u64"):
        origin.ensure_root()
        self.TxChildkeyTakeRateLimit.set(tx_rate_limit)
        self.emit("TxChildKeyTakeRateLimitSet", tx_rate_limit)

    @call(76, weight=ref_time(6_000_000, 1, 1))
    def sudo_set_min_childkey_take(self, origin: Origin, take: "u16"):
        origin.ensure_root()
        self.MinChildkeyTake.set(take)
        self.emit("MinChildKeyTakeSet", take)

    @call(77, weight=ref_time(6_000_000, 1, 1))
    def sudo_set_max_childkey_take(self, origin: Origin, take: "u16"):
        origin.ensure_root()
        self.MaxChildkeyTake.set(take)
        self.emit("MaxChildKeyTakeSet", take)

    @call(109, weight=ref_time(6_000_000, 0, 1))
    def set_pending_childkey_cooldown(self, origin: Origin, cooldown: "u64"):
        origin.ensure_root()
        self.PendingChildKeyCooldown.set(cooldown)

    def split_with_parents(self, hotkey: bytes, netuid: int, dividends: int) -> list[tuple[bytes, int]]:
        """Split a hotkey's dividends (rao) into (hotkey, rao) for its parents and itself.

        A parent's part is proportional to its stake; a parent of another coldkey pays the child's take and the burned
        part (CKBurn). Factors have 32 fractional bits (get_parent_child_dividends_distribution).
        """
        parents = self.ParentKeys.get((hotkey, netuid))
        if not parents:
            return [(hotkey, dividends)]
        weight = (self.TaoWeight.get() << 32) // U64_MAX
        burn = (self.CKBurn.get() << 32) // U64_MAX
        take = (self.ChildkeyTake[hotkey, netuid] << 32) // 65_535
        own_part = ONE32 - sum((p << 32) // U64_MAX for p, _ in self.ChildKeys[hotkey, netuid])
        own = self._contribution(hotkey, netuid, max(own_part, 0), weight) >> 32 << 32
        given = [(parent, self._contribution(parent, netuid, (p << 32) // U64_MAX, weight)) for p, parent in parents]
        total = own + sum(contribution for _, contribution in given)
        result, remaining, kept_takes = [], dividends << 32, 0
        for parent, contribution in given:
            factor = (contribution << 32) // total if total else 0
            emission = dividends * factor
            remaining = max(0, remaining - emission)
            if self.Owner[parent] != self.Owner[hotkey]:
                burned, kept = (burn * emission) >> 32, (take * emission) >> 32
                emission = max(0, emission - burned - kept)
                kept_takes += kept
                self.recycle_alpha_out(netuid, burned >> 32)
            result.append((parent, emission >> 32))
        result.append((hotkey, (remaining + kept_takes) >> 32))
        return result

    def _contribution(self, hotkey: bytes, netuid: int, part: int, tao_weight: int) -> int:
        """`part` of a hotkey's alpha and weighted root stake, with 32 fractional bits."""
        root = (self.TotalHotkeyAlpha[hotkey, ROOT] * part * tao_weight) >> 32
        return self.TotalHotkeyAlpha[hotkey, netuid] * part + root
