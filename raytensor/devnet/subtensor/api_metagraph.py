"""Builds a metagraph: complete, with selected fields, or as the smaller SubnetState.

In: netuid, mechanism, field numbers (positions in METAGRAPH_FIELDS; 72 is validators, 73 commitments).
Out: structs of api_structs.py. A selective metagraph computes only the requested fields.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from raytensor.devnet.subtensor.api_neurons import NeuronReader
from raytensor.devnet.subtensor.api_structs import (
    METAGRAPH_FIELDS,
    SELECTIVE_FIELDS,
    Metagraph,
    SelectiveMetagraph,
    SubnetState,
)
from raytensor.devnet.subtensor.structs import pairs


def text(data: bytes) -> tuple[int, ...]:
    """Bytes as Vec<Compact<u8>>."""
    return tuple(data)


# Fields (of a metagraph, hyper-parameters or pool) that are one storage item of the subnet.
ITEMS = pairs(
    """identity:SubnetIdentitiesV3 network_registered_at:NetworkRegisteredAt owner_hotkey:SubnetOwnerHotkey
    owner_coldkey:SubnetOwner tempo:Tempo last_step:LastMechansimStepBlock blocks_since_last_step:BlocksSinceLastStep
    alpha_in:SubnetAlphaIn alpha_out:SubnetAlphaOut tao_in:SubnetTAO alpha_out_emission:SubnetAlphaOutEmission
    alpha_in_emission:SubnetAlphaInEmission tao_in_emission:SubnetTaoInEmission subnet_volume:SubnetVolume
    moving_price:SubnetMovingPrice rho:Rho kappa:Kappa min_allowed_weights:MinAllowedWeights
    weights_version:WeightsVersionKey weights_rate_limit:WeightsSetRateLimit max_validators:MaxAllowedValidators
    num_uids:SubnetworkN max_uids:MaxAllowedUids burn:Burn difficulty:Difficulty
    registration_allowed:NetworkRegistrationAllowed immunity_period:ImmunityPeriod min_difficulty:MinDifficulty
    max_difficulty:MaxDifficulty min_burn:MinBurn max_burn:MaxBurn adjustment_alpha:AdjustmentAlpha
    adjustment_interval:AdjustmentInterval target_regs_per_interval:TargetRegistrationsPerInterval
    max_regs_per_block:MaxRegistrationsPerBlock serving_rate_limit:ServingRateLimit
    commit_reveal_weights_enabled:CommitRevealWeightsEnabled commit_reveal_period:RevealPeriodEpochs
    liquid_alpha_enabled:LiquidAlphaOn bonds_moving_avg:BondsMovingAverage"""
)
# Fields that are a stored vector: (storage item, whether its key is the mechanism's storage index).
_VECTORS = {
    "last_update": ("LastUpdate", True),
    "emission": ("Emission", False),
    "dividends": ("Dividends", False),
    "incentives": ("Incentive", True),
    "consensus": ("Consensus", False),
}


class _Source:
    """Values of metagraph fields by name, each computed on access."""

    def __init__(self, runtime, netuid: int, mechanism: int) -> None:
        self.runtime, self.module, self.netuid = runtime, runtime.SubtensorModule, netuid
        self.reader = NeuronReader(self.module, netuid, mechanism)

    @cached_property
    def _stakes(self) -> tuple[list, list, list]:
        return self.reader.stakes()

    def __getitem__(self, field: str):
        if field in ITEMS:
            return getattr(self.module, ITEMS[field])[self.netuid]
        if field in _VECTORS:
            return self.reader.vector(*_VECTORS[field])
        return self._DERIVED[field](self)

    def _name(self) -> tuple[int, ...]:
        identity = self.module.SubnetIdentitiesV3[self.netuid]
        return text(identity.subnet_name if identity else b"")

    def _commitments(self) -> list:
        commitments, codec = self.runtime.Commitments, self.runtime.codecs("CommitmentInfo")
        return [(who, text(codec.encode(entry.info))) for who, entry in commitments.CommitmentOf.items(self.netuid)]

    _DERIVED: dict[str, Callable] = {
        "netuid": lambda s: s.netuid,
        "name": _name,
        "symbol": lambda s: text(s.module.TokenSymbol[s.netuid]),
        "block": lambda s: s.runtime.block_number,
        "subnet_emission": lambda s: 0,
        "pending_alpha_emission": lambda s: (
            s.module.PendingServerEmission[s.netuid] + s.module.PendingValidatorEmission[s.netuid]
        ),
        "pending_root_emission": lambda s: 0,
        "max_weights_limit": lambda s: 65_535,
        "activity_cutoff": lambda s: s.module.activity_cutoff(s.netuid),
        "pow_registration_allowed": lambda s: s.module.NetworkPowRegistrationAllowed[s.netuid],
        "alpha_high": lambda s: s.module.AlphaValues[s.netuid][1],
        "alpha_low": lambda s: s.module.AlphaValues[s.netuid][0],
        "hotkeys": lambda s: s.reader.hotkeys,
        "coldkeys": lambda s: s.reader.coldkeys,
        "identities": lambda s: [s.module.IdentitiesV2[coldkey] for coldkey in s.reader.coldkeys],
        "axons": lambda s: s.reader.axons,
        "active": lambda s: s.reader.bools("Active"),
        "validator_permit": lambda s: s.reader.bools("ValidatorPermit"),
        "pruning_score": lambda s: (),
        "trust": lambda s: [0] * s.reader.n,
        "rank": lambda s: [0] * s.reader.n,
        "block_at_registration": lambda s: s.reader.registered,
        "alpha_stake": lambda s: s._stakes[0],
        "tao_stake": lambda s: s._stakes[1],
        "total_stake": lambda s: s._stakes[2],
        "tao_dividends_per_hotkey": lambda s: s._dividends(s.module.RootAlphaDividendsPerSubnet),
        "alpha_dividends_per_hotkey": lambda s: s._dividends(s.module.AlphaDividendsPerSubnet),
        "validators": lambda s: [uid for uid, permit in enumerate(s.reader.bools("ValidatorPermit")) if permit],
        "commitments": _commitments,
    }

    def _dividends(self, item) -> list[tuple[bytes, int]]:
        return [(hotkey, item[self.netuid, hotkey]) for hotkey in self.reader.hotkeys]


class Metagraphs:
    def _source(self, netuid: int, mechanism: int) -> _Source | None:
        module = self.runtime.SubtensorModule
        if not module.NetworksAdded[netuid] or mechanism >= module.MechanismCountCurrent[netuid]:
            return None
        return _Source(self.runtime, netuid, mechanism)

    def metagraph(self, netuid: int, mechanism: int):
        source = self._source(netuid, mechanism)
        return source and Metagraph._make(source[field] for field in METAGRAPH_FIELDS)

    def selective_metagraph(self, netuid: int, mechanism: int, wanted: tuple[int, ...]):
        """Only the fields with the `wanted` numbers; the others are None."""
        source = self._source(netuid, mechanism)
        if source is None:
            return None
        names = list(SELECTIVE_FIELDS)
        chosen = {names[i] for i in wanted if i < len(names)} | {"netuid"}
        return SelectiveMetagraph._make(source[name] if name in chosen else None for name in names)

    def subnet_state(self, netuid: int):
        source = self._source(netuid, 0)
        if source is None:
            return None
        shared = [name for name in SubnetState._fields if name != "emission_history"]
        return SubnetState(**{name: source[name] for name in shared}, emission_history=())
