"""What a drill does next: whom to cut, whom to ask again, when to stop by itself, and what came of it. Pure.

The drill as it is kept, its calls, the fleet around it and the bounds come in; `Actions` go out. Ages are the database's, so
that no clock of an instance or an edge decides anything.

Waves: one call, then a tenth, then the rest; the next one only when everything that was cut before is settled, within bounds.

    wave 1 ──stood──► wave 2 ──stood──► wave 3 ──stood──► passed
      │                 │                 └──a bound is broken──► failed      (nothing was left to spare)
      └─────────────────┴──a bound is broken, or the fleet is not fit──► stopped
      any of them ──an operator says so──► cancelled

Each call that is not settled yet:

1. it was never asked for, or its edge has not answered for 3 s  → ``ask``, three times at most
2. it was asked for three times                                  → ``give_up``: untouched, as far as is known

Then the drill, the first case that applies:

1. a bound is broken                          → ``halt``
2. not all were cut, and the fleet is not fit (whether or not their calls are still there: a drain takes them away), or there
   would be another wave, and the time is over  → ``halt``
3. something that was cut is not settled      → nothing: it is waited for, after a halt as well
4. it was halted                              → ``finish``
5. another wave is due, and who decides has not heard all edges since it started → nothing: it will have, or will know that they
   are silent, within seconds
6. another wave is due, and there are calls   → ``wave``
7. else                                       → ``finish``: passed, or stopped where no call was ever cut

An instance that has just started has seen nothing come back, for nobody was there to be told: a call is late by what this instance
has had the time to hear.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from app.fleet.view import EdgeState

ASKS_MAX = 3
ANSWER_WITHIN_S = 3.0
LOG_MS = 2_000
"""Until an event that has happened is in the log; a call that is not back is late only after that."""
FIRST_SHARE = 0.1
TAKING = ("healthy", "probation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """`max_lost_events`: events that were acknowledged and are not in the log. `max_failed_calls`: calls that did not come back."""

    max_rto_ms: int
    max_lost_events: int
    max_failed_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """`outcome`: ``recovered``, ``ended`` (by one of its ends, while it was being followed), ``lost`` or ``untouched``."""

    outcome: str
    rto_ms: float | None = None
    lost_events: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A call that was chosen. `asked_s`: since its edge was told last; `cut_ms`: since the edge's word came that it was cut."""

    call_id: UUID
    wave: int
    asks: int = 0
    asked_s: float = 0.0
    cut_ms: float | None = None
    fate: Fate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The drill as it is kept. `late`: its time is over."""

    total: int
    wave: int = 0
    halted: Halt | None = None
    late: bool = False


@dataclass(frozen=True, slots=True)
class Halt:
    """`verdict`: ``passed``, ``failed``, ``stopped`` or ``cancelled``."""

    verdict: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    ask: tuple[UUID, ...] = ()
    give_up: tuple[UUID, ...] = ()
    wave: int = 0
    halt: Halt | None = None
    finish: Halt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A call on the target. `standbys`: what its caller holds grants of, (edge, incarnation) in order."""

    call_id: UUID
    epoch: int
    edge_id: UUID
    region: str
    standbys: tuple[tuple[UUID, UUID], ...]


def decide(
    drill: Standing,
    calls: Sequence[Followed],
    bounds: Bounds,
    *,
    unfit: str,
    available: int,
    sure_ms: float = math.inf,
) -> Actions:
    """`unfit`: why the fleet is not fit for another wave; `available`: calls that might be cut next; `sure_ms`: for how long who
    decides has known the fleet, 0 while it does not."""
    open_ = [c for c in calls if c.fate is None]
    unanswered = [c for c in open_ if c.cut_ms is None and (c.asks == 0 or c.asked_s > ANSWER_WITHIN_S)]
    ask = tuple(c.call_id for c in unanswered if c.asks < ASKS_MAX and drill.halted is None)
    give_up = tuple(c.call_id for c in unanswered if c.call_id not in set(ask))
    cut = sum(c.fate is None or c.fate.outcome != "untouched" for c in calls)
    left = drill.total - cut
    sure = sure_ms > 0
    more = min(left, available) > 0 if sure else left > 0
    waiting = len(open_) > len(give_up)
    halt = _halt(drill, calls, bounds, unfit=unfit if left > 0 else "", more=more, sure_ms=sure_ms)
    if halt is not None or waiting:
        return Actions(ask=() if halt is not None else ask, give_up=give_up, halt=halt)
    if drill.halted is not None:
        return Actions(give_up=give_up, finish=drill.halted)
    if more and not sure:
        return Actions(give_up=give_up)
    if more:
        return Actions(give_up=give_up, wave=min(wave_size(drill.total, drill.wave + 1, cut), available))
    settled = any(c.fate is not None and c.fate.outcome != "untouched" for c in calls)
    finish = Halt("passed", "") if settled else Halt("stopped", "no_calls")
    return Actions(give_up=give_up, finish=finish)


def _halt(
    drill: Standing, calls: Sequence[Followed], bounds: Bounds, *, unfit: str, more: bool, sure_ms: float
) -> Halt | None:
    if drill.halted is not None:
        return None
    broken = _broken(calls, bounds, sure_ms)
    if broken:
        return Halt("stopped" if more else "failed", broken)
    if unfit:
        return Halt("stopped", unfit)
    if more and drill.late:
        return Halt("stopped", "time_limit")
    return None


def _broken(calls: Sequence[Followed], bounds: Bounds, sure_ms: float) -> str:
    fates = [c.fate for c in calls if c.fate is not None]
    late = any(c.fate is None and min(c.cut_ms or 0.0, sure_ms) > bounds.max_rto_ms + LOG_MS for c in calls)
    if sum(f.outcome == "lost" for f in fates) > bounds.max_failed_calls:
        return "max_failed_calls"
    if sum(f.lost_events for f in fates) > bounds.max_lost_events:
        return "max_lost_events"
    if late or any((f.rto_ms or 0.0) > bounds.max_rto_ms for f in fates):
        return "max_rto_ms"
    return ""


def wave_size(total: int, wave: int, cut: int) -> int:
    """`wave` counts from 1."""
    left = max(0, total - cut)
    return min(left, (1, max(1, math.ceil(total * FIRST_SHARE)))[wave - 1]) if wave <= 2 else left


def total_of(on_target: int, share: float, max_calls: int, protected: int) -> int:
    """How many calls a drill is about: the share of those that are there, but only such as have somewhere to go."""
    return min(math.ceil(share * on_target), max_calls, protected)


def destinations(
    calls: Sequence[Candidate], edges: Mapping[UUID, EdgeState], *, lost: frozenset[UUID]
) -> dict[UUID, UUID]:
    """Call → the standby that its caller will find first, for those that have one outside what is lost, which takes calls and has
    a place left. Every place counts once."""
    free = {
        e.id: e.capacity_calls - e.calls
        for e in edges.values()
        if e.id not in lost and e.health in TAKING and not e.draining
    }
    found: dict[UUID, UUID] = {}
    for call in calls:
        for edge_id, incarnation in call.standbys:
            if edge_id in lost:
                break  # it would come back to what is said to be lost
            if free.get(edge_id, 0) > 0 and edges[edge_id].incarnation == incarnation:
                free[edge_id] -= 1
                found[call.call_id] = edge_id
                break
    return found
