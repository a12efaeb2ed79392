"""The right to speak for a call: renewed by the attached caller alone, and ended by silence. Pure: `now_ms` is a parameter.

An owner sends audio and tool calls only under its lease. The ticket grants it; it ends `LEASE_MS` after the newest stamp
the caller has echoed. A stamp is this lease's own clock reading plus a random base, so a stamp that lay in a buffer renews
as little as it is old, and one of another edge or another epoch is out of range and renews nothing. The control plane can
end a lease, never extend it.
"""

from __future__ import annotations

from regions.wire.media import LEASE_MS


class Lease:
    __slots__ = ("_base", "_ended", "_newest_ms", "_started_ms")

    def __init__(self, now_ms: int, base: int) -> None:
        self._base = base
        self._started_ms = now_ms
        self._newest_ms = now_ms
        self._ended = False

    def stamp(self, now_ms: int) -> int:
        """What goes out with every message at `now_ms`."""
        return self._base + now_ms - self._started_ms

    def echo(self, stamp: int, now_ms: int) -> bool:
        """Takes a stamp the caller has echoed; False where it is not one of ours. Never revives a lease that has ended."""
        at_ms = stamp - self._base + self._started_ms
        if not self._started_ms <= at_ms <= now_ms:
            return False
        if self.holds(now_ms):
            self._newest_ms = max(self._newest_ms, at_ms)
        return True

    def age_ms(self, stamp: int, now_ms: int) -> int:
        """How long ago a stamp of ours went out."""
        return now_ms - (stamp - self._base + self._started_ms)

    def holds(self, now_ms: int) -> bool:
        if not self._ended and now_ms - self._newest_ms > LEASE_MS:
            self._ended = True
        return not self._ended

    def end(self) -> None:
        self._ended = True
