"""The clock of leases: it counts the time in which the machine or the process was suspended."""

from __future__ import annotations

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def lease_ms() -> int:
    """Milliseconds since boot, suspension included (CLOCK_BOOTTIME; CLOCK_MONOTONIC where there is none)."""
    return time.clock_gettime_ns(_CLOCK) // 1_000_000


def wall_ms() -> int:
    """Unix milliseconds, for what is written down."""
    return time.time_ns() // 1_000_000
