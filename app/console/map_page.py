"""The map: regions by health and load, the calls that live as arcs, failovers as they happen. Of a project, or of the platform.

Decides what of it whom is shown: a project its own calls, operators the counts of all and the loads of edges.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from litestar import get
from litestar.response import Stream

from app.calls.machine import CallState
from app.clock import rfc3339
from app.console import drawing, live, map_plan
from app.console.map_plan import Seen, Shift
from app.console.pages import Page
from app.console.render import Html, text_of
from app.console.visit import Visit, VisitIn
from app.control import Control
from app.fleet.events import FleetEvent
from app.fleet.view import RegionState
from regions.wire import ids

PAGE = Page(key="map", label="Map", jump="m", icon="map", needs="calls:read")
WORLD = Page(key="map", label="World", jump="o", icon="map", scope="platform")
PAGES = [PAGE, WORLD]

LOOK_EVERY_S = 0.3
HAPPENED_MAX = 12
RECALLED = timedelta(hours=1)
WORDS = {"call.reconnecting": "failover", "call.moved": "move", "": "failover"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A region on the drawing. `share`: of its edges' places that are taken; None where it is not shown."""

    region: RegionState
    x: float
    y: float
    calls: int
    capacity: int
    share: float | None

    @property
    def left(self) -> bool:
        return drawing.label_left(self.x, self.radius, self.region.id)

    @property
    def radius(self) -> float:
        return round(5.0 + 1.3 * self.calls.bit_length(), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """`kind`: ``failover``, ``move``, or the type of a fleet's event. `calls`: so many at once."""

    at: str
    kind: str
    start: str
    end: str
    calls: int = 1


@dataclass(slots=True, kw_only=True)
class World:
    """What one page has open: whose calls, since when, and what was there at the last look."""

    visit: Visit
    controls: list[Control]
    project_id: UUID | None
    since: datetime | None = None
    before: dict[UUID, Seen] | None = None
    happened: list[Happened] | None = None

    async def calls(self) -> dict[UUID, Seen]:
        found: dict[UUID, Seen] = {}
        for control in self.controls:
            found |= await control.live_calls.look(self.project_id)
        return found

    async def moved(self, now: dict[UUID, Seen]) -> list[Happened]:
        shifts = map_plan.shifts(self.before, now) if self.before is not None else []
        self.before = now
        if not shifts:
            return []
        how: dict[UUID, tuple[str, datetime]] = {}
        for control in self.controls:
            mine = [s for s in shifts if self._is_of(control, s.call)]
            how |= await control.live_calls.how(self.project_id, mine)
        return gathered(shifts, how, self.visit.control.clock.now())

    async def recalled(self, now: dict[UUID, Seen]) -> list[Happened]:
        """What has moved between the page and this look: while its stream began, or began again at another instance."""
        if self.since is None:
            return []
        shifts: list[Shift] = []
        how: dict[UUID, tuple[str, datetime]] = {}
        for control in self.controls:
            mine = [c for c, seen in now.items() if seen.epoch > 1 and self._is_of(control, c)]
            found, ways = await control.live_calls.recent(self.project_id, mine, self.since)
            # one of after this look is a shift of the next
            shifts += [s for s in found if s.epoch <= now[s.call].epoch]
            how |= ways
        return gathered(shifts, how, self.visit.control.clock.now())

    def _is_of(self, control: Control, call: UUID) -> bool:
        return len(self.controls) == 1 or ids.cell_of(call) == control.cell.number

    async def values(self, calls: dict[UUID, Seen]) -> dict[str, Any]:
        fleet = self.visit.control.fleet.now
        counted = map_plan.by_region(calls.values())
        spots = {r.id: self._spot(r, counted[r.id]) for r in fleet.regions.values()}
        drawn, left_out = map_plan.arcs(calls.values())
        lines = [
            (
                a,
                drawing.arc((spots[a.start].x, spots[a.start].y), (spots[a.end].x, spots[a.end].y)),
                map_plan.width(a.calls),
            )
            for a in drawn
            if a.start in spots and a.end in spots
        ]
        return {
            "visit": self.visit,
            "spots": list(spots.values()),
            "arcs": lines,
            "left_out": left_out,
            "calls": len(calls),
            "waiting": sum(c.state in (CallState.QUEUED, CallState.RINGING) for c in calls.values()),
            "reconnecting": sum(c.state == "reconnecting" for c in calls.values()),
            "protected": sum(c.standby not in ("", c.region) for c in calls.values()),
            "happened": self.happened or [],
            "whole": self.project_id is None,
        }

    def _spot(self, region: RegionState, calls: int) -> Spot:
        x, y = drawing.at(region.latitude, region.longitude)
        edges = [e for e in self.visit.control.fleet.now.edges if e.region == region.id and not e.stopped]
        capacity = sum(e.capacity_calls for e in edges)
        share = None
        if self.project_id is None:
            calls, share = (
                sum(e.calls for e in edges),
                sum(e.calls for e in edges) / capacity if capacity else 0.0,
            )
        return Spot(
            region=region, x=round(x, 1), y=round(y, 1), calls=calls, capacity=capacity, share=share,
        )  # fmt: skip

    async def parts(self) -> list[live.Sent]:
        """What has become of the page since: its parts, and each change of owner as a fact for the drawing."""
        calls = await self.calls()
        first = self.before is None
        moved = await self.moved(calls)
        if told := await self.recalled(calls) if first else moved:
            self.happened = [*told, *(self.happened or [])][:HAPPENED_MAX]
        values = await self.values(calls)
        names = ("_map_figures.html", "_map_drawing.html", "_map_happened.html")
        shown = [live.parts(text_of(name, **values)) for name in names]
        return [*shown, live.fact("moved", moved)] if moved else shown


def gathered(shifts: list[Shift], how: dict[UUID, tuple[str, datetime]], now: datetime) -> list[Happened]:
    """Calls that went the same way at the same look are one line; the newest first."""
    ways: dict[tuple[str, str, str], list[datetime]] = {}
    for shift in shifts:
        type_, at = how.get(shift.call, ("", now))
        ways.setdefault((WORDS[type_], shift.start, shift.end), []).append(at)
    found = [
        Happened(at=rfc3339(max(times)), kind=kind, start=start, end=end, calls=len(times))
        for (kind, start, end), times in ways.items()
    ]
    return sorted(found, key=lambda h: h.at, reverse=True)


def of_fleet(events: list[FleetEvent]) -> list[Happened]:
    return [Happened(at=e.timestamp, kind=e.type, start=e.region, end=e.region, calls=0) for e in events]


@get("/p/{project:str}/map")
async def show(visit: VisitIn) -> Html:
    return await _page(_of_project(visit), PAGE)


@get("/p/{project:str}/map/live")
async def follow(visit: VisitIn) -> Stream:
    return live.stream(visit, _looking(_of_project(visit)), every_s=LOOK_EVERY_S)


@get("/map")
async def show_world(visit: VisitIn) -> Html:
    world = _of_platform(visit)
    world.happened = of_fleet(await visit.control.fleet_events.latest())[:HAPPENED_MAX]
    return await _page(world, WORLD)


@get("/map/live")
async def follow_world(visit: VisitIn) -> Stream:
    world = _of_platform(visit)
    world.happened = of_fleet(await visit.control.fleet_events.latest())[:HAPPENED_MAX]
    return live.stream(visit, _looking(world), every_s=LOOK_EVERY_S)


def _of_project(visit: Visit) -> World:
    here = visit.project
    here.principal.require("calls:read")
    here.principal.require("regions:read")
    return World(
        visit=visit, controls=[here.control], project_id=here.principal.project_id, since=_since(visit)
    )


def _of_platform(visit: Visit) -> World:
    visit.require_operator()
    return World(visit=visit, controls=list(visit.control.cells), project_id=None, since=_since(visit))


def _looking(world: World) -> Callable[[], Awaitable[list[live.Sent]]]:
    return world.parts


async def _page(world: World, page: Page) -> Html:
    values = await world.values(await world.calls())
    del values["visit"]
    base, now_ms = world.visit.request.url.path, int(world.visit.control.clock.now().timestamp() * 1000)
    return world.visit.page("map.html", page, drawing=drawing, stream=f"{base}/live?since={now_ms}", **values)


def _since(visit: Visit) -> datetime | None:
    """When the page was made whose stream this is, in Unix ms, as it says itself; at most `RECALLED` ago. None: it says nothing."""
    given = visit.request.query_params.get("since", "")
    if not re.fullmatch(r"[0-9]{1,13}", given):
        return None
    asked = datetime.fromtimestamp(int(given) / 1000, UTC)
    return max(asked, visit.control.clock.now() - RECALLED)


ROUTES: list[Any] = [show, follow, show_world, follow_world]
