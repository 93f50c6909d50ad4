"""Limits on changes of a subnet: ownership, the freeze window before an epoch, rate limits.

In: origins, netuids, kinds of change. Out: nothing, or BadOrigin, AdminActionProhibitedDuringWeightsWindow,
TxRateLimitExceeded. A check that passes records the block, so the caller must then make the change.
"""

from __future__ import annotations

from raytensor.devnet.pallet import DispatchError, Origin
from raytensor.devnet.subtensor.clock import blocks_until_auto
from raytensor.devnet.subtensor.structs import HYPERPARAMETERS

# Kind of transaction: (key in TransactionKeyLastBlock, blocks between two of them).
TRANSACTION_LIMITS = {
    "SetChildren": (0, 150),
    "TempoUpdate": (11, 360),
    "MechanismCountUpdate": (7, 7_200),
    "MechanismEmission": (8, 7_200),
    "MaxUidsTrimming": (9, 216_000),
}


class Limits:
    def ensure_owner(self, origin: Origin, netuid: int) -> bytes:
        """The signer, who must own the subnet."""
        if origin.signer is None or self.SubnetOwner.get(netuid) != origin.signer:
            raise DispatchError("BadOrigin")
        return origin.signer

    def ensure_owner_or_root(self, origin: Origin, netuid: int) -> bytes | None:
        """The owner, or None for root."""
        return None if origin.is_root else self.ensure_owner(origin, netuid)

    def in_freeze_window(self, netuid: int) -> bool:
        """Whether the next epoch is less than AdminFreezeWindow blocks away: owners can't change the subnet."""
        tempo, block = self.Tempo[netuid], self.runtime.block_number
        if tempo == 0:
            return False
        if self.PendingEpochAt[netuid] > block:
            return True
        return blocks_until_auto(tempo, block, self.LastEpochBlock[netuid]) < self.AdminFreezeWindow.get()

    def ensure_admin_window_open(self, netuid: int) -> None:
        if self.in_freeze_window(netuid):
            raise self.error("AdminActionProhibitedDuringWeightsWindow")

    def pass_rate_limit(self, kind: str, account: bytes, netuid: int) -> None:
        key, limit = TRANSACTION_LIMITS[kind]
        block, last = self.runtime.block_number, self.TransactionKeyLastBlock[account, netuid, key]
        if last and block - last < limit:
            raise self.error("TxRateLimitExceeded")
        self.TransactionKeyLastBlock[account, netuid, key] = block

    def pass_hyperparameter_limit(self, name: str, netuid: int) -> None:
        """An owner may change a hyper-parameter once in OwnerHyperparamRateLimit tempos."""
        key = ("OwnerHyperparamUpdate", (netuid, HYPERPARAMETERS.index(name)))
        block, last = self.runtime.block_number, self.LastRateLimitedBlock[key]
        if last and block - last < self.OwnerHyperparamRateLimit.get() * self.Tempo[netuid]:
            raise self.error("TxRateLimitExceeded")
        self.LastRateLimitedBlock[key] = block
