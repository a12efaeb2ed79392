"""Time as a parameter: whoever decides takes a `now`; only the edges of the program ask this clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "SystemClock", "at_ms", "ms_of", "rfc3339"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Wall time for records, monotonic time for waits. The wall clock may jump; nothing waits by it."""

    def now(self) -> datetime: ...
    def now_ms(self) -> int: ...
    def monotonic_s(self) -> float: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()


def at_ms(ms: int) -> datetime:
    """Unix milliseconds as an aware UTC datetime, exact to the millisecond."""
    return _EPOCH + timedelta(milliseconds=ms)


def ms_of(at: datetime) -> int:
    """Unix milliseconds, rounded down; the inverse of `at_ms`."""
    return int(at.replace(microsecond=0).timestamp()) * 1000 + at.microsecond // 1000


def time_of(at_ms: int) -> datetime:
    """The other way round from `ms_of`."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def rfc3339(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds and `Z`."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    return at.isoformat(timespec="milliseconds")[:-6] + "Z"
