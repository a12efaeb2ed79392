"""Chooses the region and edge of a call and up to two standbys, and says why each other region was not taken.

Pure: the fleet, the caller's measurements, the wishes of the call, `now` and a random number come in; a `Placement` goes
out, or the reason there is none. It decides nothing about tickets, and it does not ask the edge: the edge has the last
word on its own capacity.

The cases, in the order in which a region meets them (the first that applies is the reason on record):

1. ``not_allowed``      the call names regions or jurisdictions, and this is not one of them
2. ``not_pinned``       the call pins another region
3. ``cordoned`` / ``draining``  by an operator
4. ``unhealthy``        the detector holds it suspect, down, or it has no edge that answers
5. ``full``             no healthy edge has a free place
6. ``too_far``          its estimate is above the call's `rtt_ms_max`
7. ``costlier``         another region's cost is lower
8. ``two_choices``      as good as the best, but busier than the other one drawn

Panic rule: when less than half of the regions that are allowed look healthy, the detector is probably wrong, and suspect
regions take calls again, except edges at which every vantage finds nobody listening. An edge on probation is healthy with a
part of its capacity (`EdgeState.weight`).

Cost of a region, in milliseconds: round trip + jitter + a penalty that grows from 0 at 70 %
load to 100 at full. Regions whose cost lies within max(10 ms, 10 %) of the best are equal: of two of them drawn at
random the less loaded one is taken (Mitzenmacher, "The Power of Two Choices", 2001). Preferred regions beat the others
within twice that band. The round trip is the caller's own measurement, aged with a half-life of 60 s against the prior
of a region that nothing is known of; where the caller has measured some regions, one that it has not is taken for a
quarter farther than the farthest of them: a region that did not answer in time is a far one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from app.fleet.view import EdgeState, Fleet, RegionState

HALF_LIFE_S = 60.0
PRIOR_RTT_MS = 150.0
UNMEASURED_WEIGHT = 0.15
FARTHER = 1.25
BAND_MS = 10.0
BAND_SHARE = 0.10
LOAD_FREE = 0.70
LOAD_PENALTY_MS = 100.0
STANDBYS_MAX = 2
HEALTHY = ("healthy", "probation")
MEASURED_AGE_MAX_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The caller's own measurement of one region. `age_s`: how long ago."""

    rtt_ms: float
    jitter_ms: float = 0.0
    loss: float = 0.0
    age_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the call asks of its placement; empty means no wish."""

    allow: frozenset[str] = frozenset()
    jurisdictions: frozenset[str] = frozenset()
    prefer: tuple[str, ...] = ()
    pin: str | None = None
    rtt_ms_max: float | None = None


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One region as the choice saw it. `reason`: ``chosen``, or the case that lost it; `source`: ``measured`` or ``prior``."""

    region: str
    reason: str
    source: str
    rtt_ms: float
    jitter_ms: float
    load: float
    cost_ms: float
    health: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """`edges`: the primary's, then the standbys'. `protection`: ``full`` (two standbys in other regions), ``reduced``,
    ``none``; `protection_reason` says why not full."""

    region: str
    edges: tuple[EdgeState, ...]
    candidates: tuple[Candidate, ...]
    protection: str
    protection_reason: str = ""
    panic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPlacement:
    """`why`: ``residency`` (nothing allowed exists), ``unhealthy``, ``full`` or ``too_far``; `allowed`: regions that were allowed."""

    why: str
    allowed: tuple[str, ...]
    candidates: tuple[Candidate, ...]


@dataclass(slots=True, eq=False)
class _Place:
    """A region on its way through the cases."""

    state: RegionState
    edges: list[EdgeState] = field(default_factory=list)
    reason: str = ""
    source: str = "prior"
    rtt_ms: float = PRIOR_RTT_MS
    jitter_ms: float = 0.0
    load: float = 1.0
    cost_ms: float = 0.0


