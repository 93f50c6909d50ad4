"""Error names of the SubtensorModule pallet; the position is the index (spec_version 475).

`CUSTOM_CODES` gives the pool's `InvalidTransaction::Custom(n)` of the errors that the transaction extension raises
before an extrinsic gets into a block (runtime `CustomTransactionError`).
"""

from __future__ import annotations

ERRORS = tuple(
    """
    RootNetworkDoesNotExist InvalidIpType InvalidIpAddress InvalidPort HotKeyNotRegisteredInSubNet
    HotKeyAccountNotExists HotKeyNotRegisteredInNetwork NonAssociatedColdKey NotEnoughStake
    NotEnoughStakeToWithdraw NotEnoughStakeToSetWeights NotEnoughStakeToSetChildkeys NotEnoughBalanceToStake
    BalanceWithdrawalError ZeroBalanceAfterWithdrawn NeuronNoValidatorPermit WeightVecNotEqualSize DuplicateUids
    UidVecContainInvalidOne WeightVecLengthIsLow TooManyRegistrationsThisBlock HotKeyAlreadyRegisteredInSubNet
    NewHotKeyIsSameWithOld NewHotKeyNotCleanForRootSwap InvalidWorkBlock InvalidDifficulty InvalidSeal
    MaxWeightExceeded HotKeyAlreadyDelegate SettingWeightsTooFast IncorrectWeightVersionKey
    ServingRateLimitExceeded UidsLengthExceedUidsInSubNet NetworkTxRateLimitExceeded DelegateTxRateLimitExceeded
    HotKeySetTxRateLimitExceeded StakingRateLimitExceeded SubNetRegistrationDisabled
    TooManyRegistrationsThisInterval TransactorAccountShouldBeHotKey FaucetDisabled NotSubnetOwner
    RegistrationNotPermittedOnRootSubnet StakeTooLowForRoot AllNetworksInImmunity NotEnoughBalanceToPaySwapHotKey
    NotRootSubnet CanNotSetRootNetworkWeights NoNeuronIdAvailable DelegateTakeTooLow DelegateTakeTooHigh
    NoWeightsCommitFound InvalidRevealCommitHashNotMatch CommitRevealEnabled CommitRevealDisabled
    LiquidAlphaDisabled AlphaHighTooLow AlphaLowOutOfRange ColdKeyAlreadyAssociated
    NotEnoughBalanceToPaySwapColdKey InvalidChild DuplicateChild ProportionOverflow TooManyChildren
    TxRateLimitExceeded ColdkeySwapAnnouncementNotFound ColdkeySwapTooEarly ColdkeySwapReannouncedTooEarly
    AnnouncedColdkeyHashDoesNotMatch ColdkeySwapAlreadyDisputed NewColdKeyIsHotkey InvalidChildkeyTake
    TxChildkeyTakeRateLimitExceeded InvalidIdentity MechanismDoesNotExist StakeUnavailable SubnetNotExists
    TooManyUnrevealedCommits ExpiredWeightCommit RevealTooEarly InputLengthsUnequal CommittingWeightsTooFast
    AmountTooLow InsufficientLiquidity SlippageTooHigh TransferDisallowed ActivityCutoffTooLow CallDisabled
    FirstEmissionBlockNumberAlreadySet NeedWaitingMoreBlocksToStarCall NotEnoughAlphaOutToRecycle
    CannotBurnOrRecycleOnRootSubnet UnableToRecoverPublicKey InvalidRecoveredPublicKey SubtokenDisabled
    HotKeySwapOnSubnetIntervalNotPassed KeepStakeBlockedByCollateral SameNetuid InsufficientTaoBalance
    InvalidLeaseBeneficiary LeaseCannotEndInThePast LeaseNetuidNotFound LeaseDoesNotExist LeaseHasNoEndBlock
    LeaseHasNotEnded Overflow BeneficiaryDoesNotOwnHotkey ExpectedBeneficiaryOrigin
    AdminActionProhibitedDuringWeightsWindow SymbolDoesNotExist SymbolAlreadyInUse IncorrectCommitRevealVersion
    InvalidRevealRound RevealPeriodTooLarge RevealPeriodTooSmall InvalidValue SubnetLimitReached
    CannotAffordLockCost EvmKeyAssociateRateLimitExceeded EvmKeyAssociationLimitExceeded
    SameAutoStakeHotkeyAlreadySet UidMapCouldNotBeCleared TrimmingWouldExceedMaxImmunePercentage
    ChildParentInconsistency InvalidRootClaimThreshold TooManyUIDsPerMechanism VotingPowerTrackingNotEnabled
    InvalidVotingPowerEmaAlpha Deprecated SubnetBuybackRateLimitExceeded NetworkDissolveAlreadyQueued
    AddStakeBurnRateLimitExceeded ColdkeySwapAnnounced ColdkeySwapDisputed ColdkeySwapClearTooEarly
    DisabledTemporarily RegistrationPriceLimitExceeded LockHotkeyMismatch InsufficientStakeForLock NoExistingLock
    ActiveLockExists CannotUseSystemAccount UnlockAmountTooHigh WaitingForDissolvedSubnetCleanup TempoOutOfBounds
    ActivityCutoffFactorMilliOutOfBounds EpochTriggerAlreadyPending AutoEpochAlreadyImminent
    DynamicTempoBlockedByCommitReveal AccountRejectsLockedAlpha LockIdOverFlow StartCallNotReady
    InsufficientAlphaBalance ColdkeyCollateralIncomplete ColdkeyCollateralPositionsFull BasketHasNoWeights
    RootStakeLocked BetaBasketSeedInProgress RootWeightSettingDisabled RootClaimTooHeavy RootWeightCapExceeded
    BasketDepositPending InvalidBatchLength TooManyStakingHotkeys ColdkeySwapTooHeavy
    BasketConcentrationCapExceeded BasketTradingDisabled BasketTradingFrozen BasketTurnoverBudgetExceeded
    BasketSameSubnet BasketLiquidityCapExceeded BasketMinOutNotMet BasketSwapBatchEmpty CommitPayloadTooLarge
    CommitQueueFull
    """.split()
)
assert len(ERRORS) == 175 and ERRORS[76] == "SubnetNotExists" and ERRORS[174] == "CommitQueueFull"

