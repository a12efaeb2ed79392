"""What is held of a region or an edge, and why, put together for whoever shows it: the API and the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from app.errors import NotFound
from app.fleet import explain
from app.fleet.detector import Judgement, Look
from app.fleet.health_shapes import DetectorView, EdgeHealth, RegionHealth, SignalView
from app.fleet.view import EdgeState
from app.ids import parse
from app.placement.sites import panics
from regions.wire import ids

if TYPE_CHECKING:
    from app.control import Control

NEVER_S = 1e8


async def region_evidence(control: Control, region_id: str) -> RegionHealth:
    """As it is now; raises `NotFound`."""
    await control.fleet.refresh()
    fleet, look = control.fleet.now, control.fleet.look
    region = fleet.regions.get(region_id)
    if region is None:
        raise NotFound("There is no such region.")
    judged = [j for j in look.judgements.values() if j.region == region_id]
    edges = [await _with_evacuation(control, j) for j in sorted(judged, key=lambda j: j.edge)]
    edges += [_stopped_view(e) for e in fleet.edges if e.region == region_id and e.stopped]
    actions = {e.action for e in edges if e.verdict == region.health}
    return RegionHealth(
        region=region_id,
        verdict=region.health,
        action=next((a for a in ("none", "quarantine", "evacuate") if a in actions), "none"),
        panic=panics(list(fleet.regions.values())),
        edges=edges,
        detector=detector_view(look),
        transitions=await control.fleet_events.latest(region=region_id),
    )


async def edge_evidence(control: Control, edge_id: str) -> EdgeHealth:
    """As it is now; raises `NotFound`."""
    await control.fleet.refresh()
    found = parse(ids.EDGE, edge_id)
    edge = control.fleet.now.edge(found) if found is not None else None
    if edge is None or found is None:
        raise NotFound("There is no such edge.")
    judged = control.fleet.look.judgements.get(found)
    events = await control.fleet_events.latest(edge_id=found)
    shown = _stopped_view(edge) if judged is None else await _with_evacuation(control, judged)
    return msgspec.structs.replace(shown, transitions=events)


async def _with_evacuation(control: Control, judged: Judgement) -> EdgeHealth:
    view = edge_health_view(judged)
    if judged.action != "evacuate":
        return view
    return msgspec.structs.replace(view, evacuation=await control.draining.operators.evacuation(judged.edge))


def _stopped_view(edge: EdgeState) -> EdgeHealth:
    return EdgeHealth(
        edge=ids.encode(ids.EDGE, edge.id),
        region=edge.region,
        verdict=edge.health,
        since_s=None,
        case="stopped",
        why="it was told to stop, and has said that it has",
        action="none",
        weight=0.0,
        flaps=0,
        signals=[],
        would_change=["as it was before, when it registers again"],
    )


def edge_health_view(judged: Judgement) -> EdgeHealth:
    return EdgeHealth(
        edge=ids.encode(ids.EDGE, judged.edge),
        region=judged.region,
        verdict=judged.health,
        since_s=round(judged.age_s, 1) if judged.age_s < NEVER_S else None,
        case=judged.state.case if judged.proven else "unproven",
        why=explain.why(judged),
        action=judged.action,
        weight=judged.weight,
        flaps=judged.state.flaps,
        signals=[SignalView(**s) for s in explain.signals(judged)],
        would_change=explain.would_change(judged),
    )


def detector_view(look: Look) -> DetectorView:
    return DetectorView(abstains=look.abstains, ejected=look.ejected, ejected_max=look.ejected_max)
