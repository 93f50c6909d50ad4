"""The chain's fixed-point arithmetic on Python integers.

In: integers with the raw bits of an `I32F32` (value x 2^32 in an i64), unless a name says otherwise.
Out: the same, rounded exactly as in the crate `substrate-fixed`. Knows nothing of networks.

Rounding: products are floored (an arithmetic shift, also for negatives); quotients are truncated towards zero;
conversion to an integer drops the fraction; results out of range saturate, except in `safe_div`, which returns 0.
"""

ONE = 1 << 32
MAX = (1 << 63) - 1
MIN = -(1 << 63)
U16_MAX = 65535
ONE64 = 1 << 64  # 1.0 of an I64F64, the type of stake
MAX64 = (1 << 127) - 1
E = 11_674_931_200  # e as the crate's I9F23 constant holds it, widened: exp(1) is exactly this


def saturate(bits: int) -> int:
    """The nearest value in the range of an I32F32."""
    return MAX if bits > MAX else MIN if bits < MIN else bits


def add(a: int, b: int) -> int:
    """`saturating_add`."""
    return saturate(a + b)


def sub(a: int, b: int) -> int:
    """`saturating_sub`."""
    return saturate(a - b)


def mul(a: int, b: int) -> int:
    """`saturating_mul`: floor of the product."""
    return saturate((a * b) >> 32)


def _quotient(a: int, b: int, fraction_bits: int) -> int:
    """(a << fraction_bits) / b, truncated towards zero; b is not 0."""
    magnitude = (abs(a) << fraction_bits) // abs(b)
    return magnitude if (a < 0) == (b < 0) else -magnitude


def div(a: int, b: int) -> int:
    """`saturating_div`; b is not 0."""
    return saturate(_quotient(a, b, 32))


def safe_div(a: int, b: int) -> int:
    """`safe_div` of the chain's safe-math: 0 if b is 0 or the quotient is out of range."""
    if b == 0:
        return 0
    bits = _quotient(a, b, 32)
    return bits if MIN <= bits <= MAX else 0


def safe_div64(a: int, b: int) -> int:
    """`safe_div` of two I64F64."""
    if b == 0:
        return 0
    bits = _quotient(a, b, 64)
    return bits if -MAX64 - 1 <= bits <= MAX64 else 0


def fixed64_to_fixed32(bits: int) -> int:
    """I64F64 to I32F32: the lower 32 fraction bits are dropped (floor)."""
    return saturate(bits >> 32)


def from_int(value: int) -> int:
    """`saturating_from_num` of an integer."""
    return saturate(value << 32)


def u16_proportion_to_fixed(value: int) -> int:
    """value / 65535: 65535 gives exactly 1, 32767 less than a half."""
    return safe_div(from_int(value), from_int(U16_MAX))


def to_unsigned(bits: int, width: int) -> int:
    """`saturating_to_num::<u16 or u64>`: the integer part, 0 for negatives."""
    return min(max(bits >> 32, 0), (1 << width) - 1)


def fixed_proportion_to_u16(bits: int) -> int:
    """floor(x * 65535), as the chain stores proportions."""
    return to_unsigned(mul(bits, from_int(U16_MAX)), 16)


def round_half_away(bits: int) -> int:
    """`round()`: to the nearest integer, halves away from zero."""
    whole = ((abs(bits) + (ONE >> 1)) >> 32) << 32
    return saturate(whole if bits >= 0 else -whole)


def exp(x: int) -> int | None:
    """e^x as `transcendental::exp` computes it: a Taylor series with terms up to index 31.

    Each term is the floored product of the last one with x, divided by its index and truncated; a negative x gives
    1 / e^|x|. None if the crate reports an overflow. Near 20 the series is too short; its error is part of the result.
    """
    if x == 0:
        return ONE
    if x == ONE:
        return E
    operand = abs(x)
    result = operand + ONE
    term = operand
    for i in range(2, 32):
        term = (term * operand) >> 32
        if term > MAX:
            return None
        term //= i
        result += term
        if result > MAX:
            return None
    return ONE * ONE // result if x < 0 else result


def exp_safe(x: int) -> int:
    """`exp_safe` of the pallet's math.rs: the argument is clamped to [-20, 20]."""
    limit = from_int(20)
    x = max(-limit, min(limit, x))
    result = exp(x)
    if result is None:
        return 0 if x <= 0 else MAX
    return result
