"""When the next batch of events may go up.

A batch is answered after a while, and only so many may be under way. Sent whenever one may go, they leave together, and whatever
happens then waits until they are answered: up to a whole round trip to the log's standbys. So they are spread over the time that
an answer takes. Pure.

1. Nothing is under way                               → now
2. the batch before left something behind, being full → now
3. else, by a share of what an answer takes after the one before
"""

from __future__ import annotations

from regions.wire.uplink import BATCHES_IN_FLIGHT_MAX

GAP_MAX_S = 0.05
"""However slow the log is: by then as much is saved as can be."""
NEWEST_SHARE = 1 / 8


class Pace:
    """Times are of any clock that only goes forward, in seconds."""

    def __init__(self) -> None:
        self._answer_s = 0.0
        self._sent_s = 0.0
        self._full = False

    def wait_s(self, now_s: float, under_way: int) -> float:
        """How long until the next batch may go; 0 where it may. `under_way`: batches that are not answered."""
        if under_way == 0 or self._full:
            return 0.0
        gap_s = min(self._answer_s / BATCHES_IN_FLIGHT_MAX, GAP_MAX_S)
        return max(0.0, self._sent_s + gap_s - now_s)

    def sent(self, now_s: float, *, full: bool) -> None:
        """`full`: more was waiting than the batch could take."""
        self._sent_s, self._full = now_s, full

    def answered(self, took_s: float) -> None:
        """A batch was, so long after it was sent."""
        share = NEWEST_SHARE if self._answer_s else 1.0
        self._answer_s += share * (took_s - self._answer_s)
