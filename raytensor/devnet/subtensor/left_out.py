"""Calls of SubtensorModule that this chain declares but does not implement: each fails with CallDisabled.

In: an extrinsic with such a call. Out: the error. Clients find the calls in the metadata and get a clear error.
docs/devnet.md lists them, and the calls that are not declared (leases, EVM keys, voting power, the faucet).
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
