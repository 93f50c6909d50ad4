"""The sum of all TAO of the chain, from storage.

In: a runtime. Out: a `Ledger`. total = balances + pools must equal genesis + minted - burned, to the rao.
minted is the sum of the blocks' emission (block_emission_rao(TotalIssuance) each), burned all TAO that was recycled or
destroyed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ledger:
    """Rao of TAO. balances: free + reserved of all accounts; pools: SubnetTAO of all subnets."""

    balances: int
    pools: int
    total: int
    minted: int
    burned: int
    genesis: int

    @property
    def difference(self) -> int:
        """Rao in excess (positive) or missing (negative); 0 on a correct chain."""
        return self.total - (self.genesis + self.minted - self.burned)


def tao_ledger(runtime) -> Ledger:
    """The ledger at the runtime's current block."""
    module = runtime.SubtensorModule
    accounts = (info.data for _, info in runtime.System.Account.items())
    balances = sum(data.free + data.reserved for data in accounts)
    pools = sum(tao for _, tao in module.SubnetTAO.items())
    minted, burned, genesis = (item.get() for item in (module.TotalMinted, module.TotalBurned, module.GenesisIssuance))
    return Ledger(balances, pools, total=balances + pools, minted=minted, burned=burned, genesis=genesis)
