"""Probes, estimates, previews and the mesh on the wire of the REST API."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from app.calls.shapes import Address, LatencyRequest


class ProbesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/probes``. `address`: the caller's own IP address; no more than its network is kept. `latencies`: what it
    measured; none to ask where to begin."""

    address: Address | None = None
    latencies: Annotated[list[LatencyRequest], Meta(max_length=100)] = []


class EstimateView(msgspec.Struct, frozen=True, kw_only=True):
    """What is believed of one region. `source`: ``measured``, ``history``, ``wider``, ``alike``, ``geography`` or ``prior``;
    `confidence` from 0 to 1."""

    region: str
    rtt_ms: float
    source: str
    confidence: float


class ProbesView(msgspec.Struct, frozen=True, kw_only=True):
    """`estimates`: nearest first. `probe_next`: regions worth measuring now, the best first; none when enough is known. `network`:
    what was taken from the address; null where it says nothing. `ttl_s`: for how long what was measured is worth sending."""

    network: str | None
    estimates: list[EstimateView]
    probe_next: list[str]
    ttl_s: int


class WayView(msgspec.Struct, frozen=True, kw_only=True):
    """The round trip from one region's edge to another's, as the edges measure it."""

    from_: str = msgspec.field(name="from")
    to: str
    rtt_ms: float
    jitter_ms: float
    loss: float
    age_s: float


class MatrixView(msgspec.Struct, frozen=True, kw_only=True):
    """`ways`: each direction for itself; a pair that was not measured within a day is missing."""

    regions: list[str]
    ways: list[WayView]
