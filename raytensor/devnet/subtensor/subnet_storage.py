"""Storage of SubtensorModule that belongs to one subnet: identity, schedule, pool, hyper-parameters, neurons.

Names, hashers, types and defaults are the chain's (spec_version 475). Items keyed by `INDEX` are per mechanism:
index = mechanism * 4096 + netuid. Vectors over uids are numpy arrays, weight and bond rows are arrays [k, 2] of
(uid, value); all are read-only and replaced as a whole.
"""

from __future__ import annotations

import numpy as np

from raytensor.devnet.pallet import StorageMap
from raytensor.devnet.subtensor.storage import ACCOUNT, NETUID, RAO, ZERO_ACCOUNT

INDEX = ("Identity", "u16")
UID = ("Identity", "u16")
TWOX_NETUID = ("Twox64Concat", "u16")


def frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


NO_ROW = frozen(np.zeros((0, 2), np.uint16))


def _vector(dtype: type) -> np.ndarray:
    return frozen(np.zeros(0, dtype))


class SubnetStorage:
    # --- existence and schedule
    NetworksAdded = StorageMap([NETUID], "bool", default=False)
    NetworkRegisteredAt = StorageMap([NETUID], "u64", default=0)
    RegisteredSubnetCounter = StorageMap([NETUID], "u64", default=0)
    SubnetMechanism = StorageMap([NETUID], "u16", default=0)
    SubnetworkN = StorageMap([NETUID], "u16", default=0)
    SubnetOwner = StorageMap([NETUID], "AccountId32", default=ZERO_ACCOUNT)
    SubnetOwnerHotkey = StorageMap([NETUID], "AccountId32", default=ZERO_ACCOUNT)
    SubnetIdentitiesV3 = StorageMap([("Blake2_128Concat", "u16")], "SubnetIdentityV3", optional=True)
    TokenSymbol = StorageMap([NETUID], "Vec<u8>", default="\U0001d70f".encode())
    FirstEmissionBlockNumber = StorageMap([NETUID], "u64", optional=True)
    SubtokenEnabled = StorageMap([NETUID], "bool", default=False)
    SubnetEmissionEnabled = StorageMap([NETUID], "bool", default=True)
    Tempo = StorageMap([NETUID], "u16", default=360)
    LastEpochBlock = StorageMap([NETUID], "u64", default=0)
    PendingEpochAt = StorageMap([NETUID], "u64", default=0)
    SubnetEpochIndex = StorageMap([NETUID], "u64", default=0)
    BlocksSinceLastStep = StorageMap([NETUID], "u64", default=0)
    LastMechansimStepBlock = StorageMap([NETUID], "u64", default=0)
    LastYumaStepBlock = StorageMap([NETUID], "u64", optional=True)

    # --- pool and emission, rao
    SubnetTAO = StorageMap([NETUID], "u64", default=0)
    SubnetAlphaIn = StorageMap([NETUID], "u64", default=0)
    SubnetAlphaOut = StorageMap([NETUID], "u64", default=0)
    SubnetProtocolAlpha = StorageMap([NETUID], "u64", default=0)
    SubnetVolume = StorageMap([NETUID], "u128", default=0)
    SubnetMovingPrice = StorageMap([NETUID], "I96F32", default=0)
    EMAPriceHalvingBlocks = StorageMap([NETUID], "u64", default=201_600)
    RootProp = StorageMap([NETUID], "U96F32", default=0)
    SubnetAlphaInEmission = StorageMap([NETUID], "u64", default=0)
    SubnetAlphaOutEmission = StorageMap([NETUID], "u64", default=0)
    SubnetTaoInEmission = StorageMap([NETUID], "u64", default=0)
    SubnetExcessTao = StorageMap([NETUID], "u64", default=0)
    SubnetEmaTaoFlow = StorageMap([NETUID], "(u64, I64F64)", optional=True)
    PendingServerEmission = StorageMap([NETUID], "u64", default=0)
    PendingValidatorEmission = StorageMap([NETUID], "u64", default=0)
    PendingRootAlphaDivs = StorageMap([NETUID], "u64", default=0)
    PendingOwnerCut = StorageMap([NETUID], "u64", default=0)
    MinerBurned = StorageMap([NETUID], "U96F32", default=0)
    SubnetLocked = StorageMap([NETUID], "u64", default=0)
    LargestLocked = StorageMap([NETUID], "u64", default=0)
    RAORecycledForRegistration = StorageMap([NETUID], "u64", default=0)
    OwnerCutEnabled = StorageMap([NETUID], "bool", default=True)
    OwnerCutAutoLockEnabled = StorageMap([NETUID], "bool", default=False)
    RecycleOrBurn = StorageMap([NETUID], "RecycleOrBurnEnum", default="Burn")
    TransferToggle = StorageMap([NETUID], "bool", default=True)

    # --- hyper-parameters
    Rho = StorageMap([NETUID], "u16", default=10)
    Kappa = StorageMap([NETUID], "u16", default=32_767)
    ImmunityPeriod = StorageMap([NETUID], "u16", default=4_096)
    MinAllowedWeights = StorageMap([NETUID], "u16", default=1_024)
    MaxWeightsLimit = StorageMap([NETUID], "u16", default=65_535)
    MinAllowedUids = StorageMap([NETUID], "u16", default=64)
    MaxAllowedUids = StorageMap([NETUID], "u16", default=256)
    MaxAllowedValidators = StorageMap([NETUID], "u16", default=128)
    MinNonImmuneUids = StorageMap([NETUID], "u16", default=10)
    ImmuneOwnerUidsLimit = StorageMap([NETUID], "u16", default=1)
    ActivityCutoff = StorageMap([NETUID], "u16", default=5_000)
    ActivityCutoffFactorMilli = StorageMap([NETUID], "u32", default=13_889)
    WeightsVersionKey = StorageMap([NETUID], "u64", default=0)
    WeightsSetRateLimit = StorageMap([NETUID], "u64", default=100)
    ServingRateLimit = StorageMap([NETUID], "u64", default=50)
    BondsMovingAverage = StorageMap([NETUID], "u64", default=900_000)
    BondsPenalty = StorageMap([NETUID], "u16", default=65_535)
    BondsResetOn = StorageMap([NETUID], "bool", default=False)
    LiquidAlphaOn = StorageMap([("Blake2_128Concat", "u16")], "bool", default=False)
    Yuma3On = StorageMap([("Blake2_128Concat", "u16")], "bool", default=False)
    AlphaValues = StorageMap([NETUID], "(u16, u16)", default=(45_875, 58_982))
    AlphaSigmoidSteepness = StorageMap([NETUID], "i16", default=1_000)
    LiquidAlphaConsensusMode = StorageMap([NETUID], "ConsensusMode", default="Auto")
    SubnetEpochConsensus = StorageMap([NETUID], "EpochConsensus", default="Yuma")
    SavedYumaMaxAllowedValidators = StorageMap([NETUID], "u16", optional=True)
    NullPruningTarget = StorageMap([NETUID], "u16", optional=True)
    CommitRevealWeightsEnabled = StorageMap([NETUID], "bool", default=True)
    RevealPeriodEpochs = StorageMap([TWOX_NETUID], "u64", default=1)
    MechanismCountCurrent = StorageMap([TWOX_NETUID], "u8", default=1)
    MechanismEmissionSplit = StorageMap([TWOX_NETUID], "Vec<u16>", optional=True)

    # --- registration
    NetworkRegistrationAllowed = StorageMap([NETUID], "bool", default=True)
    NetworkPowRegistrationAllowed = StorageMap([NETUID], "bool", default=False)
    Burn = StorageMap([NETUID], "u64", default=RAO // 10)
    MinBurn = StorageMap([NETUID], "u64", default=500_000)
    MaxBurn = StorageMap([NETUID], "u64", default=100 * RAO)
    BurnHalfLife = StorageMap([NETUID], "u16", default=360)
    BurnIncreaseMult = StorageMap([NETUID], "U64F64", default=(126 << 64) // 100)
    CollateralLockShare = StorageMap([NETUID], "u16", default=0)
    CollateralDrainRatio = StorageMap([NETUID], "U64F64", default=0)
    Difficulty = StorageMap([NETUID], "u64", default=10_000_000)
    MinDifficulty = StorageMap([NETUID], "u64", default=10_000_000)
    MaxDifficulty = StorageMap([NETUID], "u64", default=(2**64 - 1) // 4)
    AdjustmentInterval = StorageMap([NETUID], "u16", default=100)
    AdjustmentAlpha = StorageMap([NETUID], "u64", default=0)
    TargetRegistrationsPerInterval = StorageMap([NETUID], "u16", default=2)
    MaxRegistrationsPerBlock = StorageMap([NETUID], "u16", default=1)
    LastAdjustmentBlock = StorageMap([NETUID], "u64", default=0)
    RegistrationsThisBlock = StorageMap([NETUID], "u16", default=0)
    RegistrationsThisInterval = StorageMap([NETUID], "u16", default=0)

    # --- neurons
    Keys = StorageMap([NETUID, UID], "AccountId32", default=ZERO_ACCOUNT)
    Uids = StorageMap([NETUID, ACCOUNT], "u16", optional=True)
    IsNetworkMember = StorageMap([ACCOUNT, NETUID], "bool", default=False)
    BlockAtRegistration = StorageMap([NETUID, UID], "u64", default=0)
    Axons = StorageMap([NETUID, ACCOUNT], "AxonInfo", optional=True)
    NeuronCertificates = StorageMap([NETUID, ACCOUNT], "NeuronCertificate", optional=True)
    Prometheus = StorageMap([NETUID, ACCOUNT], "PrometheusInfo", optional=True)
    Active = StorageMap([NETUID], "Vec<bool>", default=_vector(np.bool_))
    ValidatorPermit = StorageMap([NETUID], "Vec<bool>", default=_vector(np.bool_))
    Consensus = StorageMap([NETUID], "Vec<u16>", default=_vector(np.uint16))
    Dividends = StorageMap([NETUID], "Vec<u16>", default=_vector(np.uint16))
    ValidatorTrust = StorageMap([NETUID], "Vec<u16>", default=_vector(np.uint16))
    StakeWeight = StorageMap([NETUID], "Vec<u16>", default=_vector(np.uint16))
    Emission = StorageMap([NETUID], "Vec<u64>", default=_vector(np.uint64))
    Incentive = StorageMap([INDEX], "Vec<u16>", default=_vector(np.uint16))
    ConsensusByMechanism = StorageMap([INDEX], "Vec<u16>", default=_vector(np.uint16))  # of the last epoch
    LastUpdate = StorageMap([INDEX], "Vec<u64>", default=_vector(np.uint64))
    Weights = StorageMap([INDEX, UID], "Vec<(u16, u16)>", default=NO_ROW)
    Bonds = StorageMap([INDEX, UID], "Vec<(u16, u16)>", default=NO_ROW)

    # --- commits: (hash, epoch, block, unused), (account, block, ciphertext, reveal round)
    WeightCommits = StorageMap(
        [("Twox64Concat", "u16"), ("Twox64Concat", "AccountId32")], "VecDeque<(H256, u64, u64, u64)>", optional=True
    )
    TimelockedWeightCommits = StorageMap(
        [("Twox64Concat", "u16"), ("Twox64Concat", "u64")],
        "VecDeque<(AccountId32, u64, BoundedVec<u8, 32768>, u64)>",
        default=(),
    )
