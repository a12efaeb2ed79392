"""Chooses the region and edge of a call and up to two standbys, and says why each other region was not taken.

Pure: the fleet, what is believed and measured of the caller's round trips, the wishes of the call, the operator's policy and a
random number come in; a `Placement` goes out, or the reason there is none. It decides nothing about tickets, and it does not ask
the edge: the edge has the last word on its own capacity.

The cases, in the order in which a region meets them (the first that applies is the reason on record):

1.  ``not_allowed``   the call names regions or jurisdictions, and this is not one of them
2.  ``not_pinned``    the call pins another region
3.  ``cordoned`` / ``draining``  by an operator
4.  ``unhealthy``     the detector holds it suspect, down, or it has no edge that answers (of those that take WebRTC, where the
                      caller needs that)
5.  ``full``          no healthy edge has a free place
6.  ``too_far``       its estimate is above the call's `rtt_ms_max`, and above the step of `rtt_ms_relax` that some region meets
7.  ``ramping``       the operator lets it take a share of the calls (`Policy.weights`), and this is not one of them
8.  ``reserved``      what is left there is kept for the calls of a region that may be lost (I9), and another region has more
9.  ``costlier``      another region's cost is lower
10. ``two_choices``   as good as the best, but busier than the other one drawn

Panic rule: when less than half of the regions that are allowed look healthy, the detector is probably wrong, and suspect
regions take calls again, except edges at which every vantage finds nobody listening. An edge on probation is healthy with a
part of its capacity (`EdgeState.weight`).

Cost of a region, in milliseconds: round trip of the caller + jitter + round trip from the region to the customer's backend + a
penalty that grows from 0 at 70 % load to 100 at full + the operator's price. Regions whose cost lies within max(10 ms, 10 %) of
the best are equal, and so are those of the best one's proximity group. Of two of them the less loaded is taken (Mitzenmacher, "The
Power of Two Choices", 2001): one is the best, or the one that served this network before (hysteresis), the other is drawn; tenths
of load count, so that a quiet fleet serves everybody from the nearest. Preferred regions beat the others within twice that band,
in their order. Steps 7 and 8 leave out no region where nothing else is left.

The round trip is the caller's own measurement, aged with a half-life of 60 s against what is believed without it
(`app.placement.belief`); where nothing is, 150 ms, or a quarter more than the farthest region the caller has measured: a region
that did not answer in time is a far one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice, takewhile
from operator import attrgetter

import msgspec

from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.belief import FARTHER, PRIOR_RTT_MS, Prior
from app.placement.policy import ANY, Policy, ramped, unreserved
from app.placement.sites import Site, ground_of, lightest, panics, with_webrtc

HALF_LIFE_S = 60.0
UNMEASURED_WEIGHT = 0.15
BAND_MS = 10.0
BAND_SHARE = 0.10
LOAD_STEPS = 10
STANDBYS_MAX = 2
MEASURED_AGE_MAX_S = 600.0
ABLE = frozenset({"costlier", "two_choices", "reserved", "ramping"})
"""What could take a call and did not get this one."""
_BY_COST = attrgetter("cost_ms")


class Measured(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The caller's own measurement of one region. `age_s`: how long ago."""

    rtt_ms: float
    jitter_ms: float = 0.0
    loss: float = 0.0
    age_s: float = 0.0


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the call asks of its placement; empty means no wish. `rtt_ms_relax`: caps above `rtt_ms_max`, ascending, each for the case
    that no region meets those before it. `webrtc`: its caller needs an edge that takes WebRTC. `alone`: its caller cannot go to a
    standby, and gets none."""

    allow: frozenset[str] = frozenset()
    jurisdictions: frozenset[str] = frozenset()
    prefer: tuple[str, ...] = ()
    pin: str | None = None
    rtt_ms_max: float | None = None
    rtt_ms_relax: tuple[float, ...] = ()
    webrtc: bool = False
    alone: bool = False


class Candidate(msgspec.Struct, gc=False, omit_defaults=True):
    """One region as the choice saw it. `reason`: ``chosen``, or the case that lost it; `source`: ``measured``, or what the belief
    rests on. `backend_ms`: the way from there to the customer's backend, None where it is not known."""

    region: str
    reason: str
    source: str
    rtt_ms: float
    jitter_ms: float
    load: float
    cost_ms: float
    health: str
    confidence: float = 0.0
    backend_ms: float | None = None


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """`edges`: the primary's, then the standbys'. `protection`: ``full`` (two standbys in other regions), ``reduced``,
    ``none``; `protection_reason` says why not full. `rtt_ms_cap`: the cap that was met at last."""

    region: str
    edges: tuple[EdgeState, ...]
    candidates: tuple[Candidate, ...]
    protection: str
    protection_reason: str = ""
    panic: bool = False
    rtt_ms_cap: float | None = None


