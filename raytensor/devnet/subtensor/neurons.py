"""Neurons of a subnet: append, replace, prune; every per-uid vector has length n.

In: netuid, hotkey. Out: a uid, and every vector extended or reset at that uid.
Knows nothing of the price of a registration (registration.py).
"""

from __future__ import annotations

import numpy as np

from raytensor.devnet.subtensor.storage import ZERO_ACCOUNT
from raytensor.devnet.subtensor.subnet_storage import frozen

MAX_NETUIDS = 4096  # storage index = mechanism * MAX_NETUIDS + netuid

# Vectors over uids and a new neuron's value; _enter writes Incentive and LastUpdate, which are per mechanism.
PER_NETUID = {
    "Active": True,
    "Emission": 0,
    "Consensus": 0,
    "Dividends": 0,
    "ValidatorTrust": 0,
    "ValidatorPermit": False,
    "StakeWeight": 0,
}


def storage_index(netuid: int, mechanism: int) -> int:
    """The storage index of a mechanism's weights: a u16; saturates for mechanisms that no subnet has (up to 255)."""
    return min(mechanism * MAX_NETUIDS + netuid, 0xFFFF)


def put(vector: np.ndarray, uid: int, value) -> np.ndarray:
    """A copy with one entry set, or appended if uid is the length."""
    if uid == len(vector):
        return frozen(np.append(vector, np.asarray([value], vector.dtype)))
    changed = vector.copy()
    changed[uid] = value
    return frozen(changed)


