"""Regions and edges on the wire of the REST API."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

RegionId = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{1,30}$")]
Latitude = Annotated[float, Meta(ge=-90, le=90)]
Longitude = Annotated[float, Meta(ge=-180, le=180)]
Jurisdiction = Annotated[str, Meta(min_length=2, max_length=16, pattern=r"^[a-z][a-z0-9-]*$")]


Share = Annotated[float, Meta(ge=0, le=1)]
Proximity = Annotated[str, Meta(max_length=64)]
PriceMs = Annotated[float, Meta(ge=0, le=1000)]


class CreateRegion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: RegionId
    jurisdiction: Jurisdiction
    name: Annotated[str, Meta(max_length=128)] = ""
    latitude: Latitude = 0.0
    longitude: Longitude = 0.0
    weight: Share = 1.0
    proximity: Proximity = ""
    price_ms: PriceMs = 0.0


class ChangeRegion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays. `admin_state` is changed by commands (`POST …/cordon`, `drain`, `evacuate`, `uncordon`), which are
    refused where they contradict what is under way. `weight`: the share of new calls that the region takes part in, to ramp it
    up. `proximity`: regions with the same word count as equally near. `price_ms`: so much nearer the region has to be."""

    name: Annotated[str, Meta(max_length=128)] | None = None
    weight: Share | None = None
    proximity: Proximity | None = None
    price_ms: PriceMs | None = None


class ProbeTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Where to measure the round trip to a region: a WebSocket echo and an HTTP 204."""

    ws: str
    http: str


class RegionView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    jurisdiction: str
    health: str
    admin_state: str
    latitude: float
    longitude: float
    weight: float
    proximity: str
    price_ms: float
    probes: list[ProbeTarget]


class RegionPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[RegionView]
    ttl_s: int
    next_cursor: str | None = None


class EdgeView(msgspec.Struct, frozen=True, kw_only=True):
    """`weight`: the share of its capacity that it may fill; `action`: what the detector asks for (`none`, `quarantine`,
    `evacuate`); `stopped`: it was told to stop, and has said so."""

    id: str
    region: str
    name: str
    health: str
    admin_state: str
    media_url: str
    http_url: str
    calls: int
    capacity_calls: int
    weight: float
    action: str
    stopped: bool


class EdgePage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[EdgeView]
    next_cursor: str | None = None


class EnrolToken(msgspec.Struct, frozen=True, kw_only=True):
    """For one edge of this region, once, within five minutes."""

    token: str
    expires_at: str