class NoPlacement(msgspec.Struct, frozen=True, kw_only=True):
    """`why`: ``residency`` (nothing allowed exists), ``unhealthy``, ``full`` or ``too_far``; `allowed`: regions that were allowed."""

    why: str
    allowed: tuple[str, ...]
    candidates: tuple[Candidate, ...]


def choose(
    fleet: Fleet,
    measured: Mapping[str, Measured],
    wishes: Wishes,
    *,
    draw: float,
    priors: Mapping[str, Prior] | None = None,
    backend_ms: Mapping[str, float] | None = None,
    policy: Policy = ANY,
    last: str | None = None,
) -> Placement | NoPlacement:
    """`draw`: a random number in [0, 1), the only chance in it. `priors`: what is believed of each region. `backend_ms`: round trip
    from each region to the customer's backend, as far as it is known. `last`: the region that served this network before."""
    ground = ground_of(with_webrtc(fleet) if wishes.webrtc else fleet)
    sites, panic, reasons = ground.sites, ground.panic, ground.closed
    bound = bool(wishes.allow or wishes.jurisdictions)
    if bound or panic or wishes.pin is not None:
        panic, reasons = _closed(sites, wishes)
    # by cost from here on, and by name where that is the same: every case below finds the best of what is left first
    places = _places(sites, reasons, measured, priors or {}, backend_ms or {}, policy)
    allowed = [p for p in places if p.reason != "not_allowed"] if bound else places
    if not allowed:
        return NoPlacement(why="residency", allowed=(), candidates=tuple(places))
    cap_ms = _cap(allowed, wishes)
    open_places = [p for p in allowed if not p.reason]
    if not open_places:
        return NoPlacement(
            why=_why_none(allowed), allowed=tuple(p.region for p in allowed), candidates=tuple(places)
        )
    best = _pick(unreserved(ramped(open_places, policy, draw), policy, sites), wishes, policy, last, draw)
    best.reason = "chosen"
    primary = lightest(sites[best.region].open_edges(panic=panic), draw)
    standbys, why = _standbys(sites, allowed, best, primary, wishes, panic=panic, draw=draw)
    return Placement(
        region=best.region,
        edges=(primary, *standbys),
        candidates=_best_first(places, best),
        protection=("none", "reduced", "full")[len(standbys)]
        if not why
        else ("reduced" if standbys else "none"),
        protection_reason=why,
        panic=panic,
        rtt_ms_cap=cap_ms,
    )


def estimate(
    measured: Measured | None, prior_ms: float = PRIOR_RTT_MS, prior: Prior | None = None
) -> tuple[str, float, float]:
    """(source, round trip, jitter) in ms: the measurement, drawn towards what is believed without it as it ages.

    `prior_ms`: where nothing is believed."""
    if measured is None or measured.age_s > MEASURED_AGE_MAX_S:
        return ("prior", prior_ms, 0.0) if prior is None else (prior.source, prior.rtt_ms, 0.0)
    weight = 0.5 ** (max(measured.age_s, 0.0) / HALF_LIFE_S)
    believed_ms, confidence = (PRIOR_RTT_MS, 0.0) if prior is None else (prior.rtt_ms, prior.confidence)
    other = (UNMEASURED_WEIGHT + confidence) * (1 - weight)
    rtt_ms = (weight * measured.rtt_ms + other * believed_ms) / (weight + other)
    # a lost probe is a lost frame: count each per cent as a millisecond
    return "measured", rtt_ms, measured.jitter_ms + 100.0 * measured.loss


def _closed(sites: Mapping[str, Site], wishes: Wishes) -> tuple[bool, dict[str, str]]:
    """Cases 1 to 5: whether it is a panic, and by region why it takes no call, or an empty text."""
    allowed = [r for r, site in sites.items() if _allowed(site.state, wishes)]
    panic = panics([sites[r].state for r in allowed])
    reasons = dict.fromkeys(sites, "not_allowed")
    for region in allowed:
        reasons[region] = _excluded(sites[region], wishes, panic=panic)
    return panic, reasons


def _places(
    sites: Mapping[str, Site],
    reasons: Mapping[str, str],
    measured: Mapping[str, Measured],
    priors: Mapping[str, Prior],
    backend_ms: Mapping[str, float],
    policy: Policy,
) -> list[Candidate]:
    """Every region with its cost, the least first."""
    prior_ms = max([PRIOR_RTT_MS, *(FARTHER * m.rtt_ms for m in measured.values())])
    # a region from where the backend was never reached is taken to be as far from it as the others are on average
    leg_ms = sum(backend_ms.values()) / len(backend_ms) if backend_ms else 0.0
    price_ms, places = policy.price_ms, []
    for region, site in sites.items():
        prior = priors.get(region)
        if prior is None or region in measured:
            source, rtt_ms, jitter_ms = estimate(measured.get(region), prior_ms, prior)
            confidence = 1.0 if source == "measured" else 0.0
        else:
            source, rtt_ms, jitter_ms, confidence = prior.source, prior.rtt_ms, 0.0, prior.confidence
        leg = backend_ms.get(region)
        cost_ms = rtt_ms + jitter_ms + (leg_ms if leg is None else leg) + site.penalty_ms
        if price_ms:
            cost_ms += price_ms.get(region, 0.0)
        places.append(
            Candidate(
                region, reasons[region], source, rtt_ms, jitter_ms, site.load, cost_ms, site.health, confidence, leg
            )
        )  # fmt: skip
    places.sort(key=_BY_COST)
    return places


