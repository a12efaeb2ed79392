"""Why the detector holds what it holds, and the fleet's events: for operators."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.params import FromPath, FromQuery, HeaderParameter
from litestar.response import Stream

from app.calls.routes import bounded
from app.control import Control
from app.dependencies import ControlIn, OperatorIn
from app.errors import BadRequest, NotFound
from app.fleet import explain
from app.fleet.detector import Judgement, Look
from app.fleet.events import FLEET_EVENT_TYPES, FleetPosition, FleetScope
from app.fleet.health_shapes import DetectorView, EdgeHealth, FleetEventPage, RegionHealth, SignalView
from app.fleet.view import EdgeState
from app.ids import parse
from app.log import sse
from app.log.rendering import block
from app.placement.choice import panics
from regions.wire import ids

NEVER_S = 1e8


@get(
    "/admin/v1/regions/{region_id:str}/health",
    operation_id="adminRegionHealth",
    tags=["fleet"],
    summary="What is held of a region, and why",
)
async def region_health(region_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> RegionHealth:
    await control.fleet.refresh()
    fleet, look = control.fleet.now, control.fleet.look
    region = fleet.regions.get(region_id)
    if region is None:
        raise NotFound("There is no such region.")
    judged = [j for j in look.judgements.values() if j.region == region_id]
    edges = [await _with_evacuation(control, j) for j in sorted(judged, key=lambda j: j.edge)]
    edges += [_stopped_view(e) for e in fleet.edges if e.region == region_id and e.stopped]
    actions = {e.action for e in edges if e.verdict == region.health}
    return RegionHealth(
        region=region_id,
        verdict=region.health,
        action=next((a for a in ("none", "quarantine", "evacuate") if a in actions), "none"),
        panic=panics(list(fleet.regions.values())),
        edges=edges,
        detector=detector_view(look),
        transitions=await control.fleet_events.latest(region=region_id),
    )


@get(
    "/admin/v1/edges/{edge_id:str}/health",
    operation_id="adminEdgeHealth",
    tags=["fleet"],
    summary="What is held of an edge, and why",
)
async def edge_health(edge_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> EdgeHealth:
    await control.fleet.refresh()
    found = parse(ids.EDGE, edge_id)
    edge = control.fleet.now.edge(found) if found is not None else None
    if edge is None or found is None:
        raise NotFound("There is no such edge.")
    judged = control.fleet.look.judgements.get(found)
    if judged is None:
        return msgspec.structs.replace(
            _stopped_view(edge), transitions=await control.fleet_events.latest(edge_id=found)
        )
    events = await control.fleet_events.latest(edge_id=found)
    return msgspec.structs.replace(await _with_evacuation(control, judged), transitions=events)


@get(
    "/admin/v1/events",
    operation_id="adminListEvents",
    tags=["fleet"],
    summary="Events of the fleet, oldest first",
)
async def fleet_events(
    control: ControlIn,
    operator: OperatorIn,
    cursor: FromQuery[str | None] = None,
    limit: FromQuery[int] = 50,
    types: FromQuery[list[str] | None] = None,
) -> FleetEventPage:
    scope = FleetScope(known_types(types))
    after = scope.position(cursor) if cursor else FleetPosition()
    found, reached = await control.fleet_events.page(after, types=types, limit=bounded(limit))
    return FleetEventPage(data=[event for _, event in found], next_cursor=scope.cursor(reached))


@get(
    "/admin/v1/events/stream",
    operation_id="adminStreamEvents",
    tags=["fleet"],
    summary="Events of the fleet as they become durable (text/event-stream)",
    media_type="text/event-stream",
)
async def stream_fleet_events(
    request: Request[Any, Any, Any],
    control: ControlIn,
    operator: OperatorIn,
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID", required=False)] = None,
    cursor: FromQuery[str | None] = None,
    types: FromQuery[list[str] | None] = None,
) -> Stream:
    """Starts after `Last-Event-ID` or `cursor`; with neither, with what comes from now on."""
    scope, start = FleetScope(known_types(types)), last_event_id or cursor
    if start:
        after = scope.position(start)
        await control.fleet_events.page(
            after, limit=1
        )  # one that is too old is refused before the stream begins
    else:
        after = await control.fleet_events.newest()
    heard = _heard(control, after, types, scope)
    return sse.event_stream(control, request.headers.get("authorization"), scope.cursor(after), heard)


async def _heard(
    control: Control, after: FleetPosition, types: list[str] | None, scope: FleetScope
) -> sse.Heard:
    feed = control.fleet_events.follow(
        after, types=types, look_every_s=sse.CHECK_EVERY_S, stop=control.stopping
    )
    async with aclosing(feed):
        async for position, event in feed:
            cursor = scope.cursor(position)
            if event is None:
                yield cursor, []
            else:
                text = msgspec.json.encode(event).decode()
                yield cursor, [block(text, type_=event.type, cursor=cursor)]


def known_types(types: list[str] | None) -> list[str] | None:
    """Raises `BadRequest` for one that does not exist."""
    unknown = [t for t in types or [] if t not in FLEET_EVENT_TYPES]
    if unknown:
        raise BadRequest(
            f"There is no type of fleet event {unknown[0][:64]!r}.",
            code="unknown_type",
            fix="See docs/reference/fleet-events.md.",
        )
    return types


async def _with_evacuation(control: Control, judged: Judgement) -> EdgeHealth:
    view = edge_health_view(judged)
    if judged.action != "evacuate":
        return view
    return msgspec.structs.replace(view, evacuation=await control.draining.operators.evacuation(judged.edge))


def _stopped_view(edge: EdgeState) -> EdgeHealth:
    return EdgeHealth(
        edge=ids.encode(ids.EDGE, edge.id),
        region=edge.region,
        verdict=edge.health,
        since_s=None,
        case="stopped",
        why="it was told to stop, and has said that it has",
        action="none",
        weight=0.0,
        flaps=0,
        signals=[],
        would_change=["as it was before, when it registers again"],
    )


def edge_health_view(judged: Judgement) -> EdgeHealth:
    return EdgeHealth(
        edge=ids.encode(ids.EDGE, judged.edge),
        region=judged.region,
        verdict=judged.health,
        since_s=round(judged.age_s, 1) if judged.age_s < NEVER_S else None,
        case=judged.state.case if judged.proven else "unproven",
        why=explain.why(judged),
        action=judged.action,
        weight=judged.weight,
        flaps=judged.state.flaps,
        signals=[SignalView(**s) for s in explain.signals(judged)],
        would_change=explain.would_change(judged),
    )


def detector_view(look: Look) -> DetectorView:
    return DetectorView(abstains=look.abstains, ejected=look.ejected, ejected_max=look.ejected_max)


ROUTES: list[Any] = [region_health, edge_health, fleet_events, stream_fleet_events]
