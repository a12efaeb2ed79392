"""When a lost backend is dialled again, and when it is given up on. Pure: times and the draw are parameters.

    lost ──0 to 50 ms──► attempt ──100 ms──► attempt ──200 ms──► … 2 s at most, each pause cut by up to a half ──deadline──► None

One *absence* lasts from the first loss until a backend has stayed for `STEADY_MS`: one that falls over each time it is dialled
is given up on after the same deadline as one that is never reached. The first attempt is spread, too: with a backend's process
all of its calls are lost in the same moment.
"""

from __future__ import annotations

FIRST_WITHIN_MS = 50
PAUSE_MS = 100
PAUSE_MAX_MS = 2_000
STEADY_MS = 5_000
FIRST_DIAL_MS = 2_000
"""A call's first backend is waited for so long where nobody is there: its caller hears nothing yet."""


class Redial:
    """`deadline_ms`: of an absence; 0: a backend that is lost is not dialled again."""

    def __init__(self, deadline_ms: int) -> None:
        self._deadline_ms = deadline_ms
        self._lost_ms: int | None = None
        self._up_ms: int | None = None
        self._sure = 0
        self.attempts = 0
        """Of this absence."""

    def lost(self, now_ms: int, *, sure: int = 0) -> None:
        """`sure`: so many attempts are made whatever the deadline (an owner that has just taken the call dials once)."""
        steady = self._up_ms is not None and now_ms - self._up_ms >= STEADY_MS
        if self._lost_ms is None or steady:
            self._lost_ms, self.attempts, self._sure = now_ms, 0, sure
        self._up_ms = None

    def up(self, now_ms: int) -> None:
        """An attempt has come to something."""
        self._up_ms = now_ms

    def away_ms(self, now_ms: int) -> int:
        """Since when there has been no backend that stayed."""
        return now_ms - self._lost_ms if self._lost_ms is not None else 0

    def left_ms(self, now_ms: int) -> int:
        return max(0, self._deadline_ms - self.away_ms(now_ms))

    def pause_ms(self, now_ms: int, draw: float) -> float | None:
        """Until the next attempt, which is counted; None: there is none any more. `draw`: from 0 to 1."""
        left_ms = self.left_ms(now_ms)
        if left_ms <= 0 and self.attempts >= self._sure:
            return None
        self.attempts += 1
        if self.attempts == 1:
            return draw * min(FIRST_WITHIN_MS, left_ms)
        pause_ms = min(PAUSE_MS << min(self.attempts - 2, 10), PAUSE_MAX_MS)
        return min(pause_ms * (1 - draw / 2), left_ms)
