"""Operators' drills over HTTP. Decides nothing: parses, asks `Drills`, answers."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter

from app.control import Control
from app.dependencies import ControlIn, OperatorIn
from app.errors import NotFound
from app.fleet.drill_shapes import DrillPage, DrillPreview, DrillRequest, DrillView
from app.ids import parse
from regions.wire import ids

Cell = Annotated[
    int | None,
    QueryParameter(description="Calls of this cell; the home cell where it is left out.", required=False),
]


@post(
    "/admin/v1/drills",
    operation_id="adminStartDrill",
    audit="drill.started",
    tags=["fleet"],
    status_code=202,
    summary="Rehearse the loss of an edge or a region",
    responses={
        200: ResponseSpec(
            DrillPreview, generate_examples=False, description="With `dry_run`: what it would do."
        ),
        202: ResponseSpec(DrillView, generate_examples=False, description="Begun."),
    },
)
async def start_drill(
    data: JSONBody[DrillRequest], control: ControlIn, operator: OperatorIn, cell: Cell = None
) -> Response[DrillView | DrillPreview]:
    """Cuts calls in waves, as if their edges had died, and reports what became of each. With `dry_run` 200 and what it would do."""
    shown = await _in_cell(control, cell).drilling.operators.begin(data)
    return Response(shown, status_code=200 if isinstance(shown, DrillPreview) else 202)


@get("/admin/v1/drills", operation_id="adminListDrills", tags=["fleet"])
async def list_drills(control: ControlIn, operator: OperatorIn, cell: Cell = None) -> DrillPage:
    """The newest fifty, the newest first."""
    return DrillPage(data=await _in_cell(control, cell).drilling.operators.all())


@get("/admin/v1/drills/{drill_id:str}", operation_id="adminGetDrill", tags=["fleet"])
async def get_drill(drill_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> DrillView:
    """How far it is, and what became of each call."""
    return await _known(control, drill_id).drilling.operators.show(drill_id)


@post(
    "/admin/v1/drills/{drill_id:str}/stop",
    operation_id="adminStopDrill",
    audit="drill.stopped",
    tags=["fleet"],
    status_code=200,
)
async def stop_drill(drill_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> DrillView:
    """No more calls are cut; those that were are followed until it is known what became of them."""
    return await _known(control, drill_id).drilling.operators.stop(drill_id)


def _in_cell(control: Control, cell: int | None) -> Control:
    found = control if cell is None else control.cells.get(cell)
    if found is None:
        raise NotFound("There is no such cell.", fix="GET /readyz names the cells of this deployment.")
    return found


def _known(control: Control, drill_id: str) -> Control:
    return control.cells.of(parse(ids.DRILL, drill_id)) or control


ROUTES: list[Any] = [start_drill, list_drills, get_drill, stop_drill]
