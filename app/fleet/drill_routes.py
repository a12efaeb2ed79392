"""Operators' drills over HTTP. Decides nothing: parses, asks `Drills`, answers."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath, JSONBody

from app.dependencies import ControlIn, OperatorIn
from app.fleet.drill_shapes import DrillPage, DrillPreview, DrillRequest, DrillView


@post(
    "/admin/v1/drills",
    operation_id="adminStartDrill",
    tags=["fleet"],
    status_code=202,
    summary="Rehearse the loss of an edge or a region",
)
async def start_drill(
    data: JSONBody[DrillRequest], control: ControlIn, operator: OperatorIn
) -> Response[DrillView | DrillPreview]:
    """Cuts calls in waves, as if their edges had died, and reports what became of each. With `dry_run` 200 and what it would do."""
    shown = await control.drilling.operators.begin(data)
    return Response(shown, status_code=200 if isinstance(shown, DrillPreview) else 202)


@get("/admin/v1/drills", operation_id="adminListDrills", tags=["fleet"])
async def list_drills(control: ControlIn, operator: OperatorIn) -> DrillPage:
    """The newest fifty, the newest first."""
    return DrillPage(data=await control.drilling.operators.all())


@get("/admin/v1/drills/{drill_id:str}", operation_id="adminGetDrill", tags=["fleet"])
async def get_drill(drill_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> DrillView:
    """How far it is, and what became of each call."""
    return await control.drilling.operators.show(drill_id)


@post("/admin/v1/drills/{drill_id:str}/stop", operation_id="adminStopDrill", tags=["fleet"], status_code=200)
async def stop_drill(drill_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> DrillView:
    """No more calls are cut; those that were are followed until it is known what became of them."""
    return await control.drilling.operators.stop(drill_id)


ROUTES: list[Any] = [start_drill, list_drills, get_drill, stop_drill]
