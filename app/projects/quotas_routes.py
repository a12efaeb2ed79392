"""Quotas over HTTP. Decides nothing: parses, asks `Quotas`, answers."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response, get, patch, put
from litestar.params import FromPath, HeaderParameter, JSONBody

from app.conditions import version_named
from app.control import Control
from app.dependencies import ControlIn, OperatorIn, PrincipalIn
from app.ids import parse
from app.projects.quotas_policy import Limits
from app.projects.quotas_service import Quotas
from app.projects.quotas_shapes import ChangeLimits, ProjectQuotas, QuotasView
from regions.wire import ids

PATH = "/admin/v1/projects/{project_id:str}/quotas"
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", required=False)]


@get("/v1/quotas", operation_id="getQuotas", tags=["projects"], summary="What may be used, and what is")
async def get_quotas(control: ControlIn, principal: PrincipalIn) -> QuotasView:
    """Of the project, and of the key that asks."""
    principal.require("quotas:read")
    return await control.quotas.view(principal)


@get(PATH, operation_id="adminGetQuotas", tags=["projects"])
async def admin_get_quotas(
    project_id: FromPath[str], control: ControlIn, operator: OperatorIn
) -> Response[ProjectQuotas]:
    return _with_etag(await _of(control, project_id).read(project_id))


@put(PATH, operation_id="adminSetQuotas", audit="quotas.changed", tags=["projects"])
async def admin_set_quotas(
    project_id: FromPath[str],
    data: JSONBody[Limits],
    control: ControlIn,
    operator: OperatorIn,
    if_match: IfMatch = None,
) -> Response[ProjectQuotas]:
    """All of them in place of those before: what is left out is not bounded any more."""
    version = version_named(if_match, "quotas")
    return _with_etag(await _of(control, project_id).put(project_id, version, data))


@patch(PATH, operation_id="adminChangeQuotas", audit="quotas.changed", tags=["projects"])
async def admin_change_quotas(
    project_id: FromPath[str],
    data: JSONBody[ChangeLimits],
    control: ControlIn,
    operator: OperatorIn,
    if_match: IfMatch = None,
) -> Response[ProjectQuotas]:
    """Those that are named; null takes one away."""
    version = version_named(if_match, "quotas")
    return _with_etag(await _of(control, project_id).change(project_id, version, data))


def _of(control: Control, project_id: str) -> Quotas:
    return (control.cells.of(parse(ids.PROJECT, project_id)) or control).quotas


def _with_etag(quotas: ProjectQuotas) -> Response[ProjectQuotas]:
    return Response(quotas, headers={"ETag": f'"{quotas.version}"'})


ROUTES: list[Any] = [get_quotas, admin_get_quotas, admin_set_quotas, admin_change_quotas]
