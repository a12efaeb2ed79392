"""What to do next about calls that are to leave their edges: whom to ask now, whom to hurry, who waits, who cannot go and why.

Pure: the fleet, the calls, what is under way, the pace and a seed come in; a `DrainPlan` goes out, and an empty one is the steady
state. Each call, in this order:

1. it was asked, and its edge waits for the end of a turn        → ``waiting``
2. it was asked three times lately, and nobody took it           → ``stuck`` (``not_taken``)
3. it is late: the deadline has passed, or all are to go at once → ``force``, as fast as a round allows
4. as many are under way as may be, or as were asked this round  → ``later``
5. no edge may take it (residency, health, room)                 → ``stuck``, and looked at again next time
6. it is late, and its edge is being hurried by as many already  → ``later``: neither an edge nor the log meets a herd
7. else                                                          → ``ask``

Where a call goes is placement's choice (`app.placement.again`) over the edges that stay. Every place that is given away here
counts at once, with those of moves under way, so that no surviving edge is asked to take more than it has room for (I9). Drains and
moves are planned side by side: a place that another has given away meanwhile is found gone when the call is to be asked, and the next
round looks again (`DrainStore.move`). A pin
binds no call that must leave, nor does its latency cap where nobody else is near enough; its residency always does. New calls come
behind: what the calls of this plan have yet to fill is kept from them (`app.fleet.reserve`).

This is the plan for a failure as well: the detector's evacuation of an edge that is lost is a drain whose calls are all late.
Callers that hold a standby in their ticket do not wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import msgspec

from app.fleet.view import EdgeState, Fleet
from app.placement.again import NOTHING, Recorded, place_again
from app.placement.choice import Measured, Placement, Wishes

FAILURES_MAX = 3
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """A call on an edge that is to be left. `recorded`: what was believed when it was placed first. `asked`: it is being moved.
    `failures`: moves that came to nothing."""

    call_id: UUID
    epoch: int
    edge_id: UUID
    wishes: Wishes = field(default_factory=Wishes)
    measured: Mapping[str, Measured] = field(default_factory=dict)
    recorded: Recorded = NOTHING
    asked: bool = False
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many may be asked in one round, and be under way at once; `hurried_max`: late ones on their way to one edge."""

    round_max: int = 25
    forced_round_max: int = 100
    under_way_max: int = 300
    hurried_max: int = 100


@dataclass(frozen=True, slots=True)
class Ask:
    """`edges`: where the call is to go, then its standbys."""

    call: Leaving
    edges: tuple[EdgeState, ...]


@dataclass(frozen=True, slots=True)
class Stuck:
    """`why`: ``residency``, ``unhealthy``, ``full``, ``too_far`` or ``not_taken``."""

    call_id: UUID
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPlan:
    ask: tuple[Ask, ...] = ()
    force: tuple[Ask, ...] = ()
    waiting: tuple[UUID, ...] = ()
    later: tuple[UUID, ...] = ()
    stuck: tuple[Stuck, ...] = ()


def plan_drain(
    fleet: Fleet,
    calls: Sequence[Leaving],
    *,
    leaving: frozenset[UUID],
    reserved: Mapping[UUID, int],
    hurried: Mapping[UUID, int],
    under_way: int,
    late: bool,
    pace: Pace,
    seed: int,
) -> DrainPlan:
    """`leaving`: the edges that are being left. `reserved`: places on other edges that moves under way will fill; `hurried`: of
    these, late ones. `under_way`: moves of this drain that have not ended, beside those in `calls`."""
    room = Room(fleet, leaving, reserved)
    ask: list[Ask] = []
    waiting: list[UUID] = []
    later: list[UUID] = []
    stuck: list[Stuck] = []
    hurrying = dict(hurried)
    going = under_way + sum(c.asked for c in calls)
    most = pace.forced_round_max if late else min(pace.round_max, pace.under_way_max - going)
    for i, call in enumerate(calls):
        if call.asked:
            waiting.append(call.call_id)
        elif call.failures >= FAILURES_MAX:
            stuck.append(Stuck(call.call_id, "not_taken"))
        elif len(ask) >= most:
            later.append(call.call_id)
        else:
            edges = room.take(call, draw=((seed + (i + 1) * _GOLDEN) % (1 << 64)) / (1 << 64))
            if isinstance(edges, str):
                stuck.append(Stuck(call.call_id, edges))
            elif late and hurrying.get(edges[0].id, 0) >= pace.hurried_max:
                room.give_back(edges[0].id)
                later.append(call.call_id)
            else:
                hurrying[edges[0].id] = hurrying.get(edges[0].id, 0) + 1
                ask.append(Ask(call, edges))
    return DrainPlan(
        ask=() if late else tuple(ask),
        force=tuple(ask) if late else (),
        waiting=tuple(waiting),
        later=tuple(later),
        stuck=tuple(stuck),
    )


class Room:
    """The edges that stay, as they will be filled."""

    def __init__(self, fleet: Fleet, leaving: frozenset[UUID], reserved: Mapping[UUID, int]) -> None:
        self._regions = fleet.regions
        self._edges = {
            e.id: replace(e, calls=e.calls + reserved.get(e.id, 0), coming=0)
            for e in fleet.edges
            if e.id not in leaving
        }

    def take(self, call: Leaving, *, draw: float, pin: str | None = None) -> tuple[EdgeState, ...] | str:
        """A place, given away; or why there is none. `pin`: the region that was asked for by name."""
        edges = list(self._edges.values())
        if call.edge_id in self._edges:
            edges.remove(self._edges[call.edge_id])
        staying = {e.region for e in edges}
        regions = {i: r for i, r in self._regions.items() if i in staying}
        fleet = Fleet(regions=regions, edges=tuple(edges))
        wishes = msgspec.structs.replace(call.wishes, pin=pin)
        placed = place_again(fleet, wishes, call.measured, call.recorded, draw=draw)
        if not isinstance(placed, Placement):
            return placed.why
        target = self._edges[placed.edges[0].id]
        self._edges[target.id] = replace(target, calls=target.calls + 1)
        return placed.edges

    def give_back(self, edge: UUID) -> None:
        target = self._edges[edge]
        self._edges[edge] = replace(target, calls=target.calls - 1)
