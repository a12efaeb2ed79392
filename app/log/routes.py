"""The log over HTTP: pages of events, the stream of them (server-sent events, with Last-Event-ID), and the feed's WebSocket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any
from uuid import uuid4

import msgspec
from litestar import Request, get, websocket
from litestar.connection import WebSocket
from litestar.params import FromPath, FromQuery, HeaderParameter, QueryParameter
from litestar.response import Stream

from app.audit.asker import Asker, address_of, asking
from app.control import Control
from app.dependencies import ControlIn, PrincipalIn
from app.errors import BadRequest
from app.ids import parse
from app.log import sse
from app.log.asking import asked_filter, bounds_of, start_of
from app.log.cloudevents import CloudEvent, cloudevent
from app.log.fan import Step
from app.log.filters import EventFilter
from app.log.noting import note_page, note_stream
from app.log.positions import BEGINNING, Position, Scope, scope_of
from app.log.rendering import Format, Rendering, block
from app.log.socket import FeedSocket, LitestarSocket
from app.log.withholding import shown
from app.problems import refuse_socket
from app.projects.auth import Principal
from app.projects.credentials import authorization_of
from app.projects.watching import Watch
from app.queries import PagingIn, bounded, metadata_of
from app.telemetry import feed_readers
from regions.wire import ids
from regions.wire.events import PublicEvent

Types = Annotated[
    list[str] | None, QueryParameter(description="As `call.ended` or `call.*`; repeat it for several.", required=False)
]  # fmt: skip
CallId = Annotated[str | None, QueryParameter(description="Events of this call alone.", required=False)]
Since = Annotated[
    str | None,
    QueryParameter(
        description="RFC 3339: begin with the first event stored then or later. A cursor goes before it.",
        required=False,
    ),
]
Until = Annotated[
    str | None,
    QueryParameter(description="RFC 3339: end before the first event stored then or later.", required=False),
]
Shape = Annotated[
    Format, QueryParameter(name="format", description="`cloudevents`: CloudEvents 1.0.", required=False)
]


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """`next_cursor` is where to go on, now or later; null where `until` was given and nothing more can come before it."""

    data: list[PublicEvent]
    next_cursor: str | None


class CloudEventPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[CloudEvent]
    next_cursor: str | None


@get(
    "/v1/events",
    operation_id="listEvents",
    tags=["events"],
    summary="Events of the project, oldest first",
    by_metadata=True,
)
async def list_events(
    request: Request[Any, Any, Any],
    control: ControlIn,
    principal: PrincipalIn,
    paging: PagingIn,
    types: Types = None,
    call_id: CallId = None,
    since: Since = None,
    until: Until = None,
    shape: Shape = "voxplane",
) -> EventPage | CloudEventPage:
    """`metadata.<name>=<value>` limits it to calls with that metadata. A cursor belongs to the filter it was made with; one from
    before the oldest event that is kept is 410 `cursor_expired`. Without `conversation:read` the data of content are withheld."""
    principal.require("events:read")
    wanted = await asked_filter(control, principal, types, call_id, metadata_of(request.query_params))
    scope = scope_of(principal.project_id, wanted)
    limit = paging.limit
    after, end = await bounds_of(control, principal, scope, paging.cursor, since, until)
    found, reached = await control.feeds.page(principal.project_id, after, wanted=wanted, limit=limit)
    next_cursor = scope.cursor(reached) if end is None or reached < end else None
    if end is not None:
        found = [(at, event) for at, event in found if at <= end]
    events = shown(principal, [event for _, event in found])
    await note_page(control, principal, events, call_id)
    if shape == "cloudevents":
        project = ids.encode(ids.PROJECT, principal.project_id)
        return CloudEventPage(
            data=[cloudevent(event, project=project) for event in events], next_cursor=next_cursor
        )
    return EventPage(data=events, next_cursor=next_cursor)


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
    if after < 0:
        raise BadRequest("`after` is a `seq`, or 0.", code="bad_cursor", fix="Use 0 to begin with the first.")
    call = await control.calls.get(principal, parse(ids.CALL, call_id))
    events = await control.feeds.of_call(
        principal.project_id, call.id, after_seq=min(after, (1 << 31) - 1), limit=bounded(limit)
    )
    await note_page(control, principal, events, call_id)
    return EventPage(data=shown(principal, events), next_cursor=str(events[-1].seq) if events else None)


@get(
    "/v1/events/stream",
    operation_id="streamEvents",
    tags=["events"],
    summary="Events as they become durable (text/event-stream)",
    media_type="text/event-stream",
    by_metadata=True,
)
async def stream_events(
    request: Request[Any, Any, Any],
    control: ControlIn,
    principal: PrincipalIn,
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID", required=False)] = None,
    cursor: FromQuery[str | None] = None,
    types: Types = None,
    call_id: CallId = None,
    since: Since = None,
    volatile: Annotated[
        bool, QueryParameter(description="With volatile events; they have no id.", required=False)
    ] = False,
    shape: Shape = "voxplane",
) -> Stream:
    """Starts after `Last-Event-ID` or `cursor`, else at `since`; with none of them, with what comes from now on.
    `metadata.<name>=<value>` as in lists."""
    principal.require("events:read")
    metadata = metadata_of(request.query_params)
    wanted = await asked_filter(control, principal, types, call_id, metadata, volatile=volatile)
    after, scope = await start_of(control, principal, wanted, last_event_id or cursor, since)
    await note_stream(control, principal, wanted, call_id)
    heard = _heard(control, principal, after, wanted, scope, Rendering(shape, principal))
    return sse.event_stream(control, request, scope.cursor(after), heard, principal.scopes)


@get(
    "/v1/calls/{call_id:str}/events/stream",
    operation_id="streamCallEvents",
    tags=["calls"],
    summary="Events of one call as they become durable (text/event-stream)",
    media_type="text/event-stream",
)
async def stream_call_events(
    call_id: FromPath[str],
    request: Request[Any, Any, Any],
    control: ControlIn,
    principal: PrincipalIn,
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID", required=False)] = None,
    cursor: FromQuery[str | None] = None,
    types: Types = None,
    volatile: FromQuery[bool] = False,
    shape: Shape = "voxplane",
) -> Stream:
    """As `/v1/events/stream` with `call_id`; with neither `Last-Event-ID` nor `cursor` it begins with the call."""
    principal.require("events:read")
    wanted = await asked_filter(control, principal, types, call_id, {}, volatile=volatile)
    scope = scope_of(principal.project_id, wanted)
    start = last_event_id or cursor
    after, scope = await start_of(control, principal, wanted, start or scope.cursor(BEGINNING))
    await note_stream(control, principal, wanted, call_id)
    heard = _heard(control, principal, after, wanted, scope, Rendering(shape, principal))
    return sse.event_stream(control, request, scope.cursor(after), heard, principal.scopes)


def _heard(
    control: Control,
    principal: Principal,
    after: Position,
    wanted: EventFilter,
    scope: Scope,
    rendering: Rendering,
) -> sse.Hearing:
    async def heard(watch: Watch) -> AsyncIterator[tuple[str, list[str]]]:
        steps = control.fan.read(
            principal.project_id, after, wanted, look_every_s=sse.CHECK_EVERY_S, watch=watch
        )
        with feed_readers.labels("sse").track_inprogress():
            async with aclosing(steps):
                async for step in steps:
                    yield scope.cursor(step.reached), blocks(step, scope, rendering)

    return heard


def blocks(step: Step, scope: Scope, rendering: Rendering) -> list[str]:
    live = [block(rendering.live(e), type_=e.type, cursor=None) for e in step.live]
    if live and step.dropped:
        live.insert(0, f": {step.dropped} volatile events were dropped so far\n")
    return live + [rendering.block(e, scope) for e in step.entries]


@websocket("/v1/events/ws")
async def events_socket(socket: WebSocket[Any, Any, Any], control: ControlIn) -> None:
    """See `app.log.socket`. Refused before it is accepted where the key does not hold, or nobody can say whether it does."""
    try:
        principal = await control.auth.project(authorization_of(socket), socket.scope)
        principal.require("events:read")
    except Exception as error:  # noqa: BLE001  answered as over HTTP
        await refuse_socket(error, socket.send)
        return
    asking.set(Asker(address=address_of(socket.scope), request_id=uuid4().hex, actor=principal.actor))
    await socket.accept()
    with (
        feed_readers.labels("websocket").track_inprogress(),
        sse.watched(control, socket, principal.scopes) as watch,
    ):
        await FeedSocket(LitestarSocket(socket), control, principal, watch).run()


ROUTES: list[Any] = [
    list_events,
    list_call_events,
    stream_events,
    stream_call_events,
    events_socket,
]
