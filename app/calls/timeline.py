"""One ordered list of what happened to a call: who had it, from when and why, its states, moves and deliveries. Pure.

Decides the order, what an event changed, and what is too much. Events stand in the order of the log whatever their clocks say; what
the control plane did beside it (moves, attempts of webhooks) is put among them by when the log stored them. An edge that writes at a
higher epoch than all before it owns the call from there on; the final event stands above every grant and makes nobody the owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.calls.machine import CallState, state_after
from app.calls.store import StoredCall
from app.calls.timeline_shapes import (
    LateEvent,
    Timeline,
    TimelineDelivery,
    TimelineEntry,
    TimelineMove,
    TimelineOwner,
)
from app.clock import rfc3339
from regions.wire import ids

EVENTS_MAX = 1_000
MOVES_MAX = 200
ATTEMPTS_MAX = 1_000
LATE_MAX = 200
TAKEOVERS = ("call.reconnecting", "call.moved")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEvent:
    """As the log has it. `data`: None where it is content."""

    seq: int
    type: str
    epoch: int
    region: str | None
    at: datetime
    stored_at: datetime
    data: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenMove:
    epoch: int
    drained: bool
    from_edge: UUID
    to_edge: UUID
    force_at: datetime
    asked_at: datetime
    done_at: datetime | None
    outcome: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenAttempt:
    webhook_id: UUID
    seq: int
    type: str | None
    attempt: int
    at: datetime
    duration_ms: int
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenLate:
    epoch: int
    n: int
    type: str
    edge_id: UUID
    region: str | None
    at: datetime
    stored_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was read of one call, each list with one more than is shown where there is more. `attempts` None: not to be shown.
    `expired`: its events are kept no longer."""

    events: Sequence[SeenEvent] = ()
    moves: Sequence[SeenMove] = ()
    attempts: Sequence[SeenAttempt] | None = None
    late: Sequence[SeenLate] = ()
    expired: bool = False


def timeline(call: StoredCall, seen: Seen) -> Timeline:
    attempts = seen.attempts or ()
    placed = [
        *_events(call, seen.events[:EVENTS_MAX]),
        *((m.asked_at, _move(m)) for m in seen.moves[:MOVES_MAX]),
        *((a.at, _delivery(a)) for a in attempts[:ATTEMPTS_MAX]),
    ]
    # stable: at the same moment an event comes before what followed from it
    placed.sort(key=lambda entry: entry[0])
    return Timeline(
        call_id=ids.encode(ids.CALL, call.id),
        state=call.state,
        created_at=rfc3339(call.created_at),
        answered_at=rfc3339(call.answered_at) if call.answered_at else None,
        ended_at=rfc3339(call.ended_at) if call.ended_at else None,
        end_reason=call.end_reason,
        placement=call.placement,
        entries=[entry for _, entry in placed],
        late=[_late(event) for event in seen.late[:LATE_MAX]],
        deliveries=seen.attempts is not None,
        incomplete=_incomplete(seen),
    )


def _incomplete(seen: Seen) -> list[str]:
    more = {
        "events_expired": seen.expired,
        "events": len(seen.events) > EVENTS_MAX,
        "moves": len(seen.moves) > MOVES_MAX,
        "deliveries": len(seen.attempts or ()) > ATTEMPTS_MAX,
        "late": len(seen.late) > LATE_MAX,
    }
    return [what for what, is_so in more.items() if is_so]


def _events(call: StoredCall, events: Sequence[SeenEvent]) -> list[tuple[datetime, TimelineEntry]]:
    """With when each counts as having happened: never before the one before it."""
    found: list[tuple[datetime, TimelineEntry]] = []
    state, owned, answered = CallState.QUEUED, 0, False
    for event in events:
        data = _data(event)
        before, before_owned = state, owned
        answered = answered or event.type == "call.answered"
        if event.type == "call.created":
            state = CallState.RINGING
        else:
            state = state_after(state, event.type, end_reason=data.get("end_reason"), answered=answered)
        owner = _owner(call, event, owned, data)
        owned = event.epoch if owner is not None else owned
        entry = TimelineEntry(
            kind="event",
            at=rfc3339(event.at),
            seq=event.seq,
            type=event.type,
            epoch=event.epoch,
            region=event.region,
            data=data,
            state=msgspec.UNSET if state is before else state.value,
            owner=msgspec.UNSET if owner is None or owned == before_owned else owner,
        )
        found.append((max(event.stored_at, found[-1][0]) if found else event.stored_at, entry))
    return found


def _owner(call: StoredCall, event: SeenEvent, owned: int, data: dict[str, Any]) -> TimelineOwner | None:
    """Who has the call from this event on, where that is somebody else than before."""
    if event.type == "call.ended" or not owned < event.epoch <= len(call.grant_edges):
        return None
    why = "created" if event.type == "call.created" else "attached"
    if event.type in TAKEOVERS:
        why = str(data.get("reason", ""))
    return TimelineOwner(
        epoch=event.epoch,
        edge=ids.encode(ids.EDGE, call.grant_edges[event.epoch - 1]),
        region=event.region or call.placement.region,
        why=why,
    )


def _data(event: SeenEvent) -> dict[str, Any]:
    found = msgspec.json.decode(event.data) if event.data else {}
    return found if isinstance(found, dict) else {}


def _move(move: SeenMove) -> TimelineEntry:
    return TimelineEntry(
        kind="move",
        at=rfc3339(move.asked_at),
        move=TimelineMove(
            by="drain" if move.drained else "project",
            epoch=move.epoch,
            from_edge=ids.encode(ids.EDGE, move.from_edge),
            to_edge=ids.encode(ids.EDGE, move.to_edge),
            force_at=rfc3339(move.force_at),
            outcome=move.outcome,
            done_at=rfc3339(move.done_at) if move.done_at else None,
        ),
    )


def _delivery(attempt: SeenAttempt) -> TimelineEntry:
    return TimelineEntry(
        kind="delivery",
        at=rfc3339(attempt.at),
        delivery=TimelineDelivery(
            webhook_id=ids.encode(ids.WEBHOOK, attempt.webhook_id),
            event_type=attempt.type,
            event_seq=attempt.seq,
            attempt=attempt.attempt,
            status=attempt.status,
            error=attempt.error,
            duration_ms=attempt.duration_ms,
        ),
    )


def _late(event: SeenLate) -> LateEvent:
    return LateEvent(
        at=rfc3339(event.at),
        type=event.type,
        epoch=event.epoch,
        n=event.n,
        edge=ids.encode(ids.EDGE, event.edge_id),
        region=event.region,
        stored_at=rfc3339(event.stored_at),
    )
