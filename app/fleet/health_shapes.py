"""The detector's reasons on the wire of the REST API."""

from __future__ import annotations

from typing import Any

import msgspec

from app.fleet.drain_shapes import DrainView
from app.fleet.events import FleetEvent


class SignalView(msgspec.Struct, frozen=True, kw_only=True):
    """`signal`: heartbeats, probes or callers; `says`: what it amounts to; `figures`: what that rests on."""

    signal: str
    says: str
    figures: dict[str, Any]
    observers: list[str]


class EdgeHealth(msgspec.Struct, frozen=True, kw_only=True):
    """`verdict`: healthy, suspect, down or probation. `since_s`: for so long. `case`: see docs/explanation/detector.md.
    `action`: what the detector asks for; `evacuation`: how far that is, where it runs. `transitions`: its latest, the newest
    first."""

    edge: str
    region: str
    verdict: str
    since_s: float | None
    case: str
    why: str
    action: str
    weight: float
    flaps: int
    signals: list[SignalView]
    would_change: list[str]
    evacuation: DrainView | None = None
    transitions: list[FleetEvent] = []


class DetectorView(msgspec.Struct, frozen=True, kw_only=True):
    """The instance that answers. `abstains`: why it changes nothing at present. `ejected`: edges that are down by the detector's
    word, of `ejected_max` at most."""

    abstains: str
    ejected: int
    ejected_max: int


class RegionHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A region is as healthy as its best edge. `panic`: less than half of the regions look healthy, so that suspected ones take
    calls again."""

    region: str
    verdict: str
    action: str
    panic: bool
    edges: list[EdgeHealth]
    detector: DetectorView
    transitions: list[FleetEvent]


class FleetEventPage(msgspec.Struct, frozen=True, kw_only=True):
    """`next_cursor` is always there: it is where to go on, now or later."""

    data: list[FleetEvent]
    next_cursor: str
