"""Structs of the runtime APIs' results. Field order is the wire order; u16 and u64 are compact.

Declared from lists of `name:type` with the short type names of `_SHORT`: a metagraph has more than 70 fields.
"""

from __future__ import annotations

from raytensor.devnet.subtensor.structs import pairs
from raytensor.devnet.typedefs import declare_enum, declare_struct

_RPC = "pallet_subtensor::"
_SHORT = {
    "c16": "Compact<u16>",
    "c64": "Compact<u64>",
    "c128": "Compact<u128>",
    "acct": "AccountId32",
    "text": "Vec<Compact<u8>>",
    "v16": "Vec<Compact<u16>>",
    "v64": "Vec<Compact<u64>>",
    "vbool": "Vec<bool>",
    "accts": "Vec<AccountId32>",
    "pairs": "Vec<(Compact<u16>, Compact<u16>)>",
    "paid": "Vec<(AccountId32, Compact<u64>)>",
    "nominators": "Vec<(AccountId32, Vec<(Compact<u16>, Compact<u64>)>)>",
}


def fields(text: str) -> dict[str, str]:
    """`"netuid:c16 rho:c16"` as {name: type string}."""
    return {name: _SHORT.get(type_, type_) for name, type_ in pairs(text).items()}


_LITE = """hotkey:acct coldkey:acct uid:c16 netuid:c16 active:bool axon_info:AxonInfo prometheus_info:PrometheusInfo
    stake:paid rank:c16 emission:c64 incentive:c16 consensus:c16 trust:c16 validator_trust:c16 dividends:c16
    last_update:c64 validator_permit:bool"""
NeuronInfoLite = declare_struct("NeuronInfoLite", fields(f"{_LITE} pruning_score:c16"), path=_RPC + "NeuronInfoLite")
NeuronInfo = declare_struct(
    "NeuronInfo", fields(f"{_LITE} weights:pairs bonds:pairs pruning_score:c16"), path=_RPC + "NeuronInfo"
)

METAGRAPH_FIELDS = fields(
    """netuid:c16 name:text symbol:text identity:Option<SubnetIdentityV3> network_registered_at:c64 owner_hotkey:acct
    owner_coldkey:acct block:c64 tempo:c16 last_step:c64 blocks_since_last_step:c64 subnet_emission:c64 alpha_in:c64
    alpha_out:c64 tao_in:c64 alpha_out_emission:c64 alpha_in_emission:c64 tao_in_emission:c64
    pending_alpha_emission:c64 pending_root_emission:c64 subnet_volume:c128 moving_price:I96F32 rho:c16 kappa:c16
    min_allowed_weights:c16 max_weights_limit:c16 weights_version:c64 weights_rate_limit:c64 activity_cutoff:c64
    max_validators:c16 num_uids:c16 max_uids:c16 burn:c64 difficulty:c64 registration_allowed:bool
    pow_registration_allowed:bool immunity_period:c16 min_difficulty:c64 max_difficulty:c64 min_burn:c64 max_burn:c64
    adjustment_alpha:c64 adjustment_interval:c16 target_regs_per_interval:c16 max_regs_per_block:c16
    serving_rate_limit:c64 commit_reveal_weights_enabled:bool commit_reveal_period:c64 liquid_alpha_enabled:bool
    alpha_high:c16 alpha_low:c16 bonds_moving_avg:c64 hotkeys:accts coldkeys:accts
    identities:Vec<Option<ChainIdentityV2>> axons:Vec<AxonInfo> active:vbool validator_permit:vbool pruning_score:v16
    last_update:v64 emission:v64 dividends:v16 incentives:v16 consensus:v16 trust:v16 rank:v16
    block_at_registration:v64 alpha_stake:v64 tao_stake:v64 total_stake:v64 tao_dividends_per_hotkey:paid
    alpha_dividends_per_hotkey:paid"""
)
Metagraph = declare_struct("Metagraph", METAGRAPH_FIELDS, path=_RPC + "Metagraph")
SELECTIVE_FIELDS = METAGRAPH_FIELDS | {
    "validators": "Vec<Compact<u16>>",
    "commitments": "Vec<(AccountId32, Vec<Compact<u8>>)>",
}
SelectiveMetagraph = declare_struct(
    "SelectiveMetagraph",
    {name: type_ if name == "netuid" else f"Option<{type_}>" for name, type_ in SELECTIVE_FIELDS.items()},
    path=_RPC + "SelectiveMetagraph",
)
DynamicInfo = declare_struct(
    "DynamicInfo",
    fields(
        """netuid:c16 owner_hotkey:acct owner_coldkey:acct subnet_name:text token_symbol:text tempo:c16 last_step:c64
        blocks_since_last_step:c64 emission:c64 alpha_in:c64 alpha_out:c64 tao_in:c64 alpha_out_emission:c64
        alpha_in_emission:c64 tao_in_emission:c64 pending_alpha_emission:c64 pending_root_emission:c64
        subnet_volume:c128 network_registered_at:c64 subnet_identity:Option<SubnetIdentityV3> moving_price:I96F32"""
    ),
    path=_RPC + "DynamicInfo",
)
SubnetState = declare_struct(
    "SubnetState",
    fields(
        """netuid:c16 hotkeys:accts coldkeys:accts active:vbool validator_permit:vbool pruning_score:v16
        last_update:v64 emission:v64 dividends:v16 incentives:v16 consensus:v16 trust:v16 rank:v16
        block_at_registration:v64 alpha_stake:v64 tao_stake:v64 total_stake:v64
        emission_history:Vec<Vec<Compact<u64>>>"""
    ),
    path=_RPC + "SubnetState",
)

