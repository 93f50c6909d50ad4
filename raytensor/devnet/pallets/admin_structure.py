"""Structure of a subnet in AdminUtils: numbers of uids and mechanisms, the owner's hotkey.

In: calls by root or the owner. Out: extended or trimmed subnets, or an error. Part of admin_utils.AdminUtils.
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, call
from raytensor.devnet.subtensor.neurons import storage_index
from raytensor.devnet.subtensor.null_epochs import UIDS
from raytensor.devnet.subtensor.subnet_storage import frozen

SET = 30_000_000
MAX_UIDS = 4096  # for root on a Yuma subnet; the chain allows 256
MAX_IMMUNE_PERCENT = 80
U16_MAX = 65_535


class StructureAdmin:
    @call(15, weight=SET)
    def sudo_set_max_allowed_uids(self, origin: Origin, netuid: "u16", max_allowed_uids: "u16"):
        module = self.module
        self._subnet(origin, netuid, "MaxAllowedUids")
        if max_allowed_uids < module.MinAllowedUids[netuid]:
            raise self.error("MaxAllowedUidsLessThanMinAllowedUids")
        if max_allowed_uids < module.SubnetworkN[netuid]:
            raise self.error("MaxAllowedUIdsLessThanCurrentUIds")
        budget = UIDS[module.SubnetEpochConsensus[netuid]]
        if max_allowed_uids > (MAX_UIDS if origin.is_root and not module.is_null(netuid) else budget):
            raise self.error("MaxAllowedUidsGreaterThanDefaultMaxAllowedUids")
        self._check_uids_per_mechanism(netuid, max_allowed_uids, module.MechanismCountCurrent[netuid])
        self._put(netuid, "MaxAllowedUids", max_allowed_uids, "MaxAllowedUidsSet")

    @call(79, weight=SET)
    def sudo_set_min_allowed_uids(self, origin: Origin, netuid: "u16", min_allowed_uids: "u16"):
        module = self.module
        self._subnet(origin, netuid, None)
        if min_allowed_uids >= module.MaxAllowedUids[netuid]:
            raise self.error("MinAllowedUidsGreaterThanMaxAllowedUids")
        if min_allowed_uids >= module.SubnetworkN[netuid]:
            raise self.error("MinAllowedUidsGreaterThanCurrentUids")
        self._put(netuid, "MinAllowedUids", min_allowed_uids, "MinAllowedUidsSet")

    @call(84, weight=SET)
    def sudo_set_min_non_immune_uids(self, origin: Origin, netuid: "u16", min: "u16"):
        self._set(origin, netuid, "MinNonImmuneUids", min, "MinNonImmuneUidsSet")

    @call(72, weight=SET)
    def sudo_set_owner_immune_neuron_limit(self, origin: Origin, netuid: "u16", immune_neurons: "u16"):
        self._subnet(origin, netuid, "ImmuneNeuronLimit")
        if not 1 <= immune_neurons <= 10:
            raise self.module.error("InvalidValue")
        self._put(netuid, "ImmuneOwnerUidsLimit", immune_neurons, None)

    @call(93, weight=SET)
    def sudo_set_min_childkey_take_per_subnet(self, origin: Origin, netuid: "u16", take: "u16"):
        self._subnet(origin, netuid, "MinChildkeyTake")
        if take > self.module.MaxChildkeyTake.get():
            raise self.module.error("InvalidChildkeyTake")
        self._put(netuid, "MinChildkeyTakePerSubnet", take, "MinChildKeyTakePerSubnetSet")

    @call(64, weight=SET)
    def sudo_set_subnet_owner_hotkey(self, origin: Origin, netuid: "u16", hotkey: "AccountId32"):
        self._set_owner_hotkey(origin, netuid, hotkey)

    @call(67, weight=SET)
    def sudo_set_sn_owner_hotkey(self, origin: Origin, netuid: "u16", hotkey: "AccountId32"):
        self._set_owner_hotkey(origin, netuid, hotkey)

    def _set_owner_hotkey(self, origin: Origin, netuid: int, hotkey: bytes) -> None:
        module = self.module
        module.ensure_owner_or_root(origin, netuid)
        if not module.NetworksAdded[netuid]:
            raise self.error("SubnetDoesNotExist")
        key, block = ("SetSNOwnerHotkey", netuid), self.runtime.block_number
        last = module.LastRateLimitedBlock[key]
        if last and block - last < 7_200 and not origin.is_root:
            raise module.error("TxRateLimitExceeded")
        if module.Owner.get(hotkey) != module.SubnetOwner[netuid]:
            raise module.error("NonAssociatedColdKey")
        module.LastRateLimitedBlock[key] = block
        self._put(netuid, "SubnetOwnerHotkey", hotkey, "SubnetOwnerHotkeySet")

    @call(76, weight=SET)
    def sudo_set_mechanism_count(self, origin: Origin, netuid: "u16", mechanism_count: "u8"):
        """Set the number of mechanisms that share the subnet's emission; resets the emission split to an even one."""
        module = self.module
        owner = self._limited(origin, netuid, "MechanismCountUpdate")
        if not 1 <= mechanism_count <= module.MaxMechanismCount.get():
            raise module.error("InvalidValue")
        self._check_uids_per_mechanism(netuid, module.MaxAllowedUids[netuid], mechanism_count)
        if owner is not None:
            module.ensure_admin_window_open(netuid)
        before = module.MechanismCountCurrent[netuid]
        for mechanism in range(mechanism_count, before):
            self._drop_mechanism(storage_index(netuid, mechanism))
        module.MechanismCountCurrent[netuid] = mechanism_count
        for mechanism in range(before, mechanism_count):
            index, first = storage_index(netuid, mechanism), storage_index(netuid, 0)
            module.Incentive[index] = frozen(module.Incentive[first] * 0)
            module.LastUpdate[index] = frozen(module.LastUpdate[first] * 0)
        del module.MechanismEmissionSplit[netuid]

    def _drop_mechanism(self, index: int) -> None:
        module = self.module
        for item in (module.Weights, module.Bonds, module.WeightCommits, module.TimelockedWeightCommits):
            item.clear(index)
        del module.Incentive[index]
        del module.ConsensusByMechanism[index]
        del module.LastUpdate[index]

    @call(77, weight=SET)
    def sudo_set_mechanism_emission_split(self, origin: Origin, netuid: "u16", maybe_split: "Option<Vec<u16>>"):
        """Parts of 65535 by mechanism; None for an even split."""
        module = self.module
        self._limited(origin, netuid, "MechanismEmission")
        if maybe_split is None:
            del module.MechanismEmissionSplit[netuid]
            return
        if len(maybe_split) > module.MechanismCountCurrent[netuid] or sum(maybe_split) != U16_MAX:
            raise module.error("InvalidValue")
        module.MechanismEmissionSplit[netuid] = maybe_split

    @call(78, weight=SET)
    def sudo_trim_to_max_allowed_uids(self, origin: Origin, netuid: "u16", max_n: "u16"):
        """Remove the neurons with the lowest emission until `max_n` are left; immune ones stay."""
        module = self.module
        self._limited(origin, netuid, "MaxUidsTrimming")
        n = module.SubnetworkN[netuid]
        if not module.MinAllowedUids[netuid] <= max_n <= module.MaxAllowedUids[netuid]:
            raise module.error("InvalidValue")
        immortal = module.immortal_hotkeys(netuid)
        safe = {uid for uid in range(n) if module.is_immune(netuid, uid) or module.Keys[netuid, uid] in immortal}
        if len(safe) * 100 > MAX_IMMUNE_PERCENT * max_n:
            raise module.error("TrimmingWouldExceedMaxImmunePercentage")
        emission = module.Emission[netuid]
        # Highest emission first, then lowest uid.
        ranked = sorted((uid for uid in range(n) if uid not in safe), key=lambda uid: (-int(emission[uid]), uid))
        keep = sorted([*safe, *ranked[: max(0, max_n - len(safe))]])
        if len(keep) < n:
            module.trim_neurons(netuid, keep)
        self._put(netuid, "MaxAllowedUids", max_n, "MaxAllowedUidsSet")

    def _limited(self, origin: Origin, netuid: int, kind: str) -> bytes | None:
        """Check the origin (root, or the owner within the rate limit) and that the subnet exists; the owner or None."""
        module = self.module
        owner = module.ensure_owner_or_root(origin, netuid)
        if not module.NetworksAdded[netuid]:
            raise self.error("SubnetDoesNotExist")
        if owner is not None:
            module.pass_rate_limit(kind, owner, netuid)
        return owner

    def _check_uids_per_mechanism(self, netuid: int, uids: int, count: int) -> None:
        if count > 1 and uids * count > UIDS[self.module.SubnetEpochConsensus[netuid]]:
            raise self.module.error("TooManyUIDsPerMechanism")

    @call(97, weight=SET, operational=True)
    def sudo_set_activity_cutoff_factor(self, origin: Origin, netuid: "u16", factor_milli: "u32"):
        """The activity cutoff in thousandths of a tempo."""
        self.module.set_activity_cutoff_factor(origin, netuid, factor_milli)
