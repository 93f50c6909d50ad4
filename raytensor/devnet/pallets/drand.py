"""Drand (26): pulses of the randomness beacon that timelocked commits wait for.

In: pulses. Out: storage (`Pulses`, `LastStoredRound`, `BeaconConfig`), and opened ciphertexts for other pallets.
Knows nothing of weights or commitments.
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, Pallet, StorageMap, StorageValue, call
from raytensor.devnet.typedefs import declare_struct

QUICKNET_GENESIS_S = 1_692_803_367
QUICKNET_PERIOD_S = 3

Pulse = declare_struct(
    "Pulse",
    {"round": "u64", "randomness": "BoundedVec<u8, 32>", "signature": "BoundedVec<u8, 144>"},
    path="pallet_drand::types::Pulse",
)


class PulseMissing(Exception):
    """The round's pulse is not on the chain (yet)."""


class Drand(Pallet):
    name, index = "Drand", 26
    Pulses = StorageMap([("Blake2_128Concat", "u64")], "Pulse", optional=True)
    LastStoredRound = StorageValue("u64", default=0)
    OldestStoredRound = StorageValue("u64", default=0)
    events = {
        "BeaconConfigChanged": (0, ()),
        "NewPulse": (1, {"rounds": "Vec<u64>"}),
        "SetOldestStoredRound": (2, ("u64",)),
    }
    errors = (
        "NoneValue",
        "StorageOverflow",
        "DrandConnectionFailure",
        "UnverifiedPulse",
        "InvalidRoundNumber",
        "PulseVerificationError",
    )

    @call(2, weight=10_000_000)
    def set_oldest_stored_round(self, origin: Origin, oldest_round: "u64"):
        origin.ensure_root()
        self.OldestStoredRound.set(oldest_round)
        self.emit("SetOldestStoredRound", oldest_round)

    def open_timelocked(self, ciphertext: bytes, reveal_round: int) -> bytes | None:
        """The plaintext, None when it can't be opened; PulseMissing while the round has no pulse."""
        if self.Pulses[reveal_round] is None:
            raise PulseMissing(reveal_round)
        return None
