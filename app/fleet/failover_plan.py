"""What is done about edges that are lost: where each of their calls goes and when, and what new calls may still have. Pure.

What is observed (the fleet, the calls that lost their edge, the calls that wait to begin) and what is desired (the pace, the
headroom) come in with a seed; a `FailoverPlan` goes out, one field per kind of action, and an empty one is the steady state.
In this order:

1. a call that lost its edge, and that some edge may take      → ``reconnect``: where, with standbys, and after how long
2. the same, and none may (residency, health, room)            → ``stuck``, with the reason
3. a new call, and a place is left above the headroom          → ``admit``: behind all reconnects of that edge
4. the same, and none is left                                  → ``defer``: what is free is kept for calls that live

Where a call goes is placement's choice; every place that is given counts at once, so that no edge gets more than it has room for
(I9). An edge takes its calls one after the other: each has a slot of 1 / `per_edge_per_s`, and begins somewhere in it, by lot, so
that neither an edge nor the log meets a herd. The lot is a hash of the seed and the call: every instance draws alike.

Callers that hold a standby in their ticket do not wait for any of this. It is for those that have none left, for what has to be
moved off by the control plane, and for what may be let in meanwhile.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from app.fleet.plan import Leaving, Room, Stuck
from app.fleet.view import EdgeState, Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """`per_edge_per_s`: takes that an edge is to begin in a second. `headroom`: the share of each edge that new calls leave free;
    with three regions a third, so that one of them can be lost."""

    per_edge_per_s: int = 200
    headroom: float = 1 / 3


@dataclass(frozen=True, slots=True)
class Placed:
    """`edges`: where the call goes, then its standbys. `after_ms`: when, from the moment of the plan."""

    call_id: UUID
    edges: tuple[EdgeState, ...]
    after_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverPlan:
    reconnect: tuple[Placed, ...] = ()
    stuck: tuple[Stuck, ...] = ()
    admit: tuple[Placed, ...] = ()
    defer: tuple[UUID, ...] = ()


def plan_failover(
    fleet: Fleet,
    lost: frozenset[UUID],
    calls: Sequence[Leaving],
    arriving: Sequence[Leaving],
    *,
    reserved: Mapping[UUID, int],
    desired: Desired,
    seed: int,
) -> FailoverPlan:
    """`calls`: of the edges `lost`, the most urgent first; a call that stands in it twice counts once. `arriving`: calls that have
    not begun, whose `edge_id` says nothing. `reserved`: places that moves under way will fill."""
    slots = _Slots(desired.per_edge_per_s, seed)
    room = Room(fleet, lost, reserved)
    reconnect: list[Placed] = []
    stuck: list[Stuck] = []
    given = dict(reserved)
    for call in {c.call_id: c for c in calls}.values():
        edges = room.take(call, draw=slots.draw(call.call_id))
        if isinstance(edges, str):
            stuck.append(Stuck(call.call_id, edges))
            continue
        given[edges[0].id] = given.get(edges[0].id, 0) + 1
        reconnect.append(Placed(call.call_id, edges, slots.next(edges[0].id, call.call_id)))
    left = Room(_below_headroom(fleet, desired.headroom), lost, given)
    admit: list[Placed] = []
    defer: list[UUID] = []
    for call in {c.call_id: c for c in arriving}.values():
        edges = left.take(call, draw=slots.draw(call.call_id))
        if isinstance(edges, str):
            defer.append(call.call_id)
        else:
            admit.append(Placed(call.call_id, edges, slots.next(edges[0].id, call.call_id)))
    return FailoverPlan(
        reconnect=tuple(reconnect), stuck=tuple(stuck), admit=tuple(admit), defer=tuple(defer)
    )


class _Slots:
    """When each edge takes its next call, and the lots that are drawn for calls."""

    def __init__(self, per_edge_per_s: int, seed: int) -> None:
        self._slot_ms = 1000.0 / per_edge_per_s
        self._key = seed.to_bytes(16, "big", signed=True)
        self._taken: dict[UUID, int] = {}

    def next(self, edge: UUID, call: UUID) -> float:
        number = self._taken.get(edge, 0)
        self._taken[edge] = number + 1
        return self._slot_ms * (number + self._lot(call, b"slot"))

    def draw(self, call: UUID) -> float:
        return self._lot(call, b"draw")

    def _lot(self, call: UUID, what: bytes) -> float:
        """In [0, 1)."""
        digest = hashlib.blake2b(call.bytes, digest_size=6, key=self._key, person=what).digest()
        return int.from_bytes(digest, "big") / (1 << 48)


def _below_headroom(fleet: Fleet, headroom: float) -> Fleet:
    """The fleet as new calls may fill it."""
    edges = tuple(
        replace(e, capacity_calls=math.floor(e.capacity_calls * (1 - headroom))) for e in fleet.edges
    )
    return Fleet(regions=fleet.regions, edges=edges)