def _allowed(state: RegionState, wishes: Wishes) -> bool:
    return (not wishes.allow or state.id in wishes.allow) and (
        not wishes.jurisdictions or state.jurisdiction in wishes.jurisdictions
    )


def _excluded(site: Site, wishes: Wishes, *, panic: bool) -> str:
    """Cases 2 to 5 of a region that is allowed."""
    if wishes.pin is not None and site.state.id != wishes.pin:
        return "not_pinned"
    if not panic or site.state.admin_state != "active":
        return site.closed
    if not (site.serving or site.suspects_serving):
        return "unhealthy"
    return "" if site.open_edges(panic=True) else "full"


def _cap(allowed: list[Candidate], wishes: Wishes) -> float | None:
    """Case 6. The first cap that some region meets; the last one where none does."""
    if wishes.rtt_ms_max is None:
        return None
    open_places = [p for p in allowed if not p.reason]
    cap_ms = wishes.rtt_ms_max
    for cap_ms in (wishes.rtt_ms_max, *wishes.rtt_ms_relax):
        if any(p.rtt_ms <= cap_ms for p in open_places):
            break
    for place in open_places:
        if place.rtt_ms > cap_ms:
            place.reason = "too_far"
    return cap_ms


def _pick(
    places: list[Candidate], wishes: Wishes, policy: Policy, last: str | None, draw: float
) -> Candidate:
    """Cases 9 and 10, over regions that can all take the call, the cheapest first."""
    nearest = places[0]
    least = nearest.cost_ms
    most = least + max(BAND_MS, BAND_SHARE * least)
    group = policy.groups.get(nearest.region)
    if group:
        equal = [p for p in places if p.cost_ms <= most or policy.groups.get(p.region) == group]
    else:
        equal = list(takewhile(lambda p: p.cost_ms <= most, places))
    if wishes.prefer:
        preferred = [p for p in places if p.region in wishes.prefer and p.cost_ms <= 2 * most - least]
        if preferred:
            equal = [min(preferred, key=lambda p: wishes.prefer.index(p.region))]
    chosen = next((p for p in equal if p.region == last), equal[0])
    others = [p for p in equal if p is not chosen]
    if others:
        other = others[int(draw * len(others)) % len(others)]
        if int(other.load * LOAD_STEPS) < int(chosen.load * LOAD_STEPS):
            chosen = other
    for place in places:
        place.reason = "costlier"
    for place in equal:
        place.reason = "two_choices"
    return chosen


def _standbys(
    sites: Mapping[str, Site],
    allowed: list[Candidate],
    best: Candidate,
    primary: EdgeState,
    wishes: Wishes,
    *,
    panic: bool,
    draw: float,
) -> tuple[list[EdgeState], str]:
    """The next cheapest regions that could take the call; another edge of the same region where there are too few.

    They may use what is kept for the calls of a lost region: this is what it is kept for. A pin binds the primary alone: the loss
    of the pinned region must not end the call.
    """
    if wishes.alone:
        return [], "its caller cannot go to a standby"
    if wishes.pin is None:
        others = (p for p in allowed if p is not best and p.reason in ABLE)
    else:
        free = Wishes(allow=wishes.allow, jurisdictions=wishes.jurisdictions)
        most_ms = math.inf if wishes.rtt_ms_max is None else max(wishes.rtt_ms_max, *wishes.rtt_ms_relax, 0.0)
        others = (
            p
            for p in allowed
            if p is not best and p.rtt_ms <= most_ms and not _excluded(sites[p.region], free, panic=panic)
        )
    chosen = [lightest(sites[p.region].open_edges(panic=panic), draw) for p in islice(others, STANDBYS_MAX)]
    why = ""
    if len(chosen) < STANDBYS_MAX:
        why = f"{len(chosen)} other region{'s' if len(chosen) != 1 else ''} can take the call over"
        beside = [e for e in sites[best.region].open_edges(panic=panic) if e is not primary]
        chosen += beside[: STANDBYS_MAX - len(chosen)]
    return chosen, why


def _why_none(allowed: list[Candidate]) -> str:
    reasons = {p.reason for p in allowed}
    for why in ("too_far", "full"):
        if why in reasons:
            return why
    return "unhealthy"


def _best_first(places: list[Candidate], best: Candidate) -> tuple[Candidate, ...]:
    if places[0] is best:
        return tuple(places)
    return (best, *(p for p in places if p is not best))
