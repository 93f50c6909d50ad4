"""Calls of SubtensorModule that this chain has by name and refuses: each answers CallDisabled.

In: any extrinsic of these. Out: the error. They are declared so that clients find them in the metadata and users read
a reason; docs/devnet.md lists them, and what is not even declared (leases, EVM keys, voting power, the faucet).
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, call


class LeftOut:
    def _left_out(self) -> None:
        raise self.error("CallDisabled")

    @call(70)
    def swap_hotkey(self, origin: Origin, hotkey: "AccountId32", new_hotkey: "AccountId32", netuid: "Option<u16>"):
        self._left_out()

    @call(71)
    def swap_coldkey(
        self, origin: Origin, old_coldkey: "AccountId32", new_coldkey: "AccountId32", swap_cost: "u64"
    ):
        self._left_out()

    @call(72)
    def swap_hotkey_v2(
        self,
        origin: Origin,
        hotkey: "AccountId32",
        new_hotkey: "AccountId32",
        netuid: "Option<u16>",
        keep_stake: "bool",
    ):
        self._left_out()

    @call(125)
    def announce_coldkey_swap(self, origin: Origin, new_coldkey_hash: "H256"):
        self._left_out()

    @call(126)
    def swap_coldkey_announced(self, origin: Origin, new_coldkey: "AccountId32"):
        self._left_out()

    @call(127)
    def dispute_coldkey_swap(self, origin: Origin):
        self._left_out()

    @call(128)
    def reset_coldkey_swap(self, origin: Origin, coldkey: "AccountId32"):
        self._left_out()

    @call(133)
    def clear_coldkey_swap_announcement(self, origin: Origin):
        self._left_out()

    @call(136)
    def lock_stake(self, origin: Origin, hotkey: "AccountId32", netuid: "u16", amount: "u64"):
        self._left_out()

    @call(137)
    def move_lock(self, origin: Origin, destination_hotkey: "AccountId32", netuid: "u16"):
        self._left_out()

    @call(138)
    def set_perpetual_lock(self, origin: Origin, netuid: "u16", enabled: "bool"):
        self._left_out()
