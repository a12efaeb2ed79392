"""What each region of a fleet has to offer, summed up once for each picture of the fleet and not once for each call. Pure.

Decides which edges may take a call and how full a region is. Leaves the comparison of regions to `choice`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from app.fleet.view import EdgeState, Fleet, RegionState

HEALTHY = ("healthy", "probation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One region. `serving`: its edges that are in order, whether they have room or not; `free`: those of them that have;
    `suspects`: those that take calls in a panic, with room. `load`: calls over `capacity` of all that are not being drained."""

    state: RegionState
    serving: bool
    free: tuple[EdgeState, ...]
    suspects_serving: bool
    suspects: tuple[EdgeState, ...]
    load: float
    capacity: int = 0

    def open_edges(self, *, panic: bool) -> tuple[EdgeState, ...]:
        """Those that can take a call now."""
        return self.free + self.suspects if panic else self.free


_newest: tuple[Fleet, dict[str, Site]] | None = None


def sites_of(fleet: Fleet) -> dict[str, Site]:
    """By region. What was made for the very same fleet the last time is given again."""
    global _newest
    if _newest is None or _newest[0] is not fleet:
        _newest = (fleet, _sites(fleet))
    return _newest[1]


def _sites(fleet: Fleet) -> dict[str, Site]:
    by_region: dict[str, list[EdgeState]] = {region: [] for region in fleet.regions}
    for edge in fleet.edges:
        if edge.region in by_region and edge.admin_state == "active" and not edge.draining:
            by_region[edge.region].append(edge)
    return {region: _site(fleet.regions[region], edges) for region, edges in by_region.items()}


def _site(state: RegionState, edges: list[EdgeState]) -> Site:
    serving = [e for e in edges if e.health in HEALTHY]
    suspects = [e for e in edges if e.health == "suspect" and not e.refusing]
    capacity = sum(room(e) for e in edges)
    return Site(
        state=state,
        serving=bool(serving),
        free=tuple(e for e in serving if taken(e) < room(e)),
        suspects_serving=bool(suspects),
        suspects=tuple(e for e in suspects if taken(e) < room(e)),
        load=sum(taken(e) for e in edges) / capacity if capacity else 1.0,
        capacity=capacity,
    )


def room(edge: EdgeState) -> int:
    """How many calls it may have: at least one where it may have any, so that probation can be served."""
    return math.ceil(edge.capacity_calls * edge.weight) if edge.health == "probation" else edge.capacity_calls


def taken(edge: EdgeState) -> int:
    """Its calls, and the places that are kept for calls which live and must come from elsewhere."""
    return edge.calls + edge.coming


def lightest(edges: tuple[EdgeState, ...], draw: float) -> EdgeState:
    """Of two edges drawn by lot the less loaded: what is known of loads is some moments old, and many instances know the same."""
    if len(edges) <= 2:
        return min(edges, key=_filled)
    first = int(draw * len(edges)) % len(edges)
    second = int(draw * len(edges) * (len(edges) - 1)) % (len(edges) - 1)
    return min(edges[first], edges[second if second < first else second + 1], key=_filled)


def _filled(edge: EdgeState) -> tuple[float, int]:
    return taken(edge) / max(room(edge), 1), edge.id.int


def open_regions(fleet: Fleet) -> list[str]:
    """Regions that take new calls now: worth measuring."""
    return [r for r, site in sites_of(fleet).items() if site.free and site.state.admin_state == "active"]
