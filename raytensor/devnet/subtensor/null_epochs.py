"""Null epochs: the row of the largest staker pays the miners, stake pays the validators (spec 435 and later).

In: a subnet whose SubnetEpochConsensus is Null. Out: its switch, its one permit, the budget of its uids, the
queue of its timelocked commits, its pruning in batches. raytensor.consensus computes the payouts; epoch.py runs them.
Sources: the pallet's run_epoch.rs, mechanism.rs, and the facts known of null-consensus.mdx.
"""

from __future__ import annotations

import numpy as np

from raytensor.consensus import stake_weight
from raytensor.devnet.subtensor.neurons import MAX_NETUIDS
from raytensor.devnet.subtensor.subnet_storage import frozen

UIDS = {"Yuma": 256, "Null": 2_500}  # of all mechanisms together
MAX_MECHANISMS = 16
YUMA_COMMIT_BYTES, NULL_COMMIT_BYTES = 5_000, 32_768
NULL_QUEUE_BYTES, NULL_QUEUE_ROWS = 65_536, 64
PRUNED_PER_CALL = 64


class NullEpochs:
    def is_null(self, netuid: int) -> bool:
        return self.SubnetEpochConsensus[netuid] == "Null"

    def set_epoch_consensus(self, netuid: int, mode: str) -> None:
        """Switch to Yuma or Null. Raises InvalidValue with a timelocked commit pending or too many uids."""
        if mode == self.SubnetEpochConsensus[netuid]:
            return
        indices = [mechanism * MAX_NETUIDS + netuid for mechanism in range(MAX_MECHANISMS)]
        pending = any(True for index in indices for _ in self.TimelockedWeightCommits.keys(index))
        count = self.MechanismCountCurrent[netuid]
        if pending or self.SubnetworkN[netuid] * count > UIDS[mode]:
            raise self.error("InvalidValue")
        self.SubnetEpochConsensus[netuid] = mode
        if mode == "Null":
            self.SavedYumaMaxAllowedValidators[netuid] = self.MaxAllowedValidators[netuid]
            self.MaxAllowedValidators[netuid] = 1
            self.ValidatorPermit[netuid] = self._permit_of_largest(netuid)
        else:
            self.MaxAllowedValidators[netuid] = self.SavedYumaMaxAllowedValidators[netuid] or 1
            self.MaxAllowedUids[netuid] = min(self.MaxAllowedUids[netuid], UIDS["Yuma"] // count)
            del self.SavedYumaMaxAllowedValidators[netuid]
            del self.NullPruningTarget[netuid]
        self.emit("EpochConsensusSet", netuid, mode)

    def _permit_of_largest(self, netuid: int) -> np.ndarray:
        """The permit of the first uid with the largest stake weight."""
        whole, fraction = stake_weight(*self.stake_parts(netuid, self.hotkeys(netuid)), self.TaoWeight.get())
        bits = [(w << 64) + f for w, f in zip(whole.tolist(), fraction.tolist())]
        winner = max(range(len(bits)), key=lambda uid: (bits[uid], -uid), default=-1)
        return frozen(np.arange(len(bits)) == winner)

    def trim_null_uids(self, netuid: int, target: int) -> None:
        """Remove up to 64 uids, the lowest emission first, toward `target`; pending commits are cancelled."""
        n = self.SubnetworkN[netuid]
        if not self.is_null(netuid) or not max(self.MinAllowedUids[netuid], 1) <= target < n:
            raise self.error("InvalidValue")
        immortal = self.immortal_hotkeys(netuid)
        emission = self.Emission[netuid]
        ranked = sorted((int(emission[uid]), -uid) for uid in range(n) if self.Keys[netuid, uid] not in immortal)
        removed = {-uid for _, uid in ranked[: min(n - target, PRUNED_PER_CALL)]}
        if not removed:
            raise self.error("TrimmingWouldExceedMaxImmunePercentage")
        cleared = sum(
            item.clear(index)
            for item in (self.WeightCommits, self.TimelockedWeightCommits)
            for index in self.mechanism_indices(netuid)
        )
        self.trim_neurons(netuid, [uid for uid in range(n) if uid not in removed])
        left = n - len(removed)
        if left > target:
            self.NullPruningTarget[netuid] = target
        else:
            del self.NullPruningTarget[netuid]
            self.MaxAllowedUids[netuid] = target
        self.emit("NullUidsPruningProgress", netuid, target, left, len(removed), cleared)

    def require_commit_size(self, netuid: int, commit: bytes) -> None:
        count = self.MechanismCountCurrent[netuid]
        limit = NULL_COMMIT_BYTES // count if self.is_null(netuid) else YUMA_COMMIT_BYTES
        if len(commit) > limit:
            raise self.error("CommitPayloadTooLarge")

    def queue_null_commit(self, netuid: int, index: int, epoch: int, entry: tuple) -> None:
        """Queue a timelocked commit: one a hotkey and mechanism, at most 64 and 64 KiB in an epoch of the subnet.

        Over the limits the commits with the least stake leave, of equal ones the last uid first. Raises CommitQueueFull
        if the new one is among them.
        """
        hotkey = entry[0]
        queues = {one: list(self.TimelockedWeightCommits[one, epoch]) for one in self.mechanism_indices(netuid)}
        queues[index] = [old for old in queues[index] if old[0] != hotkey] + [entry]

        def rank(place: tuple[int, tuple]) -> tuple:
            account = place[1][0]
            uid = self.Uids[netuid, account]
            return -self.total_stake_weight(account, netuid), uid is None, uid or 0

        rows, size, kept = 0, 0, set()
        for one, old in sorted(((one, old) for one, queue in queues.items() for old in queue), key=rank):
            rows, size = rows + 1, size + len(old[2])
            if rows <= NULL_QUEUE_ROWS and size <= NULL_QUEUE_BYTES:
                kept.add((one, old[0]))
        if (index, hotkey) not in kept:
            raise self.error("CommitQueueFull")
        for one, queue in queues.items():
            left = tuple(old for old in queue if (one, old[0]) in kept)
            if left != self.TimelockedWeightCommits[one, epoch]:
                self.TimelockedWeightCommits[one, epoch] = left