def choose(
    fleet: Fleet, measured: dict[str, Measured], wishes: Wishes, *, draw: float
) -> Placement | NoPlacement:
    """`draw`: a random number in [0, 1), the only chance in it."""
    prior_ms = max([PRIOR_RTT_MS, *(FARTHER * m.rtt_ms for m in measured.values())])
    places = [_place(fleet, state, measured.get(state.id), prior_ms) for state in fleet.regions.values()]
    allowed = [p for p in places if _allowed(p.state, wishes)]
    for place in places:
        if place not in allowed:
            place.reason = "not_allowed"
    if not allowed:
        return NoPlacement(why="residency", allowed=(), candidates=_record(places))

    panic = panics([p.state for p in allowed])
    for place in allowed:
        place.reason = _excluded(place, wishes, panic=panic)
    open_places = [p for p in allowed if not p.reason]
    if not open_places:
        return NoPlacement(
            why=_why_none(allowed), allowed=tuple(p.state.id for p in allowed), candidates=_record(places)
        )

    best = _pick(open_places, wishes, draw)
    best.reason = "chosen"
    standbys, why = _standbys(allowed, best, wishes, panic=panic)
    return Placement(
        region=best.state.id,
        edges=(_lightest(best.edges), *standbys),
        candidates=_record(places),
        protection=("none", "reduced", "full")[len(standbys)]
        if not why
        else ("reduced" if standbys else "none"),
        protection_reason=why,
        panic=panic,
    )


def panics(regions: Sequence[RegionState]) -> bool:
    """Less than half of these regions look healthy."""
    return 2 * sum(r.health in HEALTHY for r in regions) < len(regions)


def estimate(measured: Measured | None, prior_ms: float = PRIOR_RTT_MS) -> tuple[str, float, float]:
    """(source, round trip, jitter) in ms: the measurement, drawn towards the prior as it ages."""
    if measured is None or measured.age_s > MEASURED_AGE_MAX_S:
        return "prior", prior_ms, 0.0
    weight = 0.5 ** (max(measured.age_s, 0.0) / HALF_LIFE_S)
    rtt_ms = (weight * measured.rtt_ms + UNMEASURED_WEIGHT * (1 - weight) * PRIOR_RTT_MS) / (
        weight + UNMEASURED_WEIGHT * (1 - weight)
    )
    # a lost probe is a lost frame: count each per cent as a millisecond
    return "measured", rtt_ms, measured.jitter_ms + 100.0 * measured.loss


def load_penalty_ms(load: float) -> float:
    return LOAD_PENALTY_MS * max(0.0, load - LOAD_FREE) / (1 - LOAD_FREE)


def _place(fleet: Fleet, state: RegionState, measured: Measured | None, prior_ms: float) -> _Place:
    edges = [e for e in fleet.edges if e.region == state.id and e.admin_state == "active" and not e.draining]
    source, rtt_ms, jitter_ms = estimate(measured, prior_ms)
    capacity = sum(_room(e) for e in edges)
    load = sum(_taken(e) for e in edges) / capacity if capacity else 1.0
    return _Place(
        state=state,
        edges=edges,
        source=source,
        rtt_ms=rtt_ms,
        jitter_ms=jitter_ms,
        load=load,
        cost_ms=rtt_ms + jitter_ms + load_penalty_ms(load),
    )


def _allowed(state: RegionState, wishes: Wishes) -> bool:
    return (not wishes.allow or state.id in wishes.allow) and (
        not wishes.jurisdictions or state.jurisdiction in wishes.jurisdictions
    )


def _excluded(place: _Place, wishes: Wishes, *, panic: bool) -> str:
    """Cases 2 to 6; leaves in `place.edges` those that can take a call."""
    if wishes.pin is not None and place.state.id != wishes.pin:
        return "not_pinned"
    if place.state.admin_state != "active":
        return place.state.admin_state
    place.edges = [
        e for e in place.edges if e.health in HEALTHY or (panic and e.health == "suspect" and not e.refusing)
    ]
    if not place.edges:
        return "unhealthy"
    place.edges = [e for e in place.edges if _taken(e) < _room(e)]
    if not place.edges:
        return "full"
    if wishes.rtt_ms_max is not None and place.rtt_ms > wishes.rtt_ms_max:
        return "too_far"
    return ""


