"""SubnetInfoRuntimeApi and SubnetRegistrationRuntimeApi: metagraphs, pools, hyper-parameters, properties of subnets.

In: netuids, mechanisms, field numbers. Out: structs of api_structs.py; None for a subnet that does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable

from raytensor.devnet.pallet import RuntimeApi, api
from raytensor.devnet.subtensor.api_metagraph import ITEMS, Metagraphs, text
from raytensor.devnet.subtensor.api_structs import (
    HYPERPARAM_FIELDS,
    HYPERPARAM_V2_FIELDS,
    DynamicInfo,
    HyperparamEntry,
    SubnetHyperparams,
    SubnetHyperparamsV2,
    SubnetInfo,
    SubnetInfoV2,
)
from raytensor.devnet.subtensor.neurons import MAX_NETUIDS
from raytensor.devnet.subtensor.subnets import subnet_account

ONE32 = 1 << 32
# Value kinds of get_subnet_hyperparams_v3 by compact type; burns are balances.
_KINDS = {"Compact<u16>": "U16", "Compact<u64>": "U64", "bool": "Bool", "I32F32": "I32F32"}
_BALANCES = {"min_burn", "max_burn"}
_V3_KINDS = {name: "TaoBalance" if name in _BALANCES else _KINDS[type_] for name, type_ in HYPERPARAM_V2_FIELDS.items()}
# Entries of v3 that v2 lacks: name -> (value kind, storage item).
_MORE = {
    "max_allowed_uids": ("U16", "MaxAllowedUids"),
    "min_allowed_uids": ("U16", "MinAllowedUids"),
    "min_non_immune_uids": ("U16", "MinNonImmuneUids"),
    "owner_immune_neuron_limit": ("U16", "ImmuneOwnerUidsLimit"),
    "bonds_penalty": ("U16", "BondsPenalty"),
    "activity_cutoff_factor": ("U32", "ActivityCutoffFactorMilli"),
    "burn_half_life": ("U16", "BurnHalfLife"),
    "burn_increase_mult": ("U64F64", "BurnIncreaseMult"),
    "yuma3_enabled": ("Bool", "Yuma3On"),
    "network_pow_registration_allowed": ("Bool", "NetworkPowRegistrationAllowed"),
    "owner_cut_enabled": ("Bool", "OwnerCutEnabled"),
    "owner_cut_auto_lock_enabled": ("Bool", "OwnerCutAutoLockEnabled"),
    "subnet_emission_enabled": ("Bool", "SubnetEmissionEnabled"),
    "min_childkey_take": ("U16", "MinChildkeyTakePerSubnet"),
    "collateral_lock_share": ("U16", "CollateralLockShare"),
    "collateral_drain_ratio": ("U64F64", "CollateralDrainRatio"),
}


class SubnetInfoRuntimeApi(Metagraphs, RuntimeApi):
    name = "SubnetInfoRuntimeApi"

    @property
    def module(self):
        return self.runtime.SubtensorModule

    @api("Option<Metagraph>")
    def get_metagraph(self, netuid: "u16"):
        return self.metagraph(netuid, 0)

    @api("Vec<Option<Metagraph>>")
    def get_all_metagraphs(self):
        return [self.metagraph(netuid, 0) for netuid in self.module.netuids()]

    @api("Option<Metagraph>")
    def get_mechagraph(self, netuid: "u16", mecid: "u8"):
        return self.metagraph(netuid, mecid)

    @api("Vec<Option<Metagraph>>")
    def get_all_mechagraphs(self):
        module = self.module
        return [
            self.metagraph(index % MAX_NETUIDS, index // MAX_NETUIDS)
            for netuid in module.netuids()
            for index in module.mechanism_indices(netuid)
        ]

    @api("Option<SelectiveMetagraph>")
    def get_selective_metagraph(self, netuid: "u16", metagraph_indexes: "Vec<u16>"):
        return self.selective_metagraph(netuid, 0, metagraph_indexes)

    @api("Option<SelectiveMetagraph>")
    def get_selective_mechagraph(self, netuid: "u16", mecid: "u8", metagraph_indexes: "Vec<u16>"):
        return self.selective_metagraph(netuid, mecid, metagraph_indexes)

    @api("Option<SubnetState>")
    def get_subnet_state(self, netuid: "u16"):
        return self.subnet_state(netuid)

    @api("Option<DynamicInfo>")
    def get_dynamic_info(self, netuid: "u16"):
        module = self.module
        if not module.NetworksAdded[netuid]:
            return None
        identity = module.SubnetIdentitiesV3[netuid]
        values = {
            "netuid": netuid,
            "subnet_name": text(identity.subnet_name if identity else b""),
            "token_symbol": text(module.TokenSymbol[netuid]),
            "emission": 0,
            "pending_alpha_emission": module.PendingServerEmission[netuid] + module.PendingValidatorEmission[netuid],
            "pending_root_emission": 0,
            "subnet_identity": identity,
        }
        return DynamicInfo(**self._read(netuid, DynamicInfo._fields, values))

    @api("Vec<Option<DynamicInfo>>")
    def get_all_dynamic_info(self):
        return [self.get_dynamic_info(netuid) for netuid in self.module.netuids()]

    @api("Option<SubnetInfo>")
    def get_subnet_info(self, netuid: "u16"):
        return self._subnet_info(netuid, SubnetInfo)

    @api("Vec<Option<SubnetInfo>>")
    def get_subnets_info(self):
        return [self._subnet_info(netuid, SubnetInfo) for netuid in self.module.netuids()]

    @api("Option<SubnetInfoV2>")
    def get_subnet_info_v2(self, netuid: "u16"):
        return self._subnet_info(netuid, SubnetInfoV2)

    @api("Vec<Option<SubnetInfoV2>>")
    def get_subnets_info_v2(self):
        return [self._subnet_info(netuid, SubnetInfoV2) for netuid in self.module.netuids()]

    def _subnet_info(self, netuid: int, shape):
        module = self.module
        if not module.NetworksAdded[netuid]:
            return None
        values = {
            "netuid": netuid,
            "max_allowed_validators": module.MaxAllowedValidators[netuid],
            "max_weights_limit": 65_535,
            "scaling_law_power": 50,
            "subnetwork_n": module.SubnetworkN[netuid],
            "max_allowed_uids": module.MaxAllowedUids[netuid],
            "network_modality": 0,
            "network_connect": (),
            "emission_values": 0,
            "owner": module.SubnetOwner[netuid],
        }
        return shape(**self._read(netuid, shape._fields, values))

    def _read(self, netuid: int, names: Iterable[str], values: dict) -> dict:
        """{name: value} for `names`: from `values`, else the storage item of ITEMS."""
        module = self.module
        return {name: values[name] if name in values else getattr(module, ITEMS[name])[netuid] for name in names}

    @api("Option<u16>")
    def get_subnet_to_prune(self):
        return self.module.subnet_to_prune()

    @api("Option<AccountId32>")
    def get_coldkey_auto_stake_hotkey(self, coldkey: "AccountId32", netuid: "u16"):
        return self.module.AutoStakeDestination[coldkey, netuid]

    @api("Option<AccountId32>")
    def get_subnet_account_id(self, netuid: "u16"):
        return subnet_account(netuid) if self.module.NetworksAdded[netuid] else None

    @api("Option<u64>")
    def get_next_epoch_start_block(self, netuid: "u16"):
        return self.module.next_epoch_start(netuid) if self.module.NetworksAdded[netuid] else None

    @api("u64")
    def get_block_emission(self):
        return self.module.BlockEmission.get()

    @api("Option<SubnetHyperparams>")
    def get_subnet_hyperparams(self, netuid: "u16"):
        values = self._hyperparams(netuid)
        return values and SubnetHyperparams(**{name: values[name] for name in HYPERPARAM_FIELDS})

    @api("Option<SubnetHyperparamsV2>")
    def get_subnet_hyperparams_v2(self, netuid: "u16"):
        values = self._hyperparams(netuid)
        return values and SubnetHyperparamsV2(**values)

    @api("Option<Vec<HyperparamEntry>>")
    def get_subnet_hyperparams_v3(self, netuid: "u16"):
        values = self._hyperparams(netuid)
        if values is None:
            return None
        entries = [HyperparamEntry(name.encode(), (_V3_KINDS[name], value)) for name, value in values.items()]
        for name, (kind, item) in _MORE.items():
            entries.append(HyperparamEntry(name.encode(), (kind, getattr(self.module, item)[netuid])))
        return entries

    def _hyperparams(self, netuid: int) -> dict | None:
        module = self.module
        if not module.NetworksAdded[netuid]:
            return None
        low, high = module.AlphaValues[netuid]
        values = {
            "max_weights_limit": 65_535,
            "activity_cutoff": module.activity_cutoff(netuid),
            "alpha_high": high,
            "alpha_low": low,
            "alpha_sigmoid_steepness": module.AlphaSigmoidSteepness[netuid] * ONE32,
            "yuma_version": 3 if module.Yuma3On[netuid] else 2,
            "subnet_is_active": module.SubtokenEnabled[netuid],
            "transfers_enabled": module.TransferToggle[netuid],
            "bonds_reset_enabled": module.BondsResetOn[netuid],
            "user_liquidity_enabled": False,
        }
        return self._read(netuid, HYPERPARAM_V2_FIELDS, values)


class SubnetRegistrationRuntimeApi(RuntimeApi):
    name = "SubnetRegistrationRuntimeApi"

    @api("u64")
    def get_network_registration_cost(self):
        return self.runtime.SubtensorModule.lock_cost_rao()
