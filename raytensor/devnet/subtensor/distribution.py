"""Payments after an epoch: to the owner, miners, validators and their nominators.

In: a subnet's pending alpha. Out: stake of the owner, miners and validators, nominators by share, root claims; the
incentive of the owner's own miners is burned or recycled. Arithmetic: coinbase/run_coinbase.rs
(distribute_dividends_and_incentives), 32 fractional bits, truncated to rao.
Knows nothing of schedules (coinbase.py) or of consensus (epoch.py).
"""

from __future__ import annotations

from raytensor.devnet.subtensor.coinbase import U16_MAX, U64_MAX, Pending
from raytensor.devnet.subtensor.epoch import Shares
from raytensor.devnet.subtensor.pools import ROOT
from raytensor.devnet.subtensor.storage import ZERO_ACCOUNT


class Distribution:
    def distribute(self, netuid: int, pending: Pending) -> None:
        """Run the epoch and pay the pending emission."""
        shares = self.run_epoch(netuid, pots=(pending.server, pending.validator, pending.root))
        has_miners = bool(shares.incentive.any())
        validator_pot = pending.validator + (0 if has_miners else pending.server)
        # Dividends are divided by the stakes before any payment (calculate_dividend_and_incentive_distribution).
        dividends = self._dividends(netuid, shares)
        local, root = self.split_dividends(netuid, dividends, validator_pot, pending.root)
        self._pay_owner(netuid, pending.owner)
        self._pay_miners(netuid, shares)
        self._pay_validators(netuid, local)
        self._pay_root(netuid, root, pending.root)

    def _pay_owner(self, netuid: int, cut: int) -> None:
        owner, hotkey = self.SubnetOwner[netuid], self.SubnetOwnerHotkey[netuid]
        if ZERO_ACCOUNT in (owner, hotkey):
            # Without an owner the alpha leaves the issuance.
            self.recycle_alpha_out(netuid, cut)
        else:
            self.add_stake_to(hotkey, owner, netuid, cut)

    def _pay_miners(self, netuid: int, shares: Shares) -> None:
        owner = self.SubnetOwner[netuid]
        withheld_hotkeys = {self.SubnetOwnerHotkey[netuid], *self.OwnedHotkeys[owner]} - {ZERO_ACCOUNT}
        recycle = self.RecycleOrBurn[netuid] == "Recycle"
        total = withheld = 0
        for hotkey, amount in sorted(zip(shares.hotkeys, shares.incentive.tolist())):
            if not amount:
                continue
            total += amount
            if hotkey in withheld_hotkeys:
                withheld += amount
                if recycle:
                    self.recycle_alpha_out(netuid, amount)
                continue
            coldkey = self.Owner[hotkey]
            destination = self.AutoStakeDestination[coldkey, netuid]
            if destination is not None:
                self.emit("AutoStakeAdded", netuid, destination, hotkey, coldkey, amount)
            self.add_stake_to(destination or hotkey, coldkey, netuid, amount)
        self.MinerBurned[netuid] = (withheld << 32) // total if total else 0

    def _dividends(self, netuid: int, shares: Shares) -> dict[bytes, int]:
        """Rao of dividends of each hotkey, after children paid their parents."""
        dividends: dict[bytes, int] = {}
        for hotkey, amount in zip(shares.hotkeys, shares.dividend.tolist()):
            if amount:
                for receiver, part in self.split_with_parents(hotkey, netuid, amount):
                    dividends[receiver] = dividends.get(receiver, 0) + part
        return dict(sorted(dividends.items()))

    def split_dividends(
        self, netuid: int, dividends: dict[bytes, int], validator_pot: int, root_pot: int
    ) -> tuple[dict[bytes, int], dict[bytes, int]]:
        """(local, root) alpha of each hotkey, 32 fractional bits.

        A hotkey's dividend splits in the ratio of its alpha to its weighted root stake; each pot is divided in
        proportion to these parts.
        """
        weight32 = (self.TaoWeight.get() << 32) // U64_MAX
        local32, root32 = {}, {}
        for hotkey, dividend in dividends.items():
            alpha32 = self.TotalHotkeyAlpha[hotkey, netuid] << 32
            tao32 = self.TotalHotkeyAlpha[hotkey, ROOT] * weight32
            proportion = (tao32 << 32) // (alpha32 + tao32) if alpha32 + tao32 else 0
            root32[hotkey] = dividend * proportion
            local32[hotkey] = (dividend << 32) - root32[hotkey]
        return _shared_out(local32, validator_pot), _shared_out(root32, root_pot)

    def take_of(self, hotkey: bytes, amount32: int) -> int:
        """The validator's cut of an amount with 32 fractional bits."""
        return (((self.Delegates[hotkey] << 32) // U16_MAX) * amount32) >> 32

    def _pay_validators(self, netuid: int, local: dict[bytes, int]) -> None:
        for hotkey in list(self.AlphaDividendsPerSubnet.keys(netuid)):
            if not local.get(hotkey, 0) >> 32:
                del self.AlphaDividendsPerSubnet[netuid, hotkey]
        for hotkey, amount32 in local.items():
            take32 = self.take_of(hotkey, amount32)
            nominators = (amount32 - take32) >> 32
            self.add_stake_to(hotkey, self.Owner[hotkey], netuid, take32 >> 32)
            self.grow_stake(hotkey, netuid, nominators)
            if nominators:
                self.AlphaDividendsPerSubnet[netuid, hotkey] = nominators
            self.TotalHotkeyAlphaLastEpoch[hotkey, netuid] = self.TotalHotkeyAlpha[hotkey, netuid]

    def _pay_root(self, netuid: int, root: dict[bytes, int], pot: int) -> None:
        for hotkey in list(self.RootAlphaDividendsPerSubnet.keys(netuid)):
            if not root.get(hotkey, 0) >> 32:
                del self.RootAlphaDividendsPerSubnet[netuid, hotkey]
        if pot and not any(amount >> 32 for amount in root.values()):
            self.recycle_alpha_out(netuid, pot)
            return
        for hotkey, amount32 in root.items():
            take32 = self.take_of(hotkey, amount32)
            self.add_stake_to(hotkey, self.Owner[hotkey], netuid, take32 >> 32)
            claimable = (amount32 - take32) >> 32
            if claimable:
                self.RootAlphaDividendsPerSubnet[netuid, hotkey] = claimable
                self.add_root_claim(hotkey, netuid, claimable)


def _shared_out(parts: dict[bytes, int], pot: int) -> dict[bytes, int]:
    """A pot of rao in proportion to `parts`: 32 fractional bits, each share truncated."""
    total = sum(parts.values())
    return {hotkey: pot * ((part << 32) // total) if total else 0 for hotkey, part in parts.items()}
