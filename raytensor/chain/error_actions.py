"""What to do about each error of the chain, by its metadata name: the one table of errors.

In: the name of an error, without its pallet. Out: an `Action`. It covers every error of the pallets that a wallet, a
miner, a validator, a subnet owner or the chain itself can cause. The retries of the writer follow from it, and the
table in the documentation.
Sources: the checks of pallet subtensor; FRAME `InvalidTransaction`, `DispatchError`, pallets Balances, Proxy, Utility.
Pure.
"""

import enum
import functools
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

    resend  the intents may go into a new extrinsic: a rival with the same nonce while the first is open.
    sure    a node that answers with this error did not take the extrinsic. That is no proof of no effect: the answer
            may be that of another node behind the same address, which lags or has another runtime. Where it is False,
            an extrinsic of the same hash or nonce exists, which may be this very submission, sent twice on the way.
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


_retry, _wait, _replan = (functools.partial(Action, do) for do in (Do.RETRY, Do.WAIT, Do.REPLAN))
_fix, _give_up = functools.partial(Action, Do.FIX), functools.partial(Action, Do.GIVE_UP)
_resend = functools.partial(Action, Do.RETRY, resend=True)

_WEIGHTS_WAIT = _wait("until block LastUpdate + WeightsSetRateLimit of this hotkey and subnet (commits as well)")
_TO_REGISTER = _fix("register the hotkey on this subnet; it may have been pruned")
_LATER_SUBNET = _fix("check the netuid")
_MORE_STAKE = _fix("add stake to the hotkey until it passes StakeThreshold")
_FUNDS = _fix("fund the signing account")
_AMOUNT = _fix("ask for a larger amount; the chain's minimum is 0.002 TAO plus the swap fee")
_PRICE = _fix("allow more slippage or ask for a smaller amount")
_COLDKEY = _fix("sign with the coldkey that owns this hotkey")
_SWAP = _give_up("the coldkey has announced a swap: only calls of the swap are accepted")
_REPLAN = _replan("the subnet changed since the plan was made: read it again")
_OURS = _give_up("the call is malformed: please report it")
_TAKE = _fix("choose a take within the chain's bounds, above (increase) or below (decrease) the present one")
_ADDRESS = _fix("serve an address that others can reach: not loopback, not 0, port 1 to 65535")

_BOUNDS = _fix("choose a value within the chain's bounds")


def _each(names: str, action: Action) -> dict[str, Action]:
    return dict.fromkeys(names.split(), action)


