"""The fleet: regions and edges with what is held of them and why, drains with their progress, drills. For operators.

Decides nothing: asks the services that the API asks.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import get, post
from litestar.params import FromPath
from litestar.response import Stream

from app.console import live
from app.console.pages import Page
from app.console.render import Html, text_of
from app.console.visit import FormIn, Visit, VisitIn
from app.errors import BadRequest, NotFound, VoxplaneError
from app.fleet.drain_shapes import WITHIN_S_DEFAULT, DrainRequest
from app.fleet.drill_shapes import DrillPreview, DrillRequest
from app.fleet.edge_keys import ASKED
from app.fleet.explain_views import edge_evidence, region_evidence
from app.fleet.key_policy import OVERLAP_S
from app.fleet.view import EdgeState
from app.people.policy import HOME
from app.pointers import invalid_from
from regions.wire import ids

PAGE = Page(key="fleet", label="Fleet", jump="f", icon="fleet", scope="platform")
DRAINS_SHOWN = 12
EDGES_SHOWN, EDGES_OF_REGION_MIN = 36, 3
"""On one page; each has its buttons."""
LOOK_EVERY_S = 0.5
SHOWN = f"{HOME}/fleet"
DONE_BY = {"cordon": "cordoned", "uncordon": "uncordoned", "drain": "draining", "evacuate": "evacuating"}


@get("/fleet")
async def show(visit: VisitIn) -> Html:
    visit.require_operator()
    await visit.control.fleet.refresh()
    return await _page(visit)


@get("/fleet/live")
async def follow(visit: VisitIn) -> Stream:
    visit.require_operator()

    async def look() -> list[live.Sent]:
        values = await _values(visit)
        names = ("_fleet_drains.html", "_fleet_regions.html", "_fleet_drills.html")
        return [live.parts(text_of(name, visit=visit, **values)) for name in names]

    return live.stream(visit, look, every_s=LOOK_EVERY_S)


@post("/fleet/regions/{region:str}/{verb:str}", audit="region.*")
async def command_region(visit: VisitIn, form: FormIn, region: FromPath[str], verb: FromPath[str]) -> Html:
    visit.require_operator()
    within_s = _within_s(verb, form)
    await visit.control.draining.operators.region(_verb(verb), region, within_s)
    return visit.back(_from(form, f"{SHOWN}/regions/{region}"), done=f"region_{DONE_BY[verb]}")


@post("/fleet/edges/{edge:str}/{verb:str}", audit="edge.*")
async def command_edge(visit: VisitIn, form: FormIn, edge: FromPath[str], verb: FromPath[str]) -> Html:
    visit.require_operator()
    within_s = _within_s(verb, form)
    await visit.control.draining.operators.edge(_verb(verb), edge, within_s)
    return visit.back(_from(form, f"{SHOWN}/edges/{edge}"), done=f"edge_{DONE_BY[verb]}")


@post("/fleet/edges/{edge:str}/rotate-key", audit=ASKED)
async def rotate_key(visit: VisitIn, form: FormIn, edge: FromPath[str]) -> Html:
    visit.require_operator()
    await visit.control.edge_keys.ask(edge, OVERLAP_S)
    return visit.back(_from(form, f"{SHOWN}/edges/{edge}"), done="edge_key_asked")


@get("/fleet/regions/{region:str}")
async def region_page(visit: VisitIn, region: FromPath[str]) -> Html:
    visit.require_operator()
    found = await region_evidence(visit.control, region)
    state = visit.control.fleet.now.regions[region]
    return visit.page("fleet_region.html", PAGE, region=state, health=found, edges=found.edges)


@get("/fleet/edges/{edge:str}")
async def edge_page(visit: VisitIn, edge: FromPath[str]) -> Html:
    visit.require_operator()
    found = await edge_evidence(visit.control, edge)
    state = next(e for e in visit.control.fleet.now.edges if ids.encode(ids.EDGE, e.id) == found.edge)
    return visit.page("fleet_edge.html", PAGE, edge=state, health=found, now=visit.control.clock.now())


@post("/fleet/drills", audit="drill.started")
async def start_drill(visit: VisitIn, form: FormIn) -> Html:
    """Looked at first (`look`), then begun."""
    visit.require_operator()
    try:
        wanted = _drill(form)
        shown = await visit.control.drilling.operators.begin(wanted)
    except VoxplaneError as refused:
        return await _page(visit, refused=refused, given=form)
    if isinstance(shown, DrillPreview):
        return await _page(visit, preview=shown, given=form)
    return visit.back(f"{SHOWN}/drills/{shown.id}", done="drill_started")


@get("/fleet/drills/{drill:str}")
async def drill_page(visit: VisitIn, drill: FromPath[str]) -> Html:
    visit.require_operator()
    shown = await visit.control.drilling.operators.show(drill)
    return visit.page("fleet_drill.html", PAGE, drill=shown)


@get("/fleet/drills/{drill:str}/live")
async def follow_drill(visit: VisitIn, drill: FromPath[str]) -> Stream:
    visit.require_operator()
    await visit.control.drilling.operators.show(drill)

    async def look() -> list[live.Sent]:
        shown = await visit.control.drilling.operators.show(drill)
        return [live.parts(text_of("_fleet_drill.html", visit=visit, drill=shown))]

    return live.stream(visit, look, every_s=LOOK_EVERY_S)


@post("/fleet/drills/{drill:str}/stop", audit="drill.stopped")
async def stop_drill(visit: VisitIn, form: FormIn, drill: FromPath[str]) -> Html:
    visit.require_operator()
    await visit.control.drilling.operators.stop(drill)
    return visit.back(f"{SHOWN}/drills/{drill}", done="drill_stopping")


# ----------------------------------------------------------------------------------------------------------------------


async def _page(
    visit: Visit,
    *,
    refused: VoxplaneError | None = None,
    preview: DrillPreview | None = None,
    given: dict[str, str] | None = None,
) -> Html:
    return visit.page(
        "fleet.html",
        PAGE,
        status=refused.status if refused is not None else 200,
        refused=refused,
        preview=preview,
        given=given or {},
        **await _values(visit),
    )


async def _values(visit: Visit) -> dict[str, Any]:
    control = visit.control
    fleet = control.fleet.now
    most = max(EDGES_OF_REGION_MIN, EDGES_SHOWN // max(1, len(fleet.regions)))
    regions = []
    for region in fleet.regions.values():
        edges = sorted((e for e in fleet.edges if e.region == region.id), key=_calm)
        regions.append((region, edges, [(e, ids.encode(ids.EDGE, e.id)) for e in edges[:most]]))
    return {
        "regions": regions,
        "drains": await control.draining.operators.all(DRAINS_SHOWN),
        "drills": (await control.drilling.operators.all())[:DRAINS_SHOWN],
        "detector": control.fleet.look,
        "now": control.clock.now(),
        "edge_names": {ids.encode(ids.EDGE, e.id): e.name for e in fleet.edges},
    }


def _calm(edge: EdgeState) -> tuple[bool, bool, str]:
    """Those first that somebody may have to do something about, and those last that are gone."""
    return edge.stopped, edge.health == "healthy" and edge.admin_state == "active", edge.name


def _verb(text: str) -> str:
    if text not in DONE_BY:
        raise NotFound("There is no such command.", fix="Use one of the buttons.")
    return text


def _within_s(verb: str, form: dict[str, str]) -> float:
    if verb != "drain":
        return 0
    text = form.get("within_s", str(WITHIN_S_DEFAULT))
    return _read(DrainRequest, {"within_s": _number(text)}).within_s  # type: ignore[no-any-return]


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadRequest("A number is not a number.", fix="Use digits alone.")
    return int(text)


def _drill(form: dict[str, str]) -> DrillRequest:
    kind, _, target = form.get("target", "").partition(" ")
    share = _number(form.get("percent", "10")) / 100
    given = {
        "kind": kind,
        "target": target,
        "calls": form.get("calls", "synthetic"),
        "share": share,
        "max_calls": _number(form.get("max_calls", "100")),
        "how": form.get("how", "closed"),
        "dry_run": form.get("dry_run") == "1",
    }
    if form.get("label"):
        given["label"] = form["label"]
    wanted: DrillRequest = _read(DrillRequest, given)
    return wanted


def _read(kind: Any, given: dict[str, Any]) -> Any:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise invalid_from(str(error)) from None


def _from(form: dict[str, str], page: str) -> str:
    """Back to where the button was."""
    return page if form.get("from") == "detail" else SHOWN


ROUTES: list[Any] = [
    show, follow, command_region, command_edge, rotate_key, region_page, edge_page, start_drill, drill_page, follow_drill, stop_drill,
]  # fmt: skip
