"""The clocks of an edge: of leases, which counts the time in which the machine was suspended, of the wall, and of round trips."""

from __future__ import annotations

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def lease_ms() -> int:
    """Milliseconds since boot, suspension included (CLOCK_BOOTTIME; CLOCK_MONOTONIC where there is none)."""
    return time.clock_gettime_ns(_CLOCK) // 1_000_000


def wall_ms() -> int:
    """Unix milliseconds, for what is written down."""
    return time.time_ns() // 1_000_000


def precise_ms() -> float:
    """Milliseconds with their fractions, from any beginning, for round trips; an event loop's own clock stands still in a turn."""
    return time.perf_counter() * 1000
