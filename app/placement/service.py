"""From a request's wishes and measurements to a placement, or to the problem that says why there is none.

Brings together what the core (`choice`) looks at: the call's wishes, what its caller measured, what is known of its network and of
its backend. Decides what is believed when these say different things about one region, and what a refusal says.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from app.buckets import Buckets
from app.calls.shapes import CandidateView, CreateCall, LatencyRequest, PlacementView, PlaceView
from app.errors import FieldError, Invalid, NotAvailable, ResidencyUnsatisfiable, Unavailable
from app.fleet.view import REFRESH_S, Fleet
from app.placement.again import NOTHING, Recorded, surer
from app.placement.belief import Prior
from app.placement.choice import Measured, NoPlacement, Placement, Wishes, choose
from app.placement.claimed import Claimed
from app.placement.claims import Claim
from app.placement.countries import whereabouts
from app.placement.learning import Learning
from app.placement.networks import Network, is_address
from app.placement.policy import policy_of
from app.placement.sites import with_webrtc
from regions.wire import ids
from regions.wire.measuring import BackendTarget

FULL_RETRY_AFTER_S = 2
"""Loads are known anew every second, and calls end all the time."""
UNKNOWN_RETRY_AFTER_S = 10
"""Where an operator has to act, or an edge to start: nobody knows when."""
FRESH_S = 120.0
PROBES_BURST, PROBES_PER_S = 200, 100
SERVED_KEPT = 100_000


@dataclass(slots=True)
class Placer:
    """`served`: by project and network the region that its last call got, on this instance."""

    learning: Learning
    claimed: Claimed
    asked: Buckets = field(default_factory=lambda: Buckets(burst=PROBES_BURST, per_s=PROBES_PER_S))
    served: OrderedDict[tuple[UUID, int], str] = field(default_factory=OrderedDict)
    chance: random.Random = field(default_factory=random.Random)

    def place(
        self,
        project_id: UUID,
        body: CreateCall,
        fleet: Fleet,
        now: datetime,
        *,
        serve: bool = True,
        before: Recorded = NOTHING,
    ) -> Placement:
        """`serve`: a call begins (or goes on) with this; without, somebody only asks. `before`: what was believed when the call
        was placed first.

        Raises `ResidencyUnsatisfiable`, `Invalid` (contradictory wishes, no address) or `Unavailable` (nothing healthy, all full).
        """
        wishes = wishes_of(body, fleet)
        network = self._network(body)
        claims = [] if network is None else self.claimed.claims.recall(project_id, network.number, now)
        measured = {**of_claims(claims, now), **measurements(body, now)}
        measured = {r: m for r, m in measured.items() if r in fleet.regions}
        backend = backend_of(body.agent.url)
        key = None if network is None else (project_id, network.number)
        placed = choose(
            fleet,
            measured,
            wishes,
            draw=self.chance.random(),
            priors=self._priors(network, body, measured, fleet, before),
            backend_ms={
                **before.backend_ms,
                **({} if backend is None else self.learning.backend_ms(backend.host)),
            },
            policy=policy_of(fleet.regions),
            last=None if key is None else self.served.get(key),
        )
        if not isinstance(placed, Placement):
            if wishes.webrtc and not with_webrtc(fleet).edges:
                raise NotAvailable(
                    "No edge takes callers over WebRTC.",
                    errors=[FieldError(pointer="/caller/kind", detail="no edge serves webrtc")],
                    fix="Start edges with VOXPLANE_WEBRTC=1, or use caller.kind `websocket`.",
                )
            raise refusal(placed, fleet)
        if serve:
            if backend is not None:
                self.learning.serves(backend)
            if key is not None:
                self._remember(key, placed.region)
        return placed

    def _priors(
        self,
        network: Network | None,
        body: CreateCall,
        measured: dict[str, Measured],
        fleet: Fleet,
        before: Recorded,
    ) -> Mapping[str, Prior]:
        """What is believed of regions. Where the caller has just measured all of them, belief has no weight: nobody is asked."""
        if len(measured) == len(fleet.regions) and not any(m.age_s for m in measured.values()):
            return {}
        known = self.learning.known(
            network,
            {r: m.rtt_ms for r, m in measured.items() if m.age_s <= FRESH_S},
            whereabouts(body.caller.from_),
        )
        return surer(self.learning.priors(known), before.priors)

    def _network(self, body: CreateCall) -> Network | None:
        address = body.caller.address
        if isinstance(address, msgspec.UnsetType):
            return None
        if not is_address(address):
            raise Invalid(
                "The caller's address is no IP address.",
                errors=[FieldError(pointer="/caller/address", detail="is no IPv4 or IPv6 address")],
                fix="Send the address that the caller's connection comes from, or leave it out.",
            )
        return self.learning.network(address)

    def network_kept(self, body: CreateCall) -> str | None:
        """The caller's network, where the call asks for what needs it later."""
        network = self._network(body) if body.regions.move_for_gain else None
        return None if network is None else network.text

    def _remember(self, key: tuple[UUID, int], region: str) -> None:
        self.served[key] = region
        self.served.move_to_end(key)
        if len(self.served) > SERVED_KEPT:
            self.served.popitem(last=False)


