"""What each region of a fleet has to offer, summed up once for each picture of the fleet and not once for each call. Pure.

Decides which edges may take a call and how full a region is. Leaves the comparison of regions to `choice`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.newest import Newest

HEALTHY = ("healthy", "probation")
LOAD_FREE = 0.70
LOAD_PENALTY_MS = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One region. `serving`: its edges that are in order, whether they have room or not; `free`: those of them that have;
    `suspects`: those that take calls in a panic, with room. `load`: calls over `capacity` of all that are not being drained;
    `penalty_ms`: what that costs. `closed`: why the region takes no calls (cases 3 to 5 of `choice`), empty where it does; in a
    panic it may yet."""

    state: RegionState
    health: str
    serving: bool
    free: tuple[EdgeState, ...]
    suspects_serving: bool
    suspects: tuple[EdgeState, ...]
    load: float
    penalty_ms: float
    closed: str
    capacity: int = 0

    def open_edges(self, *, panic: bool) -> tuple[EdgeState, ...]:
        """Those that can take a call now."""
        return self.free + self.suspects if panic else self.free


@dataclass(frozen=True, slots=True)
class Ground:
    """All regions, by name. `closed`: as their sites say it; `panic`: less than half of them look healthy."""

    sites: dict[str, Site]
    closed: dict[str, str]
    panic: bool


def ground_of(fleet: Fleet) -> Ground:
    """What was made for the very same fleet before is given again."""
    return _grounds.of(fleet)


def _ground(fleet: Fleet) -> Ground:
    sites = _sites(fleet)
    closed = {region: site.closed for region, site in sites.items()}
    return Ground(sites, closed, panics([site.state for site in sites.values()]))


_grounds = Newest(_ground)


def with_webrtc(fleet: Fleet) -> Fleet:
    """Its edges that take callers over WebRTC; the very same for the very same fleet."""
    return _webrtc.of(fleet)


def _with_webrtc(fleet: Fleet) -> Fleet:
    return Fleet(regions=fleet.regions, edges=tuple(e for e in fleet.edges if e.webrtc))


_webrtc = Newest(_with_webrtc)


def panics(regions: Sequence[RegionState]) -> bool:
    """Less than half of these regions look healthy."""
    return 2 * sum(r.health in HEALTHY for r in regions) < len(regions)


def _sites(fleet: Fleet) -> dict[str, Site]:
    by_region: dict[str, list[EdgeState]] = {region: [] for region in sorted(fleet.regions)}
    for edge in fleet.edges:
        if edge.region in by_region and edge.admin_state == "active" and not edge.draining:
            by_region[edge.region].append(edge)
    return {region: _site(fleet.regions[region], edges) for region, edges in by_region.items()}


def _site(state: RegionState, edges: list[EdgeState]) -> Site:
    serving = [e for e in edges if e.health in HEALTHY]
    suspects = [e for e in edges if e.health == "suspect" and not e.refusing]
    capacity = sum(room(e) for e in edges)
    free = tuple(e for e in serving if taken(e) < room(e))
    load = sum(taken(e) for e in edges) / capacity if capacity else 1.0
    if state.admin_state != "active":
        closed = state.admin_state
    elif not serving:
        closed = "unhealthy"
    else:
        closed = "" if free else "full"
    return Site(
        state=state,
        health=state.health,
        serving=bool(serving),
        free=free,
        suspects_serving=bool(suspects),
        suspects=tuple(e for e in suspects if taken(e) < room(e)),
        load=load,
        penalty_ms=load_penalty_ms(load),
        closed=closed,
        capacity=capacity,
    )


def load_penalty_ms(load: float) -> float:
    """From 0 at 70 % to 100 at full."""
    return LOAD_PENALTY_MS * max(0.0, load - LOAD_FREE) / (1 - LOAD_FREE)


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
    return [
        r for r, site in ground_of(fleet).sites.items() if site.free and site.state.admin_state == "active"
    ]
