"""The audit log over HTTP: a project's own, and the platform's for operators."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import get
from litestar.params import QueryParameter
from litestar.response import Stream

from app.audit.chain import PLATFORM
from app.audit.exporting import Format
from app.audit.reading import window
from app.audit.shapes import AuditPage, AuditReport
from app.control import Control
from app.dependencies import ControlIn, OperatorIn, PrincipalIn
from app.queries import Paging, PagingIn

ActorId = Annotated[
    str | None,
    QueryParameter(name="actor", description="The id of a key, a person or an edge; or `operator_key`.", required=False),
]  # fmt: skip
Action = Annotated[
    str | None, QueryParameter(description="As `key.created`, or `key.*` for all of them.", required=False)
]
Target = Annotated[str | None, QueryParameter(description="The id of what it was done to.", required=False)]
From = Annotated[
    str | None, QueryParameter(name="from", description="RFC 3339: what was then or later.", required=False)
]
To = Annotated[
    str | None, QueryParameter(name="to", description="RFC 3339: what was before.", required=False)
]
MEDIA = {"jsonl": "application/jsonl", "csv": "text/csv"}


@get(
    "/v1/audit",
    operation_id="listAudit",
    tags=["audit"],
    summary="Who did what in the project, and who read what was said; the newest first",
)
async def list_audit(
    control: ControlIn,
    principal: PrincipalIn,
    paging: PagingIn,
    actor_id: ActorId = None,
    action: Action = None,
    target: Target = None,
    since: From = None,
    until: To = None,
) -> AuditPage:
    principal.require("audit:read")
    return await _page(control, principal.project_id, paging, actor_id, action, target, since, until)


@get(
    "/v1/audit/verify",
    operation_id="verifyAudit",
    tags=["audit"],
    summary="Whether the log is as it was written",
)
async def verify_audit(control: ControlIn, principal: PrincipalIn, since: From = None) -> AuditReport:
    """Each fault names the entry at which it shows. With `from`, what is older is taken as it is."""
    principal.require("audit:read")
    return await control.audit_log.verify(principal.project_id, since)


@get(
    "/v1/audit/export",
    operation_id="exportAudit",
    tags=["audit"],
    summary="All of it, with what is needed to verify it elsewhere",
    audit="audit.exported",
)
async def export_audit(
    control: ControlIn,
    principal: PrincipalIn,
    shape: Annotated[Format, QueryParameter(name="format", required=False)] = "jsonl",
    since: From = None,
    until: To = None,
) -> Stream:
    """For `voxplane audit verify FILE`. JSON lines, or CSV with the same records."""
    principal.require("audit:read")
    window(since, until)
    await control.audit.read(
        principal.project_id, "audit.exported", summary={"format": shape, "from": since, "to": until}
    )
    return await _export(control, principal.project_id, shape, since, until)


@get(
    "/admin/v1/audit",
    operation_id="adminListAudit",
    tags=["audit"],
    summary="What operators did; the newest first",
)
async def admin_list_audit(
    control: ControlIn,
    operator: OperatorIn,
    paging: PagingIn,
    actor_id: ActorId = None,
    action: Action = None,
    target: Target = None,
    since: From = None,
    until: To = None,
) -> AuditPage:
    """The platform's own log, of the home cell."""
    return await _page(control, PLATFORM, paging, actor_id, action, target, since, until)


@get(
    "/admin/v1/audit/verify",
    operation_id="adminVerifyAudit",
    tags=["audit"],
    summary="Whether the platform's log is as it was written, and the newest anchors of all projects are there",
)
async def admin_verify_audit(control: ControlIn, operator: OperatorIn, since: From = None) -> AuditReport:
    return await control.audit_log.verify(PLATFORM, since)


@get(
    "/admin/v1/audit/export",
    operation_id="adminExportAudit",
    tags=["audit"],
    summary="All of the platform's log, with what is needed to verify it elsewhere",
)
async def admin_export_audit(
    control: ControlIn,
    operator: OperatorIn,
    shape: Annotated[Format, QueryParameter(name="format", required=False)] = "jsonl",
    since: From = None,
    until: To = None,
) -> Stream:
    return await _export(control, PLATFORM, shape, since, until)


async def _page(
    control: Control,
    project_id: UUID,
    paging: Paging,
    actor: str | None,
    action: str | None,
    target: str | None,
    since: str | None,
    until: str | None,
) -> AuditPage:
    found, at = await control.audit_log.page(
        project_id,
        actor=actor,
        action=action,
        target=target,
        since=since,
        until=until,
        cursor=paging.cursor,
        limit=paging.limit,
    )
    return AuditPage(data=found, next_cursor=at)


async def _export(
    control: Control, project_id: UUID, shape: Format, since: str | None, until: str | None
) -> Stream:
    return Stream(
        await control.audit_log.export(project_id, shape, since, until),
        media_type=MEDIA[shape],
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="audit.{shape}"',
        },
    )


ROUTES: list[Any] = [
    list_audit, verify_audit, export_audit, admin_list_audit, admin_verify_audit, admin_export_audit,
]  # fmt: skip
