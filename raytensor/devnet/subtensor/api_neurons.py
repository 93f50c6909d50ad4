"""NeuronInfoRuntimeApi, and the reader of per-uid vectors that metagraphs use too.

In: netuids and uids. Out: structs of api_structs.py, read from storage; missing vectors read as zeros of length n.
The chain no longer computes rank, trust and pruning score: 0, 0 and 65535 (or none).
"""

from __future__ import annotations

import numpy as np

from raytensor.consensus import stake_weight
from raytensor.devnet.pallet import RuntimeApi, api
from raytensor.devnet.subtensor.api_structs import NeuronInfo, NeuronInfoLite
from raytensor.devnet.subtensor.neurons import storage_index
from raytensor.devnet.subtensor.structs import AxonInfo, PrometheusInfo

NO_AXON = AxonInfo(0, 0, 0, 0, 0, 0, 0, 0)
NO_PROMETHEUS = PrometheusInfo(0, 0, 0, 0, 0)
NO_PRUNING_SCORE = 65_535


class NeuronReader:
    """Vectors of one subnet as lists of length n. Knows nothing of the APIs' structs."""

    def __init__(self, module, netuid: int, mechanism: int = 0) -> None:
        self.module, self.netuid = module, netuid
        self.index = storage_index(netuid, mechanism)
        self.n = module.SubnetworkN[netuid]
        self.hotkeys = module.hotkeys(netuid)

    def vector(self, name: str, by_index: bool = False) -> list:
        stored = getattr(self.module, name)[self.index if by_index else self.netuid].tolist()
        return stored + [0] * (self.n - len(stored)) if len(stored) < self.n else stored[: self.n]

    def bools(self, name: str) -> list[bool]:
        return [bool(value) for value in self.vector(name)]

    @property
    def coldkeys(self) -> list[bytes]:
        return [self.module.Owner[hotkey] for hotkey in self.hotkeys]

    @property
    def axons(self) -> list:
        return [self.module.Axons[self.netuid, hotkey] or NO_AXON for hotkey in self.hotkeys]

    @property
    def registered(self) -> list[int]:
        return [self.module.BlockAtRegistration[self.netuid, uid] for uid in range(self.n)]

    def stakes(self) -> tuple[list[int], list[int], list[int]]:
        """(alpha, TAO, total) of every uid in whole rao, as `get_stake_weights_for_network` returns them.

        The TAO is not weighted; total is alpha + TAO * TaoWeight, the stake that consensus counts.
        """
        alpha, tao = self.module.stake_parts(self.netuid, self.hotkeys)
        total, _ = stake_weight(alpha, tao, self.module.TaoWeight.get())
        return alpha, tao, total.tolist()


class NeuronInfoRuntimeApi(RuntimeApi):
    name = "NeuronInfoRuntimeApi"

    @api("Vec<NeuronInfo>")
    def get_neurons(self, netuid: "u16"):
        return self._all(netuid, full=True)

    @api("Option<NeuronInfo>")
    def get_neuron(self, netuid: "u16", uid: "u16"):
        return self._one(netuid, uid, full=True)

    @api("Vec<NeuronInfoLite>")
    def get_neurons_lite(self, netuid: "u16"):
        return self._all(netuid, full=False)

    @api("Option<NeuronInfoLite>")
    def get_neuron_lite(self, netuid: "u16", uid: "u16"):
        return self._one(netuid, uid, full=False)

    def _one(self, netuid: int, uid: int, full: bool):
        module = self.runtime.SubtensorModule
        if not module.NetworksAdded[netuid] or uid >= module.SubnetworkN[netuid]:
            return None
        return self._all(netuid, full, [uid])[0]

    def _all(self, netuid: int, full: bool, uids: list[int] | None = None) -> list:
        module = self.runtime.SubtensorModule
        if not module.NetworksAdded[netuid]:
            return []
        reader = NeuronReader(module, netuid)
        active, permits = reader.bools("Active"), reader.bools("ValidatorPermit")
        emission, consensus = reader.vector("Emission"), reader.vector("Consensus")
        trust, dividends = reader.vector("ValidatorTrust"), reader.vector("Dividends")
        incentive, updated = reader.vector("Incentive", True), reader.vector("LastUpdate", True)
        found = []
        for uid in range(reader.n) if uids is None else uids:
            hotkey = reader.hotkeys[uid]
            coldkey = module.Owner[hotkey]
            values = {
                "hotkey": hotkey,
                "coldkey": coldkey,
                "uid": uid,
                "netuid": netuid,
                "active": active[uid],
                "axon_info": module.Axons[netuid, hotkey] or NO_AXON,
                "prometheus_info": module.Prometheus[netuid, hotkey] or NO_PROMETHEUS,
                "stake": ((coldkey, module.TotalHotkeyAlpha[hotkey, netuid]),),
                "rank": 0,
                "emission": emission[uid],
                "incentive": incentive[uid],
                "consensus": consensus[uid],
                "trust": 0,
                "validator_trust": trust[uid],
                "dividends": dividends[uid],
                "last_update": updated[uid],
                "validator_permit": permits[uid],
                "pruning_score": NO_PRUNING_SCORE,
            }
            if full:
                rows = (module.Weights[reader.index, uid], module.Bonds[reader.index, uid])
                weights, bonds = (_nonzero(row) for row in rows)
                found.append(NeuronInfo(**values, weights=weights, bonds=bonds))
            else:
                found.append(NeuronInfoLite(**values))
        return found


def _nonzero(row: np.ndarray) -> list:
    return row[row[:, 1] > 0].tolist()
