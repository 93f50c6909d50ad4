"""The switch between Yuma and Null consensus in AdminUtils, and the pruning of a Null subnet.

In: calls by root or the subnet's owner. Out: SubtensorModule's storage and events. Part of admin_utils.AdminUtils.
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, call

SET = 30_000_000


class NullAdmin:
    @call(111, weight=SET, operational=True)
    def sudo_set_epoch_consensus(self, origin: Origin, netuid: "u16", mode: "EpochConsensus"):
        """Yuma or Null. A subnet that has become Null holds one permit and may have 2,500 uids."""
        self._subnet(origin, netuid, "EpochConsensus")
        self._require_no_root(netuid)
        self.module.set_epoch_consensus(netuid, mode)

    @call(112, weight=SET, operational=True)
    def sudo_trim_null_uids_batch(self, origin: Origin, netuid: "u16", target: "u16"):
        """Remove up to 64 uids of a Null subnet; repeat it until `target` are left."""
        owner = self.module.ensure_owner_or_root(origin, netuid)
        if not self.module.NetworksAdded[netuid]:
            raise self.error("SubnetDoesNotExist")
        if owner is not None:
            self.module.ensure_admin_window_open(netuid)
        self._require_no_root(netuid)
        self.module.trim_null_uids(netuid, target)

    def _require_no_root(self, netuid: int) -> None:
        if netuid == 0:
            raise self.error("NotPermittedOnRootSubnet")