ACTIONS: dict[str, Action] = {
    # the pool, code 1010
    "Stale": _resend("the nonce is used: look up the extrinsic, then take a new nonce", sure=False),
    "Future": _wait("until the nonces before it are in a block"),
    "BadProof": _resend("bad signature or expired era: sign again with the present runtime and block"),
    "BadFormat": _resend("the node's runtime does not decode it, as after an upgrade: encode it for the present one"),
    "AncientBirthBlock": _resend("the first block of the era is too old: sign again with a newer one"),
    "ExhaustsResources": _retry("too heavy for one block: split the batch", split=True),
    "Call": _give_up("the runtime does not accept this call from outside"),
    "BadSigner": _fix("sign with the account that may make this call (for Sudo: the sudo key)"),
    # Custom 255: every error of the pallet without a code of its own. On weights: commit-reveal was switched on, the
    # permit of a Null subnet is missing, or a batch is empty or longer than there are subnets.
    "BadRequest": _replan(
        "the chain has no code for its reason: read the subnet again (commit-reveal, permit, length)"
    ),
    "Banned": _wait("until its era ends: this extrinsic is banned for some minutes; then sign again", sure=False),
    "AlreadyImported": _wait("the node has this extrinsic already: watch the blocks for it", sure=False),
    "PriorityTooLow": _wait(
        "another extrinsic with this nonce is in the pool: wait which one is included", resend=True, sure=False
    ),
    "PoolFull": _resend("the node's pool is full: one block later, or another endpoint"),
    "Expired": _resend("its era ended before it was included: it can't be included any more"),
    "StakeAmountTooLow": _fix("below the minimum amount, or the hotkey has too little stake to set weights"),
    "InvalidRealAccount": _fix("name the real account of the proxy"),
    "InvalidShieldedTxPubKeyHash": _retry("the shield key rotated: encrypt with the present one"),
    # weights
    "NeuronNoValidatorPermit": _wait(
        "until an epoch grants the permit; the hotkey needs more stake than other validators"
    ),
    "IncorrectWeightVersionKey": _fix("the subnet asks for weights of a newer version: upgrade the mechanism"),
    "InvalidWeights": _fix("give each hotkey one number that is finite and at least 0"),
    "NoKey": _fix("add the key to the writer's signers"),
    "CommitLayoutUnknown": _fix("this runtime stores commits in another layout: upgrade raytensor before committing"),
    "CommitRevealEnabled": _replan("the subnet uses commit-reveal now: commit the weights"),
    "CommitRevealDisabled": _replan("the subnet no longer uses commit-reveal: set the weights", reread=True),
    "WeightVecLengthIsLow": _fix("give weights to at least MinAllowedWeights miners"),
    "MaxWeightExceeded": _fix("spread the weights"),
    "CanNotSetRootNetworkWeights": _give_up("the root network takes no weights"),
    "MechanismDoesNotExist": _fix("check the netuid and the mechanism's number"),
    "NoWeightsCommitFound": _replan("nothing is committed: commit again", reread=True),
    "InvalidRevealCommitHashNotMatch": _give_up("the revealed weights differ from the committed ones"),
    "ExpiredWeightCommit": _replan("its reveal epoch has passed: commit again", reread=True),
    "RevealTooEarly": _wait("until the reveal epoch: commit epoch + RevealPeriodEpochs"),
    "TooManyUnrevealedCommits": _wait("until a commit is revealed or expires (10 at most)"),
    "IncorrectCommitRevealVersion": _replan("read CommitRevealWeightsVersion again"),
    "InvalidRevealRound": _replan("the reveal round is in the past: encrypt for a later one"),
    "BeaconDown": _wait("until the chain stores the beacon's pulses again, or commit by hash"),
    "TimelockedCommitDropped": _replan("the chain could not open or apply it: commit again"),
    "OutcomeUnreadable": _fix("the node has discarded the events of its block: check the account for the effect"),
    "KeyInUse": _fix("stop the other program that writes with this key"),
    "Superseded": _give_up("newer weights were given"),
    # registration and subnets
    "RegistrationNotPermittedOnRootSubnet": _fix("use root_register for the root network"),
    "SubNetRegistrationDisabled": _wait("until the owner allows registration"),
    "HotKeyAlreadyRegisteredInSubNet": _give_up("it is registered already"),
    "NoNeuronIdAvailable": _wait("until a neuron's immunity ends"),
    "RegistrationPriceLimitExceeded": _wait("until the burn price falls, or raise the limit"),
    "TooManyRegistrationsThisBlock": _wait("until the next block"),
    "TooManyRegistrationsThisInterval": _wait("until the next interval"),
    "NetworkTxRateLimitExceeded": _wait("until NetworkRateLimit blocks after the last new subnet"),
    "SubnetLimitReached": _wait("until a subnet can be pruned"),
    "NeedWaitingMoreBlocksToStarCall": _wait("until StartCallDelay blocks after the subnet's registration"),
    "FirstEmissionBlockNumberAlreadySet": _give_up("the subnet is started already"),
    "NotSubnetOwner": _fix("sign with the subnet owner's coldkey"),
    "AdminActionProhibitedDuringWeightsWindow": _wait("until the subnet's next epoch has run"),
    "TxRateLimitExceeded": _wait("until this call's own rate limit has passed"),
    # stake and money
    "SubtokenDisabled": _wait("until the subnet is started (start_call)"),
    "NotEnoughStake": _fix("ask for no more than is staked"),
    "NotEnoughStakeToWithdraw": _fix("ask for no more than is staked"),
    "HotKeyAccountNotExists": _fix("the hotkey has no owner yet: register it on any subnet first"),
    "StakeUnavailable": _wait("until the lock on this stake ends"),
    "SameNetuid": _fix("choose two different subnets"),
    "TransferDisallowed": _give_up("the subnet's owner has switched stake transfers off"),
    "DelegateTxRateLimitExceeded": _wait("until 216000 blocks after the last change of take"),
    # serving
    "ServingRateLimitExceeded": _wait("until ServingRateLimit blocks after the last serve"),
    "SpaceLimitExceeded": _wait("until the next epoch: the commitments of this one are used up"),
    # registration, keys and serving by other tools
    "NotRootSubnet": _give_up("the call is for the root network only"),
    "NotPermittedOnRootSubnet": _give_up("the call is not for the root network"),
    "StakeTooLowForRoot": _fix("stake more than the smallest of root's 64 members has"),
    "AllNetworksInImmunity": _wait("until a subnet's immunity ends"),
    "NetworkDissolveAlreadyQueued": _wait("until the subnet that is being dissolved is gone"),
    "WaitingForDissolvedSubnetCleanup": _wait("until the subnet that is being dissolved is gone"),
    "StartCallNotReady": _wait("until StartCallDelay blocks after the subnet's registration"),
    "InvalidWorkBlock": _retry("the work is for an old block: solve a new one, or register by burning"),
    "InvalidDifficulty": _fix("the work is too easy: solve for the present difficulty, or register by burning"),
    "InvalidSeal": _fix("the work is wrong: solve it again, or register by burning"),
    "POWRegistrationDisabled": _fix("register by burning: this subnet takes no work"),
    "FaucetDisabled": _give_up("this chain has no faucet"),
    "HotKeyAlreadyDelegate": _give_up("it is already a delegate"),
    "TransactorAccountShouldBeHotKey": _fix("sign with the hotkey"),
    "CannotUseSystemAccount": _fix("name another account: this one belongs to the chain"),
    "NewHotKeyIsSameWithOld": _fix("name a hotkey other than the present one"),
    "NewHotKeyNotCleanForRootSwap": _fix("swap to a hotkey that was never used on root"),
    "HotKeySetTxRateLimitExceeded": _wait("until the rate limit of hotkey swaps has passed"),
    "HotKeySwapOnSubnetIntervalNotPassed": _wait("until the interval between hotkey swaps has passed"),
    "ColdKeyAlreadyAssociated": _fix("name a coldkey that was never used"),
    "NewColdKeyIsHotkey": _fix("name a coldkey that is no hotkey"),
    "ColdkeySwapAnnouncementNotFound": _fix("announce the swap first"),
    "ColdkeySwapTooEarly": _wait("until the announced swap's delay has passed"),
    "ColdkeySwapReannouncedTooEarly": _wait("until the delay between announcements has passed"),
    "ColdkeySwapClearTooEarly": _wait("until the announcement may be cleared"),
    "ColdkeySwapTooHeavy": _fix("reduce the coldkey's positions: the swap does not fit a block"),
    "AnnouncedColdkeyHashDoesNotMatch": _fix("swap to the coldkey that was announced"),
    "InvalidIdentity": _fix("shorten the identity's texts: each has a longest length"),
    "EvmKeyAssociateRateLimitExceeded": _wait("until the rate limit of EVM key associations has passed"),
    "EvmKeyAssociationLimitExceeded": _give_up("no more EVM keys can be associated"),
    "UnableToRecoverPublicKey": _fix("sign the association with the EVM key again"),
    "InvalidRecoveredPublicKey": _fix("sign the association with the EVM key that is named"),
    "TooManyFieldsInCommitmentInfo": _fix("publish fewer fields in one commitment"),
    "UnexpectedUnreserveLeftover": _give_up("the chain's deposits do not add up: please report it"),
    "TimelockRevealFailedNotAllowed": _fix("publish a timelocked field for a later round"),
    "CommitPayloadTooLarge": _fix("commit fewer weights: a timelocked commit holds 5000 bytes"),
    "CommitQueueFull": _wait("until the subnet's next epoch has opened its commits"),
    # children, takes, locks, collateral
    "InvalidChild": _fix("a hotkey can't be its own child"),
    "DuplicateChild": _fix("name each child once"),
    "TooManyChildren": _fix("name at most 5 children"),
    "ProportionOverflow": _fix("shares of the children add up to at most 1"),
    "ChildParentInconsistency": _fix("a hotkey can't be child and parent of another on one subnet"),
    "InvalidChildkeyTake": _fix("choose a child key take of at most 18 %"),
    "TxChildkeyTakeRateLimitExceeded": _wait("until 216000 blocks after the last change of this take"),
    "SameAutoStakeHotkeyAlreadySet": _give_up("it is already set"),
    "LockHotkeyMismatch": _fix("name the hotkey on which the stake is locked"),
    "InsufficientStakeForLock": _fix("lock no more than is staked"),
    "NoExistingLock": _give_up("there is no lock"),
    "ActiveLockExists": _wait("until the lock ends"),
    "UnlockAmountTooHigh": _fix("unlock no more than is locked"),
    "AccountRejectsLockedAlpha": _fix("the receiver takes no locked alpha: send what is not locked"),
    "LockIdOverFlow": _give_up("the chain has no more numbers for locks: please report it"),
    "KeepStakeBlockedByCollateral": _fix("release the collateral first"),
    "ColdkeyCollateralIncomplete": _fix("add the collateral that the subnet asks for"),
    "ColdkeyCollateralPositionsFull": _fix("close another collateral position first"),
    "InsufficientAlphaBalance": _fix("ask for no more alpha than there is"),
    "NotEnoughAlphaOutToRecycle": _fix("recycle no more alpha than the subnet has issued"),
    "CannotBurnOrRecycleOnRootSubnet": _give_up("root's stake is TAO: it can't be burned or recycled"),
    "AddStakeBurnRateLimitExceeded": _wait("until the rate limit of buying back has passed"),
    "SubnetBuybackRateLimitExceeded": _wait("until the rate limit of buying back has passed"),
    "StakingRateLimitExceeded": _wait("until the next block"),
    "TooManyStakingHotkeys": _fix("stake on fewer hotkeys"),
    "RootClaimTooHeavy": _fix("claim from fewer subnets at once"),
    "RootStakeLocked": _wait("until the lock on root's stake ends"),
    "RootWeightSettingDisabled": _give_up("the root network takes no weights"),
    "RootWeightCapExceeded": _fix("spread the weights: one subnet has too much"),
    "BasketHasNoWeights": _fix("give the basket weights first"),
    "BasketSameSubnet": _fix("choose two different subnets"),
    "BasketSwapBatchEmpty": _fix("name at least one swap"),
    "BasketMinOutNotMet": _fix("accept less, or ask for less"),
    "BasketConcentrationCapExceeded": _fix("spread the basket"),
    "BasketLiquidityCapExceeded": _fix("ask for less"),
    "BasketTurnoverBudgetExceeded": _fix("trade less of the basket, or later"),
    "BetaBasketSeedInProgress": _wait("until the basket is seeded"),
    "BasketDepositPending": _wait("until the deposit is in"),
    "BasketTradingDisabled": _wait("until baskets may trade"),
    "BasketTradingFrozen": _wait("until baskets may trade again"),
    # leases and owners' settings
    **_each(
        "InvalidLeaseBeneficiary LeaseCannotEndInThePast LeaseNetuidNotFound LeaseDoesNotExist LeaseHasNoEndBlock "
        "BeneficiaryDoesNotOwnHotkey ExpectedBeneficiaryOrigin",
        _fix("check the lease's number, end and beneficiary"),
    ),
    "LeaseHasNotEnded": _wait("until the lease's end block"),
    "SymbolDoesNotExist": _fix("choose one of the chain's symbols"),
    "SymbolAlreadyInUse": _fix("choose a symbol that no subnet has"),
    "UidMapCouldNotBeCleared": _retry("trim to more uids, or in steps"),
    "TrimmingWouldExceedMaxImmunePercentage": _wait("until fewer neurons are immune"),
    "TooManyUIDsPerMechanism": _fix("lower MaxAllowedUids first: uids times mechanisms are at most 256"),
    "LiquidAlphaDisabled": _fix("enable liquid alpha first"),
    "VotingPowerTrackingNotEnabled": _fix("enable voting power tracking first"),
    "EpochTriggerAlreadyPending": _give_up("an epoch is already triggered"),
    "AutoEpochAlreadyImminent": _wait("for the epoch that is about to run"),
    "DynamicTempoBlockedByCommitReveal": _fix("switch commit-reveal off first"),
    **_each("CallDisabled Deprecated", _give_up("the chain has switched this call off for good")),
    "DisabledTemporarily": _wait("until the chain switches this call on again"),
    # the pool of a subnet
    # balances, proxies, batches
    **_each("LiquidityRestrictions VestingBalance", _wait("until the lock on the balance ends")),
    "ExistentialDeposit": _fix("send more: an account holds at least 500 rao"),
    "Expendability": _fix("leave at least 500 rao in the signing account"),
    "DeadAccount": _fix("fund the account first"),
    **_each("TooManyReserves TooManyHolds TooManyFreezes", _give_up("the account has too many locks")),
    "TooMany": _fix("remove a proxy first: an account has at most 20"),
    "NotFound": _give_up("there is no such proxy or entry"),
    "NoPermission": _fix("sign with the account that may make this call"),
    "Unannounced": _fix("announce the call, and wait the proxy's delay"),
    "NoSelfProxy": _fix("name another account as the proxy"),
    "AnnouncementDepositInvariantViolated": _give_up("the chain's deposits do not add up: please report it"),
    # multisig
    **_each(
        "MinimumThreshold TooFewSignatories TooManySignatories SignatoriesOutOfOrder SenderInSignatories",
        _fix("name the other signatories, sorted, with a threshold of 2 to their number"),
    ),
    **_each("AlreadyApproved AlreadyStored", _give_up("it is already approved")),
    "NoApprovalsNeeded": _fix("send the call itself: it has all approvals"),
    "NotOwner": _fix("sign with the account that opened it"),
    **_each(
        "NoTimepoint WrongTimepoint UnexpectedTimepoint", _replan("read the operation's timepoint on the chain again")
    ),
    "MaxWeightTooLow": _fix("allow the call more weight"),
    # the beacon and the shielded pool: for their authors
    **_each(
        "NoneValue StorageOverflow DrandConnectionFailure UnverifiedPulse InvalidRoundNumber PulseVerificationError",
        _give_up("pulses are handled by the chain: nothing to do here"),
    ),
    "BadEncKeyLen": _retry("encrypt with the chain's present shield key"),
    "TooManyPendingExtrinsics": _wait("until shielded extrinsics are in a block"),
    "WeightExceedsAbsoluteMax": _retry("too heavy for the block: split the batch"),
    # FRAME
    "BadOrigin": _fix("sign with the account that may make this call"),
    "RequireSudo": _fix("sign with the sudo key"),
    "CallFiltered": _give_up("the runtime filters this call here (a batch in a batch, a call beyond a proxy's type)"),
    "NotProxy": _fix("make the delegate a proxy of the account, of a type that allows the call"),
    "Unproxyable": _fix("make the delegate a proxy of a type that allows the call"),
    "Duplicate": _give_up("it is already set"),
    "TooManyCalls": _retry("split the batch"),
    "Exhausted": _retry("too heavy for the block: split the batch"),
    "NotRun": _retry("an earlier call of the batch failed and stopped it"),
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
        "FailedShieldedTxParsing WeightVecNotEqualSize InputLengthsUnequal DuplicateUids "
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

UNKNOWN = _fix("no rule for this error: look it up by its name in the runtime's metadata")


def action_for(name: str) -> Action:
    """What to do about an error, by its name without the pallet."""
    return ACTIONS.get(name.rsplit(".", 1)[-1], UNKNOWN)
