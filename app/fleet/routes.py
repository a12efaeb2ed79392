"""Regions and edges over HTTP, and the uplink's socket."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

import msgspec
from litestar import Request, Response, WebSocket, get, patch, post, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath, HeaderParameter, JSONBody
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError

from app.audit.asker import Asker, address_of, asking
from app.clock import rfc3339
from app.conditions import any_version, version_named
from app.control import Control
from app.dependencies import ControlIn, OperatorIn, PrincipalIn
from app.errors import (
    Conflict,
    NotFound,
    PreconditionFailed,
    Unauthenticated,
)
from app.fleet import tokens
from app.fleet.edge_keys import UplinkKey
from app.fleet.shapes import (
    ChangeRegion,
    CreateRegion,
    EdgeKeyView,
    EdgePage,
    EdgeView,
    EnrolToken,
    ProbeTarget,
    RegionPage,
    RegionView,
)
from app.fleet.uplink import Uplink
from app.fleet.view import EdgeState, Fleet, RegionState
from app.ids import parse
from app.log.append import EdgeIdentity
from app.placement.advice import first_probes
from app.placement.sites import HEALTHY, open_regions
from app.problems import refuse_socket
from app.projects.credentials import authorization_of
from app.tables import regions
from regions.wire import ids
from regions.wire.ticket import b64
from regions.wire.uplink import UPLINK_PATH, RegisterRequest, RegisterResponse

TTL_S = 60
PROBES_PER_REGION = 3


@get(
    "/v1/regions",
    operation_id="listRegions",
    tags=["regions"],
    summary="Regions, their health and where to probe them",
)
async def list_regions(control: ControlIn, principal: PrincipalIn) -> RegionPage:
    principal.require("regions:read")
    fleet, learning = control.fleet.now, control.learning
    return RegionPage(
        data=[region_view(fleet, r) for r in fleet.regions.values()],
        ttl_s=TTL_S,
        probe_first=first_probes(learning.regions(), open_regions(fleet), learning.profiles),
    )


@get("/admin/v1/regions", operation_id="adminListRegions", tags=["fleet"])
async def admin_list_regions(control: ControlIn, operator: OperatorIn) -> RegionPage:
    await control.fleet.refresh()
    fleet = control.fleet.now
    return RegionPage(data=[region_view(fleet, r) for r in fleet.regions.values()], ttl_s=0)


@post("/admin/v1/regions", operation_id="adminCreateRegion", audit="region.created", tags=["fleet"])
async def admin_create_region(
    data: JSONBody[CreateRegion], control: ControlIn, operator: OperatorIn
) -> RegionView:
    try:
        async with control.db.transaction("admin") as connection:
            await connection.execute(
                insert(regions).values(
                    id=data.id,
                    jurisdiction=data.jurisdiction,
                    name=data.name,
                    latitude=data.latitude,
                    longitude=data.longitude,
                    weight=data.weight,
                    proximity=data.proximity,
                    price_ms=data.price_ms,
                )
            )
            await control.audit.record(
                connection, "region.created", data.id, summary={"jurisdiction": data.jurisdiction}
            )
    except IntegrityError:
        raise Conflict(
            f"There is a region {data.id} already.", fix="PATCH it, or choose another id."
        ) from None
    await control.fleet.refresh()
    return region_view(control.fleet.now, control.fleet.now.regions[data.id])


@get("/admin/v1/regions/{region_id:str}", operation_id="adminGetRegion", tags=["fleet"])
async def admin_get_region(
    region_id: FromPath[str], control: ControlIn, operator: OperatorIn
) -> Response[RegionView]:
    await control.fleet.refresh()
    return _with_etag(control, region_id)


@patch(
    "/admin/v1/regions/{region_id:str}",
    operation_id="adminChangeRegion",
    audit="region.changed",
    tags=["fleet"],
)
async def admin_change_region(
    region_id: FromPath[str],
    data: JSONBody[ChangeRegion],
    control: ControlIn,
    operator: OperatorIn,
    if_match: Annotated[str | None, HeaderParameter(name="If-Match", required=False)] = None,
) -> Response[RegionView]:
    version = version_named(if_match, "a region")
    values: dict[str, Any] = {k: v for k, v in msgspec.structs.asdict(data).items() if v is not None}
    statement = update(regions).where(regions.c.id == region_id)
    if not any_version(if_match):
        statement = statement.where(regions.c.version == version)
    async with control.db.transaction("admin") as connection:
        changed = await connection.execute(statement.values(**values, version=regions.c.version + 1))
        if changed.rowcount:
            await control.audit.record(connection, "region.changed", region_id, summary=values)
    await control.fleet.refresh()
    if changed.rowcount == 0:
        if region_id not in control.fleet.now.regions:
            raise NotFound("There is no such region.")
        raise PreconditionFailed("The region has changed since you read it.")
    return _with_etag(control, region_id)


@post(
    "/admin/v1/regions/{region_id:str}/enrol",
    operation_id="adminEnrolEdge",
    audit="edge.enrolled",
    tags=["fleet"],
)
async def admin_enrol(region_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> EnrolToken:
    await control.fleet.refresh()
    if region_id not in control.fleet.now.regions:
        raise NotFound("There is no such region.")
    enrolment = await control.fleet_store.enrolment(region_id)
    now = control.clock.now()
    kid, key = control.keyring.signer
    async with control.fleet_store.changing() as connection:
        await control.audit.record(connection, "edge.enrolled", region_id)
    token = tokens.make_enrol(
        region_id,
        version=enrolment.version if enrolment is not None else 0,
        jti=b64(os.urandom(16)),
        now_s=int(now.timestamp()),
        kid=kid,
        key=key,
    )
    return EnrolToken(token=token, expires_at=rfc3339(now + timedelta(seconds=tokens.ENROL_TTL_S)))


@get("/admin/v1/edges", operation_id="adminListEdges", tags=["fleet"])
async def admin_list_edges(control: ControlIn, operator: OperatorIn) -> EdgePage:
    await control.fleet.refresh()
    return EdgePage(data=[edge_view(e) for e in control.fleet.now.edges])


@get("/admin/v1/edges/{edge_id:str}", operation_id="adminGetEdge", tags=["fleet"])
async def admin_get_edge(edge_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> EdgeView:
    await control.fleet.refresh()
    found = parse(ids.EDGE, edge_id)
    edge = control.fleet.now.edge(found) if found is not None else None
    if edge is None:
        raise NotFound("There is no such edge.")
    return edge_view(edge)


@post(
    "/edge/v1/register", operation_id="registerEdge", audit="edge.registered", tags=["edge"], status_code=200
)
async def register(
    data: JSONBody[RegisterRequest], request: Request[Any, Any, Any], control: ControlIn
) -> RegisterResponse:
    edge_id, region = await control.registration.register(bearer(authorization_of(request)), data)
    urls = [u + UPLINK_PATH for u in control.settings.uplink_urls] or [_own_url(request) + UPLINK_PATH]
    return RegisterResponse(edge_id=ids.encode(ids.EDGE, edge_id), region=region, uplink_urls=urls)


@websocket(UPLINK_PATH)
async def uplink(socket: WebSocket[Any, Any, Any], control: ControlIn) -> None:
    """Refused before it is accepted where the token does not hold, and put off where nobody can say whether it does."""
    asking.set(Asker(address=address_of(socket.scope), request_id=uuid4().hex))
    try:
        token = bearer(authorization_of(socket))
        proven = await control.registration.edge_of(token)
        known, claims = proven.known, proven.claims
        await control.registration.use_once(claims.jti)
        if str(known.incarnation) != claims.inc:
            raise Unauthenticated("This incarnation is not the newest.", fix="Register again.")
        redis_url = await control.edge_access.url_for(known.region, known.id)
    except Exception as error:  # noqa: BLE001  answered as over HTTP
        await refuse_socket(error, socket.send)
        return
    await socket.accept()
    edge = EdgeIdentity(known.id, known.incarnation, known.region)
    parts = control.uplinks
    await Uplink(
        _LitestarSocket(socket),
        edge,
        store=control.fleet_store,
        appender=parts.appends,
        keyring=control.keyring,
        hints=control.hints,
        beats=control.beats,
        contact=parts.contact,
        orders=parts.orders,
        observing=control.observations,
        measuring=control.learning,
        live=parts.live,
        revoked=control.fleet.is_revoked,
        key=UplinkKey(control.edge_keys, edge, proven),
        redis_url=redis_url,
        stop=control.stopping,
    ).run()


class _LitestarSocket:
    def __init__(self, socket: WebSocket[Any, Any, Any]) -> None:
        self._socket = socket

    async def receive(self) -> str | bytes | None:
        try:
            event: Any = await self._socket.receive()
        except WebSocketDisconnect:
            return None
        if event["type"] == "websocket.disconnect":
            return None
        text: str | None = event.get("text")
        binary: bytes | None = event.get("bytes")
        return text if text is not None else binary

    async def send(self, text: str) -> None:
        try:
            await self._socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            raise ConnectionError("the uplink has closed") from error

    async def close(self, code: int, reason: str) -> None:
        try:
            await self._socket.close(code=code, reason=reason)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            raise ConnectionError("the uplink has closed") from error


def bearer(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("The request carries no bearer token.", fix=tokens.FIX)
    return token


def region_view(fleet: Fleet, region: RegionState) -> RegionView:
    edges = [e for e in fleet.edges if e.region == region.id and e.health in HEALTHY][:PROBES_PER_REGION]
    return RegionView(
        id=region.id,
        name=region.name,
        jurisdiction=region.jurisdiction,
        health=region.health,
        admin_state=region.admin_state,
        latitude=region.latitude,
        longitude=region.longitude,
        weight=region.weight,
        proximity=region.proximity,
        price_ms=region.price_ms,
        probes=[ProbeTarget(ws=e.media_url + "/probe", http=e.http_url + "/probe") for e in edges],
    )


def edge_view(edge: EdgeState) -> EdgeView:
    return EdgeView(
        id=ids.encode(ids.EDGE, edge.id),
        region=edge.region,
        name=edge.name,
        health=edge.health,
        admin_state=edge.admin_state,
        media_url=edge.media_url,
        http_url=edge.http_url,
        webrtc=edge.webrtc,
        software=edge.software,
        calls=edge.calls,
        capacity_calls=edge.capacity_calls,
        weight=edge.weight,
        action=edge.action,
        stopped=edge.stopped,
        revoked_at=_moment(edge.revoked_at),
        key=EdgeKeyView(
            since=_moment(edge.key.since),
            asked_at=_moment(edge.key.asked_at),
            before_until=_moment(edge.key.before_until),
            misuses=edge.key.misuses,
            misused_at=_moment(edge.key.misused_at),
        ),
    )


def _moment(at: datetime | None) -> str | None:
    return rfc3339(at) if at is not None else None


def _with_etag(control: Control, region_id: str) -> Response[RegionView]:
    region = control.fleet.now.regions.get(region_id)
    if region is None:
        raise NotFound("There is no such region.")
    return Response(region_view(control.fleet.now, region), headers={"ETag": f'"{region.version}"'})


def _own_url(request: Request[Any, Any, Any]) -> str:
    base = str(request.base_url).rstrip("/")
    return base.replace("http://", "ws://", 1).replace("https://", "wss://", 1)


ROUTES: list[Any] = [
    list_regions,
    admin_list_regions,
    admin_create_region,
    admin_get_region,
    admin_change_region,
    admin_enrol,
    admin_list_edges,
    admin_get_edge,
    register,
    uplink,
]
