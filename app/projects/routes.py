"""Projects (for operators) and keys (for projects) over HTTP."""

from __future__ import annotations

from typing import Any

from litestar import delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from app.dependencies import ControlIn, OperatorIn, PrincipalIn
from app.ids import parse
from app.projects.shapes import (
    AgentSecretView,
    ChangeKey,
    CreatedKey,
    CreateKey,
    CreateProject,
    KeyPage,
    KeyView,
    ProjectPage,
    ProjectView,
    RequestPage,
    RotateAgentSecret,
    RotateKey,
    TargetList,
)
from app.queries import PagingIn
from regions.wire import ids


@post("/admin/v1/projects", operation_id="adminCreateProject", audit="project.created", tags=["projects"])
async def create_project(
    data: JSONBody[CreateProject], control: ControlIn, operator: OperatorIn
) -> ProjectView:
    """In the cell that is asked for; a project stays in it."""
    return await control.cells.for_project(data.jurisdiction, data.cell).projects.create(data)


@get("/admin/v1/projects", operation_id="adminListProjects", tags=["projects"])
async def list_projects(control: ControlIn, operator: OperatorIn) -> ProjectPage:
    """Of all cells, the oldest ten thousand of each."""
    answers, away = await control.cells.ask(lambda c: c.projects.all())
    return ProjectPage(data=[project for some in answers for project in some], cells_away=away)


@get("/admin/v1/projects/{project_id:str}", operation_id="adminGetProject", tags=["projects"])
async def get_project(project_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> ProjectView:
    of_project = control.cells.of(parse(ids.PROJECT, project_id)) or control
    return await of_project.projects.get(project_id)


@post(
    "/admin/v1/projects/{project_id:str}/keys",
    operation_id="adminCreateKey",
    audit="key.created",
    tags=["projects"],
)
async def admin_create_key(
    project_id: FromPath[str],
    data: JSONBody[CreateKey],
    control: ControlIn,
    operator: OperatorIn,
) -> CreatedKey:
    of_project = control.cells.of(parse(ids.PROJECT, project_id)) or control
    id_, mode = await of_project.projects.mode_of(project_id)
    return await of_project.api_keys.create_as_operator(id_, mode, data)


@post(
    "/v1/keys",
    operation_id="createKey",
    audit="key.created",
    tags=["keys"],
    summary="Create a key; its secret is shown once",
)
async def create_key(data: JSONBody[CreateKey], control: ControlIn, principal: PrincipalIn) -> CreatedKey:
    principal.require("keys:write")
    return await control.api_keys.create(principal, data)


@get("/v1/keys", operation_id="listKeys", tags=["keys"])
async def list_keys(control: ControlIn, principal: PrincipalIn) -> KeyPage:
    principal.require("keys:read")
    return KeyPage(data=await control.api_keys.all(principal))


@patch(
    "/v1/keys/{key_id:str}",
    operation_id="changeKey",
    audit="key.changed",
    tags=["keys"],
    summary="Rename a key, or let it do less",
)
async def change_key(
    key_id: FromPath[str], data: JSONBody[ChangeKey], control: ControlIn, principal: PrincipalIn
) -> KeyView:
    """Never more than it may do already: for that, create another key."""
    principal.require("keys:write")
    return await control.api_keys.change(principal, key_id, data)


@delete(
    "/v1/keys/{key_id:str}",
    operation_id="revokeKey",
    audit="key.revoked",
    tags=["keys"],
    summary="Revoke a key",
)
async def revoke_key(key_id: FromPath[str], control: ControlIn, principal: PrincipalIn) -> None:
    principal.require("keys:write")
    await control.api_keys.revoke(principal, key_id)


@post(
    "/v1/keys/{key_id:str}/rotate",
    operation_id="rotateKey",
    audit="key.rotated",
    tags=["keys"],
    summary="Another secret for a key; the present one works on for a while",
    status_code=200,
)
async def rotate_key(
    key_id: FromPath[str],
    control: ControlIn,
    principal: PrincipalIn,
    data: JSONBody[RotateKey | None] = None,
) -> CreatedKey:
    """The new secret is shown this once. Older ones end at the key's own `expires_at` at the latest."""
    principal.require("keys:write")
    return await control.api_keys.rotate(principal, key_id, data or RotateKey())


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
    audit="targets.changed",
    tags=["webhooks"],
    summary="Put all of them in place of those before",
)
async def set_targets(data: JSONBody[TargetList], control: ControlIn, principal: PrincipalIn) -> TargetList:
    """For test projects, where the deployment allows it. Cloud metadata addresses cannot be listed, and are never dialled."""
    principal.require("targets:write")
    return TargetList(targets=await control.projects.set_targets(principal, data.targets))


@get(
    "/v1/agent-secret",
    operation_id="getAgentSecret",
    tags=["keys"],
    summary="The secret that signs the upgrade of backends' sockets",
)
async def get_agent_secret(control: ControlIn, principal: PrincipalIn) -> AgentSecretView:
    """Every project has one from its beginning. For owners and admins."""
    principal.require("agent-secret:read")
    return await control.agent_secrets.read(principal)


@post(
    "/v1/agent-secret",
    operation_id="rotateAgentSecret",
    audit="agent_secret.rotated",
    tags=["keys"],
    summary="A new secret; the present one signs too for a while",
    status_code=200,
)
async def rotate_agent_secret(
    control: ControlIn, principal: PrincipalIn, data: JSONBody[RotateAgentSecret | None] = None
) -> AgentSecretView:
    """For calls that are created from now on. A call keeps the secrets of its creation."""
    principal.require("agent-secret:write")
    return await control.agent_secrets.rotate(principal, data or RotateAgentSecret())


@get(
    "/v1/requests",
    operation_id="listRequests",
    tags=["keys"],
    summary="The project's own requests, the newest first",
)
async def list_requests(
    control: ControlIn,
    principal: PrincipalIn,
    paging: PagingIn,
    failed: FromQuery[bool] = False,
) -> RequestPage:
    """Those of the last three days, seconds after they were answered; no bodies. `failed`: only 4xx and 5xx."""
    principal.require("requests:read")
    found, at = await control.request_log.page(principal, paging.cursor, paging.limit, failed=failed)
    return RequestPage(data=found, next_cursor=at)


ROUTES: list[Any] = [
    create_project,
    list_projects,
    get_project,
    admin_create_key,
    create_key,
    list_keys,
    change_key,
    revoke_key,
    rotate_key,
    get_targets,
    set_targets,
    get_agent_secret,
    rotate_agent_secret,
    list_requests,
]
