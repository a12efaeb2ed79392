"""What the operator asks of every placement: room for the calls of a lost region, regions that ramp up, groups, prices. Pure.

The two cases of `app.placement.choice` that are about it; neither leaves out a region where nothing else is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from app.fleet.view import RegionState
from app.placement.newest import Newest
from app.placement.sites import Site

RESERVE_MAX = 1 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The operator's. `reserve`: new calls leave room for those of a lost region. `weights`: the share of calls, 0 to 1, that a
    region takes part in (1 where it is not named). `groups`: regions with the same name are as near as each other. `price_ms`:
    what a region costs on top, in milliseconds that it has to be nearer by."""

    reserve: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    price_ms: Mapping[str, float] = field(default_factory=dict)


ANY = Policy()
"""No wish."""


def policy_of(regions: Mapping[str, RegionState]) -> Policy:
    """As the regions' own settings say it, for new calls. What was made for the very same regions before is given again."""
    return _policies.of(regions)


def _policy(regions: Mapping[str, RegionState]) -> Policy:
    return Policy(
        reserve=True,
        weights={r.id: r.weight for r in regions.values() if r.weight < 1.0},
        groups={r.id: r.proximity for r in regions.values() if r.proximity},
        price_ms={r.id: r.price_ms for r in regions.values() if r.price_ms > 0.0},
    )


_policies = Newest(_policy)


class Place(Protocol):
    """As much of a region on its way through the cases as is looked at here."""

    region: str
    load: float
    reason: str


P = TypeVar("P", bound=Place)


def ramped(places: list[P], policy: Policy, draw: float) -> list[P]:
    """Case 7. Each region's lot is another part of the same random number."""
    if not policy.weights:
        return places
    numbers = {region: i for i, region in enumerate(sorted(p.region for p in places))}
    kept = [
        p
        for p in places
        if (draw * 997.0 + numbers[p.region] * 0.618_034) % 1.0 < policy.weights.get(p.region, 1.0)
    ]
    if not kept or len(kept) == len(places):
        return places
    for place in places:
        if place not in kept:
            place.reason = "ramping"
    return kept


def unreserved(places: list[P], policy: Policy, sites: Mapping[str, Site]) -> list[P]:
    """Case 8. Each region keeps the share that the largest has of all their capacity, and a third at most: then the calls of any of
    them fit into what the others keep. Of n regions of one size that is the n-th part."""
    if not policy.reserve or len(places) < 2:
        return places
    capacities = [sites[p.region].capacity for p in places]
    most = 1.0 - min(RESERVE_MAX, max(capacities) / (sum(capacities) or 1))
    kept = [p for p in places if p.load < most]
    if not kept or len(kept) == len(places):
        return places
    for place in places:
        if place.load >= most:
            place.reason = "reserved"
    return kept
