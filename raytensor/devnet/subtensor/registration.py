"""Calls that register a neuron: on a subnet for its burn price, on root by stake.

In: a coldkey's extrinsic. Out: a uid; the price buys alpha that is destroyed, and the price rises.
Order of checks: subnets/registration.rs, do_register, and coinbase/root.rs, do_root_register.
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, call
from raytensor.devnet.subtensor import issuance
from raytensor.devnet.subtensor.amm import SwapRefused
from raytensor.devnet.subtensor.costs import charged
from raytensor.devnet.subtensor.pools import ROOT

REGISTER = charged(1_070_870)
MAX_ROOT_TAKE = 11_796


class RegistrationCalls:
    @call(7, weight=REGISTER)
    def burned_register(self, origin: Origin, netuid: "u16", hotkey: "AccountId32"):
        self.do_register(origin.ensure_signed(), netuid, hotkey)

    @call(134, weight=charged(1_065_842))
    def register_limit(self, origin: Origin, netuid: "u16", hotkey: "AccountId32", limit_price: "u64"):
        """As burned_register, if the burn price is at most `limit_price` rao."""
        coldkey = origin.ensure_signed()
        self.require_subnet(netuid)
        if self.Burn[netuid] > limit_price:
            raise self.error("RegistrationPriceLimitExceeded")
        self.do_register(coldkey, netuid, hotkey)

    @call(6, weight=REGISTER)
    def register(
        self,
        origin: Origin,
        netuid: "u16",
        block_number: "u64",
        nonce: "u64",
        work: "Vec<u8>",
        hotkey: "AccountId32",
        coldkey: "AccountId32",
    ):
        """The former proof-of-work call; ignores the work, and the signer pays the burn price."""
        self.do_register(origin.ensure_signed(), netuid, hotkey)

    @call(62, weight=charged(39_902_362))
    def root_register(self, origin: Origin, hotkey: "AccountId32"):
        self.do_root_register(origin.ensure_signed(), hotkey)

    def do_register(self, coldkey: bytes, netuid: int, hotkey: bytes) -> int:
        if netuid == ROOT:
            raise self.error("RegistrationNotPermittedOnRootSubnet")
        self.require_subnet(netuid)
        if not self.NetworkRegistrationAllowed[netuid]:
            raise self.error("SubNetRegistrationDisabled")
        price = self.Burn[netuid]
        if (netuid, hotkey) not in self.Uids and price > self.spendable(coldkey):
            raise self.error("NotEnoughBalanceToStake")
        self.require_free_hotkey(coldkey, netuid, hotkey)
        uid = self.place_neuron(coldkey, netuid, hotkey, price_rao=price)
        low, high = self.MinBurn[netuid], self.MaxBurn[netuid]
        self.Burn[netuid] = issuance.bumped_burn_rao(price, self.BurnIncreaseMult[netuid], low, high)
        return uid

    def require_free_hotkey(self, coldkey: bytes, netuid: int, hotkey: bytes) -> None:
        """The hotkey has no uid there, is nobody else's, and fits among the coldkey's staking hotkeys."""
        if (netuid, hotkey) in self.Uids:
            raise self.error("HotKeyAlreadyRegisteredInSubNet")
        if self.hotkey_exists(hotkey) and not self.owns(coldkey, hotkey):
            raise self.error("NonAssociatedColdKey")
        self.require_staking_slot(coldkey, hotkey)

    def place_neuron(self, coldkey: bytes, netuid: int, hotkey: bytes, price_rao: int = 0) -> int:
        """Give the hotkey a uid, a pruned neuron's if the subnet is full, and burn the price. Returns the uid."""
        full = self.SubnetworkN[netuid] >= self.MaxAllowedUids[netuid]
        pruned = self.neuron_to_prune(netuid) if full else None
        if self.MaxAllowedUids[netuid] == 0 or (full and pruned is None):
            raise self.error("NoNeuronIdAvailable")
        if price_rao:
            self._burn_into_pool(coldkey, netuid, price_rao)
        self.own_hotkey(coldkey, hotkey)
        if full:
            self.replace_neuron(netuid, pruned, hotkey)
            uid = pruned
        else:
            uid = self.append_neuron(netuid, hotkey)
        self.RegistrationsThisBlock[netuid] = self.RegistrationsThisBlock[netuid] + 1
        self.RegistrationsThisInterval[netuid] = self.RegistrationsThisInterval[netuid] + 1
        self.emit("NeuronRegistered", netuid, uid, hotkey)
        return uid

    def _burn_into_pool(self, coldkey: bytes, netuid: int, price: int) -> None:
        """Buy alpha with the price and destroy it; the TAO stays in the pool."""
        self.take_balance(coldkey, price)
        try:
            bought = self.buy_alpha(netuid, price)
        except SwapRefused as refused:
            raise self.swap_error(refused) from refused
        self.recycle_alpha_out(netuid, bought.out)
        self.RAORecycledForRegistration[netuid] = self.RAORecycledForRegistration[netuid] + price

    def do_root_register(self, coldkey: bytes, hotkey: bytes) -> int:
        if self.RegistrationsThisBlock[ROOT] >= self.MaxRegistrationsPerBlock[ROOT]:
            raise self.error("TooManyRegistrationsThisBlock")
        if self.RegistrationsThisInterval[ROOT] >= 3 * self.TargetRegistrationsPerInterval[ROOT]:
            raise self.error("TooManyRegistrationsThisInterval")
        if (ROOT, hotkey) in self.Uids:
            raise self.error("HotKeyAlreadyRegisteredInSubNet")
        if self.hotkey_exists(hotkey) and not self.owns(coldkey, hotkey):
            raise self.error("NonAssociatedColdKey")
        self.require_staking_slot(coldkey, hotkey)
        if self.SubnetworkN[ROOT] < self.MaxAllowedUids[ROOT]:
            self.own_hotkey(coldkey, hotkey)
            uid = self.append_neuron(ROOT, hotkey)
        else:
            stakes = [(self.TotalHotkeyAlpha[key, ROOT], uid) for uid, key in self.Keys.items(ROOT)]
            lowest, uid = min(stakes)
            if self.TotalHotkeyAlpha[hotkey, ROOT] <= lowest:
                raise self.error("StakeTooLowForRoot")
            self.own_hotkey(coldkey, hotkey)
            self.replace_neuron(ROOT, uid, hotkey)
        if hotkey not in self.Delegates:
            self.Delegates[hotkey] = MAX_ROOT_TAKE
        self.RegistrationsThisBlock[ROOT] = self.RegistrationsThisBlock[ROOT] + 1
        self.RegistrationsThisInterval[ROOT] = self.RegistrationsThisInterval[ROOT] + 1
        self.emit("NeuronRegistered", ROOT, uid, hotkey)
        return uid

    def decay_burn_prices(self, netuids: list[int]) -> None:
        for netuid in netuids:
            if netuid == ROOT:
                continue
            burn = self.Burn[netuid]
            low, high = self.MinBurn[netuid], self.MaxBurn[netuid]
            decayed = issuance.decayed_burn_rao(burn, self.BurnHalfLife[netuid], low, high)
            if decayed != burn:
                self.Burn[netuid] = decayed

    def reset_registration_counters(self, netuids: list[int], block: int) -> None:
        for netuid in netuids:
            if self.RegistrationsThisBlock[netuid]:
                self.RegistrationsThisBlock[netuid] = 0
            if block - self.LastAdjustmentBlock[netuid] >= self.AdjustmentInterval[netuid]:
                self.LastAdjustmentBlock[netuid] = block
                if self.RegistrationsThisInterval[netuid]:
                    self.RegistrationsThisInterval[netuid] = 0