class Neurons:
    def mechanism_indices(self, netuid: int) -> list[int]:
        return [storage_index(netuid, mechanism) for mechanism in range(self.MechanismCountCurrent[netuid])]

    def netuids(self) -> list[int]:
        """All subnets that exist, root included, ascending."""
        return [netuid for netuid, added in self.NetworksAdded.items() if added]

    def append_neuron(self, netuid: int, hotkey: bytes) -> int:
        uid = self.SubnetworkN[netuid]
        self.SubnetworkN[netuid] = uid + 1
        self._enter(netuid, uid, hotkey)
        return uid

    def replace_neuron(self, netuid: int, uid: int, hotkey: bytes) -> None:
        """Give the uid to another hotkey and delete the old neuron's state."""
        old = self.Keys[netuid, uid]
        del self.Uids[netuid, old]
        del self.IsNetworkMember[old, netuid]
        for item in (self.Axons, self.Prometheus, self.NeuronCertificates):
            del item[netuid, old]
        self.drop_commits(netuid, old)
        for index in self.mechanism_indices(netuid):
            del self.Weights[index, uid]
            del self.Bonds[index, uid]
        self._enter(netuid, uid, hotkey)

    def _enter(self, netuid: int, uid: int, hotkey: bytes) -> None:
        block = self.runtime.block_number
        for name, start in PER_NETUID.items():
            vector = getattr(self, name)
            vector[netuid] = put(vector[netuid], uid, start)
        for index in self.mechanism_indices(netuid):
            self.Incentive[index] = put(self.Incentive[index], uid, 0)
            if uid < len(self.ConsensusByMechanism[index]):
                self.ConsensusByMechanism[index] = put(self.ConsensusByMechanism[index], uid, 0)
            self.LastUpdate[index] = put(self.LastUpdate[index], uid, block)
        self.Keys[netuid, uid] = hotkey
        self.Uids[netuid, hotkey] = uid
        self.BlockAtRegistration[netuid, uid] = block
        self.IsNetworkMember[hotkey, netuid] = True

    def is_immune(self, netuid: int, uid: int) -> bool:
        age = self.runtime.block_number - self.BlockAtRegistration[netuid, uid]
        return age < self.ImmunityPeriod[netuid]

    def immortal_hotkeys(self, netuid: int) -> set[bytes]:
        """Hotkeys that are never pruned: the owner's hotkey, then the owner's others by age, up to a limit."""
        limit = self.ImmuneOwnerUidsLimit[netuid]
        owner_hotkey = self.SubnetOwnerHotkey[netuid]
        owned = [
            (self.BlockAtRegistration[netuid, uid], uid, hotkey)
            for hotkey in self.OwnedHotkeys[self.SubnetOwner[netuid]]
            if (uid := self.Uids[netuid, hotkey]) is not None and hotkey != owner_hotkey
        ]
        ranked = [hotkey for _, _, hotkey in sorted(owned)]
        if owner_hotkey != ZERO_ACCOUNT and self.Uids[netuid, owner_hotkey] is not None:
            ranked.insert(0, owner_hotkey)
        return set(ranked[:limit])

    def neuron_to_prune(self, netuid: int) -> int | None:
        """The uid that the next registration replaces: least emission, then longest registered, then lowest uid.

        Non-immune neurons come first if more than MinNonImmuneUids of them exist; otherwise an immune one
        (subnets/registration.rs, get_neuron_to_prune).
        """
        immortal = self.immortal_hotkeys(netuid)
        emission = self.Emission[netuid]
        ranked = sorted(
            (int(emission[uid]), self.BlockAtRegistration[netuid, uid], uid)
            for uid in range(self.SubnetworkN[netuid])
            if self.Keys[netuid, uid] not in immortal
        )
        mortal = [uid for _, _, uid in ranked if not self.is_immune(netuid, uid)]
        if len(mortal) > self.MinNonImmuneUids[netuid]:
            return mortal[0]
        immune = [uid for _, _, uid in ranked if self.is_immune(netuid, uid)]
        return immune[0] if immune else None

    def trim_neurons(self, netuid: int, keep: list[int]) -> None:
        """Remove every uid that is not in `keep` and renumber the others in order."""
        new_uid = {uid: i for i, uid in enumerate(keep)}
        n = self.SubnetworkN[netuid]
        rows = np.array(keep, dtype=np.int64)
        hotkeys = [self.Keys[netuid, uid] for uid in keep]
        blocks = [self.BlockAtRegistration[netuid, uid] for uid in keep]
        for uid in range(n):
            hotkey = self.Keys[netuid, uid]
            if uid not in new_uid:
                del self.Uids[netuid, hotkey]
                del self.IsNetworkMember[hotkey, netuid]
                for item in (self.Axons, self.Prometheus, self.NeuronCertificates):
                    del item[netuid, hotkey]
                self.drop_commits(netuid, hotkey)
            del self.Keys[netuid, uid]
            del self.BlockAtRegistration[netuid, uid]
        for uid, (hotkey, block) in enumerate(zip(hotkeys, blocks)):
            self.Keys[netuid, uid] = hotkey
            self.Uids[netuid, hotkey] = uid
            self.BlockAtRegistration[netuid, uid] = block
        for name in PER_NETUID:
            vector = getattr(self, name)
            if len(vector[netuid]) == n:
                vector[netuid] = frozen(vector[netuid][rows])
        for index in self.mechanism_indices(netuid):
            self.Incentive[index] = frozen(self.Incentive[index][rows])
            consensus = self.ConsensusByMechanism[index]
            if len(consensus):
                padded = np.zeros(max(len(consensus), int(max(rows)) + 1), np.uint16)
                padded[: len(consensus)] = consensus
                self.ConsensusByMechanism[index] = frozen(padded[rows])
            self.LastUpdate[index] = frozen(self.LastUpdate[index][rows])
            for matrix in (self.Weights, self.Bonds):
                kept = {new_uid[uid]: row for uid, row in matrix.items(index) if uid in new_uid}
                matrix.clear(index)
                for uid, row in kept.items():
                    entries = [(new_uid[j], value) for j, value in row.tolist() if j in new_uid]
                    matrix[index, uid] = frozen(np.array(entries, np.uint16).reshape(-1, 2))
        self.SubnetworkN[netuid] = len(keep)
