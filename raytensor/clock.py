"""Durations that survive a suspended machine and a clock that is set.

`time.time` jumps when somebody sets the clock; on Linux `time.monotonic` stands still while the machine is suspended.
Unix time is for what people read and for files; everything that lasts is measured with `since_boot`.
"""

import time
from pathlib import Path

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def since_boot() -> float:
    """Seconds since this machine started, suspended time included; equal for all its processes."""
    return time.clock_gettime(_CLOCK)


def boot_id() -> str:
    """What `since_boot` counts from: another text after each start of the machine; "?" where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "?"
