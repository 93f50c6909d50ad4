"""The chain's rounding on machine integers, in a form that compiles to vector instructions.

In and out: int64 bits of I32F32 from 0 to 1 (2^32), unless said otherwise. Each function states the range in which it
equals `fixed.py`; the values of an epoch stay in that range. Knows nothing of networks.
"""

import numpy as np

from raytensor.consensus.kernels.jit import part

ONE = 1 << 32
_SHIFT = np.uint64(32)
_SIGN = np.uint64(63)
_LOW = np.uint64(0xFFFFFFFF)
# A quotient estimated with this factor is never below the true one, and above it by less than 1.
_UP = 1.0 + 2.0**-50


@part
def mul(a, b):
    """floor(a * b / 2^32) for 0 <= a, b <= 2^32. Only 1 * 1 overflows, to 0; the last term corrects that."""
    return np.int64((np.uint64(a) * np.uint64(b)) >> _SHIFT) + (a & b & ONE)


@part
def inverse(b):
    """The factor for `ratio`: 2^32 / b, rounded up; 0 for b = 0, where the chain does not divide."""
    return ONE / b * _UP if b > 0 else 0.0


@part
def ratio(a, b, inverse_b):
    """floor(a * 2^32 / b) for 0 <= a <= b < 2^61.

    The float estimate is the quotient or one more: its relative error is below 2^-49.9 and the quotient at most 2^32.
    The remainder decides; it is computed modulo 2^64 (unsigned: a signed overflow would be undefined), which is enough
    as it lies between -b and b.
    """
    q = np.int64(a * inverse_b)
    remainder = (np.uint64(a) << _SHIFT) - np.uint64(q) * np.uint64(b)
    return q - np.int64(remainder >> _SIGN)


@part
def share(count, factor):
    """floor(count * 2^32 / total) for a u16 count; factor = 1 / total, or 0 for a total of 0.

    Exact for every total: the added half keeps the quotient 0.5 / total away from the next integer, and the error
    of the float product is smaller while count * 2^32 < 2^50.
    """
    return np.int64((count * 4294967296.0 + 0.5) * factor)


@part
def to_u16(x):
    """floor(x * 65535 / 2^32)."""
    return (x * 65535) >> 32


@part
def from_u16(count):
    """floor(count * 2^32 / 65535): 2^32 = 65537 * 65535 + 1, so only 65535 gets the extra unit."""
    return count * 65537 + np.int64(count == 65535)


@part
def to_rao(x, emission):
    """floor(x * emission / 2^32) for a uint64 emission, without 128-bit products."""
    ux = np.uint64(x)
    return ux * (emission >> _SHIFT) + ((ux * (emission & _LOW)) >> _SHIFT)


@part
def blend(w, clipped, penalty):
    """w + floor(penalty * (clipped - w) / 2^32) for clipped <= w: the negative product is floored, away from 0."""
    product = np.uint64(penalty) * np.uint64(w - clipped) + _LOW
    return w - np.int64(product >> _SHIFT) if penalty < ONE else clipped
