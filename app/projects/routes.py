"""Projects (for operators) and keys (for projects) over HTTP."""

from __future__ import annotations

from typing import Any

from litestar import delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from app.calls.routes import bounded
from app.dependencies import ControlIn, OperatorIn, PrincipalIn
from app.ids import parse
from app.projects.shapes import (
    CreatedKey,
    CreateKey,
    CreateProject,
    KeyPage,
    ProjectPage,
    ProjectView,
    RequestPage,
    TargetList,
)
from regions.wire import ids


@post("/admin/v1/projects", operation_id="adminCreateProject", tags=["projects"])
async def create_project(
    data: JSONBody[CreateProject], control: ControlIn, operator: OperatorIn
) -> ProjectView:
    """In the cell that is asked for; a project stays in it."""
    return await control.cells.for_project(data.jurisdiction, data.cell).projects.create(data)


@get("/admin/v1/projects", operation_id="adminListProjects", tags=["projects"])
async def list_projects(control: ControlIn, operator: OperatorIn) -> ProjectPage:
    """Of all cells, the oldest two hundred of each."""
    answers, away = await control.cells.ask(lambda c: c.projects.all())
    return ProjectPage(data=[project for some in answers for project in some], cells_away=away)


@get("/admin/v1/projects/{project_id:str}", operation_id="adminGetProject", tags=["projects"])
async def get_project(project_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> ProjectView:
    of_project = control.cells.of(parse(ids.PROJECT, project_id)) or control
    return await of_project.projects.get(project_id)


@post("/admin/v1/projects/{project_id:str}/keys", operation_id="adminCreateKey", tags=["projects"])
async def admin_create_key(
    project_id: FromPath[str],
    data: JSONBody[CreateKey],
    control: ControlIn,
    operator: OperatorIn,
) -> CreatedKey:
    of_project = control.cells.of(parse(ids.PROJECT, project_id)) or control
    return await of_project.projects.create_key_as_operator(project_id, data)


@post("/v1/keys", operation_id="createKey", tags=["keys"], summary="Create a key; its secret is shown once")
async def create_key(data: JSONBody[CreateKey], control: ControlIn, principal: PrincipalIn) -> CreatedKey:
    principal.require("keys:write")
    return await control.projects.create_key(principal, data)


@get("/v1/keys", operation_id="listKeys", tags=["keys"])
async def list_keys(control: ControlIn, principal: PrincipalIn) -> KeyPage:
    principal.require("keys:read")
    return KeyPage(data=await control.projects.list_keys(principal))


@delete("/v1/keys/{key_id:str}", operation_id="revokeKey", tags=["keys"], summary="Revoke a key")
async def revoke_key(key_id: FromPath[str], control: ControlIn, principal: PrincipalIn) -> None:
    principal.require("keys:write")
    await control.projects.revoke_key(principal, key_id)


@get(
    "/v1/targets",
    operation_id="getTargets",
    tags=["webhooks"],
    summary="Inner addresses that webhooks of this test project may reach",
)
async def get_targets(control: ControlIn, principal: PrincipalIn) -> TargetList:
    principal.require("targets:read")
    return TargetList(targets=await control.projects.targets(principal))


@put(
    "/v1/targets",
    operation_id="setTargets",
    tags=["webhooks"],
    summary="Put all of them in place of those before",
)
async def set_targets(data: JSONBody[TargetList], control: ControlIn, principal: PrincipalIn) -> TargetList:
    """For test projects, where the deployment allows it. Cloud metadata addresses cannot be listed, and are never dialled."""
    principal.require("targets:write")
    return TargetList(targets=await control.projects.set_targets(principal, data.targets))


@get(
    "/v1/requests",
    operation_id="listRequests",
    tags=["keys"],
    summary="The project's own requests, the newest first",
)
async def list_requests(
    control: ControlIn,
    principal: PrincipalIn,
    cursor: FromQuery[str | None] = None,
    limit: FromQuery[int] = 50,
    failed: FromQuery[bool] = False,
) -> RequestPage:
    """Those of the last three days, seconds after they were answered; no bodies. `failed`: only 4xx and 5xx."""
    principal.require("requests:read")
    found, at = await control.request_log.page(principal, cursor, bounded(limit), failed=failed)
    return RequestPage(data=found, next_cursor=at)


ROUTES: list[Any] = [
    create_project,
    list_projects,
    get_project,
    admin_create_key,
    create_key,
    list_keys,
    revoke_key,
    get_targets,
    set_targets,
    list_requests,
]
