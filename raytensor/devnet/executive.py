"""Validation and application of extrinsics: signature, mortality, nonce, limits, fees, the extensions' checks.

In: decoded extrinsics. Out: for the pool a verdict; for a block the state changes and events of one extrinsic.
Knows nothing of queues (pool.py) or of the schedule of blocks (author.py).
Order of checks: the runtime's TxExtension tuple. A signature is verified once, when the extrinsic enters the pool.
"""

from collections.abc import Callable
from typing import NamedTuple

from raytensor.devnet.extrinsic import Extrinsic
from raytensor.devnet.pallet import Call, DispatchError, Origin, PostInfo, Unsigned
from raytensor.devnet.pallets.mev_shield import MAX_ERA_BLOCKS, is_carrier
from raytensor.devnet.pallets.system import (
    EXTRINSIC_BASE_WEIGHT,
    MAX_BLOCK_LENGTH,
    MAX_BLOCK_WEIGHT,
    NORMAL_SHARE,
    DispatchEventInfo,
    Weight,
)
from raytensor.devnet.runtime import Runtime
from raytensor.devnet.subtensor.alpha_fees import AlphaFee

PRIORITY = {"Normal": 1, "Operational": 10**10}  # a tip does not change it

# InvalidTransaction variants with the messages of sp_runtime::transaction_validity, which clients match on.
REASONS = {
    "Call": "Transaction call is not expected",
    "Payment": "Inability to pay some fees (e.g. account balance too low)",
    "Future": "Transaction will be valid in the future",
    "Stale": "Transaction is outdated",
    "BadProof": "Transaction has a bad signature",
    "AncientBirthBlock": "Transaction has an ancient birth block",
    "ExhaustsResources": "Transaction would exhaust the block limits",
    "BadSigner": "Invalid signing address",
}


