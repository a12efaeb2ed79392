"""Why the detector holds what it holds, and the fleet's events: for operators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.params import FromPath, FromQuery, HeaderParameter
from litestar.response import Stream

from app.control import Control
from app.dependencies import ControlIn, OperatorIn
from app.errors import BadRequest
from app.fleet.events import FLEET_EVENT_TYPES, FleetPosition, FleetScope
from app.fleet.explain_views import edge_evidence, region_evidence
from app.fleet.health_shapes import EdgeHealth, FleetEventPage, RegionHealth
from app.log import sse
from app.log.rendering import block
from app.projects.watching import Watch
from app.queries import PagingIn


@get(
    "/admin/v1/regions/{region_id:str}/health",
    operation_id="adminRegionHealth",
    tags=["fleet"],
    summary="What is held of a region, and why",
)
async def region_health(region_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> RegionHealth:
    return await region_evidence(control, region_id)


@get(
    "/admin/v1/edges/{edge_id:str}/health",
    operation_id="adminEdgeHealth",
    tags=["fleet"],
    summary="What is held of an edge, and why",
)
async def edge_health(edge_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> EdgeHealth:
    return await edge_evidence(control, edge_id)


@get(
    "/admin/v1/events",
    operation_id="adminListEvents",
    tags=["fleet"],
    summary="Events of the fleet, oldest first",
)
async def fleet_events(
    control: ControlIn,
    operator: OperatorIn,
    paging: PagingIn,
    types: FromQuery[list[str] | None] = None,
) -> FleetEventPage:
    scope = FleetScope(known_types(types))
    after = scope.position(paging.cursor) if paging.cursor else FleetPosition()
    found, reached = await control.fleet_events.page(after, types=types, limit=paging.limit)
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
    return sse.event_stream(control, request, scope.cursor(after), heard)


def _heard(control: Control, after: FleetPosition, types: list[str] | None, scope: FleetScope) -> sse.Hearing:
    async def heard(watch: Watch) -> AsyncIterator[tuple[str, list[str]]]:
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

    return heard


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


ROUTES: list[Any] = [region_health, edge_health, fleet_events, stream_fleet_events]
