"""The log over HTTP: pages of events, and the stream of them (server-sent events, with Last-Event-ID)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.params import FromPath, FromQuery, HeaderParameter
from litestar.response import Stream

from app.calls.routes import bounded
from app.control import Control
from app.dependencies import ControlIn, PrincipalIn
from app.ids import parse
from app.log.feeds import Position, position_of
from app.projects.auth import Principal
from regions.wire import ids
from regions.wire.events import PublicEvent

HEARTBEAT_S = 15.0


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """`next_cursor` is always there: it is where to go on, now or later."""

    data: list[PublicEvent]
    next_cursor: str | None


@get("/v1/events", operation_id="listEvents", tags=["events"], summary="Events of the project, oldest first")
async def list_events(
    control: ControlIn,
    principal: PrincipalIn,
    cursor: FromQuery[str | None] = None,
    limit: FromQuery[int] = 50,
    types: FromQuery[list[str] | None] = None,
) -> EventPage:
    principal.require("events:read")
    after = position_of(cursor) if cursor else Position()
    found = await control.feeds.page(principal.project_id, after, types=types, limit=bounded(limit))
    return EventPage(
        data=[event for _, event in found], next_cursor=found[-1][0].cursor() if found else cursor
    )


@get(
    "/v1/calls/{call_id:str}/events",
    operation_id="listCallEvents",
    tags=["calls"],
    summary="Events of one call",
)
async def list_call_events(
    call_id: FromPath[str],
    control: ControlIn,
    principal: PrincipalIn,
    after: FromQuery[int] = 0,
    limit: FromQuery[int] = 200,
) -> EventPage:
    principal.require("events:read")
    call = await control.calls.get(principal, parse(ids.CALL, call_id))
    events = await control.feeds.of_call(
        principal.project_id, call.id, after_seq=max(after, 0), limit=bounded(limit)
    )
    return EventPage(data=events, next_cursor=str(events[-1].seq) if events else None)


@get(
    "/v1/events/stream",
    operation_id="streamEvents",
    tags=["events"],
    summary="Events as they become durable (text/event-stream)",
    media_type="text/event-stream",
)
async def stream_events(
    request: Request[Any, Any, Any],
    control: ControlIn,
    principal: PrincipalIn,
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID", required=False)] = None,
    cursor: FromQuery[str | None] = None,
    types: FromQuery[list[str] | None] = None,
) -> Stream:
    """Starts after `Last-Event-ID` or `cursor`; with neither, with what comes from now on."""
    principal.require("events:read")
    start = last_event_id or cursor
    after = position_of(start) if start else await control.feeds.newest()
    return Stream(
        _lines(control, principal, after, types),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _lines(
    control: Control, principal: Principal, after: Position, types: list[str] | None
) -> AsyncIterator[str]:
    yield f"retry: 1000\nid: {after.cursor()}\n\n"
    feed = control.feeds.follow(
        principal.project_id, after, types=types, heartbeat_s=HEARTBEAT_S, stop=control.stopping
    )
    async for found in feed:
        if found is None:
            yield ": still here\n\n"
            continue
        position, event = found
        yield f"id: {position.cursor()}\nevent: {event.type}\ndata: {msgspec.json.encode(event).decode()}\n\n"


ROUTES: list[Any] = [list_events, list_call_events, stream_events]
