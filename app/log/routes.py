"""The log over HTTP: pages of events, and the stream of them (server-sent events, with Last-Event-ID)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.params import FromPath, FromQuery, HeaderParameter
from litestar.response import Stream

from app.calls.routes import bounded
from app.connection import is_away
from app.control import Control
from app.dependencies import ControlIn, PrincipalIn
from app.errors import BadRequest, Unauthenticated
from app.ids import parse
from app.log.feeds import Position, position_of
from app.projects.auth import Principal
from regions.wire import ids
from regions.wire.events import EVENT_TYPES, PublicEvent

HEARTBEAT_S = 15.0
CHECK_EVERY_S = 3.0


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
    found, reached = await control.feeds.page(
        principal.project_id, after, types=known_types(types), limit=bounded(limit)
    )
    return EventPage(data=[event for _, event in found], next_cursor=reached.cursor())


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
        _lines(control, request.headers.get("authorization"), principal, after, known_types(types)),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _lines(
    control: Control, credential: str | None, principal: Principal, after: Position, types: list[str] | None
) -> AsyncIterator[str]:
    """Ends where the key that opened it is not valid any more."""
    yield f"retry: 1000\nid: {after.cursor()}\n\n"
    said_s = checked_s = control.clock.monotonic_s()
    feed = control.feeds.follow(
        principal.project_id, after, types=types, look_every_s=CHECK_EVERY_S, stop=control.stopping
    )
    async for position, found in feed:
        now_s = control.clock.monotonic_s()
        if now_s - checked_s >= CHECK_EVERY_S:
            checked_s = now_s
            try:
                await control.auth.authenticate(credential)
            except Unauthenticated:
                return
            except Exception as error:
                # with the database away nothing is served either; it is asked again with the next
                if not is_away(error):
                    raise
        if found:
            said_s = now_s
            yield "".join(
                [
                    f"id: {at.cursor()}\nevent: {event.type}\ndata: {msgspec.json.encode(event).decode()}\n\n"
                    for at, event in found
                ]
            )
        elif now_s - said_s >= HEARTBEAT_S - CHECK_EVERY_S:
            said_s = now_s
            yield f": still here\nid: {position.cursor()}\n\n"


def known_types(types: list[str] | None) -> list[str] | None:
    """Raises `BadRequest` for one that does not exist: a reader that waits for it would wait for ever."""
    unknown = [t for t in types or [] if t not in EVENT_TYPES]
    if unknown:
        raise BadRequest(
            f"There is no event type {unknown[0][:64]!r}.",
            code="unknown_type",
            fix="See docs/reference/webhooks-and-events.md.",
        )
    return types


ROUTES: list[Any] = [list_events, list_call_events, stream_events]
