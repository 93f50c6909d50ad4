"""Calls that set weights without a commit: on one subnet, one mechanism, or many subnets in a batch.

In: a hotkey's extrinsic with uids and weights (u16). Out: a row of `Weights` in the submitted order, with zeros,
max-upscaled (on a Null subnet as given); or one of the pallet's errors in the chain's order (subnets/weights.rs,
internal_set_weights). Revealed weights use the same checks (commit_reveal.py, `apply_weights`).
"""

from __future__ import annotations

import numpy as np

from raytensor.devnet.pallet import DispatchError, Origin, call
from raytensor.devnet.subtensor.costs import ref_time
from raytensor.devnet.subtensor.neurons import put, storage_index
from raytensor.devnet.subtensor.pools import ROOT
from raytensor.devnet.subtensor.subnet_storage import frozen

SET = ref_time(15_513_600_000, 4112, 2)
U16_MAX = 65_535


def max_upscaled(values: np.ndarray) -> np.ndarray:
    """Weights (uint16 [k]) scaled so that the largest is 65535, rounded half up; all zeros stay zeros.

    Two formulas, above and up to 32768, with 32 fractional bits (epoch/math.rs, vec_max_upscale_to_u16).
    """
    top = int(values.max(initial=0))
    if top in (0, U16_MAX):
        return values
    wide = values.astype(np.uint64)
    half = np.uint64(1 << 31)
    if top > 32_768:
        scaled = wide * np.uint64((U16_MAX << 32) // top)
    else:
        scaled = (wide * np.uint64(U16_MAX) << np.uint64(32)) // np.uint64(top)
    return ((scaled + half) >> np.uint64(32)).astype(np.uint16)


class WeightCalls:
    @call(0, pays=False, weight=SET)
    def set_weights(self, origin: Origin, netuid: "u16", dests: "Vec<u16>", weights: "Vec<u16>", version_key: "u64"):
        self._set_openly(origin.ensure_signed(), netuid, 0, dests, weights, version_key)

    @call(119, pays=False, weight=SET)
    def set_mechanism_weights(
        self, origin: Origin, netuid: "u16", mecid: "u8", dests: "Vec<u16>", weights: "Vec<u16>", version_key: "u64"
    ):
        self._set_openly(origin.ensure_signed(), netuid, mecid, dests, weights, version_key)

    @call(80, pays=False, weight=lambda pallet, args: SET * len(args[0]))  # a full weight per item, as since spec 475
    def batch_set_weights(
        self,
        origin: Origin,
        netuids: "Vec<Compact<u16>>",
        weights: "Vec<Vec<(Compact<u16>, Compact<u16>)>>",
        version_keys: "Vec<Compact<u64>>",
    ):
        """Set one hotkey's weights on many subnets. A failed item emits an event and does not affect the others."""
        hotkey = origin.ensure_signed()
        if not len(netuids) == len(weights) == len(version_keys):
            raise self.error("InputLengthsUnequal")

        def set_one(netuid: int, pairs: tuple, version_key: int) -> None:
            uids, values = [uid for uid, _ in pairs], [value for _, value in pairs]
            self._set_openly(hotkey, netuid, 0, uids, values, version_key)

        self.run_weight_batch(set_one, netuids, weights, version_keys)
        self.emit("BatchWeightsCompleted", netuids, hotkey)

    def run_weight_batch(self, action, netuids: tuple, *columns: tuple) -> None:
        """action(netuid, ...) for each item; BatchCompletedWithErrors once, BatchWeightItemFailed for each failure."""
        failed = False
        for netuid, *values in zip(netuids, *columns):
            mark, num_events = self.runtime.store.mark(), len(self.runtime.events)
            try:
                action(netuid, *values)
            except DispatchError as error:
                self.runtime.store.rollback(mark)
                del self.runtime.events[num_events:]
                if not failed:
                    self.emit("BatchCompletedWithErrors")
                failed = True
                self.emit("BatchWeightItemFailed", netuid, error.value)

    def _set_openly(self, hotkey: bytes, netuid: int, mechanism: int, uids, values, version_key: int) -> None:
        if self.CommitRevealWeightsEnabled[netuid]:
            raise self.error("CommitRevealEnabled")
        self.apply_weights(hotkey, netuid, mechanism, uids, values, version_key, openly=True)

    def apply_weights(
        self, hotkey: bytes, netuid: int, mechanism: int, uids, values, version_key: int, *, openly: bool
    ) -> None:
        """Check and store one row. `openly`: without a commit, so check the rate limit and set LastUpdate."""
        if netuid == ROOT:
            raise self.error("CanNotSetRootNetworkWeights")
        if len(uids) != len(values):
            raise self.error("WeightVecNotEqualSize")
        if not self.NetworksAdded[netuid] or mechanism >= self.MechanismCountCurrent[netuid]:
            raise self.error("MechanismDoesNotExist")
        n = self.SubnetworkN[netuid]
        if len(uids) > n:
            raise self.error("UidsLengthExceedUidsInSubNet")
        uid = self.Uids[netuid, hotkey]
        if uid is None:
            raise self.error("HotKeyNotRegisteredInSubNet")
        if not self.meets_stake_threshold(hotkey, netuid):
            raise self.error("NotEnoughStakeToSetWeights")
        if version_key < self.WeightsVersionKey[netuid]:
            raise self.error("IncorrectWeightVersionKey")
        index, block = storage_index(netuid, mechanism), self.runtime.block_number
        if openly and not self.weights_rate_limit_passes(netuid, index, uid):
            raise self.error("SettingWeightsTooFast")
        self_weight = len(uids) == 1 and uids[0] == uid
        if not self_weight and uid != self.owner_uid(netuid) and not self.ValidatorPermit[netuid][uid]:
            raise self.error("NeuronNoValidatorPermit")
        columns = np.array(uids, np.uint16)
        if len(np.unique(columns)) != len(columns):
            raise self.error("DuplicateUids")
        if len(columns) and columns.max() >= n:
            raise self.error("UidVecContainInvalidOne")
        if len(uids) < min(n, self.MinAllowedWeights[netuid]) and not self_weight:
            raise self.error("WeightVecLengthIsLow")
        stored = np.array(values, np.uint16)
        if not self.is_null(netuid):
            stored = max_upscaled(stored)
        elif not self_weight and max(values, default=0) * U16_MAX > sum(values) * self.MaxWeightsLimit[netuid]:
            raise self.error("MaxWeightExceeded")
        row = np.stack([columns, stored], axis=1)
        self.Weights[index, uid] = frozen(row)
        if openly:
            self.LastUpdate[index] = put(self.LastUpdate[index], uid, block)
        self.emit("WeightsSet", index, uid)

    def weights_rate_limit_passes(self, netuid: int, index: int, uid: int) -> bool:
        """Whether WeightsSetRateLimit blocks have passed since this neuron's last update (or it never had one)."""
        last = int(self.LastUpdate[index][uid])
        return not last or self.runtime.block_number - last >= self.WeightsSetRateLimit[netuid]