_HYPER = """rho:c16 kappa:c16 immunity_period:c16 min_allowed_weights:c16 max_weights_limit:c16 tempo:c16
    min_difficulty:c64 max_difficulty:c64 weights_version:c64 weights_rate_limit:c64 adjustment_interval:c16
    activity_cutoff:c64 registration_allowed:bool target_regs_per_interval:c16 min_burn:c64 max_burn:c64
    bonds_moving_avg:c64 max_regs_per_block:c16 serving_rate_limit:c64 max_validators:c16 adjustment_alpha:c64
    difficulty:c64 commit_reveal_period:c64 commit_reveal_weights_enabled:bool alpha_high:c16 alpha_low:c16
    liquid_alpha_enabled:bool"""
HYPERPARAM_FIELDS = fields(_HYPER)
SubnetHyperparams = declare_struct("SubnetHyperparams", HYPERPARAM_FIELDS, path=_RPC + "SubnetHyperparams")
HYPERPARAM_V2_FIELDS = fields(
    f"""{_HYPER} alpha_sigmoid_steepness:I32F32 yuma_version:c16 subnet_is_active:bool transfers_enabled:bool
    bonds_reset_enabled:bool user_liquidity_enabled:bool"""
)
SubnetHyperparamsV2 = declare_struct("SubnetHyperparamsV2", HYPERPARAM_V2_FIELDS, path=_RPC + "SubnetHyperparamsV2")
_VALUES = fields("Bool:bool U16:c16 U32:Compact<u32> U64:c64 U128:c128 TaoBalance:c64 I32F32:I32F32 U64F64:U64F64")
_VARIANTS = {name: (index, type_) for index, (name, type_) in enumerate(_VALUES.items())}
declare_enum("HyperparamValue", _VARIANTS, path=_RPC + "HyperparamValue")
HyperparamEntry = declare_struct(
    "HyperparamEntry", {"name": "Vec<u8>", "value": "HyperparamValue"}, path=_RPC + "HyperparamEntry"
)

_SUBNET = """netuid:c16 rho:c16 kappa:c16 difficulty:c64 immunity_period:c16 max_allowed_validators:c16
    min_allowed_weights:c16 max_weights_limit:c16 scaling_law_power:c16 subnetwork_n:c16 max_allowed_uids:c16
    blocks_since_last_step:c64 tempo:c16 network_modality:c16 network_connect:Vec<[u16;2]> emission_values:c64
    burn:c64 owner:acct"""
SubnetInfo = declare_struct("SubnetInfo", fields(_SUBNET), path=_RPC + "SubnetInfo")
SubnetInfoV2 = declare_struct(
    "SubnetInfoV2", fields(f"{_SUBNET} identity:Option<SubnetIdentityV3>"), path=_RPC + "SubnetInfov2"
)
StakeInfo = declare_struct(
    "StakeInfo",
    fields(
        """hotkey:acct coldkey:acct netuid:c16 stake:c64 locked:c64 emission:c64 tao_emission:c64 drain:c64
        is_registered:bool"""
    ),
    path=_RPC + "StakeInfo",
)
StakeAvailability = declare_struct(
    "StakeAvailability", fields("total:c64 locked:c64 available:c64"), path=_RPC + "StakeAvailability"
)
DelegateInfo = declare_struct(
    "DelegateInfo",
    fields(
        """delegate_ss58:acct take:c16 nominators:nominators owner_ss58:acct registrations:v16 validator_permits:v16
        return_per_1000:c64 total_daily_return:c64"""
    ),
    path=_RPC + "DelegateInfo",
)
SimSwapResult = declare_struct(
    "SimSwapResult",
    dict.fromkeys(("tao_amount", "alpha_amount", "tao_fee", "alpha_fee", "tao_slippage", "alpha_slippage"), "u64"),
    path="pallet_subtensor_swap::SimSwapResult",
)
SubnetPrice = declare_struct(
    "SubnetPrice", {"netuid": "u16", "price": "u64"}, path="pallet_subtensor_swap::SubnetPrice"
)
