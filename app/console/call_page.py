"""One call: where it was placed and why, who had it, how long answers took, what was sent; ending and moving it.

Decides nothing: asks as the API is asked. What was said is not on the page: it is fetched by whoever may read it and asks for it,
and each look is written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar import get, post
from litestar.params import FromPath
from litestar.response import Stream

from app.calls.conversation import Asked
from app.calls.machine import FINAL
from app.calls.store import to_view
from app.calls.timeline import timeline
from app.calls.timeline_shapes import Timeline, TimelineOwner
from app.calls.timeline_store import Timelines
from app.console import calls_page
from app.console.asking import first_of, read_form
from app.console.live import Sent, parts, stream
from app.console.render import Html, redirect, text_of
from app.console.visit import FormIn, ProjectHere, Visit, VisitIn
from app.console.waterfall import waterfall
from app.errors import VoxplaneError
from app.fleet.drain_shapes import MoveRequest
from app.ids import parse
from regions.wire import ids

LIVE_EVERY_S = 1.0
LINES_MAX = 160
TURNS_SHOWN = 50
SEQ_MAX = (1 << 31) - 2


@dataclass(frozen=True, slots=True)
class Carried:
    """Of all owners together, as far as they have said: the newest of each epoch counts."""

    into_bytes: int
    out_bytes: int
    saved_bytes: int
    qualities: list[tuple[int, str | None, dict[str, Any]]]


@get("/p/{project:str}/calls/{call:str}")
async def show(visit: VisitIn, call: FromPath[str]) -> Html:
    visit.project.principal.require("calls:read")
    return await _page(visit, call)


@get("/p/{project:str}/calls/{call:str}/live")
async def live(visit: VisitIn, call: FromPath[str]) -> Stream:
    here = visit.project
    here.principal.require("calls:read")
    await here.control.calls.get(here.principal, parse(ids.CALL, call))

    async def look() -> list[Sent]:
        values = await _seen(here, call)
        return [
            parts(text_of(f"_call_{part}.html", visit=visit, **values))
            for part in ("head", "drawing", "turns", "lines")
        ]

    return stream(visit, look, every_s=LIVE_EVERY_S)


@get("/p/{project:str}/calls/{call:str}/conversation")
async def conversation(visit: VisitIn, call: FromPath[str]) -> Html:
    """A part. It is in the audit log before it is shown."""
    here = visit.project
    here.principal.require("conversation:read")
    before = first_of(visit, "before")
    asked = Asked(
        turns=TURNS_SHOWN,
        tokens=None,
        min_seq=0,
        wait_ms=0,
        before_seq=min(int(before), SEQ_MAX) if before.isascii() and before.isdigit() else None,
    )
    stored = await here.control.calls.get(here.principal, parse(ids.CALL, call))
    found = await here.control.conversations.read(stored, asked)
    await here.control.audit.read(here.principal.project_id, "conversation.read", call)
    return visit.part("_conversation.html", found=found, call=call)


@get(["/p/{project:str}/calls/{call:str}/end", "/p/{project:str}/calls/{call:str}/move"])
async def back(visit: VisitIn, call: FromPath[str]) -> Html:
    """Where a form's answer is loaded again: to the page that it was on."""
    return redirect(visit.project.path(f"calls/{call}"))


@post("/p/{project:str}/calls/{call:str}/end", audit="call.end_asked")
async def end(visit: VisitIn, form: FormIn, call: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("calls:operate")
    await here.control.calls.end(here.principal, parse(ids.CALL, call))
    return visit.back(here.path(f"calls/{call}"), done="call_ended")


@post("/p/{project:str}/calls/{call:str}/move", audit="call.move_asked")
async def move(visit: VisitIn, form: FormIn, call: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("calls:operate")
    try:
        wanted = read_form(MoveRequest, {"region": form.get("region") or None})
        await here.control.draining.moves.move(here.principal, parse(ids.CALL, call), wanted)
    except VoxplaneError as refused:
        if refused.status == 404:
            raise
        return await _page(visit, call, refused=refused)
    return visit.back(here.path(f"calls/{call}"), done="call_moving")


async def _page(visit: Visit, call: str, *, refused: VoxplaneError | None = None) -> Html:
    values = await _seen(visit.project, call)
    status = refused.status if refused is not None else 200
    return visit.page("call.html", calls_page.PAGE, status=status, refused=refused, **values)


async def _seen(here: ProjectHere, call: str) -> dict[str, Any]:
    """What the parts of the page are made of. Raises `NotFound`."""
    stored = await here.control.calls.get(here.principal, parse(ids.CALL, call))
    timelines = Timelines(here.control.db, here.control.horizon)
    seen = await timelines.read(stored, deliveries="webhooks:read" in here.principal.scopes)
    found, now = timeline(stored, seen), here.control.clock.now()
    view = to_view(stored)
    billed = stored.state in FINAL and "usage:read" in here.principal.scopes
    used = await here.control.usages.of_call(here.principal, call) if billed else None
    return {
        "used": used,
        "call": view,
        "owners": [e.owner.region or "?" for e in found.entries if isinstance(e.owner, TimelineOwner)],
        "standbys": [s.region for s in view.placement.standbys],
        "final": stored.state in FINAL,
        "found": found,
        "drawn": waterfall(found, now, lines_max=LINES_MAX),
        "carried": carried(found),
        "regions": sorted(r for r in here.control.fleet.now.regions if r != stored.region),
        "now": now,
    }


def carried(found: Timeline) -> Carried | None:
    """What its owners have said of the line and of what went over it; None before any has."""
    newest: dict[int, tuple[str | None, dict[str, Any]]] = {}
    owner = 1
    for entry in found.entries:
        if isinstance(entry.owner, TimelineOwner):
            owner = entry.owner.epoch
        if entry.kind == "event" and isinstance(entry.data, dict) and entry.data.get("usage"):
            # the final event stands above every grant, and speaks of the last owner
            epoch = owner if entry.type == "call.ended" else int(entry.epoch or 0)
            region = entry.region if isinstance(entry.region, str) else None
            newest[epoch] = (region or newest.get(epoch, (None, {}))[0], entry.data)
    if not newest:
        return None

    def total(*names: str) -> int:
        return sum(int(data["usage"].get(name, 0)) for _, data in newest.values() for name in names)

    return Carried(
        into_bytes=total("caller_in_bytes", "agent_in_bytes"),
        out_bytes=total("caller_out_bytes", "agent_out_bytes"),
        saved_bytes=total("silence_saved_bytes"),
        qualities=[(e, region, data.get("quality") or {}) for e, (region, data) in sorted(newest.items())],
    )


ROUTES: list[Any] = [show, live, back, conversation, end, move]
