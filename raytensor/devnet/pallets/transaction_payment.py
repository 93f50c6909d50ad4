"""TransactionPayment (6): fees of extrinsics, and the runtime APIs that estimate them.

In: weights in picoseconds of ref_time, lengths in bytes. Out: fees in rao. The block's author receives the fee.
Knows nothing of when a fee is charged (executive.py).
Formula of the runtime since spec 467: base weight and weight at 0.00025 rao per picosecond, 0.5 rao per byte, each
rounded to the nearest rao with ties down; multiplier 1.
"""

from __future__ import annotations

from raytensor.devnet.builtin import compact
from raytensor.devnet.extrinsic import decode_extrinsic
from raytensor.devnet.pallet import Call, Pallet, RuntimeApi, StorageValue, api
from raytensor.devnet.pallets.system import EXTRINSIC_BASE_WEIGHT, Weight
from raytensor.devnet.scale import declare_newtype, declare_struct

WEIGHT_FEE_PERBILL = 250_000  # parts of 10^9 rao per picosecond
LENGTH_FEE_PERBILL = 500_000_000  # parts of 10^9 rao per byte

declare_newtype("FixedU128", "u128", "sp_arithmetic::fixed_point::FixedU128")
RuntimeDispatchInfo = declare_struct(
    "RuntimeDispatchInfo",
    {"weight": "Weight", "class": "DispatchClass", "partial_fee": "u64"},
    "pallet_transaction_payment::types::RuntimeDispatchInfo",
    params=(("Balance", "u64"), ("Weight", "Weight")),
)
InclusionFee = declare_struct(
    "InclusionFee",
    {"base_fee": "u64", "len_fee": "u64", "adjusted_weight_fee": "u64"},
    "pallet_transaction_payment::types::InclusionFee",
    params=(("Balance", "u64"),),
)
FeeDetails = declare_struct(
    "FeeDetails",
    {"inclusion_fee": "Option<InclusionFee>", "tip": "u64"},
    "pallet_transaction_payment::types::FeeDetails",
    params=(("Balance", "u64"),),
)


def weight_fee(ref_time: int) -> int:
    """Fee in rao of `ref_time` picoseconds."""
    return _nearest(ref_time * WEIGHT_FEE_PERBILL)


def length_fee(length: int) -> int:
    """Fee in rao of `length` bytes."""
    return _nearest(length * LENGTH_FEE_PERBILL)


def _nearest(billionths: int) -> int:
    """A number of 10^-9 rao in rao: the nearest, a half rounded down (sp_arithmetic, Perbill * n)."""
    return (2 * billionths + 10**9 - 1) // (2 * 10**9)


BASE_FEE = weight_fee(EXTRINSIC_BASE_WEIGHT)


class TransactionPayment(Pallet):
    name, index = "TransactionPayment", 6
    NextFeeMultiplier = StorageValue("FixedU128", default=10**18)

    constants = {"OperationalFeeMultiplier": ("u8", 5)}
    events = {"TransactionFeePaid": (0, {"who": "AccountId32", "actual_fee": "u64", "tip": "u64"})}

    def fee(self, length: int, ref_time: int, tip: int = 0) -> int:
        """Fee in rao of a paying extrinsic of `length` bytes whose call has weight `ref_time`."""
        return BASE_FEE + length_fee(length) + weight_fee(ref_time) + tip


class TransactionPaymentApi(RuntimeApi):
    name, api_version = "TransactionPaymentApi", 4

    def _info(self, call: Call, length: int, tip: int = 0) -> RuntimeDispatchInfo:
        runtime = self.runtime
        ref_time = runtime.weight(call)
        # partial_fee excludes the tip
        fee = runtime.TransactionPayment.fee(length, ref_time) if runtime.pays(call) else 0
        return RuntimeDispatchInfo(Weight(ref_time, 0), runtime.class_of(call), fee)

    def _details(self, call: Call, length: int, tip: int = 0) -> FeeDetails:
        runtime = self.runtime
        if not runtime.pays(call):
            return FeeDetails(None, tip)
        return FeeDetails(InclusionFee(BASE_FEE, length_fee(length), weight_fee(runtime.weight(call))), tip)

    @api("RuntimeDispatchInfo")
    def query_info(self, uxt: "UncheckedExtrinsic", len: "u32"):
        extrinsic = decode_extrinsic(self.runtime.codecs, compact(_size(uxt)) + uxt)
        return self._info(extrinsic.call, len)

    @api("FeeDetails")
    def query_fee_details(self, uxt: "UncheckedExtrinsic", len: "u32"):
        extrinsic = decode_extrinsic(self.runtime.codecs, compact(_size(uxt)) + uxt)
        return self._details(extrinsic.call, len, extrinsic.tip)

    @api("u64")
    def query_weight_to_fee(self, weight: "Weight"):
        return weight_fee(weight.ref_time)

    @api("u64")
    def query_length_to_fee(self, length: "u32"):
        return length_fee(length)


class TransactionPaymentCallApi(RuntimeApi):
    name, api_version = "TransactionPaymentCallApi", 3
    _info, _details = TransactionPaymentApi._info, TransactionPaymentApi._details

    @api("RuntimeDispatchInfo")
    def query_call_info(self, call: "RuntimeCall", len: "u32"):
        return self._info(call, len)

    @api("FeeDetails")
    def query_call_fee_details(self, call: "RuntimeCall", len: "u32"):
        return self._details(call, len)

    @api("u64")
    def query_weight_to_fee(self, weight: "Weight"):
        return weight_fee(weight.ref_time)

    @api("u64")
    def query_length_to_fee(self, length: "u32"):
        return length_fee(length)


def _size(data: bytes) -> int:
    return data.__len__()  # `len` names an argument of the API
