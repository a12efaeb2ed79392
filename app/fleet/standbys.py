"""Which standbys a call that runs should have now, where those it was granted are worth less than what the fleet could give. Pure.

A standby is *good* while its edge is known, lives the life that was granted, is not held down, and is neither cordoned, drained
nor evacuated, nor in a region that is. Good ones in other regions than the owner's count first (*strong*), for the loss of a region
must not end the call; another edge of the owner's region is better than none. Each call, in this order:

1. its owner is not to be reached           → nothing: nobody could hand it a ticket, and its caller helps itself; nor where the
                                              caller could not go to a standby
2. two strong standbys                      → nothing
3. the fleet has no better                  → nothing
4. else                                     → up to two: those that are good already, then the best of the others

The answer names good ones again: a new ticket takes the place of the older ones, and its grants are tried first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from app.fleet.view import EdgeState, Fleet
from app.placement.again import NOTHING, Recorded, place_again
from app.placement.choice import STANDBYS_MAX, Measured, Placement, Wishes


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A call that runs. `standbys`: (edge, incarnation) of every grant above its epoch, in order. `granted`: the highest.
    `recorded`: what was believed when it was placed first."""

    call_id: UUID
    epoch: int
    granted: int
    edge_id: UUID
    standbys: tuple[tuple[UUID, UUID], ...]
    wishes: Wishes = field(default_factory=Wishes)
    measured: Mapping[str, Measured] = field(default_factory=dict)
    recorded: Recorded = NOTHING


@dataclass(frozen=True, slots=True)
class Renewal:
    call: Guarded
    edges: tuple[EdgeState, ...]


def is_good(fleet: Fleet, edge: EdgeState) -> bool:
    """Whether what was granted on this edge may be counted on."""
    region = fleet.regions.get(edge.region)
    return (
        region is not None
        and region.admin_state == "active"
        and edge.admin_state == "active"
        and not edge.draining
        and edge.action != "evacuate"
        and edge.health != "down"
        and not edge.refusing
    )


def plan_standbys(fleet: Fleet, calls: Sequence[Guarded], *, draw: float) -> tuple[Renewal, ...]:
    found = []
    for call in calls:
        edges = _renewed(fleet, call, draw)
        if edges:
            found.append(Renewal(call, edges))
    return tuple(found)


def _renewed(fleet: Fleet, call: Guarded, draw: float) -> tuple[EdgeState, ...]:
    owner = fleet.edge(call.edge_id)
    if owner is None or owner.health == "down" or call.wishes.alone:
        return ()
    good = [
        e
        for edge_id, incarnation in call.standbys
        if edge_id != owner.id
        and (e := fleet.edge(edge_id)) is not None
        and e.incarnation == incarnation
        and is_good(fleet, e)
    ]
    have = _best(owner, good)
    if _worth(owner, have) >= (STANDBYS_MAX, STANDBYS_MAX):
        return ()
    could = _best(owner, [*have, *_others(fleet, owner, call, draw)])
    return could if _worth(owner, could) > _worth(owner, have) else ()


def _worth(owner: EdgeState, edges: Sequence[EdgeState]) -> tuple[int, int]:
    return sum(e.region != owner.region for e in edges), len(edges)


def _best(owner: EdgeState, edges: Sequence[EdgeState]) -> tuple[EdgeState, ...]:
    """One edge of each other region, then others of the owner's; the first of each are the best."""
    strong = {e.region: e for e in reversed(edges) if e.region != owner.region}
    weak = {e.id: e for e in edges if e.region == owner.region}
    ordered = [e for e in dict.fromkeys(e.region for e in edges) if e in strong]
    return (*(strong[r] for r in ordered), *weak.values())[:STANDBYS_MAX]


def _others(fleet: Fleet, owner: EdgeState, call: Guarded, draw: float) -> list[EdgeState]:
    """What placement would take beside the owner: other regions first, then other edges of its own."""
    away = {i: r for i, r in fleet.regions.items() if i != owner.region}
    home = {i: r for i, r in fleet.regions.items() if i == owner.region}
    found: list[EdgeState] = []
    for regions in (away, home):
        edges = tuple(e for e in fleet.edges if e.region in regions and e.id != owner.id)
        if edges:
            found += _chosen(Fleet(regions=regions, edges=edges), call, draw)
    return found


def _chosen(fleet: Fleet, call: Guarded, draw: float) -> list[EdgeState]:
    placed = place_again(
        fleet, msgspec.structs.replace(call.wishes, pin=None), call.measured, call.recorded, draw=draw
    )
    return list(placed.edges) if isinstance(placed, Placement) else []
