"""The call over HTTP. Decides nothing: parses, asks `Calls`, answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter

from app import cursors
from app.calls.listing import filters_of
from app.calls.overdue import Waiting
from app.calls.shapes import (
    CallPage,
    CallView,
    CreateCall,
    CreatedCall,
    EndCall,
    NewTicket,
    TicketRequest,
    WaitingCall,
    WaitingEdge,
    WaitingPage,
)
from app.calls.store import to_view
from app.calls.tail_views import tail_views
from app.calls.timeline import timeline
from app.calls.timeline_shapes import Timeline
from app.calls.timeline_store import Timelines
from app.clock import rfc3339
from app.dependencies import ControlIn, OperatorIn, PrincipalIn
from app.errors import BadRequest
from app.fleet.drain_shapes import MoveRequest, MoveView
from app.ids import parse
from app.queries import LIMIT_DEFAULT, PagingIn, bounded, metadata_of
from regions.wire import ids

StateFilter = Literal[
    "queued", "ringing", "in_progress", "reconnecting", "completed", "failed", "busy", "no_answer", "canceled"
]


@post("/v1/calls", operation_id="createCall", tags=["calls"], summary="Create a call")
async def create_call(
    data: JSONBody[CreateCall],
    request: Request[Any, Any, Any],
    control: ControlIn,
    principal: PrincipalIn,
    idempotency_key: Annotated[str | None, HeaderParameter(name="Idempotency-Key", required=False)] = None,
    traceparent: Annotated[
        str | None,
        HeaderParameter(description="W3C Trace Context: the call goes on in this trace.", required=False),
    ] = None,
) -> Response[CreatedCall]:
    principal.require("calls:write")
    created, replayed, left = await control.calls.create(principal, idempotency_key, data, traceparent)
    headers = {"Location": f"/v1/calls/{created.id}", **left}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    if created.traceparent:
        headers["traceparent"] = created.traceparent
    return Response(created, status_code=201, headers=headers)


@get(
    "/v1/calls",
    operation_id="listCalls",
    tags=["calls"],
    summary="List calls, newest first",
    by_metadata=True,
)
async def list_calls(
    request: Request[Any, Any, Any],
    control: ControlIn,
    principal: PrincipalIn,
    paging: PagingIn,
    with_state: Annotated[StateFilter | None, QueryParameter(name="state", required=False)] = None,
    region: FromQuery[str | None] = None,
    created_after: Annotated[
        str | None,
        QueryParameter(description="RFC 3339; a call created then is in the list.", required=False),
    ] = None,
    created_before: Annotated[
        str | None, QueryParameter(description="RFC 3339; a call created then is not.", required=False)
    ] = None,
    caller_from: Annotated[
        str | None, QueryParameter(name="from", description="The number it came from.", required=False)
    ] = None,
    caller_to: Annotated[
        str | None, QueryParameter(name="to", description="The number that was called.", required=False)
    ] = None,
) -> CallPage:
    """All filters that are given hold together; metadata by `metadata.<name>=<value>`. Numbers in any form that a create takes.

    Go on while there is a `next_cursor`, whatever `data` holds: of several filters, a page is what was found within a fiftieth of a
    second, which may be nothing where calls that pass all of them are rare."""
    principal.require("calls:read")
    asked = filters_of(
        state=with_state,
        region=region,
        created_after=created_after,
        created_before=created_before,
        caller_from=caller_from,
        caller_to=caller_to,
        metadata=metadata_of(request.query_params),
    )
    below = None
    if paging.cursor:
        text, made_for = cursors.decode("calls", paging.cursor)
        if made_for != asked.mark:
            raise BadRequest(
                "The filters have changed since the cursor was made.", code="bad_cursor", fix=cursors.FIX
            )
        below = parse(ids.CALL, str(text))
    found = await control.calls.store.page(principal.project_id, asked, below=below, limit=paging.limit)
    more = cursors.encode("calls", ids.encode(ids.CALL, found.below), asked.mark) if found.below else None
    return CallPage(data=[to_view(call) for call in found.calls], next_cursor=more)


@get("/v1/calls/{call_id:str}", operation_id="getCall", tags=["calls"], summary="Read a call")
async def get_call(
    call_id: FromPath[str],
    control: ControlIn,
    principal: PrincipalIn,
    tails: Annotated[
        bool, QueryParameter(description="With how far each region's memory of it is.", required=False)
    ] = False,
) -> CallView:
    principal.require("calls:read")
    call = await control.calls.get(principal, parse(ids.CALL, call_id))
    if not tails:
        return to_view(call)
    return msgspec.structs.replace(to_view(call), tails=await tail_views(control, call))


@get(
    "/v1/calls/{call_id:str}/timeline",
    operation_id="getCallTimeline",
    tags=["calls"],
    summary="What happened to a call, in order: its placement, owners, states, moves and deliveries",
)
async def get_timeline(call_id: FromPath[str], control: ControlIn, principal: PrincipalIn) -> Timeline:
    """Bounded: at most 1,000 events, 1,000 attempts of webhooks, 200 moves and 200 late events, the oldest first."""
    principal.require("calls:read")
    call = await control.calls.get(principal, parse(ids.CALL, call_id))
    stored = Timelines(control.db, control.horizon)
    return timeline(call, await stored.read(call, deliveries="webhooks:read" in principal.scopes))


@post(
    "/v1/calls/{call_id:str}/end",
    operation_id="endCall",
    audit="call.end_asked",
    tags=["calls"],
    summary="End a call",
    status_code=200,
)
async def end_call(
    call_id: FromPath[str],
    control: ControlIn,
    principal: PrincipalIn,
    data: JSONBody[EndCall | None] = None,
) -> CallView:
    principal.require("calls:operate")
    return to_view(await control.calls.end(principal, parse(ids.CALL, call_id)))


@post(
    "/v1/calls/{call_id:str}/move",
    operation_id="moveCall",
    audit="call.move_asked",
    tags=["calls"],
    summary="Move a call to another edge, at the end of a turn",
    status_code=202,
)
async def move_call(
    call_id: FromPath[str],
    control: ControlIn,
    principal: PrincipalIn,
    data: JSONBody[MoveRequest | None] = None,
) -> MoveView:
    principal.require("calls:operate")
    return await control.draining.moves.move(principal, parse(ids.CALL, call_id), data or MoveRequest())


@post(
    "/v1/calls/{call_id:str}/ticket",
    operation_id="renewTicket",
    tags=["calls"],
    summary="New epochs for a call; the old ticket is the credential",
    status_code=200,
    security=[{}],
)
async def new_ticket(call_id: FromPath[str], data: JSONBody[TicketRequest], control: ControlIn) -> NewTicket:
    # a caller has no key: the call names its cell
    of_call = control.cells.of(parse(ids.CALL, call_id)) or control
    return await of_call.calls.new_ticket(call_id, data.ticket)


@get("/admin/v1/calls/waiting", operation_id="adminListWaitingCalls", tags=["fleet"])
async def admin_list_waiting(
    control: ControlIn, operator: OperatorIn, limit: FromQuery[int] = LIMIT_DEFAULT
) -> WaitingPage:
    """Calls of all cells that wait for the reconciler, the longest first, and whom they wait for."""
    limit = bounded(limit)
    answers, away = await control.cells.ask(lambda c: c.overdue.waiting(limit))
    longest = sorted((call for some in answers for call in some), key=lambda call: call.since)
    return WaitingPage(data=[_waiting(call) for call in longest[:limit]], cells_away=away)


def _waiting(call: Waiting) -> WaitingCall:
    return WaitingCall(
        call_id=ids.encode(ids.CALL, call.call_id),
        project_id=ids.encode(ids.PROJECT, call.project_id),
        reason=call.reason,
        since=rfc3339(call.since),
        grants_expire_at=rfc3339(call.grants_expire_at),
        edges=[
            WaitingEdge(
                edge=ids.encode(ids.EDGE, asked.edge_id),
                region=asked.region,
                answer=asked.answer,
                asked_at=rfc3339(asked.asked_at) if asked.asked_at else None,
            )
            for asked in call.edges
        ],
    )


ROUTES: list[Any] = [
    create_call,
    list_calls,
    get_call,
    get_timeline,
    end_call,
    move_call,
    new_ticket,
    admin_list_waiting,
]
