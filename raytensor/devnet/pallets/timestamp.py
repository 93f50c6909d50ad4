"""Timestamp (2) and Aura (3): the block's time, and the slot duration, which clients use as the block time.

In: the timestamp inherent, the first extrinsic of every block. Out: `Timestamp.Now` in milliseconds.
Knows nothing of clocks: the author sets the time. Source of the types: pallet_timestamp, pallet_aura.
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, Pallet, StorageValue, call


class Timestamp(Pallet):
    name, index = "Timestamp", 2
    Now = StorageValue("u64")

    def __init__(self, runtime) -> None:
        super().__init__(runtime)
        self.constants = {"MinimumPeriod": ("u64", max(runtime.block_time_ms // 2, 1))}

    def on_initialize(self, block: int) -> None:
        # Blocks without the inherent (tests without a node) need a time too.
        self.Now.set(self.runtime.timestamp_ms)

    @call(0, weight=10_000_000)
    def set(self, origin: Origin, now: "Compact<u64>"):
        origin.ensure_none()
        self.Now.set(now)


class Aura(Pallet):
    name, index = "Aura", 3
    CurrentSlot = StorageValue("u64")

    def __init__(self, runtime) -> None:
        super().__init__(runtime)
        self.constants = {"SlotDuration": ("u64", runtime.block_time_ms)}

    def on_initialize(self, block: int) -> None:
        self.CurrentSlot.set(self.runtime.timestamp_ms // max(self.runtime.block_time_ms, 1))
