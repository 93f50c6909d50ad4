"""Multisig (13): accounts that dispatch a call when enough of a fixed set of signatories approve it.

In: approvals of a call or of its hash. Out: the call, dispatched by the multisig account, which is derived from the
sorted signatories and the threshold. The first approver reserves a deposit until the call is dispatched or cancelled.
The error of an inner call is only in `MultisigExecuted`. Source: pallet_multisig.
"""

from __future__ import annotations

from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Call, DispatchError, Origin, Pallet, PostInfo, StorageMap, call
from raytensor.devnet.typedefs import declare_struct

DEPOSIT_BASE, DEPOSIT_FACTOR = 108_000_000, 32_000_000  # rao: one item of 88 bytes; 32 bytes per required approval
MAX_SIGNATORIES = 100

Timepoint = declare_struct(
    "Timepoint", {"height": "u32", "index": "u32"}, "pallet_multisig::Timepoint", params=(("BlockNumber", "u32"),)
)
MultisigOperation = declare_struct(
    "Multisig",
    {
        "when": "Timepoint",
        "deposit": "u64",
        "depositor": "AccountId32",
        "approvals": f"BoundedVec<AccountId32, {MAX_SIGNATORIES}>",
    },
    "pallet_multisig::Multisig",
    params=(("BlockNumber", "u32"), ("Balance", "u64"), ("AccountId", "AccountId32"), ("MaxApprovals", None)),
)


def multisig_account(signatories: list[bytes], threshold: int) -> bytes:
    """The account of sorted signatories (pallet_multisig::multi_account_id)."""
    count = len(signatories)
    length = (count << 2).to_bytes(1, "little") if count < 64 else (count << 2 | 1).to_bytes(2, "little")
    return blake2_256(b"modlpy/utilisuba" + length + b"".join(signatories) + threshold.to_bytes(2, "little"))


def _inner_weight(position: int):
    return lambda pallet, args: 50_000_000 + pallet.runtime.weight(args[position])


