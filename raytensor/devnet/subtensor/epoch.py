"""One epoch of one subnet: reads state from storage, runs consensus, stores the results.

In: a netuid and the rao of alpha to distribute, as a sum or by pot (miners, validators' alpha, validators' root).
Out: the stored vectors, permits and bonds of every mechanism, and (hotkey, incentive, dividend) in rao per uid.
raytensor.consensus computes, Yuma or Null; coinbase.py schedules epochs and distribution.py pays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from raytensor.consensus import NO_COMMIT, EpochInput, EpochOutput, Rows, epoch, stake_weight
from raytensor.devnet.subtensor.subnet_storage import NO_ROW, frozen

ONE64 = 1 << 64
U16_MAX = 65_535


class Shares(NamedTuple):
    """Incentive and dividend of each uid, in rao of alpha. Arrays of length n."""

    hotkeys: list[bytes]
    incentive: np.ndarray
    dividend: np.ndarray


def rows_of(stored: dict[int, np.ndarray], n: int) -> Rows:
    """Stored rows as a matrix of n columns; entries toward uids that no longer exist are left out."""
    lengths = np.zeros(n, np.int64)
    kept, ascending = [], True
    for uid in range(n):
        row = stored.get(uid)
        if row is None or not len(row):
            continue
        if row[:, 0].max() >= n:
            row = row[row[:, 0] < n]
        lengths[uid] = len(row)
        kept.append(row)
        ascending = ascending and bool(np.all(row[1:, 0] > row[:-1, 0]))
    indptr = np.zeros(n + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    entries = np.concatenate(kept) if kept else NO_ROW
    return Rows(indptr, entries[:, 0].astype(np.uint32), np.ascontiguousarray(entries[:, 1]), ascending)


class Epochs:
    def activity_cutoff(self, netuid: int) -> int:
        """Blocks without new weights after which a validator is inactive."""
        return max(1, self.ActivityCutoffFactorMilli[netuid] * self.Tempo[netuid] // 1000)

    def epoch_input(
        self, netuid: int, index: int, emission: int, pots: tuple[int, int, int] | None = None
    ) -> EpochInput:
        """Input of one mechanism's epoch, from storage at this block."""
        n = self.SubnetworkN[netuid]
        hotkeys = self.hotkeys(netuid)
        stake, stake_frac = stake_weight(*self.stake_parts(netuid, hotkeys), self.TaoWeight.get())
        commit_reveal = self.CommitRevealWeightsEnabled[netuid]
        commit_block = None
        if commit_reveal:
            earliest = self.earliest_commit_blocks(netuid, index)
            commit_block = np.array([earliest.get(hotkey, NO_COMMIT) for hotkey in hotkeys], np.uint64)
        alpha_low, alpha_high = self.AlphaValues[netuid]
        registered = self.BlockAtRegistration
        return EpochInput(
            block=self.runtime.block_number,
            tempo=self.Tempo[netuid],
            activity_cutoff=self.activity_cutoff(netuid),
            last_update=self.LastUpdate[index],
            block_at_registration=np.array([registered[netuid, uid] for uid in range(n)], np.uint64),
            stake=stake,
            stake_frac=stake_frac,
            stake_threshold=self.StakeThreshold.get(),
            owner_uid=self.owner_uid(netuid),
            validator_permit=self.ValidatorPermit[netuid],
            weights=rows_of(dict(self.Weights.items(index)), n),
            bonds=rows_of(dict(self.Bonds.items(index)), n),
            max_validators=self.MaxAllowedValidators[netuid],
            emission=emission,
            kappa=self.Kappa[netuid],
            bonds_penalty=self.BondsPenalty[netuid],
            bonds_moving_average=self.BondsMovingAverage[netuid],
            alpha_low=alpha_low,
            alpha_high=alpha_high,
            alpha_sigmoid_steepness=self.AlphaSigmoidSteepness[netuid],
            yuma3=self.Yuma3On[netuid],
            liquid_alpha=self.LiquidAlphaOn[netuid],
            liquid_alpha_mode=self.LiquidAlphaConsensusMode[netuid].lower(),
            previous_consensus=self.ConsensusByMechanism[index],
            commit_reveal=commit_reveal,
            commit_block=commit_block,
            last_mechanism_step_block=self.LastMechansimStepBlock[netuid],
            last_yuma_step_block=self.LastYumaStepBlock[netuid],
            epoch_kind=self.SubnetEpochConsensus[netuid].lower(),
            pots=pots,
        )

    def is_epoch_input_consistent(self, netuid: int) -> bool:
        """Whether all hotkeys of the subnet differ."""
        hotkeys = self.hotkeys(netuid)
        return len(set(hotkeys)) == len(hotkeys)

    def mechanism_emissions(self, netuid: int, emission: int) -> list[int]:
        """The subnet's rao by mechanism: by MechanismEmissionSplit, else evenly; the remainder to the first."""
        count = self.MechanismCountCurrent[netuid]
        if count == 1:
            return [emission]
        split = self.MechanismEmissionSplit[netuid]
        if split:
            parts = [emission * share // U16_MAX for share in (*split, *[0] * count)[:count]]
        else:
            parts = [emission // count] * count
        parts[0] += emission - sum(parts)
        return parts

    def run_epoch(self, netuid: int, emission: int = 0, *, pots: tuple[int, int, int] | None = None) -> Shares:
        """Run and store consensus of all mechanisms; returns the sum of their payments per uid.

        pots: the emission by pot. Null pays each pot on its own, Yuma divides the sum.
        """
        indices = self.mechanism_indices(netuid)
        parts, split = self.mechanism_emissions(netuid, sum(pots) if pots else emission), [None] * len(indices)
        if pots is not None and self.is_null(netuid):
            split = list(zip(*(self.mechanism_emissions(netuid, pot) for pot in pots)))
            parts = [sum(part) for part in split]
        how = self.runtime.epoch_implementation
        inputs = (self.epoch_input(netuid, *part) for part in zip(indices, parts, split))
        outputs = [epoch(data, implementation=how) for data in inputs]
        for index, output in zip(indices, outputs):
            self._store_mechanism(netuid, index, output)
        self._store_subnet(netuid, outputs, parts)
        incentive = sum(output.server_emission for output in outputs)
        dividend = sum(output.validator_emission for output in outputs)
        return Shares(self.hotkeys(netuid), incentive, dividend)

    def reset_bonds_toward(self, netuid: int, hotkey: bytes) -> None:
        """Drop every bond toward a miner, if the subnet has bond resets enabled (do_reset_bonds)."""
        uid = self.Uids[netuid, hotkey]
        if uid is None or not self.BondsResetOn[netuid]:
            return
        for index in self.mechanism_indices(netuid):
            for validator, row in list(self.Bonds.items(index)):
                kept = row[row[:, 0] != uid]
                if len(kept) < len(row):
                    self.Bonds[index, validator] = frozen(kept)

    def _store_mechanism(self, netuid: int, index: int, output: EpochOutput) -> None:
        self.Incentive[index] = frozen(output.incentive)
        self.ConsensusByMechanism[index] = frozen(output.consensus)
        if not self.is_null(netuid):
            self._store_bonds(netuid, index, output)
        self.emit("IncentiveAlphaEmittedToMiners", index, frozen(output.server_emission))

    def _store_bonds(self, netuid: int, index: int, output: EpochOutput) -> None:
        rows = output.bonds
        entries = np.stack([rows.uids.astype(np.uint16), rows.values], axis=1)
        had_permit = self.ValidatorPermit[netuid]
        for uid in range(rows.n):
            start, end = rows.indptr[uid], rows.indptr[uid + 1]
            if end > start:
                self.Bonds[index, uid] = frozen(entries[start:end].copy())
            elif output.validator_permit[uid] or had_permit[uid]:
                self.Bonds[index, uid] = NO_ROW

    def _store_subnet(self, netuid: int, outputs: list[EpochOutput], parts: list[int]) -> None:
        """Merge the mechanisms' terms (epoch_with_mechanisms): flags by or, the others weighted by emission."""
        self.Active[netuid] = frozen(np.logical_or.reduce([output.active for output in outputs]))
        self.ValidatorPermit[netuid] = frozen(np.logical_or.reduce([output.validator_permit for output in outputs]))
        for item, term in (
            (self.StakeWeight, "stake_weight"),
            (self.Consensus, "consensus"),
            (self.Dividends, "dividends"),
            (self.ValidatorTrust, "validator_trust"),
        ):
            item[netuid] = frozen(weighted([getattr(output, term) for output in outputs], parts))
        paid = [output.emission for output in outputs]
        self.Emission[netuid] = frozen(np.sum(paid, axis=0) if self.is_null(netuid) else weighted(paid, parts))


def weighted(vectors: list[np.ndarray], parts: list[int]) -> np.ndarray:
    """Sum of vectors, each weighted by its part of the emission (U64F64) and truncated as it is added, as
    weighted_acc_u16 does. Without emission only the first counts.
    """
    if len(vectors) == 1:
        return vectors[0]
    total = sum(parts)
    weights = [part * ONE64 // total if total else (0 if i else ONE64) for i, part in enumerate(parts)]
    sums = [sum(int(v) * w >> 64 for v, w in zip(column, weights)) for column in zip(*vectors)]
    highest = np.iinfo(vectors[0].dtype).max
    return np.array([min(value, highest) for value in sums], vectors[0].dtype)
