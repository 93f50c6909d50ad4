"""Which pallets and runtime APIs the embedded chain has, and its genesis.

In: block time, history. Out: a `Runtime` with the genesis state of a local Subtensor.
Knows nothing of how any pallet works.
"""

from raytensor.devnet.pallets.admin_utils import AdminUtils
from raytensor.devnet.pallets.balances import Balances
from raytensor.devnet.pallets.commitments import Commitments
from raytensor.devnet.pallets.drand import Drand
from raytensor.devnet.pallets.mev_shield import MevShield
from raytensor.devnet.pallets.multisig import Multisig
from raytensor.devnet.pallets.proxy import Proxy
from raytensor.devnet.pallets.sudo import Sudo
from raytensor.devnet.pallets.swap import Swap
from raytensor.devnet.pallets.system import AccountNonceApi, Core, Metadata, System
from raytensor.devnet.pallets.timestamp import Aura, Timestamp
from raytensor.devnet.pallets.transaction_payment import (
    TransactionPayment,
    TransactionPaymentApi,
    TransactionPaymentCallApi,
)
from raytensor.devnet.pallets.utility import Utility
from raytensor.devnet.runtime import Runtime
from raytensor.devnet.subtensor.api_basket import BetaBasketRuntimeApi
from raytensor.devnet.subtensor.api_neurons import NeuronInfoRuntimeApi
from raytensor.devnet.subtensor.api_stake import DelegateInfoRuntimeApi, StakeInfoRuntimeApi, SwapRuntimeApi
from raytensor.devnet.subtensor.api_subnets import SubnetInfoRuntimeApi, SubnetRegistrationRuntimeApi
from raytensor.devnet.subtensor.pallet import SubtensorModule

# Public keys of the development accounts, sr25519 of "//Name".
DEV_ACCOUNTS = {
    name: bytes.fromhex(key)
    for name, key in {
        "Alice": "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d",
        "Bob": "8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48",
        "Charlie": "90b5ab205c6974c9ea841be688864633dc9ca8a357843eeacf2314649965fe22",
        "Dave": "306721211d5404bd9da88e0204360a1a9ab8b87c66c1bc2fcdd37f3c2222cc20",
        "Eve": "e659a7a1628cdd93febc04a4e0646ea20e9f5f0ce097d9a05290d4a9e054df4e",
        "Ferdie": "1cbd2d43530a44705ad088af313e18f80b53ef16b36177cd4b77b846f2a5f07c",
        "One": "ac859f8a216eeb1b320b4c76d118da3d7407fa523484d0a980126d3b4d0d220a",
        "Two": "1254f7017f0b8347ce7ab14f96d818802e7e9e0c0d1b7c9acb3c726b080e7a03",
        "Three": "9026941b7aa2328a8c5ea4e25bb747a2bf92a066fae0cc3722faf58cf44d3502",
    }.items()
}
RICH, MODEST = 10**15, 2 * 10**12  # rao
SUDO = DEV_ACCOUNTS["Alice"]
AUTHOR = DEV_ACCOUNTS["One"]  # authority of a local Subtensor; fees go to it

# In the order of the runtime's indices, which is also the order of the hooks.
PALLETS = (
    System,
    Timestamp,
    Aura,
    Balances,
    TransactionPayment,
    SubtensorModule,
    Utility,
    Sudo,
    Multisig,
    Proxy,
    Commitments,
    AdminUtils,
    Drand,
    Swap,
    MevShield,
)
APIS = (
    Core,
    Metadata,
    AccountNonceApi,
    TransactionPaymentApi,
    TransactionPaymentCallApi,
    NeuronInfoRuntimeApi,
    SubnetInfoRuntimeApi,
    SubnetRegistrationRuntimeApi,
    StakeInfoRuntimeApi,
    DelegateInfoRuntimeApi,
    SwapRuntimeApi,
    BetaBasketRuntimeApi,
)


def genesis() -> dict[str, dict]:
    """Genesis configuration by pallet: the development accounts and the sudo key."""
    rich = ("Alice", "Bob", "Charlie")
    return {
        "Balances": {"balances": [(key, RICH if name in rich else MODEST) for name, key in DEV_ACCOUNTS.items()]},
        "Sudo": {"key": SUDO},
    }


def build_runtime(*, block_time_ms: int = 12_000, history_blocks: int = 4096, check: bool = False) -> Runtime:
    """The embedded chain's runtime at genesis."""
    runtime = Runtime(
        PALLETS, APIS, genesis=genesis(), block_time_ms=block_time_ms, history_blocks=history_blocks, check=check
    )
    runtime.author = AUTHOR
    return runtime
