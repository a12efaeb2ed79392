"""From a request's wishes and measurements to a placement, or to the problem that says why there is none."""

from __future__ import annotations

import random
from datetime import datetime

from app.calls.shapes import CandidateView, CreateCall, PlacementView, PlaceView
from app.errors import FieldError, Invalid, ResidencyUnsatisfiable, Unavailable
from app.fleet.view import Fleet
from app.placement.choice import Measured, NoPlacement, Placement, Wishes, choose
from regions.wire import ids

RETRY_AFTER_S = 2
_chance = random.Random()


def place(body: CreateCall, fleet: Fleet, now: datetime) -> Placement:
    """Raises `ResidencyUnsatisfiable`, `Invalid` (contradictory wishes) or `Unavailable` (nothing healthy, or all full)."""
    wishes = wishes_of(body, fleet)
    placed = choose(fleet, measurements(body, now), wishes, draw=_chance.random())
    if isinstance(placed, Placement):
        return placed
    raise refusal(placed, fleet)


def wishes_of(body: CreateCall, fleet: Fleet) -> Wishes:
    asked = body.regions
    faults = [
        FieldError(pointer=f"/regions/{name}/{i}", detail="there is no such region")
        for name, regions in (("allow", asked.allow), ("prefer", asked.prefer))
        for i, region in enumerate(regions)
        if region not in fleet.regions
    ]
    if asked.pin is not None and asked.pin not in fleet.regions:
        faults.append(FieldError(pointer="/regions/pin", detail="there is no such region"))
    if faults:
        raise Invalid(
            "The call names regions that do not exist.", errors=faults, fix="GET /v1/regions lists them."
        )
    if asked.pin is not None:
        pinned = fleet.regions[asked.pin]
        if (asked.allow and asked.pin not in asked.allow) or (
            asked.jurisdictions and pinned.jurisdiction not in asked.jurisdictions
        ):
            raise Invalid(
                "The pinned region is not among those the call allows.",
                errors=[FieldError(pointer="/regions/pin", detail="contradicts allow or jurisdictions")],
                fix="Pin an allowed region, or drop one of the two wishes.",
            )
    return Wishes(
        allow=frozenset(asked.allow),
        jurisdictions=frozenset(asked.jurisdictions),
        prefer=tuple(asked.prefer),
        pin=asked.pin,
        rtt_ms_max=asked.rtt_ms_max,
    )


def measurements(body: CreateCall, now: datetime) -> dict[str, Measured]:
    """The newest measurement per region; one from the future counts as fresh, for clocks differ."""
    newest: dict[str, Measured] = {}
    for latency in body.latencies:
        age_s = 0.0 if latency.at is None else max(0.0, (now - latency.at).total_seconds())
        known = newest.get(latency.region)
        if known is None or age_s < known.age_s:
            newest[latency.region] = Measured(
                rtt_ms=latency.rtt_ms, jitter_ms=latency.jitter_ms, loss=latency.loss, age_s=age_s
            )
    return newest


def refusal(none: NoPlacement, fleet: Fleet) -> Exception:
    if none.why == "residency":
        return ResidencyUnsatisfiable(
            "No region of this deployment lies within what the call allows.",
            extra={"allowed_regions": sorted(fleet.regions)},
        )
    if none.why == "too_far":
        return Invalid(
            "Every region that could take the call is farther than `rtt_ms_max`.",
            code="latency_unsatisfiable",
            fix="Raise regions.rtt_ms_max, or measure again.",
            extra={
                "candidates": [
                    {"region": c.region, "rtt_ms": c.rtt_ms, "reason": c.reason} for c in none.candidates
                ]
            },
        )
    if none.why == "full":
        return Unavailable(
            "Every region that may take the call is full.",
            code="temporary-reduced-capacity",
            retry_after_s=RETRY_AFTER_S,
        )
    return Unavailable(
        "No region that may take the call is healthy.", code="no_healthy_region", retry_after_s=RETRY_AFTER_S
    )


def view(placed: Placement) -> PlacementView:
    """The record of the decision, as it is stored and shown."""
    primary, *standbys = placed.edges
    return PlacementView(
        region=primary.region,
        edge=ids.encode(ids.EDGE, primary.id),
        url=primary.media_url,
        standbys=[
            PlaceView(region=e.region, edge=ids.encode(ids.EDGE, e.id), url=e.media_url) for e in standbys
        ],
        candidates=[
            CandidateView(
                region=c.region,
                reason=c.reason,
                source=c.source,
                rtt_ms=c.rtt_ms,
                jitter_ms=c.jitter_ms,
                load=c.load,
                cost_ms=c.cost_ms,
                health=c.health,
            )
            for c in placed.candidates
        ],
        protection=placed.protection,
        protection_reason=placed.protection_reason,
        panic=placed.panic,
    )
