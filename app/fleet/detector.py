"""Health from what has been heard, and nothing else. Pure: the age of the newest heartbeat comes in, a verdict goes out.

An edge:
1. heard within 2.5 s                          → ``healthy``
2. silent for longer                           → ``suspect``: no new calls
3. silent for more than 5 s                    → ``down``

A region is as healthy as its best edge; with no edge it is ``down``. Silence alone only keeps new calls away: calls that
run are moved by their callers, who know better.
"""

from __future__ import annotations

from collections.abc import Iterable

SUSPECT_AFTER_S = 2.5
DOWN_AFTER_S = 5.0
_ORDER = ("healthy", "suspect", "down")


def edge_health(silent_s: float) -> str:
    if silent_s <= SUSPECT_AFTER_S:
        return "healthy"
    return "suspect" if silent_s <= DOWN_AFTER_S else "down"


def region_health(edges: Iterable[str]) -> str:
    return min(edges, key=_ORDER.index, default="down")
