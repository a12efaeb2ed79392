"""Regions and edges on the wire of the REST API."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from app.fleet.drain_shapes import DrainView
from app.fleet.key_policy import OVERLAP_MAX_S, OVERLAP_S

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
    """`ttl_s`: for so long the targets hold. `probe_first`: regions that a caller of whom nothing is known measures first; empty
    where it may as well measure all."""

    data: list[RegionView]
    ttl_s: int
    next_cursor: str | None = None
    probe_first: list[str] = []


class EdgeKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """`since`: when the edge's key became that. `asked_at`: an operator waits for another one since then; null where nobody does.
    `before_until`: until when a key before it holds beside it; null where there was none. `misuses`: tokens that came signed with a
    key that holds no more, the last at `misused_at`: somebody has a copy of it."""

    since: str | None
    asked_at: str | None
    before_until: str | None
    misuses: int
    misused_at: str | None


class RotateEdgeKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`overlap_s`: so long the present key, and those before it, hold beside the next one. 0: not at all."""

    overlap_s: Annotated[int, Meta(ge=0, le=OVERLAP_MAX_S)] = OVERLAP_S


class EdgeView(msgspec.Struct, frozen=True, kw_only=True):
    """`weight`: the share of its capacity that it may fill; `action`: what the detector asks for (`none`, `quarantine`,
    `evacuate`); `stopped`: it was told to stop, and has said so; `revoked_at`: an operator has cut it off for good;
    `webrtc`: it takes callers over WebRTC. `software`: the release that it says it runs, empty where it says none."""

    id: str
    region: str
    name: str
    health: str
    admin_state: str
    media_url: str
    http_url: str
    webrtc: bool
    software: str
    calls: int
    capacity_calls: int
    weight: float
    action: str
    stopped: bool
    revoked_at: str | None
    key: EdgeKeyView


class EdgePage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[EdgeView]
    next_cursor: str | None = None


class Revoke(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reason`: for the fleet's log."""

    reason: Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""


class RevokedEdge(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: that it had. It is free for a fresh enrolment."""

    id: str
    name: str
    revoked_at: str


class RevokeView(msgspec.Struct, frozen=True, kw_only=True):
    """`edges`: that were revoked now; none where all of them were before. `evacuation`: of their calls; null where there is none, and
    `not_evacuated` says why. `keys_rotated`: the fleet has a key that the revoked edges do not know."""

    region: str
    edges: list[RevokedEdge]
    evacuation: DrainView | None
    not_evacuated: str
    keys_rotated: bool


class EnrolToken(msgspec.Struct, frozen=True, kw_only=True):
    """For one edge of this region, once, within five minutes."""

    token: str
    expires_at: str
