"""How long a call has lasted. Pure: `now_ms` is a parameter, of the clock of leases.

That clock counts within one owner, and no correction of the wall clock moves it; from owner to owner goes what has elapsed, in
the caller's snapshot. What lies between the last snapshot and the take is not counted. The moment of the answer, by the wall
clock, is kept for the record and nothing is decided by it.
"""

from __future__ import annotations

from regions.wire.snapshot import CallSnapshot

TOLD_EVERY_MS = 30_000
"""A snapshot is renewed so often where nothing else asks for it, so that a quiet call does not grow longer with its owners."""


class CallTime:
    __slots__ = ("_answered_at_ms", "_before_ms", "_since_ms", "_told_ms")

    def __init__(self, now_ms: int, answered_at_ms: int, before_ms: int = 0) -> None:
        self._answered_at_ms = answered_at_ms
        self._before_ms = before_ms
        self._since_ms = self._told_ms = now_ms

    def elapsed_ms(self, now_ms: int) -> int:
        return self._before_ms + now_ms - self._since_ms

    def stale(self, now_ms: int) -> bool:
        """The caller's snapshot says much too little."""
        return now_ms - self._told_ms > TOLD_EVERY_MS

    def into(self, snapshot: CallSnapshot, now_ms: int) -> None:
        snapshot.answered_at_ms = self._answered_at_ms
        snapshot.elapsed_ms = self.elapsed_ms(now_ms)
        self._told_ms = now_ms
