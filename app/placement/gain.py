"""Whether a call that runs is moved because another region has been nearer for a while. Pure.

What was measured of its caller's way to where it is, what is believed of the ways elsewhere, and the rows so far come in, once for
each window of `WINDOW_S`; at most one region comes out. Only calls that have asked for it are looked at. The cases, in this order:

1. it has moved within `REST_S`                                        → no, and every row begins anew
2. nothing was measured of its way here in this window                 → no, and every row begins anew
3. a region whose belief rests on less than `CONFIDENCE_MIN`, or on anything but history or a measurement → its row begins anew
4. a region that is not nearer by `GAIN_MS` and by `GAIN_SHARE`        → its row begins anew
5. a region that has been nearer in fewer than `WINDOWS` in a row      → not yet
6. a region that may not or cannot take the call now                   → not now; its row goes on
7. else the nearest of those that are left

A way is the caller's and the backend's together: nearer to the one and farther from the other is no gain. Here counts the least of
what was measured in a window, elsewhere what a region has usually been slower by than at its best: noise on the way here gains
nothing, and a region has to be better than its own bad hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

WINDOW_S = 30.0
WINDOWS = 3
GAIN_MS = 40.0
GAIN_SHARE = 0.25
REST_S = 600.0
CONFIDENCE_MIN = 0.75
"""History of two hours at least; a network that is alike or wide, a place on the map and a guess are below it."""
SOURCES = frozenset({"history", "measured"})
NETWORKS_MAX = 100_000


class Way(NamedTuple):
    """One region. `ms`: from the caller to there and on to its backend. `open`: it may take this call, is healthy and has room."""

    region: str
    ms: float
    source: str
    confidence: float
    open: bool = True


@dataclass(frozen=True, slots=True)
class Gain:
    """`before_ms` here, `after_ms` there, in the window that decided."""

    region: str
    before_ms: float
    after_ms: float


Rows = Mapping[str, int]
"""Region → in how many windows it has been nearer, one after the other."""


def look(
    rows: Rows, here_ms: float | None, elsewhere: Sequence[Way], moved_ago_s: float | None
) -> tuple[Rows, Gain | None]:
    """One window of one call: the rows from now on, and where it is to be moved. `here_ms`: the way as it was measured in this
    window, None where it was not; `moved_ago_s`: since its last move, None: there was none."""
    if here_ms is None or (moved_ago_s is not None and moved_ago_s < REST_S):
        return {}, None
    after = {w.region: rows.get(w.region, 0) + 1 for w in elsewhere if _is_nearer(w, here_ms)}
    ready = [w for w in elsewhere if after.get(w.region, 0) >= WINDOWS and w.open]
    if not ready:
        return after, None
    best = min(ready, key=lambda w: (w.ms, w.region))
    return after, Gain(best.region, here_ms, best.ms)


def _is_nearer(way: Way, here_ms: float) -> bool:
    sure = way.source in SOURCES and way.confidence >= CONFIDENCE_MIN
    return sure and here_ms - way.ms >= max(GAIN_MS, GAIN_SHARE * here_ms)


class Lately:
    """The least round trip of each network to each region since it was asked the last time."""

    def __init__(self) -> None:
        self._least_ms: dict[tuple[int, str], float] = {}

    def report(self, network: int, region: str, rtt_ms: float) -> None:
        key = (network, region)
        known_ms = self._least_ms.get(key)
        if known_ms is None and len(self._least_ms) >= NETWORKS_MAX:
            return
        self._least_ms[key] = rtt_ms if known_ms is None else min(known_ms, rtt_ms)

    def take(self) -> dict[tuple[int, str], float]:
        taken, self._least_ms = self._least_ms, {}
        return taken
