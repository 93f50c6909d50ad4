"""Structs and enums of SubtensorModule's storage, arguments and events.

Field order is the wire order. Values of a struct are namedtuples of the class declared here.
Structs of the runtime APIs are in api_structs.py.
"""

from __future__ import annotations

from raytensor.devnet.typedefs import declare_enum, declare_struct

_PALLET = "pallet_subtensor::pallet::"


def pairs(text: str) -> dict[str, str]:
    """`"name:value name:value"` as {name: value}."""
    return dict(item.split(":", 1) for item in text.split())


_ENDPOINT = "block:u64 version:u32 ip:u128 port:u16 ip_type:u8"
_AXON = pairs(f"{_ENDPOINT} protocol:u8 placeholder1:u8 placeholder2:u8")
AxonInfo = declare_struct("AxonInfo", _AXON, path=_PALLET + "AxonInfo")
PrometheusInfo = declare_struct("PrometheusInfo", pairs(_ENDPOINT), path=_PALLET + "PrometheusInfo")
NeuronCertificate = declare_struct(
    "NeuronCertificate", {"public_key": "BoundedVec<u8, 64>", "algorithm": "u8"}, path=_PALLET + "NeuronCertificate"
)
ChainIdentityV2 = declare_struct(
    "ChainIdentityV2",
    dict.fromkeys(("name", "url", "github_repo", "image", "discord", "description", "additional"), "Vec<u8>"),
    path=_PALLET + "ChainIdentityV2",
)
SubnetIdentityV3 = declare_struct(
    "SubnetIdentityV3",
    dict.fromkeys(
        "subnet_name github_repo subnet_contact subnet_url discord description logo_url additional".split(), "Vec<u8>"
    ),
    path=_PALLET + "SubnetIdentityV3",
)
# A decimal, mantissa * 10**exponent.
SafeFloat = declare_struct("SafeFloat", {"mantissa": "u128", "exponent": "i64"}, path="share_pool::SafeFloat")
LockState = declare_struct(
    "LockState", {"locked_mass": "u64", "conviction": "U64F64", "last_update": "u64"}, path=_PALLET + "LockState"
)

declare_enum("RecycleOrBurnEnum", {"Burn": 0, "Recycle": 1}, path=_PALLET + "RecycleOrBurnEnum")
declare_enum("ConsensusMode", {"Current": 0, "Previous": 1, "Auto": 2}, path=_PALLET + "ConsensusMode")
declare_enum("EpochConsensus", {"Yuma": 0, "Null": 1}, path=_PALLET + "EpochConsensus")

# Keys of LastRateLimitedBlock (pallet_subtensor, RateLimitKey).
declare_enum(
    "RateLimitKey",
    {
        "SetSNOwnerHotkey": (0, "u16"),
        "OwnerHyperparamUpdate": (1, ("u16", "u8")),  # an index in HYPERPARAMETERS (an enum on the chain)
        "NetworkLastRegistered": 2,
        "LastTxBlock": (3, "AccountId32"),
        "LastTxBlockChildKeyTake": (4, "AccountId32"),
        "LastTxBlockDelegateTake": (5, "AccountId32"),
        "AddStakeBurn": (6, "u16"),
    },
    path=_PALLET + "RateLimitKey",
)
# In the order of pallet_subtensor::utils::rate_limiting::Hyperparameter.
HYPERPARAMETERS = tuple(
    """
    Unknown ServingRateLimit MaxDifficulty AdjustmentAlpha MaxWeightLimit ImmunityPeriod MinAllowedWeights Kappa Rho
    ActivityCutoff PowRegistrationAllowed MinBurn MaxBurn BondsMovingAverage BondsPenalty CommitRevealEnabled
    LiquidAlphaEnabled AlphaValues WeightCommitInterval TransferEnabled AlphaSigmoidSteepness Yuma3Enabled
    BondsResetEnabled ImmuneNeuronLimit RecycleOrBurn MaxAllowedUids BurnHalfLife BurnIncreaseMult
    ActivityCutoffFactorMilli TriggerEpoch WeightsVersionKey OwnerCutEnabled MinNonImmuneUids MinChildkeyTake
    Unnamed34 EpochConsensus
    """.split()
)