class Multisig(Pallet):
    name, index = "Multisig", 13
    Multisigs = StorageMap(
        [("Twox64Concat", "AccountId32"), ("Blake2_128Concat", "[u8; 32]")], "Multisig", optional=True
    )
    constants = {
        "DepositBase": ("u64", DEPOSIT_BASE),
        "DepositFactor": ("u64", DEPOSIT_FACTOR),
        "MaxSignatories": ("u32", MAX_SIGNATORIES),
    }
    _operation = {"timepoint": "Timepoint", "multisig": "AccountId32", "call_hash": "[u8; 32]"}
    _progress = {"approving": "AccountId32", **_operation}
    _deposits = {"old_deposit": "u64", "new_deposit": "u64"}
    events = {
        "NewMultisig": (0, {"approving": "AccountId32", "multisig": "AccountId32", "call_hash": "[u8; 32]"}),
        "MultisigApproval": (1, _progress),
        "MultisigExecuted": (2, {**_progress, "result": "Result<(), DispatchError>"}),
        "MultisigCancelled": (3, {"cancelling": "AccountId32", **_operation}),
        "DepositPoked": (4, {"who": "AccountId32", "call_hash": "[u8; 32]", **_deposits}),
    }
    errors = """MinimumThreshold AlreadyApproved NoApprovalsNeeded TooFewSignatories TooManySignatories
        SignatoriesOutOfOrder SenderInSignatories NotFound NotOwner NoTimepoint WrongTimepoint
        UnexpectedTimepoint MaxWeightTooLow AlreadyStored""".split()

    @call(0, weight=_inner_weight(1))
    def as_multi_threshold_1(self, origin: Origin, other_signatories: "Vec<AccountId32>", call: "RuntimeCall"):
        account = multisig_account(self._signatories(origin.ensure_signed(), other_signatories), 1)
        return self.runtime.dispatch(Origin.signed(account), call)

    @call(1, weight=_inner_weight(3))
    def as_multi(
        self,
        origin: Origin,
        threshold: "u16",
        other_signatories: "Vec<AccountId32>",
        maybe_timepoint: "Option<Timepoint>",
        call: "RuntimeCall",
        max_weight: "Weight",
    ):
        """Approve a call, and dispatch it if this approval is the last one required."""
        call_hash = blake2_256(self.runtime.codecs("RuntimeCall").encode(call))
        self._approve(origin, threshold, other_signatories, maybe_timepoint, call_hash, call, max_weight)

    @call(2, weight=60_000_000)
    def approve_as_multi(
        self,
        origin: Origin,
        threshold: "u16",
        other_signatories: "Vec<AccountId32>",
        maybe_timepoint: "Option<Timepoint>",
        call_hash: "[u8; 32]",
        max_weight: "Weight",
    ):
        """Approve a call by its hash; the last approval needs the call itself."""
        self._approve(origin, threshold, other_signatories, maybe_timepoint, call_hash, None, max_weight)

    @call(3, weight=60_000_000)
    def cancel_as_multi(
        self,
        origin: Origin,
        threshold: "u16",
        other_signatories: "Vec<AccountId32>",
        timepoint: "Timepoint",
        call_hash: "[u8; 32]",
    ):
        """Cancel an operation; only its depositor can."""
        who, account = self._account(origin, threshold, other_signatories)
        operation = self.Multisigs[account, call_hash]
        if operation is None:
            raise self.error("NotFound")
        if operation.when != timepoint:
            raise self.error("WrongTimepoint")
        if operation.depositor != who:
            raise self.error("NotOwner")
        self.runtime.Balances.unreserve(who, operation.deposit)
        del self.Multisigs[account, call_hash]
        self.emit("MultisigCancelled", who, timepoint, account, call_hash)

    @call(4, weight=60_000_000)
    def poke_deposit(
        self, origin: Origin, threshold: "u16", other_signatories: "Vec<AccountId32>", call_hash: "[u8; 32]"
    ):
        """Adjust a deposit to the current price; no fee if it changes."""
        who, account = self._account(origin, threshold, other_signatories)
        operation = self.Multisigs[account, call_hash]
        if operation is None:
            raise self.error("NotFound")
        if operation.depositor != who:
            raise self.error("NotOwner")
        old, new = operation.deposit, DEPOSIT_BASE + DEPOSIT_FACTOR * threshold
        if old == new:
            return None
        if new > old:
            self.runtime.Balances.reserve(who, new - old)
        else:
            self.runtime.Balances.unreserve(who, old - new)
        self.Multisigs[account, call_hash] = operation._replace(deposit=new)
        self.emit("DepositPoked", who, call_hash, old, new)
        return PostInfo(pays=False)

    def _signatories(self, who: bytes, others: tuple) -> list[bytes]:
        if not others:
            raise self.error("TooFewSignatories")
        if len(others) >= MAX_SIGNATORIES:
            raise self.error("TooManySignatories")
        for i, other in enumerate(others):
            if i and others[i - 1] >= other:
                raise self.error("SignatoriesOutOfOrder")
            if other == who:
                raise self.error("SenderInSignatories")
        return sorted((*others, who))

    def _account(self, origin: Origin, threshold: int, others: tuple) -> tuple[bytes, bytes]:
        """(signer, multisig account)."""
        who = origin.ensure_signed()
        if threshold < 2:
            raise self.error("MinimumThreshold")
        return who, multisig_account(self._signatories(who, others), threshold)

    def _approve(
        self, origin: Origin, threshold: int, others: tuple, timepoint, call_hash: bytes, call: Call | None, max_weight
    ) -> None:
        who, account = self._account(origin, threshold, others)
        operation = self.Multisigs[account, call_hash]
        if operation is None:
            self._begin(who, account, threshold, timepoint, call_hash)
            return
        if timepoint is None:
            raise self.error("NoTimepoint")
        if operation.when != timepoint:
            raise self.error("WrongTimepoint")
        approvals = operation.approvals
        counts = who not in approvals and len(approvals) < threshold
        if call is not None and len(approvals) + counts >= threshold:
            if self.runtime.weight(call) > max_weight.ref_time:
                raise self.error("MaxWeightTooLow")
            self.runtime.Balances.unreserve(operation.depositor, operation.deposit)
            del self.Multisigs[account, call_hash]
            self.emit("MultisigExecuted", who, timepoint, account, call_hash, self._execute(account, call))
            return
        if not counts:
            raise self.error("AlreadyApproved")
        self.Multisigs[account, call_hash] = operation._replace(approvals=tuple(sorted((*approvals, who))))
        self.emit("MultisigApproval", who, timepoint, account, call_hash)

    def _begin(self, who: bytes, account: bytes, threshold: int, timepoint, call_hash: bytes) -> None:
        if timepoint is not None:
            raise self.error("UnexpectedTimepoint")
        deposit = DEPOSIT_BASE + DEPOSIT_FACTOR * threshold
        self.runtime.Balances.reserve(who, deposit)
        self.Multisigs[account, call_hash] = MultisigOperation(self._now(), deposit, who, (who,))
        self.emit("NewMultisig", who, account, call_hash)

    def _now(self) -> Timepoint:
        phase = self.runtime.phase
        return Timepoint(self.runtime.block_number, phase[1] if isinstance(phase, tuple) else 0)

    def _execute(self, account: bytes, call: Call) -> tuple:
        try:
            self.runtime.dispatch(Origin.signed(account), call)
        except DispatchError as error:
            return ("Err", error.value)
        return ("Ok", ())
