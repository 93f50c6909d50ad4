"""What to do about each error of the chain, by its metadata name: the one table of errors.

In: the name of an error, without its pallet. Out: an `Action`. It covers every error of the pallets that a wallet, a
miner, a validator, a subnet owner or the chain itself can cause. The retries of the writer follow from it, and the
table in the documentation.
Sources: the checks of pallet subtensor; FRAME `InvalidTransaction`, `DispatchError`, pallets Balances, Proxy, Utility.
Pure.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Do(str, enum.Enum):
    """What to do about an error."""

    RETRY = "retry"  # the same intent in a new extrinsic, soon
    WAIT = "wait"  # until a block, then again
    REPLAN = "replan"  # read the chain again: the plan was made on another state
    FIX = "fix"  # a person or a setting has to change something
    GIVE_UP = "give up"  # it can't succeed as asked


@dataclass(frozen=True, slots=True)
class Action:
    """What to do about an error, and what it proves.

    resend  the extrinsic certainly has no effect, so that its intents may go into a new one.
    sure    a node's answer with this error proves that the submission had no effect. It does not where an extrinsic of
            the same hash or nonce exists: that may be this very submission, sent twice by a proxy or load balancer.
    split   a batch with this error may succeed in two halves.
    reread  of a reveal: the chain's state decides what to do next, not the error.
    """

    do: Do
    text: str
    resend: bool = False
    sure: bool = True
    split: bool = False
    reread: bool = False

    def __str__(self) -> str:
        return f"{self.do.value}: {self.text}"


_WEIGHTS_WAIT = Action(Do.WAIT, "until block LastUpdate + WeightsSetRateLimit of this hotkey and subnet")
_TO_REGISTER = Action(Do.FIX, "register the hotkey on this subnet; it may have been pruned")
_LATER_SUBNET = Action(Do.FIX, "check the netuid")
_MORE_STAKE = Action(Do.FIX, "add stake to the hotkey until it passes StakeThreshold")
_FUNDS = Action(Do.FIX, "fund the signing account")
_AMOUNT = Action(Do.FIX, "ask for a larger amount; the chain's minimum is 0.002 TAO plus the swap fee")
_PRICE = Action(Do.FIX, "allow more slippage or ask for a smaller amount")
_COLDKEY = Action(Do.FIX, "sign with the coldkey that owns this hotkey")
_SWAP = Action(Do.GIVE_UP, "the coldkey has announced a swap: only calls of the swap are accepted")
_REPLAN = Action(Do.REPLAN, "the subnet changed since the plan was made: read it again")
_OURS = Action(Do.GIVE_UP, "the call is malformed: please report it")
_TAKE = Action(Do.FIX, "choose a take within the chain's bounds, above (increase) or below (decrease) the present one")
_ADDRESS = Action(Do.FIX, "serve an address that others can reach: not loopback, not 0, port 1 to 65535")

_BOUNDS = Action(Do.FIX, "choose a value within the chain's bounds")


def _each(names: str, action: Action) -> dict[str, Action]:
    return dict.fromkeys(names.split(), action)


ACTIONS: dict[str, Action] = {
    # the pool, code 1010
    "Stale": Action(
        Do.RETRY, "the nonce is used: look up the extrinsic, then take a new nonce", resend=True, sure=False
    ),
    "Future": Action(Do.WAIT, "until the nonces before it are in a block"),
    "BadProof": Action(
        Do.RETRY, "bad signature or expired era: sign again with the present runtime and block", resend=True
    ),
    "AncientBirthBlock": Action(
        Do.RETRY, "the first block of the era is too old: sign again with a newer one", resend=True
    ),
    "ExhaustsResources": Action(Do.RETRY, "too heavy for one block: split the batch", split=True),
    "Call": Action(Do.GIVE_UP, "the runtime does not accept this call from outside"),
    "BadSigner": Action(Do.FIX, "sign with the account that may make this call (for Sudo: the sudo key)"),
    "Banned": Action(
        Do.WAIT, "until its era ends: this extrinsic is banned for some minutes; then sign again", sure=False
    ),
    "AlreadyImported": Action(Do.WAIT, "the node has this extrinsic already: watch the blocks for it", sure=False),
    "PriorityTooLow": Action(
        Do.WAIT, "another extrinsic with this nonce is in the pool: wait which one is included", resend=True, sure=False
    ),
    "PoolFull": Action(Do.RETRY, "the node's pool is full: one block later, or another endpoint", resend=True),
    "Expired": Action(Do.RETRY, "its era ended before it was included: it can't be included any more", resend=True),
    "StakeAmountTooLow": Action(Do.FIX, "below the minimum amount, or the hotkey has too little stake to set weights"),
    "InvalidRealAccount": Action(Do.FIX, "name the real account of the proxy"),
    "InvalidShieldedTxPubKeyHash": Action(Do.RETRY, "the shield key rotated: encrypt with the present one"),
    # weights
    "NeuronNoValidatorPermit": Action(
        Do.WAIT, "until an epoch grants the permit; the hotkey needs more stake than other validators"
    ),
    "IncorrectWeightVersionKey": Action(Do.REPLAN, "the subnet asks for a newer version key: upgrade, read again"),
    "CommitRevealEnabled": Action(Do.REPLAN, "the subnet uses commit-reveal now: commit the weights"),
    "CommitRevealDisabled": Action(Do.REPLAN, "the subnet no longer uses commit-reveal: set the weights", reread=True),
    "WeightVecLengthIsLow": Action(Do.FIX, "give weights to at least MinAllowedWeights miners"),
    "MaxWeightExceeded": Action(Do.FIX, "spread the weights"),
    "CanNotSetRootNetworkWeights": Action(Do.GIVE_UP, "the root network takes no weights"),
    "MechanismDoesNotExist": Action(Do.FIX, "check the netuid and the mechanism's number"),
    "NoWeightsCommitFound": Action(Do.REPLAN, "nothing is committed: commit again", reread=True),
    "InvalidRevealCommitHashNotMatch": Action(Do.GIVE_UP, "the revealed weights differ from the committed ones"),
    "ExpiredWeightCommit": Action(Do.REPLAN, "its reveal epoch has passed: commit again", reread=True),
    "RevealTooEarly": Action(Do.WAIT, "until the reveal epoch: commit epoch + RevealPeriodEpochs"),
    "TooManyUnrevealedCommits": Action(Do.WAIT, "until a commit is revealed or expires (10 at most)"),
    "IncorrectCommitRevealVersion": Action(Do.REPLAN, "read CommitRevealWeightsVersion again"),
    "InvalidRevealRound": Action(Do.REPLAN, "the reveal round is in the past: encrypt for a later one"),
    "BeaconDown": Action(Do.WAIT, "until the chain stores the beacon's pulses again, or commit by hash"),
    "TimelockedCommitDropped": Action(Do.REPLAN, "the chain could not open or apply it: commit again"),
    "OutcomeUnreadable": Action(
        Do.FIX, "the node has discarded the events of its block: check the account for the effect"
    ),
    "KeyInUse": Action(Do.FIX, "stop the other program that writes with this key"),
    "Superseded": Action(Do.GIVE_UP, "newer weights were given"),
    # registration and subnets
    "RegistrationNotPermittedOnRootSubnet": Action(Do.FIX, "use root_register for the root network"),
    "SubNetRegistrationDisabled": Action(Do.WAIT, "until the owner allows registration"),
    "HotKeyAlreadyRegisteredInSubNet": Action(Do.GIVE_UP, "it is registered already"),
    "NoNeuronIdAvailable": Action(Do.WAIT, "until a neuron's immunity ends"),
    "RegistrationPriceLimitExceeded": Action(Do.WAIT, "until the burn price falls, or raise the limit"),
    "TooManyRegistrationsThisBlock": Action(Do.WAIT, "until the next block"),
    "TooManyRegistrationsThisInterval": Action(Do.WAIT, "until the next interval"),
    "NetworkTxRateLimitExceeded": Action(Do.WAIT, "until NetworkRateLimit blocks after the last new subnet"),
    "SubnetLimitReached": Action(Do.WAIT, "until a subnet can be pruned"),
    "NeedWaitingMoreBlocksToStarCall": Action(Do.WAIT, "until StartCallDelay blocks after the subnet's registration"),
    "FirstEmissionBlockNumberAlreadySet": Action(Do.GIVE_UP, "the subnet is started already"),
    "NotSubnetOwner": Action(Do.FIX, "sign with the subnet owner's coldkey"),
    "AdminActionProhibitedDuringWeightsWindow": Action(Do.WAIT, "until the subnet's next epoch has run"),
    "TxRateLimitExceeded": Action(Do.WAIT, "until this call's own rate limit has passed"),
    # stake and money
    "SubtokenDisabled": Action(Do.WAIT, "until the subnet is started (start_call)"),
    "NotEnoughStake": Action(Do.FIX, "ask for no more than is staked"),
    "NotEnoughStakeToWithdraw": Action(Do.FIX, "ask for no more than is staked"),
    "HotKeyAccountNotExists": Action(Do.FIX, "the hotkey has no owner yet: register it on any subnet first"),
    "StakeUnavailable": Action(Do.WAIT, "until the lock on this stake ends"),
    "SameNetuid": Action(Do.FIX, "choose two different subnets"),
    "TransferDisallowed": Action(Do.GIVE_UP, "the subnet's owner has switched stake transfers off"),
    "DelegateTxRateLimitExceeded": Action(Do.WAIT, "until 216000 blocks after the last change of take"),
    # serving
    "ServingRateLimitExceeded": Action(Do.WAIT, "until ServingRateLimit blocks after the last serve"),
    "SpaceLimitExceeded": Action(Do.WAIT, "until the next epoch: the commitments of this one are used up"),
    # registration, keys and serving by other tools
    "NotRootSubnet": Action(Do.GIVE_UP, "the call is for the root network only"),
    "NotPermittedOnRootSubnet": Action(Do.GIVE_UP, "the call is not for the root network"),
    "StakeTooLowForRoot": Action(Do.FIX, "stake more than the smallest of root's 64 members has"),
    "AllNetworksInImmunity": Action(Do.WAIT, "until a subnet's immunity ends"),
    "NetworkDissolveAlreadyQueued": Action(Do.WAIT, "until the subnet that is being dissolved is gone"),
    "WaitingForDissolvedSubnetCleanup": Action(Do.WAIT, "until the subnet that is being dissolved is gone"),
    "StartCallNotReady": Action(Do.WAIT, "until StartCallDelay blocks after the subnet's registration"),
    "InvalidWorkBlock": Action(Do.RETRY, "the work is for an old block: solve a new one, or register by burning"),
    "InvalidDifficulty": Action(
        Do.FIX, "the work is too easy: solve for the present difficulty, or register by burning"
    ),
    "InvalidSeal": Action(Do.FIX, "the work is wrong: solve it again, or register by burning"),
    "POWRegistrationDisabled": Action(Do.FIX, "register by burning: this subnet takes no work"),
    "FaucetDisabled": Action(Do.GIVE_UP, "this chain has no faucet"),
    "HotKeyAlreadyDelegate": Action(Do.GIVE_UP, "it is already a delegate"),
    "TransactorAccountShouldBeHotKey": Action(Do.FIX, "sign with the hotkey"),
    "CannotUseSystemAccount": Action(Do.FIX, "name another account: this one belongs to the chain"),
    "NewHotKeyIsSameWithOld": Action(Do.FIX, "name a hotkey other than the present one"),
    "NewHotKeyNotCleanForRootSwap": Action(Do.FIX, "swap to a hotkey that was never used on root"),
    "HotKeySetTxRateLimitExceeded": Action(Do.WAIT, "until the rate limit of hotkey swaps has passed"),
    "HotKeySwapOnSubnetIntervalNotPassed": Action(Do.WAIT, "until the interval between hotkey swaps has passed"),
    "ColdKeyAlreadyAssociated": Action(Do.FIX, "name a coldkey that was never used"),
    "NewColdKeyIsHotkey": Action(Do.FIX, "name a coldkey that is no hotkey"),
    "ColdkeySwapAnnouncementNotFound": Action(Do.FIX, "announce the swap first"),
    "ColdkeySwapTooEarly": Action(Do.WAIT, "until the announced swap's delay has passed"),
    "ColdkeySwapReannouncedTooEarly": Action(Do.WAIT, "until the delay between announcements has passed"),
    "ColdkeySwapClearTooEarly": Action(Do.WAIT, "until the announcement may be cleared"),
    "ColdkeySwapTooHeavy": Action(Do.FIX, "reduce the coldkey's positions: the swap does not fit a block"),
    "AnnouncedColdkeyHashDoesNotMatch": Action(Do.FIX, "swap to the coldkey that was announced"),
    "InvalidIdentity": Action(Do.FIX, "shorten the identity's texts: each has a longest length"),
    "EvmKeyAssociateRateLimitExceeded": Action(Do.WAIT, "until the rate limit of EVM key associations has passed"),
    "EvmKeyAssociationLimitExceeded": Action(Do.GIVE_UP, "no more EVM keys can be associated"),
    "UnableToRecoverPublicKey": Action(Do.FIX, "sign the association with the EVM key again"),
    "InvalidRecoveredPublicKey": Action(Do.FIX, "sign the association with the EVM key that is named"),
    "TooManyFieldsInCommitmentInfo": Action(Do.FIX, "publish fewer fields in one commitment"),
    "UnexpectedUnreserveLeftover": Action(Do.GIVE_UP, "the chain's deposits do not add up: please report it"),
    "TimelockRevealFailedNotAllowed": Action(Do.FIX, "publish a timelocked field for a later round"),
    "CommitPayloadTooLarge": Action(Do.FIX, "commit fewer weights: a timelocked commit holds 5000 bytes"),
    "CommitQueueFull": Action(Do.WAIT, "until the subnet's next epoch has opened its commits"),
    # children, takes, locks, collateral
    "InvalidChild": Action(Do.FIX, "a hotkey can't be its own child"),
    "DuplicateChild": Action(Do.FIX, "name each child once"),
    "TooManyChildren": Action(Do.FIX, "name at most 5 children"),
    "ProportionOverflow": Action(Do.FIX, "shares of the children add up to at most 1"),
    "ChildParentInconsistency": Action(Do.FIX, "a hotkey can't be child and parent of another on one subnet"),
    "InvalidChildkeyTake": Action(Do.FIX, "choose a child key take of at most 18 %"),
    "TxChildkeyTakeRateLimitExceeded": Action(Do.WAIT, "until 216000 blocks after the last change of this take"),
    "SameAutoStakeHotkeyAlreadySet": Action(Do.GIVE_UP, "it is already set"),
    "LockHotkeyMismatch": Action(Do.FIX, "name the hotkey on which the stake is locked"),
    "InsufficientStakeForLock": Action(Do.FIX, "lock no more than is staked"),
    "NoExistingLock": Action(Do.GIVE_UP, "there is no lock"),
    "ActiveLockExists": Action(Do.WAIT, "until the lock ends"),
    "UnlockAmountTooHigh": Action(Do.FIX, "unlock no more than is locked"),
    "AccountRejectsLockedAlpha": Action(Do.FIX, "the receiver takes no locked alpha: send what is not locked"),
    "LockIdOverFlow": Action(Do.GIVE_UP, "the chain has no more numbers for locks: please report it"),
    "KeepStakeBlockedByCollateral": Action(Do.FIX, "release the collateral first"),
    "ColdkeyCollateralIncomplete": Action(Do.FIX, "add the collateral that the subnet asks for"),
    "ColdkeyCollateralPositionsFull": Action(Do.FIX, "close another collateral position first"),
    "InsufficientAlphaBalance": Action(Do.FIX, "ask for no more alpha than there is"),
    "NotEnoughAlphaOutToRecycle": Action(Do.FIX, "recycle no more alpha than the subnet has issued"),
    "CannotBurnOrRecycleOnRootSubnet": Action(Do.GIVE_UP, "root's stake is TAO: it can't be burned or recycled"),
    "AddStakeBurnRateLimitExceeded": Action(Do.WAIT, "until the rate limit of buying back has passed"),
    "SubnetBuybackRateLimitExceeded": Action(Do.WAIT, "until the rate limit of buying back has passed"),
    "StakingRateLimitExceeded": Action(Do.WAIT, "until the next block"),
    "TooManyStakingHotkeys": Action(Do.FIX, "stake on fewer hotkeys"),
    "RootClaimTooHeavy": Action(Do.FIX, "claim from fewer subnets at once"),
    "RootStakeLocked": Action(Do.WAIT, "until the lock on root's stake ends"),
    "RootWeightSettingDisabled": Action(Do.GIVE_UP, "the root network takes no weights"),
    "RootWeightCapExceeded": Action(Do.FIX, "spread the weights: one subnet has too much"),
    "BasketHasNoWeights": Action(Do.FIX, "give the basket weights first"),
    "BasketSameSubnet": Action(Do.FIX, "choose two different subnets"),
    "BasketSwapBatchEmpty": Action(Do.FIX, "name at least one swap"),
    "BasketMinOutNotMet": Action(Do.FIX, "accept less, or ask for less"),
    "BasketConcentrationCapExceeded": Action(Do.FIX, "spread the basket"),
    "BasketLiquidityCapExceeded": Action(Do.FIX, "ask for less"),
    "BasketTurnoverBudgetExceeded": Action(Do.FIX, "trade less of the basket, or later"),
    "BetaBasketSeedInProgress": Action(Do.WAIT, "until the basket is seeded"),
    "BasketDepositPending": Action(Do.WAIT, "until the deposit is in"),
    "BasketTradingDisabled": Action(Do.WAIT, "until baskets may trade"),
    "BasketTradingFrozen": Action(Do.WAIT, "until baskets may trade again"),
    # leases and owners' settings
    **_each(
        "InvalidLeaseBeneficiary LeaseCannotEndInThePast LeaseNetuidNotFound LeaseDoesNotExist LeaseHasNoEndBlock "
        "BeneficiaryDoesNotOwnHotkey ExpectedBeneficiaryOrigin",
        Action(Do.FIX, "check the lease's number, end and beneficiary"),
    ),
    "LeaseHasNotEnded": Action(Do.WAIT, "until the lease's end block"),
    "SymbolDoesNotExist": Action(Do.FIX, "choose one of the chain's symbols"),
    "SymbolAlreadyInUse": Action(Do.FIX, "choose a symbol that no subnet has"),
    "UidMapCouldNotBeCleared": Action(Do.RETRY, "trim to more uids, or in steps"),
    "TrimmingWouldExceedMaxImmunePercentage": Action(Do.WAIT, "until fewer neurons are immune"),
    "TooManyUIDsPerMechanism": Action(Do.FIX, "lower MaxAllowedUids first: uids times mechanisms are at most 256"),
    "LiquidAlphaDisabled": Action(Do.FIX, "enable liquid alpha first"),
    "VotingPowerTrackingNotEnabled": Action(Do.FIX, "enable voting power tracking first"),
    "EpochTriggerAlreadyPending": Action(Do.GIVE_UP, "an epoch is already triggered"),
    "AutoEpochAlreadyImminent": Action(Do.WAIT, "for the epoch that is about to run"),
    "DynamicTempoBlockedByCommitReveal": Action(Do.FIX, "switch commit-reveal off first"),
    **_each("CallDisabled Deprecated", Action(Do.GIVE_UP, "the chain has switched this call off for good")),
    "DisabledTemporarily": Action(Do.WAIT, "until the chain switches this call on again"),
    # the pool of a subnet
    # balances, proxies, batches
    **_each("LiquidityRestrictions VestingBalance", Action(Do.WAIT, "until the lock on the balance ends")),
    "ExistentialDeposit": Action(Do.FIX, "send more: an account holds at least 500 rao"),
    "Expendability": Action(Do.FIX, "leave at least 500 rao in the signing account"),
    "DeadAccount": Action(Do.FIX, "fund the account first"),
    **_each("TooManyReserves TooManyHolds TooManyFreezes", Action(Do.GIVE_UP, "the account has too many locks")),
    "TooMany": Action(Do.FIX, "remove a proxy first: an account has at most 20"),
    "NotFound": Action(Do.GIVE_UP, "there is no such proxy or entry"),
    "NoPermission": Action(Do.FIX, "sign with the account that may make this call"),
    "Unannounced": Action(Do.FIX, "announce the call, and wait the proxy's delay"),
    "NoSelfProxy": Action(Do.FIX, "name another account as the proxy"),
    "AnnouncementDepositInvariantViolated": Action(Do.GIVE_UP, "the chain's deposits do not add up: please report it"),
    # multisig
    **_each(
        "MinimumThreshold TooFewSignatories TooManySignatories SignatoriesOutOfOrder SenderInSignatories",
        Action(Do.FIX, "name the other signatories, sorted, with a threshold of 2 to their number"),
    ),
    **_each("AlreadyApproved AlreadyStored", Action(Do.GIVE_UP, "it is already approved")),
    "NoApprovalsNeeded": Action(Do.FIX, "send the call itself: it has all approvals"),
    "NotOwner": Action(Do.FIX, "sign with the account that opened it"),
    **_each(
        "NoTimepoint WrongTimepoint UnexpectedTimepoint",
        Action(Do.REPLAN, "read the operation's timepoint on the chain again"),
    ),
    "MaxWeightTooLow": Action(Do.FIX, "allow the call more weight"),
    # the beacon and the shielded pool: for their authors
    **_each(
        "NoneValue StorageOverflow DrandConnectionFailure UnverifiedPulse InvalidRoundNumber PulseVerificationError",
        Action(Do.GIVE_UP, "pulses are handled by the chain: nothing to do here"),
    ),
    "BadEncKeyLen": Action(Do.RETRY, "encrypt with the chain's present shield key"),
    "TooManyPendingExtrinsics": Action(Do.WAIT, "until shielded extrinsics are in a block"),
    "WeightExceedsAbsoluteMax": Action(Do.RETRY, "too heavy for the block: split the batch"),
    # FRAME
    "BadOrigin": Action(Do.FIX, "sign with the account that may make this call"),
    "RequireSudo": Action(Do.FIX, "sign with the sudo key"),
    "CallFiltered": Action(Do.GIVE_UP, "the runtime filters this call here (a batch inside a batch, for one)"),
    "NotProxy": Action(Do.FIX, "make the delegate a proxy of the account, of a type that allows the call"),
    "Unproxyable": Action(Do.FIX, "make the delegate a proxy of a type that allows the call"),
    "Duplicate": Action(Do.GIVE_UP, "it is already set"),
    "TooManyCalls": Action(Do.RETRY, "split the batch"),
    "Exhausted": Action(Do.RETRY, "too heavy for the block: split the batch"),
    "NotRun": Action(Do.RETRY, "an earlier call of the batch failed and stopped it"),
    # several errors with one remedy
    **_each(
        "Payment BalanceTooLow CannotAffordLockCost NotEnoughBalanceToStake InsufficientBalance "
        "InsufficientTaoBalance FundsUnavailable BalanceWithdrawalError NotEnoughBalanceToPaySwapHotKey "
        "NotEnoughBalanceToPaySwapColdKey ZeroBalanceAfterWithdrawn Underflow",
        _FUNDS,
    ),
    **_each("RateLimitExceeded SettingWeightsTooFast CommittingWeightsTooFast", _WEIGHTS_WAIT),
    **_each(
        "ZeroMaxAmount InsufficientLiquidity SlippageTooHigh PriceLimitExceeded ReservesTooLow "
        "ReservesOutOfBalance SwapInputTooLarge",
        _PRICE,
    ),
    **_each(
        "FailedShieldedTxParsing BadRequest WeightVecNotEqualSize InputLengthsUnequal DuplicateUids "
        "InvalidBatchLength Overflow ExistingVestingSchedule IssuanceDeactivated DeltaZero InvalidDerivedAccount "
        "InvalidDerivedAccountId Unreachable",
        _OURS,
    ),
    **_each("NotEnoughStakeToSetWeights NotEnoughStakeToSetChildkeys", _MORE_STAKE),
    **_each("HotKeyNotRegisteredInSubNet HotKeyNotRegisteredInNetwork AccountNotAllowedCommit", _TO_REGISTER),
    **_each("UidVecContainInvalidOne UidsLengthExceedUidsInSubNet", _REPLAN),
    **_each(
        "SubnetNotExists SubNetworkDoesNotExist RootNetworkDoesNotExist SubnetDoesNotExist InvalidSubnetNumber",
        _LATER_SUBNET,
    ),
    **_each("AmountTooLow InsufficientInputAmount", _AMOUNT),
    **_each("NonAssociatedColdKey", _COLDKEY),
    **_each("ColdkeySwapAnnounced ColdkeySwapDisputed ColdkeySwapAlreadyDisputed", _SWAP),
    **_each("DelegateTakeTooLow DelegateTakeTooHigh", _TAKE),
    **_each("InvalidIpType InvalidIpAddress InvalidPort", _ADDRESS),
    **_each(
        "CollateralLockShareTooHigh CollateralDrainRatioOutOfBounds InvalidNumRootClaim InvalidRootClaimThreshold "
        "AlphaHighTooLow AlphaLowOutOfRange ActivityCutoffTooLow RevealPeriodTooLarge RevealPeriodTooSmall "
        "InvalidValue InvalidVotingPowerEmaAlpha TempoOutOfBounds ActivityCutoffFactorMilliOutOfBounds "
        "MaxValidatorsLargerThanMaxUIds MaxAllowedUIdsLessThanCurrentUIds BondsMovingAverageMaxReached "
        "NegativeSigmoidSteepness ValueNotInBounds MinAllowedUidsGreaterThanCurrentUids "
        "MinAllowedUidsGreaterThanMaxAllowedUids MaxAllowedUidsLessThanMinAllowedUids "
        "MaxAllowedUidsGreaterThanDefaultMaxAllowedUids GrandpaChangeDelayMustBeZero FeeRateTooHigh "
        "InvalidTickRange InvalidLiquidityValue",
        _BOUNDS,
    ),
}

UNKNOWN = Action(Do.FIX, "no rule for this error: look it up by its name in the runtime's metadata")


def action_for(name: str) -> Action:
    """What to do about an error, by its name without the pallet."""
    return ACTIONS.get(name.rsplit(".", 1)[-1], UNKNOWN)
