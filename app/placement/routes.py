"""Probes, previews and the mesh over HTTP."""

from __future__ import annotations

from litestar import get, post
from litestar.params import JSONBody
from litestar.status_codes import HTTP_200_OK

from app.calls.policy import check_create, check_log_residency
from app.calls.shapes import CreateCall, PlacementView
from app.dependencies import ControlIn, PrincipalIn
from app.errors import FieldError, Invalid, QuotaExceeded, Rate
from app.placement.advice import next_probes
from app.placement.choice import estimate
from app.placement.networks import is_address
from app.placement.service import FRESH_S, PROBES_BURST, PROBES_PER_S, claim_of, of_claims, view
from app.placement.shapes import EstimateView, MatrixView, ProbesRequest, ProbesView, WayView
from app.placement.sites import open_regions

TTL_S = 60


@post(
    "/v1/probes",
    operation_id="reportProbes",
    tags=["regions"],
    summary="Say what a caller measured, and ask what it should measure next",
    status_code=HTTP_200_OK,
)
async def report_probes(
    data: JSONBody[ProbesRequest], control: ControlIn, principal: PrincipalIn
) -> ProbesView:
    principal.require("calls:write")
    placer, learning, fleet = control.calls.placer, control.calls.placer.learning, control.fleet.now
    if not placer.asked.take(principal.project_id, control.clock.monotonic_s()):
        window_s = PROBES_BURST // PROBES_PER_S
        raise QuotaExceeded(
            "This project reports probes too often.",
            fix="Send what a caller measured with its create, once.",
            rate=Rate(name="probes", quota=PROBES_BURST, window_s=window_s),
        )
    faults = [
        FieldError(pointer=f"/latencies/{i}/region", detail="there is no such region")
        for i, latency in enumerate(data.latencies)
        if latency.region not in fleet.regions
    ]
    if data.address is not None and not is_address(data.address):
        faults.append(FieldError(pointer="/address", detail="is no IPv4 or IPv6 address"))
    if faults:
        raise Invalid("The probes cannot be used.", errors=faults, fix="GET /v1/regions lists the regions.")
    now = control.clock.now()
    network = learning.network(data.address)
    claims = [claim_of(latency, now) for latency in data.latencies]
    if network is not None and claims:
        await placer.claimed.say(principal.project_id, network, claims)
    if network is not None:
        claims = [*placer.claimed.claims.recall(principal.project_id, network.number, now), *claims]
    measured = of_claims(claims, now)
    known = learning.known(network, {r: m.rtt_ms for r, m in measured.items() if m.age_s <= FRESH_S})
    priors = learning.priors(known)
    estimates = []
    for region in learning.regions():
        prior = priors.get(region)
        source, rtt_ms, _ = estimate(measured.get(region), prior=prior)
        confidence = 1.0 if source == "measured" else prior.confidence if prior is not None else 0.0
        estimates.append(
            EstimateView(
                region=region, rtt_ms=round(rtt_ms, 1), source=source, confidence=round(confidence, 2)
            )
        )
    open_to = open_regions(fleet)
    return ProbesView(
        network=None if network is None else network.text,
        estimates=sorted(estimates, key=lambda e: (e.rtt_ms, e.region)),
        probe_next=next_probes(learning.regions(), open_to, known, learning.profiles, learning.distance_km),
        ttl_s=TTL_S,
    )


@post(
    "/v1/placements/preview",
    operation_id="previewPlacement",
    tags=["calls"],
    summary="Where a call would be placed now, and why, without creating it",
    status_code=HTTP_200_OK,
)
async def preview_placement(
    data: JSONBody[CreateCall], control: ControlIn, principal: PrincipalIn
) -> PlacementView:
    principal.require("calls:read")
    check_create(data, local_targets=control.calls.local_targets and principal.mode == "test")
    check_log_residency(data, control.calls.jurisdiction, control.fleet.now)
    placed = control.calls.placer.place(
        principal.project_id, data, control.fleet.now, control.clock.now(), serve=False
    )
    return view(placed)


@get(
    "/v1/regions/matrix",
    operation_id="getRegionMatrix",
    tags=["regions"],
    summary="Round trips between the regions, as their edges measure them",
)
async def get_region_matrix(control: ControlIn, principal: PrincipalIn) -> MatrixView:
    principal.require("regions:read")
    learning = control.calls.placer.learning
    return MatrixView(
        regions=list(learning.regions()),
        ways=[
            WayView(
                from_=leg.region, to=leg.target, rtt_ms=round(leg.rtt_ms, 2), jitter_ms=round(leg.jitter_ms, 2),
                loss=round(leg.loss, 3), age_s=round(leg.age_s, 1),
            )
            for leg in learning.mesh()
        ],
    )  # fmt: skip


ROUTES = [report_probes, preview_placement, get_region_matrix]
