"""Calls of SubtensorModule that this chain has by name and refuses: each answers CallDisabled.

In: any extrinsic of these. Out: the error. They are declared so that clients find them in the metadata and users read
a reason; docs/devnet.md lists them, and what is not even declared (leases, EVM keys, voting power, the faucet).
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, call


class LeftOut:
    def _left_out(self) -> None:
        raise self.error("CallDisabled")

    @call(136)
    def lock_stake(self, origin: Origin, hotkey: "AccountId32", netuid: "u16", amount: "u64"):
        self._left_out()

    @call(137)
    def move_lock(self, origin: Origin, destination_hotkey: "AccountId32", netuid: "u16"):
        self._left_out()

    @call(138)
    def set_perpetual_lock(self, origin: Origin, netuid: "u16", enabled: "bool"):
        self._left_out()
