"""The calls that a proxy of each type may make (runtime: InstanceFilter for ProxyType).

In: a proxy type's name and a call. Out: whether the type allows the call. Knows nothing of accounts (proxy.py).
"""

from __future__ import annotations

from raytensor.devnet.pallet import Call
from raytensor.devnet.scale import declare_enum

PROXY_TYPES = """Any Owner NonCritical NonTransfer Senate NonFungible Triumvirate Governance Staking Registration
    Transfer SmallTransfer RootWeights ChildKeys SudoUncheckedSetCode SwapHotkey SubnetLeaseBeneficiary
    RootClaim""".split()
declare_enum("ProxyType", {name: i for i, name in enumerate(PROXY_TYPES)}, "subtensor_runtime_common::ProxyType")

SMALL_TRANSFER_LIMIT = 500_000_000  # rao
_STAKING = set(
    """add_stake remove_stake unstake_all unstake_all_alpha swap_stake swap_stake_limit move_stake add_stake_limit
    remove_stake_limit remove_stake_full_limit""".split()
)
_COLDKEY_SWAPS = {"swap_coldkey", "schedule_swap_coldkey", "announce_coldkey_swap", "swap_coldkey_announced"}
_NOT_NON_FUNGIBLE = _STAKING | _COLDKEY_SWAPS | {"transfer_stake", "burned_register", "root_register", "swap_hotkey"}
_ADMITTED = {
    "Staking": _STAKING,
    "Registration": {"burned_register", "register", "register_limit"},
    "ChildKeys": {"set_children", "set_childkey_take"},
    "SwapHotkey": {"swap_hotkey", "swap_hotkey_v2"},
    "RootClaim": {"claim_root"},
}
_TRANSFERS = {"transfer_keep_alive", "transfer_allow_death", "transfer_all"}


def admits(proxy_type: str, call: Call) -> bool:
    """Whether a proxy of this type may make the call."""
    pallet, name = call.pallet, call.name
    subtensor = pallet == "SubtensorModule"
    if proxy_type == "Any":
        return True
    if proxy_type == "NonTransfer":
        return pallet != "Balances" and not (subtensor and name in _COLDKEY_SWAPS | {"transfer_stake"})
    if proxy_type == "NonFungible":
        return pallet != "Balances" and not (subtensor and name in _NOT_NON_FUNGIBLE)
    if proxy_type == "NonCritical":
        return pallet != "Sudo" and not (subtensor and name in {"dissolve_network", "root_register", "burned_register"})
    if proxy_type == "Transfer":
        return (pallet == "Balances" and name in _TRANSFERS) or (subtensor and name == "transfer_stake")
    if proxy_type == "SmallTransfer":
        if pallet == "Balances" and name in {"transfer_keep_alive", "transfer_allow_death"}:
            return call["value"] < SMALL_TRANSFER_LIMIT
        return subtensor and name == "transfer_stake" and call["alpha_amount"] < SMALL_TRANSFER_LIMIT
    if proxy_type == "Owner":
        return (pallet == "AdminUtils" and name != "sudo_set_sn_owner_hotkey") or (
            subtensor and name in {"set_subnet_identity", "update_symbol"}
        )
    if proxy_type == "SubnetLeaseBeneficiary":
        return (subtensor and name == "start_call") or pallet == "AdminUtils"
    return subtensor and name in _ADMITTED.get(proxy_type, ())  # deprecated types allow no call


def covers(wider: str, narrower: str) -> bool:
    """Whether the rights of type `wider` include those of `narrower`."""
    if wider == narrower or wider == "Any":
        return True
    if wider == "NonTransfer":
        return narrower not in ("Any", "Transfer", "SmallTransfer")
    return (wider, narrower) in (("Transfer", "SmallTransfer"), ("Governance", "Triumvirate"), ("Governance", "Senate"))
