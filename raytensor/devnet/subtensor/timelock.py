"""Opens timelocked commits in the epoch in which they are due.

In: queued ciphertexts, the beacon's pulses (Drand pallet). Out: weights, as after a reveal by the validator.
Runs before the coinbase of every block, so an epoch in the same block uses the weights. A commit without a pulse waits
until its epoch is over; one that can't be decrypted or whose weights are refused is dropped
(coinbase/reveal_commits.rs).
"""

from __future__ import annotations

from raytensor.devnet.pallet import DispatchError
from raytensor.devnet.pallets.drand import PulseMissing
from raytensor.devnet.scale import ScaleError, declare_struct
from raytensor.devnet.subtensor.neurons import MAX_NETUIDS

WeightsTlockPayload = declare_struct(
    "WeightsTlockPayload",
    {"hotkey": "Vec<u8>", "uids": "Vec<u16>", "values": "Vec<u16>", "version_key": "u64"},
    path="pallet_subtensor::pallet::WeightsTlockPayload",
)
LegacyPayload = declare_struct(
    "LegacyWeightsTlockPayload",
    {"uids": "Vec<u16>", "values": "Vec<u16>", "version_key": "u64"},
    path="pallet_subtensor::pallet::LegacyWeightsTlockPayload",
)


class TimelockedReveals:
    def reveal_timelocked(self, netuids: list[int]) -> None:
        block = self.runtime.block_number
        for netuid in netuids:
            # SubnetEpochIndex does not count an epoch of this block yet.
            epoch = self.SubnetEpochIndex[netuid] + (1 if self.epoch_is_due(netuid, block) else 0)
            due = epoch - self.RevealPeriodEpochs[netuid]
            for index in self.mechanism_indices(netuid):
                for queued_epoch in list(self.TimelockedWeightCommits.keys(index)):
                    if queued_epoch < due:
                        del self.TimelockedWeightCommits[index, queued_epoch]
                    elif queued_epoch == due:
                        self._open_queue(netuid, index, queued_epoch)

    def _open_queue(self, netuid: int, index: int, epoch: int) -> None:
        waiting = []
        for entry in self.TimelockedWeightCommits[index, epoch]:
            hotkey, _, commit, reveal_round = entry
            try:
                plaintext = self.runtime.Drand.open_timelocked(commit, reveal_round)
            except PulseMissing:
                waiting.append(entry)
                continue
            if plaintext is None:
                continue
            if self.attempt(lambda h=hotkey, p=plaintext: self._set_opened(h, netuid, index, p)):
                self.emit("TimelockedWeightsRevealed", index, hotkey)
        if waiting:
            self.TimelockedWeightCommits[index, epoch] = tuple(waiting)
        else:
            del self.TimelockedWeightCommits[index, epoch]

    def _set_opened(self, hotkey: bytes, netuid: int, index: int, plaintext: bytes) -> bool:
        payload = self._payload(plaintext)
        if payload is None or getattr(payload, "hotkey", hotkey)[:32] != hotkey:
            raise DispatchError("Other")
        mechanism = index // MAX_NETUIDS
        self.apply_weights(hotkey, netuid, mechanism, payload.uids, payload.values, payload.version_key, openly=False)
        return True

    def _payload(self, plaintext: bytes):
        """The decoded weights, None if they can't be decoded. A plaintext without an account id has the older layout
        without a hotkey. As in the chain's decoder, trailing bytes are ignored.
        """
        for name in ("WeightsTlockPayload", "LegacyWeightsTlockPayload"):
            try:
                payload, _ = self.runtime.codecs(name).dec(plaintext, 0)
            except ScaleError:
                continue
            if len(getattr(payload, "hotkey", plaintext)) >= 32 or name == "LegacyWeightsTlockPayload":
                return payload
        return None
