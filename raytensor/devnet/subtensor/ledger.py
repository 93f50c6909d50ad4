"""All TAO of the chain, added up from storage.

In: a runtime. Out: a `Ledger`. Total = balances + pools; it must equal genesis + minted - burned, to the rao.
minted is what the blocks' emission schedule gave (one block_emission_rao(TotalIssuance) a block), burned what was
recycled or destroyed since.
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
        """Rao that exist and should not, or (negative) that should and do not: 0 on a sound chain."""
        return self.total - (self.genesis + self.minted - self.burned)


def tao_ledger(runtime) -> Ledger:
    """The books of a runtime at its current block."""
    module = runtime.SubtensorModule
    accounts = (info.data for _, info in runtime.System.Account.items())
    balances = sum(data.free + data.reserved for data in accounts)
    pools = sum(tao for _, tao in module.SubnetTAO.items())
    return Ledger(
        balances=balances,
        pools=pools,
        total=balances + pools,
        minted=module.TotalMinted.get(),
        burned=module.TotalBurned.get(),
        genesis=module.GenesisIssuance.get(),
    )
