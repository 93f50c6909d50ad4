"""Declared weights of calls: ref_time in picoseconds from a base time, storage reads and storage writes.

READ and WRITE are RocksDbWeight of Substrate's reference hardware.
"""

from __future__ import annotations

READ = 25_000_000
WRITE = 100_000_000


def ref_time(base: int, reads: int = 0, writes: int = 0) -> int:
    return base + reads * READ + writes * WRITE
