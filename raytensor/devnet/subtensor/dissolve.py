"""Dissolves a subnet: returns its TAO to the holders of its alpha and deletes its storage.

In: a netuid. Out: balances of its stakers, in proportion to alpha; the remainder is burned.
"""

from __future__ import annotations

from raytensor.devnet.subtensor.neurons import storage_index
from raytensor.devnet.subtensor.pools import ROOT
from raytensor.devnet.subtensor.subnet_storage import SubnetStorage

# Single-key maps whose key is not a netuid.
_BY_INDEX = ("Incentive", "ConsensusByMechanism", "LastUpdate")
_DOUBLE_BY_INDEX = ("Weights", "Bonds", "WeightCommits", "TimelockedWeightCommits")
_DOUBLE_BY_NETUID = """Keys Uids BlockAtRegistration Axons NeuronCertificates Prometheus AlphaDividendsPerSubnet
    RootAlphaDividendsPerSubnet PendingChildKeys LastHotkeySwapOnNetuid StakeMoveCooldownUntil""".split()
_SECOND_KEY_NETUID = """ChildKeys ParentKeys ChildkeyTake AutoStakeDestination AutoStakeDestinationColdkeys
    TransactionKeyLastBlock""".split()


class Dissolution:
    def do_dissolve_network(self, netuid: int) -> None:
        self.require_subnet(netuid)
        if netuid == ROOT:
            raise self.error("RegistrationNotPermittedOnRootSubnet")
        self._return_tao(netuid)
        for hotkey in self.hotkeys(netuid):
            del self.IsNetworkMember[hotkey, netuid]
        for mechanism in range(self.MechanismCountCurrent[netuid]):
            index = storage_index(netuid, mechanism)
            for name in _BY_INDEX:
                del getattr(self, name)[index]
            for name in _DOUBLE_BY_INDEX:
                getattr(self, name).clear(index)
        for name in _DOUBLE_BY_NETUID:
            getattr(self, name).clear(netuid)
        self.runtime.Commitments.purge(netuid)
        if netuid in self.SubnetIdentitiesV3:
            self.emit("SubnetIdentityRemoved", netuid)
        for name in vars(SubnetStorage):
            item = getattr(self, name)
            if name.startswith("_") or name in _BY_INDEX or not getattr(item, "single", False):
                continue
            if name != "RegisteredSubnetCounter":
                del item[netuid]
        self.TotalNetworks.set(self.TotalNetworks.get() - 1)
        self.emit("NetworkRemoved", netuid)

    def _return_tao(self, netuid: int) -> None:
        pool = self.SubnetTAO[netuid]
        stakes = [(key, self.stake_of(*key)) for key in list(self.AlphaV2.keys()) if key[2] == netuid]
        total = sum(stake for _, stake in stakes)
        left = pool
        self.sub_tao(netuid, pool)
        for (hotkey, coldkey, _), stake in stakes:
            part = pool * stake // total if total else 0
            left -= part
            self.give_balance(coldkey, part)
            del self.AlphaV2[hotkey, coldkey, netuid]
        self.book_burn(left)
        for hotkey, on in list(self.TotalHotkeyAlpha.keys()):
            if on == netuid:
                del self.TotalHotkeyAlpha[hotkey, netuid]
                del self.TotalHotkeySharesV2[hotkey, netuid]
                del self.TotalHotkeyAlphaLastEpoch[hotkey, netuid]
        for item in (getattr(self, name) for name in _SECOND_KEY_NETUID):
            for key in list(item.keys()):
                if key[1] == netuid:
                    del item[key]
        for hotkey, rates in list(self.RootClaimable.items()):
            if netuid in rates:
                self.RootClaimable[hotkey] = {n: rate for n, rate in rates.items() if n != netuid}
        self.RootClaimed.clear(netuid)
