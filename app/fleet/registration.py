"""Lets an edge in: the first time with an enrolment token, later with one it signed itself. A restart is a new incarnation.

A name belongs to the key that registered it. Another key takes it over with a fresh enrolment token, and only once the
edge that had it is down: a copied configuration must not push a living edge out.
"""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import UUID

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.clock import Clock
from app.errors import Conflict, FieldError, Forbidden, Invalid, Unauthenticated
from app.fleet import tokens
from app.fleet.events import FleetEvents
from app.fleet.frames import CAPACITY_MAX
from app.fleet.keyring import Keyring
from app.fleet.policy import takes_first
from app.fleet.store import FleetStore, KnownEdge
from app.fleet.verdicts import DOWN_AFTER_S
from app.fleet.view import FleetView
from app.ids import new_id, parse
from regions.wire import ids
from regions.wire.ticket import unb64
from regions.wire.uplink import REGISTER_TYP, RegisterRequest

log = structlog.get_logger()

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_LISTENER = re.compile(r"(wss?|https?)://[A-Za-z0-9.\-\[\]:]{1,253}")


class Registration:
    def __init__(
        self,
        store: FleetStore,
        keyring: Keyring,
        view: FleetView,
        events: FleetEvents,
        clock: Clock,
        cell: int,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._view = view
        self._events = events
        self._clock = clock
        self._cell = cell

    async def register(self, token: str, body: RegisterRequest) -> tuple[UUID, str]:
        """(edge id, region). Raises `Unauthenticated`, `Forbidden`, `Conflict` or `Invalid`; nothing is changed then."""
        incarnation, public_key = _checked(body)
        now_s = self._clock.now().timestamp()
        if tokens.header_of(token).get("typ") == REGISTER_TYP:
            claims = tokens.read_enrol(token, self._keyring.public_keys, now_s=now_s)
            region, known = claims.region, await self._store.edge_named(body.region, body.name)
            if known is not None and known.public_key != public_key and known.silent_s <= DOWN_AFTER_S:
                raise Conflict(
                    "An edge of this name is running with another key.",
                    fix="Choose another VOXPLANE_EDGE_NAME, or stop the edge that has this one.",
                )
        else:
            known, edge_claims = await self.edge_of(token, now_s=now_s)
            region = edge_claims.sub
            if known.name != body.name or known.public_key != public_key:
                raise Forbidden(
                    "The token belongs to another edge.",
                    fix="Register under the name this key was enrolled with.",
                )
            claims = edge_claims  # type: ignore[assignment]
        if region != body.region:
            raise Forbidden(
                f"The token is for region {region}.", fix="Set VOXPLANE_REGION to the region of the token."
            )
        if body.region not in self._view.now.regions:
            await self._view.refresh()
            if body.region not in self._view.now.regions:
                raise Invalid(
                    "There is no such region.",
                    errors=[FieldError(pointer="/region", detail="unknown")],
                    fix="POST /admin/v1/regions first.",
                )
        await self.use_once(claims.jti)
        edge_id = await self._store.put_edge(
            known.id if known else new_id(self._cell), incarnation, public_key, body
        )
        await self._view.refresh()
        # read after it was written: a command that is given meanwhile either is seen here, or sees this edge
        edge = self._view.now.edge(edge_id)
        if edge is not None and not takes_first(self._view.now, edge):
            await self._store.add_command(edge_id, "drain", None, {})
        await self._events.write(
            f"registered:{edge_id}:{incarnation}", "edge.registered", region, edge_id,
            {"name": body.name, "incarnation": str(incarnation), "restarted": known is not None},
        )  # fmt: skip
        log.info("edge.registered", edge=body.name, region=region, restarted=known is not None)
        return edge_id, region

    async def edge_of(self, token: str, *, now_s: float) -> tuple[KnownEdge, tokens.EdgeClaims]:
        """The registered edge that signed `token`; raises `Unauthenticated`."""
        edge_id = parse(ids.EDGE, tokens.issuer_of(token))
        known = await self._store.edge(edge_id) if edge_id is not None else None
        if known is None:
            raise Unauthenticated("No registered edge signed this token.", fix=tokens.FIX)
        claims = tokens.read_edge(token, Ed25519PublicKey.from_public_bytes(known.public_key), now_s=now_s)
        if claims.sub != known.region:
            raise Unauthenticated("The token names another region than the edge's.", fix=tokens.FIX)
        return known, claims

    async def use_once(self, jti: str) -> None:
        if not await self._store.use_token(jti, self._clock.now() + timedelta(hours=1)):
            raise Unauthenticated("This token was used before.", code="replayed", fix=tokens.FIX)


def _checked(body: RegisterRequest) -> tuple[UUID, bytes]:
    faults: list[FieldError] = []
    incarnation, public_key = UUID(int=0), b""
    try:
        incarnation = UUID(body.incarnation)
    except ValueError:
        faults.append(FieldError(pointer="/incarnation", detail="expected a UUID"))
    try:
        public_key = unb64(body.public_key)
        Ed25519PublicKey.from_public_bytes(public_key)
    except ValueError:
        faults.append(
            FieldError(pointer="/public_key", detail="expected a raw Ed25519 public key in base64url")
        )
    if not _NAME.fullmatch(body.name):
        faults.append(
            FieldError(pointer="/name", detail="expected lower-case letters, digits, dots and dashes")
        )
    for name, url, schemes in (
        ("media_url", body.listeners.media_url, ("ws", "wss")),
        ("http_url", body.listeners.http_url, ("http", "https")),
    ):
        if not _LISTENER.fullmatch(url) or url.split(":")[0] not in schemes:
            faults.append(
                FieldError(
                    pointer=f"/listeners/{name}",
                    detail=f"expected {schemes[0]}(s)://host:port without a path",
                )
            )
    if not 1 <= body.capacity_calls <= CAPACITY_MAX:
        faults.append(FieldError(pointer="/capacity_calls", detail=f"expected 1 to {CAPACITY_MAX}"))
    if faults:
        raise Invalid("The registration does not fit.", errors=faults)
    return incarnation, public_key