CUSTOM_CODES = {
    "ColdkeySwapAnnounced": 0,
    "AmountTooLow": 1,
    "NotEnoughStakeToSetWeights": 1,
    "NotEnoughBalanceToStake": 2,
    "SubnetNotExists": 3,
    "HotKeyAccountNotExists": 4,
    "NotEnoughStakeToWithdraw": 5,
    "CommittingWeightsTooFast": 6,
    "SettingWeightsTooFast": 6,
    "NetworkTxRateLimitExceeded": 6,
    "InsufficientLiquidity": 7,
    "SlippageTooHigh": 8,
    "TransferDisallowed": 9,
    "HotKeyNotRegisteredInNetwork": 10,
    "InvalidIpAddress": 11,
    "InvalidIpType": 11,
    "ServingRateLimitExceeded": 12,
    "InvalidPort": 13,
    "InvalidRevealRound": 15,
    "NoWeightsCommitFound": 16,
    "InvalidRevealCommitHashNotMatch": 16,
    "RevealTooEarly": 17,
    "ExpiredWeightCommit": 17,
    "InputLengthsUnequal": 18,
    "HotKeyNotRegisteredInSubNet": 19,
    "EvmKeyAssociateRateLimitExceeded": 20,
    "ColdkeySwapDisputed": 21,
    "NonAssociatedColdKey": 25,
    "DelegateTakeTooLow": 26,
    "DelegateTakeTooHigh": 27,
}
BAD_REQUEST = 255
