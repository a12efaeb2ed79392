"""The call over HTTP. Decides nothing: parses, asks `Calls`, answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter

from app import cursors
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
from regions.wire import ids

LIMIT_DEFAULT, LIMIT_MAX = 50, 200
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
) -> Response[CreatedCall]:
    principal.require("calls:write")
    created, replayed = await control.calls.create(principal, idempotency_key, data)
    headers = {"Location": f"/v1/calls/{created.id}"}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return Response(created, status_code=201, headers=headers)


@get("/v1/calls", operation_id="listCalls", tags=["calls"], summary="List calls, newest first")
async def list_calls(
    request: Request[Any, Any, Any],
    control: ControlIn,
    principal: PrincipalIn,
    with_state: Annotated[StateFilter | None, QueryParameter(name="state", required=False)] = None,
    region: FromQuery[str | None] = None,
    limit: FromQuery[int] = LIMIT_DEFAULT,
    cursor: FromQuery[str | None] = None,
) -> CallPage:
    principal.require("calls:read")
    metadata = {
        k.removeprefix("metadata."): v for k, v in request.query_params.items() if k.startswith("metadata.")
    }
    filters = repr((with_state, region, sorted(metadata.items())))
    below = None
    if cursor is not None:
        text, made_for = cursors.decode("calls", cursor)
        if made_for != filters:
            raise BadRequest(
                "The filters have changed since the cursor was made.", code="bad_cursor", fix=cursors.FIX
            )
        below = parse(ids.CALL, str(text))
    limit = bounded(limit)
    calls = await control.calls.store.page(
        principal.project_id, below=below, state=with_state, region=region, metadata=metadata, limit=limit + 1
    )
    page = [to_view(c) for c in calls[:limit]]
    more = cursors.encode("calls", page[-1].id, filters) if len(calls) > limit else None
    return CallPage(data=page, next_cursor=more)


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
    principal.require("calls:write")
    return to_view(await control.calls.end(principal, parse(ids.CALL, call_id)))


@post(
    "/v1/calls/{call_id:str}/move",
    operation_id="moveCall",
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
    principal.require("calls:write")
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


def bounded(limit: int) -> int:
    """Too much is clamped; less than one is an error."""
    if limit < 1:
        raise BadRequest("`limit` must be at least 1.", code="bad_limit", fix=f"Use 1 to {LIMIT_MAX}.")
    return min(limit, LIMIT_MAX)


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
