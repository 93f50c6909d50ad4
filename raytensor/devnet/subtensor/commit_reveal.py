"""Committed weights: by hash, revealed by the validator; or timelocked, revealed by the chain.

In: commits and reveals of a hotkey. Out: commits queued per (storage index, account), weights set by their reveal.
SubnetEpochIndex counts epochs. A commit of epoch e can be revealed only in epoch e + RevealPeriodEpochs
(subnets/weights.rs). timelock.py opens timelocked commits.
"""

from __future__ import annotations

from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Origin, call
from raytensor.devnet.subtensor.costs import READ, ref_time
from raytensor.devnet.subtensor.neurons import put, storage_index

MAX_UNREVEALED = 10
COMMIT = ref_time(69_000_000, 13, 2)
TIMELOCKED = ref_time(87_000_000, 14, 2)
REVEAL = ref_time(111_000_000, 19, 2)
_PAYLOAD = "(AccountId32, u16, Vec<u16>, Vec<u16>, Vec<u16>, u64)"


class CommitCalls:
    @call(96, pays=False, weight=COMMIT)
    def commit_weights(self, origin: Origin, netuid: "u16", commit_hash: "H256"):
        self._commit(origin.ensure_signed(), netuid, 0, commit_hash)

    @call(115, pays=False, weight=COMMIT)
    def commit_mechanism_weights(self, origin: Origin, netuid: "u16", mecid: "u8", commit_hash: "H256"):
        self._commit(origin.ensure_signed(), netuid, mecid, commit_hash)

    @call(100, pays=False, weight=lambda pallet, args: COMMIT * len(args[0]))
    def batch_commit_weights(self, origin: Origin, netuids: "Vec<Compact<u16>>", commit_hashes: "Vec<H256>"):
        hotkey = origin.ensure_signed()
        if len(netuids) != len(commit_hashes):
            raise self.error("InputLengthsUnequal")
        self.run_weight_batch(lambda netuid, digest: self._commit(hotkey, netuid, 0, digest), netuids, commit_hashes)
        self.emit("BatchWeightsCompleted", netuids, hotkey)

    @call(97, pays=False, weight=REVEAL)
    def reveal_weights(
        self, origin: Origin, netuid: "u16", uids: "Vec<u16>", values: "Vec<u16>", salt: "Vec<u16>", version_key: "u64"
    ):
        self._reveal(origin.ensure_signed(), netuid, 0, uids, values, salt, version_key)

    @call(116, pays=False, weight=REVEAL)
    def reveal_mechanism_weights(
        self,
        origin: Origin,
        netuid: "u16",
        mecid: "u8",
        uids: "Vec<u16>",
        values: "Vec<u16>",
        salt: "Vec<u16>",
        version_key: "u64",
    ):
        self._reveal(origin.ensure_signed(), netuid, mecid, uids, values, salt, version_key)

    @call(98, pays=False, weight=lambda pallet, args: REVEAL * len(args[1]) + READ * sum(map(len, args[1])))
    def batch_reveal_weights(
        self,
        origin: Origin,
        netuid: "u16",
        uids_list: "Vec<Vec<u16>>",
        values_list: "Vec<Vec<u16>>",
        salts_list: "Vec<Vec<u16>>",
        version_keys: "Vec<u64>",
    ):
        """Reveal several commits of one subnet, all or none."""
        hotkey = origin.ensure_signed()
        if not len(uids_list) == len(values_list) == len(salts_list) == len(version_keys):
            raise self.error("InputLengthsUnequal")
        reveals = zip(uids_list, values_list, salts_list, version_keys)
        digests = [self._reveal(hotkey, netuid, 0, *reveal, quiet=True) for reveal in reveals]
        self.emit("WeightsBatchRevealed", hotkey, netuid, tuple(digests))

    @call(113, pays=False, weight=TIMELOCKED)
    def commit_timelocked_weights(
        self,
        origin: Origin,
        netuid: "u16",
        commit: "BoundedVec<u8, 32768>",
        reveal_round: "u64",
        commit_reveal_version: "u16",
    ):
        self._commit_timelocked(origin.ensure_signed(), netuid, 0, commit, reveal_round, commit_reveal_version)

    @call(118, pays=False, weight=TIMELOCKED)
    def commit_timelocked_mechanism_weights(
        self,
        origin: Origin,
        netuid: "u16",
        mecid: "u8",
        commit: "BoundedVec<u8, 32768>",
        reveal_round: "u64",
        commit_reveal_version: "u16",
    ):
        self._commit_timelocked(origin.ensure_signed(), netuid, mecid, commit, reveal_round, commit_reveal_version)

    @call(117, pays=False, weight=TIMELOCKED)
    def commit_crv3_mechanism_weights(
        self, origin: Origin, netuid: "u16", mecid: "u8", commit: "BoundedVec<u8, 32768>", reveal_round: "u64"
    ):
        self._commit_timelocked(origin.ensure_signed(), netuid, mecid, commit, reveal_round, 4)

    def _check_commit(self, hotkey: bytes, netuid: int, mechanism: int) -> tuple[int, int]:
        """Checks of every commit; returns (storage index, uid)."""
        if not self.NetworksAdded[netuid] or mechanism >= self.MechanismCountCurrent[netuid]:
            raise self.error("MechanismDoesNotExist")
        if not self.CommitRevealWeightsEnabled[netuid]:
            raise self.error("CommitRevealDisabled")
        uid = self.Uids[netuid, hotkey]
        if uid is None:
            raise self.error("HotKeyNotRegisteredInSubNet")
        index = storage_index(netuid, mechanism)
        if not self.weights_rate_limit_passes(netuid, index, uid):
            raise self.error("CommittingWeightsTooFast")
        return index, uid

    def _commit(self, hotkey: bytes, netuid: int, mechanism: int, digest: bytes) -> None:
        index, uid = self._check_commit(hotkey, netuid, mechanism)
        epoch, block = self.SubnetEpochIndex[netuid], self.runtime.block_number
        commits = self.WeightCommits[index, hotkey] or ()
        live = tuple(entry for entry in commits if not self._is_expired(netuid, entry[1]))
        if len(live) >= MAX_UNREVEALED:
            raise self.error("TooManyUnrevealedCommits")
        self.WeightCommits[index, hotkey] = (*live, (digest, epoch, block, 0))
        self.LastUpdate[index] = put(self.LastUpdate[index], uid, block)
        self.emit("WeightsCommitted", hotkey, index, digest)

    def _commit_timelocked(
        self, hotkey: bytes, netuid: int, mechanism: int, commit: bytes, reveal_round: int, version: int
    ) -> None:
        if version != self.CommitRevealWeightsVersion.get():
            raise self.error("IncorrectCommitRevealVersion")
        if reveal_round < self.runtime.Drand.LastStoredRound.get():
            raise self.error("InvalidRevealRound")
        index, uid = self._check_commit(hotkey, netuid, mechanism)
        self.require_commit_size(netuid, commit)
        key, block = (index, self.SubnetEpochIndex[netuid]), self.runtime.block_number
        queued = self.TimelockedWeightCommits[key]
        if self.is_null(netuid):
            self.queue_null_commit(netuid, *key, (hotkey, block, commit, reveal_round))
        elif sum(1 for account, *_ in queued if account == hotkey) >= MAX_UNREVEALED:
            raise self.error("TooManyUnrevealedCommits")
        else:
            self.TimelockedWeightCommits[key] = (*queued, (hotkey, block, commit, reveal_round))
        self.LastUpdate[index] = put(self.LastUpdate[index], uid, block)
        self.emit("TimelockedWeightsCommitted", hotkey, index, blake2_256(commit), reveal_round)

    def commit_digest(self, hotkey: bytes, index: int, uids, values, salt, version_key: int) -> bytes:
        """Hash of a commit: blake2-256 of SCALE(account, storage index, uids, values, salt, version key)."""
        return blake2_256(self.runtime.codecs(_PAYLOAD).encode((hotkey, index, uids, values, salt, version_key)))

    def _reveal(
        self, hotkey: bytes, netuid: int, mechanism: int, uids, values, salt, version_key: int, quiet: bool = False
    ) -> bytes:
        if not self.CommitRevealWeightsEnabled[netuid]:
            raise self.error("CommitRevealDisabled")
        index = storage_index(netuid, mechanism)
        commits = self.WeightCommits[index, hotkey] or ()
        live = tuple(entry for entry in commits if not self._is_expired(netuid, entry[1]))
        digest = self.commit_digest(hotkey, index, uids, values, salt, version_key)
        if not live:
            found = any(entry[0] == digest for entry in commits)
            raise self.error("ExpiredWeightCommit" if found else "NoWeightsCommitFound")
        place = next((i for i, entry in enumerate(live) if entry[0] == digest), None)
        if place is None:
            expired = any(entry[0] == digest for entry in commits)
            raise self.error("ExpiredWeightCommit" if expired else "InvalidRevealCommitHashNotMatch")
        if not self.in_reveal_range(netuid, live[place][1]):
            raise self.error("RevealTooEarly")
        self.apply_weights(hotkey, netuid, mechanism, uids, values, version_key, openly=False)
        # A reveal drops the earlier commits.
        left = live[place + 1 :]
        if left:
            self.WeightCommits[index, hotkey] = left
        else:
            del self.WeightCommits[index, hotkey]
        if not quiet:
            self.emit("WeightsRevealed", hotkey, index, digest)
        return digest

    def in_reveal_range(self, netuid: int, commit_epoch: int) -> bool:
        return self.SubnetEpochIndex[netuid] == commit_epoch + self.RevealPeriodEpochs[netuid]

    def _is_expired(self, netuid: int, commit_epoch: int) -> bool:
        return self.SubnetEpochIndex[netuid] > commit_epoch + self.RevealPeriodEpochs[netuid]

    def drop_commits(self, netuid: int, hotkey: bytes) -> None:
        for index in self.mechanism_indices(netuid):
            del self.WeightCommits[index, hotkey]

    def earliest_commit_blocks(self, netuid: int, index: int) -> dict[bytes, int]:
        """Block of each account's earliest unexpired commit, hashed or timelocked."""
        earliest: dict[bytes, int] = {}

        def note(account: bytes, block: int) -> None:
            earliest[account] = min(block, earliest.get(account, block))

        for account, commits in self.WeightCommits.items(index):
            for _, epoch, block, _ in commits:
                if not self._is_expired(netuid, epoch):
                    note(account, block)
        for _, commits in self.TimelockedWeightCommits.items(index):
            for account, block, _, _ in commits:
                note(account, block)
        return earliest
