"""Genesis of SubtensorModule, as on a local Subtensor: root (0) and one dynamic subnet (1) without an owner.

In: `{"values": {storage value name: value}}`, optional overrides of the defaults (for example NetworkRateLimit 0).
Out: storage, and an issuance equal to all balances plus the pool of subnet 1.
"""

from __future__ import annotations

from raytensor.devnet.subtensor.pools import ROOT
from raytensor.devnet.subtensor.storage import RAO, ZERO_ACCOUNT
from raytensor.devnet.subtensor.symbols import SYMBOLS

FIRST_POOL_RAO = 10 * RAO


class Genesis:
    def genesis(self, config: dict) -> None:
        self._root()
        self._first_subnet()
        issued = self.runtime.Balances.TotalIssuance.get() + FIRST_POOL_RAO
        self.TotalIssuance.set(issued)
        self.GenesisIssuance.set(issued)
        for name, value in config.get("values", {}).items():
            getattr(self, name).set(value)

    def _root(self) -> None:
        self.create_network(ROOT, tempo=100)
        self.MaxAllowedUids[ROOT] = 64
        self.MaxAllowedValidators[ROOT] = 64
        self.MinAllowedWeights[ROOT] = 0
        self.TargetRegistrationsPerInterval[ROOT] = 1
        self.TokenSymbol[ROOT] = SYMBOLS[0]
        # Root stake is TAO, so staking on root is enabled from the first block.
        self.SubtokenEnabled[ROOT] = True

    def _first_subnet(self) -> None:
        netuid = 1
        self.create_network(netuid, tempo=100)
        self.SubnetMechanism[netuid] = 1
        self.SubnetOwner[netuid] = ZERO_ACCOUNT
        self.MaxAllowedValidators[netuid] = 64
        self.MinAllowedWeights[netuid] = 0
        self.SubnetLocked[netuid] = 1
        self.LargestLocked[netuid] = 1
        self.TokenSymbol[netuid] = SYMBOLS[netuid]
        self.add_tao(netuid, FIRST_POOL_RAO)
        self.SubnetAlphaIn[netuid] = FIRST_POOL_RAO
        self.own_hotkey(ZERO_ACCOUNT, ZERO_ACCOUNT)
        self.append_neuron(netuid, ZERO_ACCOUNT)
        self.add_stake_to(ZERO_ACCOUNT, ZERO_ACCOUNT, netuid, RAO)
        self.SubnetAlphaOut[netuid] = RAO