class InvalidTransaction(Exception):
    """An extrinsic that cannot be in a block. `reason`: a key of REASONS, or "Custom" with a `code`."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        self.reason, self.code = reason, code
        self.text = f"Custom error: {code}" if reason == "Custom" else REASONS[reason]
        super().__init__(self.text)


class UnknownTransaction(Exception):
    """An extrinsic without a signer that no pallet accepts."""

    text = "Could not find an unsigned validator for the unsigned transaction"


class Validity(NamedTuple):
    """The pool's verdict on an extrinsic.

    valid_till  first block that cannot include it; None for an immortal one.
    account     the account whose nonce orders it; without a signer its tag, of which the pool holds one.
    tag         another tag of which the pool holds one; None for most.
    """

    priority: int
    valid_till: int | None
    account: bytes
    tag: bytes | None = None


class Executive:
    """Validates and applies extrinsics on one runtime. `block_hash(number)`: hash of a block, for eras, or None."""

    def __init__(self, runtime: Runtime, genesis_hash: bytes, block_hash: Callable[[int], bytes | None]) -> None:
        self.runtime, self.genesis_hash, self.block_hash = runtime, genesis_hash, block_hash
        self._max_length = {"Normal": int(MAX_BLOCK_LENGTH * NORMAL_SHARE), "Operational": MAX_BLOCK_LENGTH}
        limits = runtime.System.constant("BlockWeights").per_class
        self._max_extrinsic = {
            "Normal": limits.normal.max_extrinsic.ref_time,
            "Operational": limits.operational.max_extrinsic.ref_time,
        }
        self._max_total = {"Normal": limits.normal.max_total.ref_time, "Operational": MAX_BLOCK_WEIGHT}
        self.block_length = 0

    def validate(self, extrinsic: Extrinsic) -> Validity:
        """Check a new extrinsic as of the runtime's block, the pool's within `Runtime.in_next_block`.
        Raises `InvalidTransaction` or `UnknownTransaction`.
        """
        runtime, signer = self.runtime, extrinsic.signer
        current = runtime.block_number
        if signer is None:
            verdict = self._validate_unsigned(extrinsic.call)
            return Validity(verdict.priority, current + verdict.longevity_blocks, verdict.tag)
        era_hash = self.block_hash(extrinsic.birth(current)) if extrinsic.era else self.genesis_hash
        if era_hash is None:
            raise InvalidTransaction("AncientBirthBlock")
        versions = runtime.version.spec_version, runtime.version.transaction_version
        if not extrinsic.verify(extrinsic.payload(*versions, self.genesis_hash, era_hash)):
            raise InvalidTransaction("BadProof")
        if signer == bytes(32):
            raise InvalidTransaction("BadSigner")
        if extrinsic.nonce < runtime.System.Account[signer].nonce:
            raise InvalidTransaction("Stale")
        call = extrinsic.call
        kind, weight = runtime.class_of(call), runtime.weight(call)
        if len(extrinsic.raw) > self._max_length[kind] or weight > self._max_extrinsic[kind]:
            raise InvalidTransaction("ExhaustsResources")
        self._affordable(extrinsic, weight)
        if call.pallet == "Sudo" and signer != runtime.Sudo.Key.get():
            raise InvalidTransaction("BadSigner")
        if is_carrier(call):
            self._check_carrier(extrinsic)
        self._precheck(Origin.signed(signer), call)
        tag = runtime.SubtensorModule.pool_tag(signer, call)
        return Validity(PRIORITY[kind], extrinsic.death(current), signer, tag)

    def _validate_unsigned(self, call: Call) -> Unsigned:
        verdict = self.runtime.pallets[call.pallet].validate_unsigned(call)
        if verdict is None:
            raise UnknownTransaction
        if verdict.refusal is not None:
            raise InvalidTransaction(verdict.refusal)
        return verdict

    def start_block(self) -> None:
        self.block_length = 0

    def apply(self, extrinsic: Extrinsic, index: int) -> None:
        """Apply a pooled extrinsic as number `index` of the open block; the events say whether its call succeeded.
        Raises `InvalidTransaction` and changes nothing if it cannot be in this block.
        """
        runtime, signer, call = self.runtime, extrinsic.signer, extrinsic.call
        if signer is None:
            self._validate_unsigned(call)
        else:
            nonce = runtime.System.Account[signer].nonce
            if extrinsic.nonce != nonce:
                raise InvalidTransaction("Stale" if extrinsic.nonce < nonce else "Future")
        kind, weight, length = runtime.class_of(call), runtime.weight(call), len(extrinsic.raw)
        used, total = runtime.used_weight, weight + EXTRINSIC_BASE_WEIGHT
        if (
            self.block_length + length > self._max_length[kind]
            or used[kind] + total > self._max_total[kind]
            or sum(used.values()) + total > MAX_BLOCK_WEIGHT
        ):
            raise InvalidTransaction("ExhaustsResources")
        origin = Origin() if signer is None else Origin.signed(signer)
        payer, fee, alpha = (None, 0, None) if signer is None else self._affordable(extrinsic, weight)
        runtime.phase = ("ApplyExtrinsic", index)
        self._precheck(origin, call)
        if alpha is not None:
            if not runtime.SubtensorModule.pay_in_alpha(payer, alpha):
                raise InvalidTransaction("Payment")
        elif fee:
            runtime.Balances.withdraw(payer, fee, keep_alive=True, emit=True)
        self.block_length += length
        if signer is not None:
            runtime.System.inc_nonce(signer)
        error, post = None, PostInfo()
        try:
            post = runtime.dispatch(origin, call)
        except DispatchError as raised:
            error = raised.value
        actual = weight if post.weight is None else min(post.weight, weight)
        used[kind] += actual + EXTRINSIC_BASE_WEIGHT
        pays = runtime.pays(call) and post.pays is not False
        if payer is not None:
            self._settle(extrinsic, payer, fee, actual, pays, in_alpha=alpha is not None)
        info = DispatchEventInfo(Weight(actual, 0), kind, "Yes" if pays else "No")
        if error is None:
            runtime.System.emit("ExtrinsicSuccess", info)
        else:
            runtime.System.emit("ExtrinsicFailed", error, info)

    def apply_inherent(self, call: Call, index: int) -> None:
        """Apply an inherent of the block's author, which never fails."""
        runtime = self.runtime
        runtime.phase = ("ApplyExtrinsic", index)
        weight = runtime.weight(call)
        runtime.dispatch(Origin(), call)
        runtime.used_weight["Mandatory"] += weight
        runtime.System.emit("ExtrinsicSuccess", DispatchEventInfo(Weight(weight, 0), "Mandatory", "Yes"))

    def _affordable(self, extrinsic: Extrinsic, weight: int) -> tuple[bytes, int, AlphaFee | None]:
        """(payer, fee in rao, the alpha that pays it for lack of TAO). Raises InvalidTransaction Payment."""
        runtime, call = self.runtime, extrinsic.call
        payer = runtime.Proxy.fee_payer(extrinsic.signer, call)
        fee = extrinsic.tip
        if runtime.pays(call):
            fee = runtime.TransactionPayment.fee(len(extrinsic.raw), weight, extrinsic.tip)
        if not fee or runtime.Balances.reducible(payer) >= fee:
            return payer, fee, None
        alpha = runtime.SubtensorModule.alpha_fee(payer, call, fee)
        if alpha is None:
            raise InvalidTransaction("Payment")
        return payer, fee, alpha

    def _settle(self, extrinsic: Extrinsic, payer: bytes, taken: int, weight: int, pays: bool, in_alpha: bool) -> None:
        """Refund the part of the fee that was not used, pay the author, emit what was paid. A fee in alpha is not
        refunded, and the author has received it already.
        """
        runtime, fee = self.runtime, extrinsic.tip
        if pays:
            fee = runtime.TransactionPayment.fee(len(extrinsic.raw), weight, extrinsic.tip)
        if not in_alpha:
            if taken > fee:
                fee = taken - self._deposit(payer, taken - fee)
            if fee:
                self._deposit(runtime.author, fee)
        runtime.TransactionPayment.emit("TransactionFeePaid", payer, fee, extrinsic.tip)

    def _deposit(self, who: bytes, amount: int) -> int:
        """Deposit rao and return the amount; 0 if it is too little to create the account, then it is burned."""
        try:
            self.runtime.Balances.deposit(who, amount, emit=True)
        except DispatchError:
            return 0
        return amount

    def _check_carrier(self, extrinsic: Extrinsic) -> None:
        """CheckMortality and CheckShieldedTxValidity of an encrypted extrinsic."""
        if extrinsic.era is None or extrinsic.era[0] > MAX_ERA_BLOCKS:
            raise InvalidTransaction("Stale")
        code = self.runtime.MevShield.refusal(extrinsic.call)
        if code is not None:
            raise InvalidTransaction("Custom", code)

    def _precheck(self, origin: Origin, call: Call) -> None:
        """The extensions' checks; a refusal becomes an InvalidTransaction with its code."""
        try:
            self.runtime.precheck(origin, call)
        except DispatchError as error:
            if not error.pallet:
                raise InvalidTransaction("Call") from None
            codes = self.runtime.pallets[error.pallet].custom_codes
            raise InvalidTransaction("Custom", codes.get(error.name, 255)) from None
