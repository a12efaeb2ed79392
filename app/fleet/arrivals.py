"""When an edge was last heard, and how unusual its silence is. Pure: what was read and `now` come in, figures come out.

Time is the observer's own: the moment at which it saw the record of the edge's heartbeat change, less the half second at most
that the record may say it is old. Clocks of edges and of other instances are never compared, and the database's moves nothing by
more than that, so that one of them may be an hour off.

Suspicion is phi-accrual (Hayashibara and others, "The φ Accrual Failure Detector", 2004): phi = -log10 of the probability that
a heartbeat still comes after a silence of this length, by the normal distribution with the mean and deviation of the
latest `WINDOW` intervals, in the logistic approximation. An edge whose heartbeats come evenly is suspected early, one
behind a poor network later, and never outside of `SUSPECT_MIN_S` to `SUSPECT_MAX_S`, or a little sooner where others doubt it too.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

SUSPECT_MIN_S = 2.0
SUSPECT_MAX_S = 3.0
SUSPECT_DOUBTED_S = 1.6
PHI_SUSPECT = 8.0
PHI_DOUBTED = 3.0
"""Enough, and after less time, where the newest looks of the others failed as well."""
PHI_MAX = 99.0
WINDOW = 100
EXPECTED_S = 1.0
"""Heartbeats come once a second; so it is taken for before any was seen."""
DEVIATION_MIN_S = 0.15
FIRST_DEVIATION_S = 0.25
RECORD_AGE_MAX_S = 0.5
"""A record that has changed is so much older than the look at most, whatever the database's clock says."""
INTERVAL_MAX_S = 4.0
"""A longer interval is an outage, not the network's habit."""


@dataclass(slots=True)
class Arrivals:
    """One edge's heartbeats as one observer sees them. `proven`: it has been heard since the observer began to watch."""

    seen_at: datetime
    heard_s: float
    proven: bool = False
    watched_since_s: float = 0.0
    mean_s: float = EXPECTED_S
    deviation_s: float = FIRST_DEVIATION_S
    _intervals: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    @classmethod
    def first(cls, seen_at: datetime, db_silent_s: float, now_s: float) -> Arrivals:
        """At first sight only the record's own age is there to go by; one that lies in the future is no age."""
        return cls(seen_at, now_s - max(0.0, db_silent_s), watched_since_s=now_s)

    def look(self, seen_at: datetime, db_silent_s: float, now_s: float) -> None:
        """The record as it is now. One that has gone back is another history (a database that was replaced): begin again."""
        if seen_at < self.seen_at and db_silent_s > SUSPECT_MIN_S:
            self.heard_s, self.proven, self.watched_since_s = now_s - db_silent_s, False, now_s
        elif seen_at != self.seen_at:
            heard_s = now_s - min(max(0.0, db_silent_s), RECORD_AGE_MAX_S)
            interval_s = heard_s - self.heard_s
            if self.proven and 0 < interval_s <= INTERVAL_MAX_S:
                self._intervals.append(interval_s)
                self._measure()
            self.heard_s, self.proven = max(heard_s, self.heard_s), True
        self.seen_at = seen_at

    def forgive(self, gap_s: float) -> None:
        """The observer itself was away for so long: nobody's silence grows by it."""
        self.heard_s += gap_s
        self.watched_since_s += gap_s

    def silent_s(self, now_s: float) -> float:
        return max(0.0, now_s - self.heard_s)

    def _measure(self) -> None:
        """With two intervals that nobody measured, so that the first ones alone say little."""
        known = [EXPECTED_S - FIRST_DEVIATION_S, EXPECTED_S + FIRST_DEVIATION_S, *self._intervals]
        self.mean_s = sum(known) / len(known)
        variance = sum((i - self.mean_s) ** 2 for i in known) / len(known)
        self.deviation_s = max(DEVIATION_MIN_S, math.sqrt(variance))

    def phi(self, now_s: float) -> float:
        return phi(self.silent_s(now_s), self.mean_s, self.deviation_s)

    def late(self, now_s: float, *, doubted: bool = False) -> bool:
        silent_s = self.silent_s(now_s)
        if silent_s < (SUSPECT_DOUBTED_S if doubted else SUSPECT_MIN_S):
            return False
        return silent_s >= SUSPECT_MAX_S or self.phi(now_s) >= (PHI_DOUBTED if doubted else PHI_SUSPECT)


def phi(silent_s: float, mean_s: float, deviation_s: float) -> float:
    """From 0 to `PHI_MAX`."""
    y = (silent_s - mean_s) / deviation_s
    if y > 14:
        return PHI_MAX
    e = math.exp(-y * (1.5976 + 0.070566 * y * y)) if y > -14 else math.inf
    later = e / (1.0 + e) if e != math.inf else 1.0
    return PHI_MAX if later <= 0 else min(PHI_MAX, max(0.0, -math.log10(later)))
