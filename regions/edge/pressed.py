"""How many of a caller's keys, and presses of its button, count, and what is told of the rest.

Each is an event in the log and at every webhook, so nobody presses them by the thousand. `Pressed` decides, and is pure. `Presses`
counts what was dropped, and writes a line of it: the first of a call at once, and then no more than one a minute.
"""

from __future__ import annotations

from collections import Counter, deque

import structlog

log = structlog.get_logger()

KEYS_MAX, WITHIN_MS = 50, 5_000
TOLD_EVERY_MS = 60_000


class Pressed:
    __slots__ = ("_at_ms",)

    def __init__(self) -> None:
        self._at_ms: deque[int] = deque(maxlen=KEYS_MAX)

    def counts(self, now_ms: int) -> bool:
        """False for one that follows `KEYS_MAX` others within `WITHIN_MS`."""
        if len(self._at_ms) == KEYS_MAX and now_ms - self._at_ms[0] < WITHIN_MS:
            return False
        self._at_ms.append(now_ms)
        return True


class Presses:
    """Of one ownership of a call. `kind`: ``key`` or ``button``. `dropped`: of the whole edge, by kind."""

    __slots__ = ("_call", "_dropped", "_epoch", "_here", "_kind", "_pressed", "_told_ms")

    def __init__(self, kind: str, call: str, epoch: int, dropped: Counter[str]) -> None:
        self._kind = kind
        self._call = call
        self._epoch = epoch
        self._dropped = dropped
        self._pressed = Pressed()
        self._here = 0
        self._told_ms: int | None = None

    def count(self, now_ms: int) -> bool:
        """False for one too many, which does nothing."""
        if self._pressed.counts(now_ms):
            return True
        self._here += 1
        self._dropped[self._kind] += 1
        if self._told_ms is None or now_ms - self._told_ms >= TOLD_EVERY_MS:
            self._told_ms = now_ms
            log.warning(
                "call.presses_dropped",
                call=self._call,
                epoch=self._epoch,
                kind=self._kind,
                dropped=self._here,
                most=KEYS_MAX,
                within_ms=WITHIN_MS,
            )
        return False
