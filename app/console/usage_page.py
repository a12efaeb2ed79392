"""What a project's calls have used, by day: minutes, bytes, calls, failovers, and what it costs. Asks as `GET /v1/usage` is asked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, get_args

from litestar import Response, get

from app.console.asking import first_of
from app.console.pages import Page
from app.console.plots import Plot, stacked
from app.console.render import HEADERS, Html
from app.console.visit import Visit, VisitIn
from app.errors import BadRequest, VoxplaneError
from app.usage.daily import daily
from app.usage.policy import csv
from app.usage.shapes import GroupBy, Usage

PAGE = Page(key="usage", label="Usage", jump="u", icon="usage", needs="usage:read")
GROUPS: tuple[GroupBy, ...] = get_args(GroupBy)
SPANS = ((7, "7 days"), (30, "30 days"), (90, "90 days"))
MEASURES: dict[str, str] = {
    "minutes": "min",
    "megabytes": "MB",
    "calls": "calls",
    "turns": "turns",
    "failovers": "failovers",
}


@get("/p/{project:str}/usage")
async def show(visit: VisitIn) -> Html:
    here = visit.project
    here.principal.require("usage:read")
    first, last, group = first_of(visit, "from"), first_of(visit, "to"), first_of(visit, "by") or "region"
    measure = first_of(visit, "measure")
    measure = measure if measure in MEASURES else "minutes"
    try:
        found = await here.control.usages.read(here.principal, first or None, last or None, _group(group))
    except VoxplaneError as refused:
        return visit.page(
            "usage.html", PAGE, status=refused.status, refused=refused, found=None, groups=GROUPS, by=group,
            measures=MEASURES, measure=measure, spans=[], first=first, last=last,
        )  # fmt: skip
    days = await daily(
        here.control.db, here.principal.project_id, found.from_, found.to, found.group_by, measure
    )
    drawn = stacked(days, found.from_, found.to, unit=MEASURES[measure])
    return _answer(visit, found, group, measure, drawn)


@get("/p/{project:str}/usage/csv")
async def file(visit: VisitIn) -> Response[str]:
    here = visit.project
    here.principal.require("usage:read")
    group = _group(first_of(visit, "by") or "region")
    found = await here.control.usages.read(
        here.principal, first_of(visit, "from") or None, first_of(visit, "to") or None, group
    )
    name = f"usage-{found.from_}-{found.to}-{group}.csv"
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(csv(found.data, group), media_type="text/csv", headers=headers)


def _answer(visit: Visit, found: Usage, group: str, measure: str, drawn: Plot) -> Html:
    today = visit.project.control.clock.now().date() + timedelta(days=1)
    spans = [(today - timedelta(days=days), today, words) for days, words in SPANS]
    return visit.page(
        "usage.html", PAGE, refused=None, found=found, groups=GROUPS, by=group, measures=MEASURES, measure=measure,
        drawn=drawn, spans=spans, first=found.from_.isoformat(), last=found.to.isoformat(),
    )  # fmt: skip


def _group(text: str) -> GroupBy:
    """Raises `BadRequest`."""
    for group in GROUPS:
        if group == text:
            return group
    raise BadRequest(
        "Usage is not summed up by that.", code="bad_group", fix=f"By one of {', '.join(GROUPS)}."
    )


ROUTES: list[Any] = [show, file]
