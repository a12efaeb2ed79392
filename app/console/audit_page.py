"""The audit log of a project: who did what, who read what was said; verified and exported. Asks as the API is asked."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from litestar import get
from litestar.params import FromPath
from litestar.response import Stream

from app.audit.exporting import Format
from app.audit.reading import window
from app.audit.shapes import AuditEntry
from app.console.asking import first_of, in_utc
from app.console.pages import Page
from app.console.render import Html
from app.console.visit import Visit, VisitIn
from app.errors import NotFound, VoxplaneError

PAGE = Page(key="audit", label="Audit", jump="a", icon="audit", needs="audit:read")
ROWS = 50
FIELDS = ("actor", "action", "target", "from", "to")
MEDIA: dict[Format, str] = {"jsonl": "application/jsonl", "csv": "text/csv"}


@get("/p/{project:str}/audit")
async def show(visit: VisitIn) -> Html:
    here = visit.project
    here.principal.require("audit:read")
    given = _given(visit)
    cursor = first_of(visit, "cursor")
    found: list[AuditEntry] = []
    more: str | None = None
    refused: VoxplaneError | None = None
    try:
        found, more = await here.control.audit_log.page(
            here.principal.project_id,
            actor=given.get("actor"),
            action=given.get("action"),
            target=given.get("target"),
            since=in_utc(given.get("from")),
            until=in_utc(given.get("to")),
            cursor=cursor or None,
            limit=ROWS,
        )
    except VoxplaneError as error:
        refused = error
    return visit.page(
        "audit.html",
        PAGE,
        status=refused.status if refused is not None else 200,
        entries=found,
        more=more,
        cursor=cursor,
        given=given,
        query=urlencode(given),
        refused=refused,
    )


@get("/p/{project:str}/audit/verify")
async def verify(visit: VisitIn) -> Html:
    """A part."""
    here = visit.project
    here.principal.require("audit:read")
    report = await here.control.audit_log.verify(here.principal.project_id, in_utc(_given(visit).get("from")))
    return visit.part("_audit_report.html", report=report)


@get("/p/{project:str}/audit/export/{shape:str}", audit="audit.exported")
async def export(visit: VisitIn, shape: FromPath[str]) -> Stream:
    here = visit.project
    here.principal.require("audit:read")
    if shape not in MEDIA:
        raise NotFound("There is no such export.")
    form: Format = shape
    given = _given(visit)
    since, until = in_utc(given.get("from")), in_utc(given.get("to"))
    window(since, until)
    project_id = here.principal.project_id
    await here.control.audit.read(
        project_id, "audit.exported", summary={"format": form, "from": since, "to": until}
    )
    return Stream(
        await here.control.audit_log.export(project_id, form, since, until),
        media_type=MEDIA[form],
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="audit.{form}"',
            "X-Content-Type-Options": "nosniff",
        },
    )


def _given(visit: Visit) -> dict[str, str]:
    return {name: value for name in FIELDS if (value := first_of(visit, name))}


ROUTES: list[Any] = [show, verify, export]
