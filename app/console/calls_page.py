"""The list of a project's calls, as it changes. Decides nothing: asks as `GET /v1/calls` is asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from litestar import get
from litestar.response import Stream

from app import cursors
from app.calls.listing import LOOK_S as LIVE_LOOK_S
from app.calls.listing import Filters, filters_of
from app.calls.shapes import CallView
from app.calls.store import to_view
from app.console.asking import first_of, in_utc
from app.console.live import Sent, parts, stream
from app.console.pages import Page
from app.console.render import Html, redirect, text_of
from app.console.visit import ProjectHere, Visit, VisitIn
from app.errors import BadRequest, VoxplaneError
from app.ids import parse
from app.times import EPOCH
from regions.wire import ids

PAGE = Page(key="calls", label="Calls", jump="c", icon="calls", needs="calls:read")
ROWS = 50
LOOK_S = 0.3
"""So long calls are looked for that somebody waits for; what is shown as it changes, as long as the API does."""
LIVE_EVERY_S = 2.0
STATES = ("ringing", "in_progress", "reconnecting", "completed", "failed", "no_answer", "canceled")
FIELDS = ("state", "region", "from", "to", "after", "before", "name", "value")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the page was asked for: as it was typed, and as the list takes it."""

    given: dict[str, str]
    filters: Filters

    @property
    def query(self) -> str:
        return urlencode(self.given)


@dataclass(frozen=True, slots=True)
class Shown:
    """`looked_to`: where the page is short of its rows and more may follow, all calls since then have been looked at."""

    calls: list[CallView]
    next_cursor: str | None
    looked_to: datetime | None = None


@get("/p/{project:str}/calls")
async def show(visit: VisitIn) -> Html:
    here = visit.project
    here.principal.require("calls:read")
    text = first_of(visit, "q")
    if (call_id := parse(ids.CALL, text)) is not None:
        return redirect(here.path(f"calls/{ids.encode(ids.CALL, call_id)}"))
    given = _given(visit, text)
    cursor = first_of(visit, "cursor")
    try:
        wanted = Wanted(given, _filters(given))
        shown = await _page(here, wanted.filters, cursor, LOOK_S)
    except VoxplaneError as refused:
        return _answer(visit, Shown([], None), given, refused=refused)
    return _answer(visit, shown, given, cursor=cursor)


@get("/p/{project:str}/calls/live")
async def live(visit: VisitIn) -> Stream:
    """The newest page, as it changes."""
    here = visit.project
    here.principal.require("calls:read")
    given = _given(visit, "")
    filters = _filters(given)

    async def look() -> list[Sent]:
        shown = await _page(here, filters, "", LIVE_LOOK_S)
        text = text_of("_calls_rows.html", visit=visit, shown=shown, given=given, now=_now(here))
        return [parts(text)]

    return stream(visit, look, every_s=LIVE_EVERY_S)


def _answer(
    visit: Visit,
    shown: Shown,
    given: dict[str, str],
    *,
    cursor: str = "",
    refused: VoxplaneError | None = None,
) -> Html:
    here = visit.project
    return visit.page(
        "calls.html",
        PAGE,
        status=refused.status if refused is not None else 200,
        shown=shown,
        given=given,
        query=urlencode(given),
        cursor=cursor,
        refused=refused,
        states=STATES,
        regions=sorted(here.control.fleet.now.regions),
        now=_now(here),
    )


async def _page(here: ProjectHere, filters: Filters, cursor: str, look_s: float) -> Shown:
    """Raises `BadRequest` for a cursor of another list."""
    below = None
    if cursor:
        text, made_for = cursors.decode("calls", cursor)
        if made_for != filters.mark:
            raise BadRequest(
                "The filters have changed since.", code="bad_cursor", fix="Begin at the newest call."
            )
        below = parse(ids.CALL, str(text))
    found = await here.control.calls.store.page(
        here.principal.project_id, filters, below=below, limit=ROWS, look_s=look_s
    )
    calls = [to_view(call) for call in found.calls]
    if found.below is None:
        return Shown(calls, None)
    more = cursors.encode("calls", ids.encode(ids.CALL, found.below), filters.mark)
    looked_to = EPOCH + timedelta(milliseconds=ids.created_ms(found.below))
    return Shown(calls, more, looked_to if len(calls) < ROWS else None)


def _given(visit: Visit, text: str) -> dict[str, str]:
    """What stands in the query, and what the search means: `name=value` of the metadata, else the caller's number."""
    given = {name: value for name in FIELDS if (value := first_of(visit, name))}
    name, equals, value = text.partition("=")
    if equals:
        given |= {"name": name.strip(), "value": value.strip()}
    elif text:
        given["from"] = text
    return given


def _filters(given: dict[str, str]) -> Filters:
    state = given.get("state")
    if state is not None and state not in STATES:
        raise BadRequest("There is no such state.", code="bad_filter", fix=f"One of {', '.join(STATES)}.")
    name = given.get("name")
    return filters_of(
        state=state,
        region=given.get("region"),
        created_after=in_utc(given.get("after")),
        created_before=in_utc(given.get("before")),
        caller_from=given.get("from"),
        caller_to=given.get("to"),
        metadata={name: given.get("value", "")} if name else {},
    )


def _now(here: ProjectHere) -> datetime:
    return here.control.clock.now()


ROUTES: list[Any] = [show, live]
