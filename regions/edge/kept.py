"""How long a session is kept after it has ended or fallen mute, so that what it wrote can still be sent. Pure.

1. nothing is left to send       → an ended one goes at once, a mute one after 10 s: its caller may come back to be refused
2. something is left             → it is kept for an hour; the spool has it afterwards. With the log away no call is created, so that
   there are no more of these than calls that had a ticket
"""

from __future__ import annotations

MUTE_KEPT_MS = 10_000
UNSENT_KEPT_MS = 3_600_000


class Kept:
    __slots__ = ("_since_ms",)

    def __init__(self) -> None:
        self._since_ms: int | None = None

    def over(self, now_ms: int, *, ended: bool, settled: bool) -> bool:
        """`ended`: else mute. `settled`: nothing is left to send. The first question starts the clock."""
        if self._since_ms is None:
            self._since_ms = now_ms
        waited_ms = now_ms - self._since_ms
        return (settled or waited_ms > UNSENT_KEPT_MS) and (ended or waited_ms > MUTE_KEPT_MS)
