"""Projects (for operators) and keys (for projects) over HTTP."""

from __future__ import annotations

from typing import Any

from litestar import delete, get, post
from litestar.params import FromPath, JSONBody

from app.dependencies import ControlIn, OperatorIn, PrincipalIn
from app.ids import parse
from app.projects.shapes import CreatedKey, CreateKey, CreateProject, KeyPage, ProjectPage, ProjectView
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


ROUTES: list[Any] = [
    create_project,
    list_projects,
    get_project,
    admin_create_key,
    create_key,
    list_keys,
    revoke_key,
]