def _pick(places: list[_Place], wishes: Wishes, draw: float) -> _Place:
    """Cases 7 and 8, over regions that can all take the call."""
    least = min(p.cost_ms for p in places)
    band_ms = max(BAND_MS, BAND_SHARE * least)
    preferred = sorted(
        (p for p in places if p.state.id in wishes.prefer and p.cost_ms <= least + 2 * band_ms),
        key=lambda p: wishes.prefer.index(p.state.id),
    )
    equal = preferred[:1] or [p for p in places if p.cost_ms <= least + band_ms]
    for place in places:
        if place not in equal:
            place.reason = "costlier"
    equal.sort(key=lambda p: (p.cost_ms, p.state.id))
    if len(equal) > 2:
        first = int(draw * len(equal))
        second = int(draw * len(equal) * (len(equal) - 1)) % (len(equal) - 1)
        drawn = [equal[first], equal[second if second < first else second + 1]]
    else:
        drawn = equal
    chosen = min(drawn, key=lambda p: (round(p.load, 2), p.cost_ms, p.state.id))
    for place in equal:
        if place is not chosen:
            place.reason = "two_choices"
    return chosen


def _standbys(
    allowed: list[_Place], best: _Place, wishes: Wishes, *, panic: bool
) -> tuple[list[EdgeState], str]:
    """The next cheapest regions that could take the call; another edge of the same region where there are too few.

    A pin binds the primary alone: the loss of the pinned region must not end the call.
    """
    others = [
        p for p in allowed if p is not best and (not p.reason or p.reason in ("costlier", "two_choices"))
    ]
    if wishes.pin is not None:
        free = Wishes(allow=wishes.allow, jurisdictions=wishes.jurisdictions, rtt_ms_max=wishes.rtt_ms_max)
        others = [p for p in allowed if p is not best and not _excluded(p, free, panic=panic)]
    others.sort(key=lambda p: (p.cost_ms, p.state.id))
    chosen = [_lightest(p.edges) for p in others[:STANDBYS_MAX]]
    why = ""
    if len(chosen) < STANDBYS_MAX:
        why = f"{len(chosen)} other region{'s' if len(chosen) != 1 else ''} can take the call over"
        primary = _lightest(best.edges)
        chosen += [e for e in best.edges if e is not primary][: STANDBYS_MAX - len(chosen)]
    return chosen, why


def _lightest(edges: list[EdgeState]) -> EdgeState:
    return min(edges, key=lambda e: (_taken(e) / max(_room(e), 1), e.id))


def _taken(edge: EdgeState) -> int:
    """Its calls, and the places that are kept for calls which live and must come from elsewhere."""
    return edge.calls + edge.coming


def _room(edge: EdgeState) -> int:
    """How many calls it may have: at least one where it may have any, so that probation can be served."""
    return math.ceil(edge.capacity_calls * edge.weight) if edge.health == "probation" else edge.capacity_calls


def _why_none(allowed: list[_Place]) -> str:
    reasons = {p.reason for p in allowed}
    for why in ("too_far", "full"):
        if why in reasons:
            return why
    return "unhealthy"


def _record(places: list[_Place]) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            region=p.state.id,
            reason=p.reason,
            source=p.source,
            rtt_ms=round(p.rtt_ms, 1),
            jitter_ms=round(p.jitter_ms, 1),
            load=round(p.load, 3),
            cost_ms=round(p.cost_ms, 1),
            health=p.state.health,
        )
        for p in sorted(places, key=lambda p: (p.reason != "chosen", p.cost_ms, p.state.id))
    )
