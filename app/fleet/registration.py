"""Lets an edge in: the first time with an enrolment token, later with one it signed itself. A restart is a new incarnation.

A name belongs to the key that registered it. Another key takes it over with a fresh enrolment token, and only once the
edge that had it is down: a copied configuration must not push a living edge out.
"""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import UUID

import asyncpg
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.audit import asker
from app.audit.service import Audit
from app.clock import Clock
from app.errors import Conflict, FieldError, Forbidden, Invalid, Unauthenticated
from app.fleet import tokens
from app.fleet.edge_keys import EdgeKeys, Proven, retired
from app.fleet.events import FleetEvents
from app.fleet.frames import CAPACITY_MAX
from app.fleet.keyring import Keyring
from app.fleet.policy import takes_first
from app.fleet.store import FleetStore
from app.fleet.verdicts import DOWN_AFTER_S
from app.fleet.view import FleetView
from app.ids import new_id, parse
from app.projects.roles import Actor
from regions.wire import ids
from regions.wire.ticket import unb64
from regions.wire.uplink import EDGE_REVOKED, REGISTER_TYP, RegisterRequest

log = structlog.get_logger()

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_SOFTWARE = re.compile(r"[!-~]{0,64}")
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
        audit: Audit,
        keys: EdgeKeys,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._view = view
        self._events = events
        self._clock = clock
        self._cell = cell
        self._audit = audit
        self._keys = keys

    async def register(self, token: str, body: RegisterRequest) -> tuple[UUID, str]:
        """(edge id, region). Raises `Unauthenticated`, `Forbidden`, `Conflict` or `Invalid`; nothing is changed then."""
        incarnation, public_key = _checked(body)
        now_s = self._clock.now().timestamp()
        fresh = tokens.header_of(token).get("typ") == REGISTER_TYP
        if fresh:
            claims = tokens.read_enrol(token, self._keyring.public_keys, now_s=now_s)
            region, known = claims.region, await self._store.edge_named(body.region, body.name)
            await self._check_enrolment(claims, public_key)
            if known is not None and known.public_key != public_key and known.silent_s <= DOWN_AFTER_S:
                raise Conflict(
                    "An edge of this name is running with another key.",
                    fix="Choose another VOXPLANE_EDGE_NAME, or stop the edge that has this one.",
                )
        else:
            proven = await self.edge_of(token)
            known, region = proven.known, proven.claims.sub
            if known.name != body.name or proven.key != public_key:
                raise Forbidden(
                    "The token belongs to another edge.",
                    fix="Register under the name this key was enrolled with.",
                )
            claims = proven.claims  # type: ignore[assignment]
        if region != body.region:
            raise Forbidden(
                f"The token is for region {region}.", fix="Set VOXPLANE_REGION to the region of the token."
            )
        await self._check_region(body.region)
        await self.use_once(claims.jti)
        try:
            async with self._store.changing() as connection:
                if fresh:
                    await self._store.retire_keys(connection, body.region, body.name, public_key)
                edge_id = await self._store.put_edge(
                    connection,
                    known.id if known else new_id(self._cell),
                    incarnation,
                    public_key,
                    body,
                    new_key=fresh,
                )
                name, said = (
                    ids.encode(ids.EDGE, edge_id),
                    {"region": region, "name": body.name, "restarted": known is not None},
                )
                asker.is_(Actor(kind="edge", id=name), platform=True)
                await self._audit.record(connection, "edge.registered", name, summary=said)
        except asyncpg.UniqueViolationError:
            raise revoked() from None
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

    async def _check_region(self, region: str) -> None:
        """Raises `Invalid` for one that there is not."""
        if region not in self._view.now.regions:
            await self._view.refresh()
        if region not in self._view.now.regions:
            raise Invalid(
                "There is no such region.",
                errors=[FieldError(pointer="/region", detail="unknown")],
                fix="POST /admin/v1/regions first.",
            )

    async def _check_enrolment(self, claims: tokens.EnrolClaims, public_key: bytes) -> None:
        """Raises `Unauthenticated` for a token from before a revocation, and for a key that was revoked."""
        enrolment = await self._store.enrolment(claims.region, public_key)
        if enrolment is None or enrolment.version != claims.ver:
            raise Unauthenticated(
                "This enrolment token was made void: an edge of the region was revoked since.",
                fix=tokens.FIX,
            )
        if enrolment.key_revoked:
            raise revoked()
        if enrolment.key_retired:
            raise retired()

    async def edge_of(self, token: str) -> Proven:
        """The registered edge that signed `token`; raises `Unauthenticated`."""
        edge_id = parse(ids.EDGE, tokens.issuer_of(token))
        known = await self._store.edge(edge_id) if edge_id is not None else None
        if known is None:
            raise Unauthenticated("No registered edge signed this token.", fix=tokens.FIX)
        proven = await self._keys.prove(known, token)
        if proven.claims.sub != known.region:
            raise Unauthenticated("The token names another region than the edge's.", fix=tokens.FIX)
        if known.revoked:
            raise revoked()
        return proven

    async def use_once(self, jti: str) -> None:
        if not await self._store.use_token(jti, self._clock.now() + timedelta(hours=1)):
            raise Unauthenticated("This token was used before.", code="replayed", fix=tokens.FIX)


def revoked() -> Unauthenticated:
    return Unauthenticated(
        "This edge's key was revoked.",
        code=EDGE_REVOKED,
        fix="Ask an operator for a new enrolment token, and start the edge with it and another key: an empty VOXPLANE_EDGE_DATA.",
    )


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
    if not _SOFTWARE.fullmatch(body.version):
        faults.append(
            FieldError(pointer="/version", detail="expected at most 64 printable characters without spaces")
        )
    if not 1 <= body.capacity_calls <= CAPACITY_MAX:
        faults.append(FieldError(pointer="/capacity_calls", detail=f"expected 1 to {CAPACITY_MAX}"))
    if faults:
        raise Invalid("The registration does not fit.", errors=faults)
    return incarnation, public_key