@lru_cache(maxsize=1_024)
def backend_of(url: str) -> BackendTarget | None:
    """The ``host:port`` of a backend's URL; None where there is none in it. Remembered: a project's calls name the same few."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.scheme not in ("ws", "wss"):
        return None
    tls = parts.scheme == "wss"
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname.lower()
    return BackendTarget(host=f"{name}:{port or (443 if tls else 80)}", tls=tls)


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
    if asked.pin is not None and asked.move_for_gain:
        raise Invalid(
            "A call that is pinned to a region is not moved to another for a gain.",
            errors=[FieldError(pointer="/regions/move_for_gain", detail="contradicts pin")],
            fix="Leave out one of regions.pin and regions.move_for_gain.",
        )
    steps = [*([] if asked.rtt_ms_max is None else [asked.rtt_ms_max]), *asked.rtt_ms_relax]
    if asked.rtt_ms_relax and (asked.rtt_ms_max is None or steps != sorted(steps)):
        raise Invalid(
            "The caps on the round trip do not ascend.",
            errors=[FieldError(pointer="/regions/rtt_ms_relax", detail="must ascend from rtt_ms_max on")],
            fix="Name rtt_ms_max, and in rtt_ms_relax only caps above it, the least first.",
        )
    return Wishes(
        allow=frozenset(asked.allow),
        jurisdictions=frozenset(asked.jurisdictions),
        prefer=tuple(asked.prefer),
        pin=asked.pin,
        rtt_ms_max=asked.rtt_ms_max,
        rtt_ms_relax=tuple(asked.rtt_ms_relax),
        webrtc=body.caller.kind == "webrtc",
        alone=body.caller.kind == "twilio",
    )


def measurements(body: CreateCall, now: datetime) -> dict[str, Measured]:
    """The newest measurement per region; one from the future counts as fresh, for clocks differ."""
    return of_claims([claim_of(latency, now) for latency in body.latencies], now)


def claim_of(latency: LatencyRequest, now: datetime) -> Claim:
    """A measurement without a time was made now."""
    at = now if latency.at is None else min(latency.at, now)
    return Claim(latency.region, latency.rtt_ms, latency.jitter_ms, latency.loss, at)


def of_claims(claims: list[Claim], now: datetime) -> dict[str, Measured]:
    newest: dict[str, Measured] = {}
    for claim in claims:
        age_s = max(0.0, (now - claim.at).total_seconds())
        known = newest.get(claim.region)
        if known is None or age_s < known.age_s:
            newest[claim.region] = Measured(
                rtt_ms=claim.rtt_ms, jitter_ms=claim.jitter_ms, loss=claim.loss, age_s=age_s
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
            fix="Raise regions.rtt_ms_max, name higher caps in regions.rtt_ms_relax, or measure again.",
            extra={
                "candidates": [
                    {"region": c.region, "rtt_ms": tenths(c.rtt_ms), "reason": c.reason}
                    for c in none.candidates
                ]
            },
        )
    if none.why == "full":
        return Unavailable(
            "Every region that may take the call is full.",
            code="temporary-reduced-capacity",
            retry_after_s=FULL_RETRY_AFTER_S,
        )
    return Unavailable(
        "No region that may take the call is healthy.",
        code="no_healthy_region",
        retry_after_s=_healthy_in_s(none, fleet),
        extra={
            "candidates": [
                {"region": c.region, "health": c.health, "reason": c.reason} for c in none.candidates
            ]
        },
    )


def _healthy_in_s(none: NoPlacement, fleet: Fleet) -> int:
    """When the first edge of a region that is only unhealthy could be trusted again, if it were in order from now on."""
    unhealthy = {c.region for c in none.candidates if c.reason == "unhealthy"}
    waits_s = [
        e.returns_in_s
        for e in fleet.edges
        if e.region in unhealthy
        and e.returns_in_s is not None
        and e.admin_state == "active"
        and not e.draining
    ]
    return math.ceil(min(waits_s) + REFRESH_S) if waits_s else UNKNOWN_RETRY_AFTER_S


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
                rtt_ms=tenths(c.rtt_ms),
                jitter_ms=tenths(c.jitter_ms),
                load=int(c.load * 1000 + 0.5) / 1000,
                cost_ms=tenths(c.cost_ms),
                health=c.health,
                confidence=int(c.confidence * 100 + 0.5) / 100,
                backend_ms=None if c.backend_ms is None else tenths(c.backend_ms),
            )
            for c in placed.candidates
        ],
        protection=placed.protection,
        protection_reason=placed.protection_reason,
        panic=placed.panic,
        rtt_ms_cap=placed.rtt_ms_cap,
    )


def tenths(value: float) -> float:
    """To one place behind the point; `round` takes ten times as long."""
    return int(value * 10 + 0.5) / 10
