"""Declared weights of calls: ref_time in picoseconds, from storage accesses or from the fee that the chain charges.

READ and WRITE are RocksDbWeight of Substrate's reference hardware. The fees are those of spec_version 475 for an
extrinsic of 100 bytes (the runtime's native_fee_rates pins).
"""

from __future__ import annotations

READ = 25_000_000
WRITE = 100_000_000


def ref_time(base: int, reads: int = 0, writes: int = 0) -> int:
    return base + reads * READ + writes * WRITE


def charged(fee_rao: int) -> int:
    """The ref_time of a call whose extrinsic of 100 bytes costs `fee_rao`: 4,000 ps a rao above base and length."""
    return (fee_rao - 27_039 - 50) * 4_000
