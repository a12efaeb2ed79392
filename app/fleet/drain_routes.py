"""Operators' commands to regions and edges over HTTP. Decides nothing: parses, asks `Drains`, answers."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from app.dependencies import ControlIn, OperatorIn
from app.errors import NotFound
from app.fleet.drain_shapes import DrainPage, DrainRequest, DrainView, EvacuateRequest
from app.fleet.routes import edge_view, region_view
from app.fleet.shapes import EdgeView, RegionView
from app.ids import parse
from app.queries import bounded
from regions.wire import ids

DEFAULT = DrainRequest()


@post(
    "/admin/v1/regions/{region_id:str}/cordon",
    operation_id="adminCordonRegion",
    audit="region.cordoned",
    tags=["fleet"],
    status_code=200,
)
async def cordon_region(region_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> RegionView:
    """No new calls; those that run stay."""
    await control.draining.operators.region("cordon", region_id, 0)
    return _region(control, region_id)


@post(
    "/admin/v1/regions/{region_id:str}/uncordon",
    operation_id="adminUncordonRegion",
    audit="region.uncordoned",
    tags=["fleet"],
    status_code=200,
)
async def uncordon_region(region_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> RegionView:
    """Takes new calls again. A drain that runs is canceled: what has not moved stays."""
    await control.draining.operators.region("uncordon", region_id, 0)
    return _region(control, region_id)


@post(
    "/admin/v1/regions/{region_id:str}/drain",
    operation_id="adminDrainRegion",
    audit="region.drained",
    tags=["fleet"],
    status_code=202,
)
async def drain_region(
    region_id: FromPath[str],
    control: ControlIn,
    operator: OperatorIn,
    data: JSONBody[DrainRequest | None] = None,
) -> DrainView | None:
    """No new calls, and those that run are moved elsewhere at the end of a turn; by force when the time is over."""
    return await control.draining.operators.region("drain", region_id, (data or DEFAULT).within_s)


@post(
    "/admin/v1/regions/{region_id:str}/evacuate",
    operation_id="adminEvacuateRegion",
    audit="region.evacuated",
    tags=["fleet"],
    status_code=202,
)
async def evacuate_region(
    region_id: FromPath[str],
    control: ControlIn,
    operator: OperatorIn,
    data: JSONBody[EvacuateRequest | None] = None,
) -> DrainView | None:
    """A drain that waits for nothing."""
    return await control.draining.operators.region("evacuate", region_id, 0)


@get("/admin/v1/regions/{region_id:str}/drain", operation_id="adminGetRegionDrain", tags=["fleet"])
async def get_region_drain(region_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> DrainView:
    """The newest drain of the region, and how far it is."""
    return await control.draining.operators.of_region(region_id)


@post(
    "/admin/v1/edges/{edge_id:str}/cordon",
    operation_id="adminCordonEdge",
    audit="edge.cordoned",
    tags=["fleet"],
    status_code=200,
)
async def cordon_edge(edge_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> EdgeView:
    """No new calls; those that run stay."""
    await control.draining.operators.edge("cordon", edge_id, 0)
    return _edge(control, edge_id)


@post(
    "/admin/v1/edges/{edge_id:str}/uncordon",
    operation_id="adminUncordonEdge",
    audit="edge.uncordoned",
    tags=["fleet"],
    status_code=200,
)
async def uncordon_edge(edge_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> EdgeView:
    """Takes new calls again. A drain that runs is canceled: what has not moved stays."""
    await control.draining.operators.edge("uncordon", edge_id, 0)
    return _edge(control, edge_id)


@post(
    "/admin/v1/edges/{edge_id:str}/drain",
    operation_id="adminDrainEdge",
    audit="edge.drained",
    tags=["fleet"],
    status_code=202,
)
async def drain_edge(
    edge_id: FromPath[str],
    control: ControlIn,
    operator: OperatorIn,
    data: JSONBody[DrainRequest | None] = None,
) -> DrainView | None:
    """No new calls, and those that run are moved elsewhere at the end of a turn; by force when the time is over."""
    return await control.draining.operators.edge("drain", edge_id, (data or DEFAULT).within_s)


@post(
    "/admin/v1/edges/{edge_id:str}/evacuate",
    operation_id="adminEvacuateEdge",
    audit="edge.evacuated",
    tags=["fleet"],
    status_code=202,
)
async def evacuate_edge(
    edge_id: FromPath[str],
    control: ControlIn,
    operator: OperatorIn,
    data: JSONBody[EvacuateRequest | None] = None,
) -> DrainView | None:
    """A drain that waits for nothing."""
    return await control.draining.operators.edge("evacuate", edge_id, 0)


@get("/admin/v1/edges/{edge_id:str}/drain", operation_id="adminGetEdgeDrain", tags=["fleet"])
async def get_edge_drain(edge_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> DrainView:
    """The newest drain of the edge, and how far it is."""
    return await control.draining.operators.of_edge(edge_id)


@get("/admin/v1/drains", operation_id="adminListDrains", tags=["fleet"])
async def list_drains(control: ControlIn, operator: OperatorIn, limit: FromQuery[int] = 50) -> DrainPage:
    """Drains and evacuations of all regions and edges, whoever began them."""
    await control.fleet.refresh()
    return DrainPage(data=await control.draining.operators.all(bounded(limit)))


def _region(control: Any, region_id: str) -> RegionView:
    fleet = control.fleet.now
    return region_view(fleet, fleet.regions[region_id])


def _edge(control: Any, edge_id: str) -> EdgeView:
    found = parse(ids.EDGE, edge_id)
    edge = control.fleet.now.edge(found) if found is not None else None
    if edge is None:
        raise NotFound("There is no such edge.")
    return edge_view(edge)


ROUTES: list[Any] = [
    list_drains,
    cordon_region, uncordon_region, drain_region, evacuate_region, get_region_drain,
    cordon_edge, uncordon_edge, drain_edge, evacuate_edge, get_edge_drain,
]  # fmt: skip
