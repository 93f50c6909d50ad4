"""Storage of SubtensorModule per account, per hotkey or global. Per-subnet items: subnet_storage.py.

Names, hashers, types and defaults are the chain's (spec_version 475); clients read these keys directly.
Amounts are rao of TAO or alpha (see the name), times are block numbers, fractions are u16 / 65535.
"""

from __future__ import annotations

from raytensor.devnet.pallet import StorageMap, StorageValue

ACCOUNT = ("Blake2_128Concat", "AccountId32")
NETUID = ("Identity", "u16")
ZERO_ACCOUNT = bytes(32)
RAO = 10**9


class GlobalStorage:
    # --- issuance and stake
    TotalIssuance = StorageValue("u64", default=0)
    TotalStake = StorageValue("u64", default=0)
    BlockEmission = StorageValue("u64", default=RAO)
    # For the ledger (ledger.py): TAO at genesis, minted by blocks, burned or recycled.
    GenesisIssuance = StorageValue("u64", default=0)
    TotalMinted = StorageValue("u64", default=0)
    TotalBurned = StorageValue("i128", default=0)  # negative if root created TAO
    TaoWeight = StorageValue("u64", default=971_718_665_099_567_868)
    StakeThreshold = StorageValue("u64", default=0)
    NominatorMinRequiredStake = StorageValue("u64", default=0)
    SubnetMovingAlpha = StorageValue("I96F32", default=12_885)  # 0.000003
    # The gate of TAO emission: bar, quantile, exponent are U64F64 bits; an exponent of 3, a bar at the 32nd share.
    EmissionGateBar = StorageValue("U64F64", default=0)
    EmissionBarQuantile = StorageValue("U64F64", default=3 << 62)
    EmissionGateExponent = StorageValue("U64F64", default=3 << 64)
    EmissionBarRank = StorageValue("u16", default=32)
    CKBurn = StorageValue("u64", default=0)

    # --- ownership
    Owner = StorageMap([ACCOUNT], "AccountId32", default=ZERO_ACCOUNT)
    OwnedHotkeys = StorageMap([ACCOUNT], "Vec<AccountId32>", default=())
    StakingHotkeys = StorageMap([ACCOUNT], "Vec<AccountId32>", default=())
    TotalHotkeyAlpha = StorageMap([ACCOUNT, NETUID], "u64", default=0)
    TotalHotkeyAlphaLastEpoch = StorageMap([ACCOUNT, NETUID], "u64", default=0)
    TotalHotkeySharesV2 = StorageMap([ACCOUNT, NETUID], "SafeFloat")
    AlphaV2 = StorageMap([ACCOUNT, ACCOUNT, NETUID], "SafeFloat")
    Lock = StorageMap([ACCOUNT, NETUID, ACCOUNT], "LockState", optional=True)
    AutoStakeDestination = StorageMap([ACCOUNT, NETUID], "AccountId32", optional=True)
    AutoStakeDestinationColdkeys = StorageMap([ACCOUNT, NETUID], "Vec<AccountId32>", default=())
    IdentitiesV2 = StorageMap([ACCOUNT], "ChainIdentityV2", optional=True)
    LastColdkeyHotkeyStakeBlock = StorageMap([("Twox64Concat", "AccountId32")] * 2, "u64", optional=True)

    # --- takes, parents and children
    Delegates = StorageMap([ACCOUNT], "u16", default=11_796)
    MaxDelegateTake = StorageValue("u16", default=11_796)
    MinDelegateTake = StorageValue("u16", default=0)
    ChildkeyTake = StorageMap([ACCOUNT, NETUID], "u16", default=0)
    MaxChildkeyTake = StorageValue("u16", default=11_796)
    MinChildkeyTake = StorageValue("u16", default=0)
    MinChildkeyTakePerSubnet = StorageMap([NETUID], "u16", default=0)
    PendingChildKeys = StorageMap([NETUID, ACCOUNT], "(Vec<(u64, AccountId32)>, u64)", default=((), 0))
    ChildKeys = StorageMap([ACCOUNT, NETUID], "Vec<(u64, AccountId32)>", default=())
    ParentKeys = StorageMap([ACCOUNT, NETUID], "Vec<(u64, AccountId32)>", default=())
    AutoParentDelegationEnabled = StorageMap([ACCOUNT], "bool", default=True)
    PendingChildKeyCooldown = StorageValue("u64", default=7_200)

    # --- dividends and root
    AlphaDividendsPerSubnet = StorageMap([NETUID, ACCOUNT], "u64", default=0)
    RootAlphaDividendsPerSubnet = StorageMap([NETUID, ACCOUNT], "u64", default=0)
    RootClaimable = StorageMap([ACCOUNT], "BTreeMap<u16, I96F32>")
    RootClaimed = StorageMap([NETUID, ACCOUNT, ACCOUNT], "u128", default=0)
    RootClaimableThreshold = StorageMap([("Blake2_128Concat", "u16")], "I96F32", default=500_000 << 32)

    # --- rate limits and the blocks of the last calls
    TxRateLimit = StorageValue("u64", default=1_000)
    TxDelegateTakeRateLimit = StorageValue("u64", default=216_000)
    TxChildkeyTakeRateLimit = StorageValue("u64", default=216_000)
    OwnerHyperparamRateLimit = StorageValue("u16", default=2)
    AdminFreezeWindow = StorageValue("u16", default=10)
    TransactionKeyLastBlock = StorageMap([ACCOUNT, NETUID, ("Identity", "u16")], "u64", default=0)
    LastRateLimitedBlock = StorageMap([("Identity", "RateLimitKey")], "u64", default=0)
    LastTxBlock = StorageMap([("Identity", "AccountId32")], "u64", default=0)
    LastTxBlockChildKeyTake = StorageMap([("Identity", "AccountId32")], "u64", default=0)
    LastTxBlockDelegateTake = StorageMap([("Identity", "AccountId32")], "u64", default=0)

    # --- the set of subnets
    TotalNetworks = StorageValue("u16", default=0)
    SubnetLimit = StorageValue("u16", default=128)
    NetworkImmunityPeriod = StorageValue("u64", default=1_296_000)
    StartCallDelay = StorageValue("u64", default=0)
    NetworkMinLockCost = StorageValue("u64", default=1_000 * RAO)
    NetworkLastLockCost = StorageValue("u64", default=1_000 * RAO)
    NetworkLockReductionInterval = StorageValue("u64", default=100_800)
    NetworkRateLimit = StorageValue("u64", default=7_200)
    NetworkRegistrationStartBlock = StorageValue("u64", default=0)
    SubnetOwnerCut = StorageValue("u16", default=11_796)
    MaxEpochsPerBlock = StorageValue("u8", default=2)
    CommitRevealWeightsVersion = StorageValue("u16", default=4)
    MaxMechanismCount = StorageValue("u8", default=2)
    MinActivityCutoff = StorageValue("u16", default=360)
