"""The keys of edges: which of them signed a token, how one takes the place of another, and who shows one that holds no more.

An edge has one key, and may have some before it that hold for an overlap. It names the next one over its uplink, which it opened with
the present one, and proves that it has it (`app.fleet.key_policy` decides). A key that has been replaced stays known for ever: who
signs with it after its overlap has a copy that should not be, and that is refused, counted on the edge, and written down.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.audit import asker
from app.audit.service import Audit
from app.clock import Clock
from app.connection import DATABASE_ERRORS
from app.db import Database
from app.errors import Conflict, NotFound, Unauthenticated
from app.fleet import tokens
from app.fleet.events import FleetEvents
from app.fleet.key_policy import OVERLAP_S, KeyFacts, judge
from app.fleet.notes import Closed
from app.fleet.store import KnownEdge
from app.fleet.view import EdgeState, FleetView
from app.ids import parse
from app.log.append import EdgeIdentity
from app.projects.roles import Actor
from app.telemetry import edge_key_misuses_total
from regions.wire import ids
from regions.wire.ticket import b64, unb64
from regions.wire.uplink import EDGE_KEY_RETIRED, KeyTaken, KeyWanted, NewKey

log = structlog.get_logger()

ROTATED, ASKED, MISUSED = "edge.key_rotated", "edge.key_asked", "edge.key_misused"
LOOKED_AT_MAX = 16
"""So many of those before are tried on a token: who has only an older one is refused as anybody else."""
SAID_EVERY_S = 60.0
"""Of one edge: how often it is written down, and told, that a retired key was shown. Each time is logged and counted."""

SELECT_BEFORE = """
select public_key, extract(epoch from valid_until - clock_timestamp())::float8 as left_s from vx.edge_keys
 where edge_id = $1 order by retired_at desc limit $2
"""
LOCK = """
select name, region, public_key, coalesce(key_overlap_s, $3) as overlap_s from vx.edges
 where id = $1 and generation = $2 and revoked_at is null for no key update
"""
KNOWN = """
select exists (select from vx.edges where public_key = $2 and id <> $1)
    or exists (select from vx.edge_keys where public_key = $2) as known,
       (select count(*) from vx.edge_keys where edge_id = $1 and valid_until > clock_timestamp()) as holding
"""
# The new overlap ends those before, too: one of 0 leaves the new key alone.
SHORTEN = """
update vx.edge_keys set valid_until = least(valid_until, clock_timestamp() + make_interval(secs => $2)) where edge_id = $1
"""
RETIRE = """
insert into vx.edge_keys (public_key, edge_id, since, valid_until)
select public_key, id, key_since, clock_timestamp() + make_interval(secs => $2) from vx.edges where id = $1
"""
CHANGE = """
update vx.edges set public_key = $2, key_since = clock_timestamp(), key_asked_at = null, key_overlap_s = null, version = version + 1,
       key_before_until = (select max(valid_until) from vx.edge_keys where edge_id = $1)
 where id = $1
"""
ASK = """
update vx.edges set key_asked_at = clock_timestamp(), key_overlap_s = $2, version = version + 1
 where id = $1 and revoked_at is null returning name, region
"""
NOTE_MISUSE = """
update vx.edges e set key_misuses = e.key_misuses + 1, key_misused_at = clock_timestamp()
  from (select id, key_misused_at > clock_timestamp() - make_interval(secs => $2) is true as lately
          from vx.edges where id = $1 for no key update) n
 where e.id = n.id returning e.key_misuses, n.lately
"""


@dataclass(frozen=True, slots=True)
class Proven:
    """Who signed a token. `left_s`: so long the key holds; None: it is the edge's present one."""

    known: KnownEdge
    claims: tokens.EdgeClaims
    key: bytes
    left_s: float | None = None


class EdgeKeys:
    def __init__(
        self, db: Database, view: FleetView, events: FleetEvents, audit: Audit, clock: Clock
    ) -> None:
        self._db = db
        self._view = view
        self._events = events
        self._audit = audit
        self._clock = clock

    async def prove(self, known: KnownEdge, token: str) -> Proven:
        """Which of its keys signed it. Raises `Unauthenticated`, with `EDGE_KEY_RETIRED` for one that holds no more."""
        now_s = self._clock.now().timestamp()
        if tokens.is_signed_by(token, known.public_key):
            return Proven(
                known, tokens.read_edge(token, _public(known.public_key), now_s=now_s), known.public_key
            )
        for row in await self._db.pool("admin").fetch(SELECT_BEFORE, known.id, LOOKED_AT_MAX):
            if tokens.is_signed_by(token, row["public_key"]):
                claims = tokens.read_edge(token, _public(row["public_key"]), now_s=now_s)
                if row["left_s"] <= 0 and not known.revoked:
                    await self._misused(known, row["public_key"])
                    raise retired()
                return Proven(known, claims, row["public_key"], row["left_s"])
        raise Unauthenticated("The token's signature or claims do not hold.", fix=tokens.FIX)

    async def take(self, edge: EdgeIdentity, generation: int, came_with: bytes, said: NewKey) -> KeyTaken:
        """What has become of the key that an edge names on its uplink. Twice is as good as once. Raises what the driver raises."""
        name = ids.encode(ids.EDGE, edge.edge_id)
        try:
            new = self._proven(edge, name, said)
        except Unauthenticated as wrong:
            return KeyTaken(public_key=said.public_key, taken=False, detail=wrong.detail)
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            row = await connection.fetchrow(LOCK, edge.edge_id, generation, OVERLAP_S)
            if row is None:
                return KeyTaken(
                    public_key=said.public_key, taken=False, detail="another uplink has taken over"
                )
            found = await connection.fetchrow(KNOWN, edge.edge_id, new)
            facts = KeyFacts(present=row["public_key"], known=found["known"], holding=found["holding"])
            verdict = judge(facts, came_with=came_with, new=new)
            if verdict.change:
                overlap_s = float(row["overlap_s"])
                await connection.execute(SHORTEN, edge.edge_id, overlap_s)
                await connection.execute(RETIRE, edge.edge_id, overlap_s)
                await connection.execute(CHANGE, edge.edge_id, new)
                summary = {"region": row["region"], "name": row["name"], "overlap_s": row["overlap_s"]}
                asker.is_(Actor(kind="edge", id=name), platform=True)
                await self._audit.record(connection, ROTATED, name, summary=summary)
        if verdict.change:
            log.info(ROTATED, edge=row["name"], region=row["region"], overlap_s=row["overlap_s"])
            data = {"name": row["name"], "overlap_s": row["overlap_s"]}
            await self._events.write(
                f"key:{edge.edge_id}:{said.public_key}", ROTATED, row["region"], edge.edge_id, data
            )
        return KeyTaken(public_key=said.public_key, taken=verdict.taken, detail=verdict.detail)

    def _proven(self, edge: EdgeIdentity, name: str, said: NewKey) -> bytes:
        """The key, where who named it has it. Raises `Unauthenticated`."""
        try:
            new = unb64(said.public_key)
            key = _public(new)
        except ValueError:
            raise Unauthenticated("this is no raw Ed25519 public key in base64url") from None
        claims = tokens.read_new_key(said.proof, key, now_s=self._clock.now().timestamp())
        if (claims.iss, claims.sub, claims.inc) != (name, edge.region, str(edge.incarnation)):
            raise Unauthenticated("the proof is of another edge, or of another life")
        return new

    async def ask(self, text: str, overlap_s: int) -> EdgeState:
        """An operator wants this edge to have another key. It is told when it has an uplink. Raises `NotFound` and `Conflict`."""
        edge_id = parse(ids.EDGE, text)
        await self._view.refresh()
        edge = self._view.now.edge(edge_id) if edge_id is not None else None
        if edge is None:
            raise NotFound("There is no such edge.", fix="GET /admin/v1/edges lists them.")
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            row = await connection.fetchrow(ASK, edge.id, overlap_s)
            if row is None:
                raise Conflict(
                    "This edge was revoked: it has no key any more.",
                    fix="Enrol its successor: POST /admin/v1/regions/{id}/enrol.",
                )
            said = {"region": row["region"], "name": row["name"], "overlap_s": overlap_s}
            await self._audit.record(connection, ASKED, text, summary=said)
        log.info(ASKED, edge=row["name"], region=row["region"], overlap_s=overlap_s)
        await self._view.refresh()
        return self._view.now.edge(edge.id) or edge

    def wanted(self, edge_id: UUID) -> KeyWanted | None:
        """What the edge is to be told: None where nobody waits for another key of it."""
        edge = self._view.now.edge(edge_id)
        if edge is None or edge.key.asked_at is None:
            return None
        return KeyWanted(asked_at_ms=int(edge.key.asked_at.timestamp() * 1000))

    async def _misused(self, known: KnownEdge, key: bytes) -> None:
        """Somebody has a key that the edge itself has given up."""
        name, who = ids.encode(ids.EDGE, known.id), asker.asker()
        edge_key_misuses_total.labels(known.region).inc()
        log.warning(MISUSED, edge=known.name, region=known.region, key=b64(key), address=who.address)
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            row = await connection.fetchrow(NOTE_MISUSE, known.id, SAID_EVERY_S)
            if not row["lately"]:
                said = {"region": known.region, "name": known.name, "key": b64(key)}
                asker.is_(Actor(kind="edge", id=name), platform=True)
                await self._audit.record(connection, MISUSED, name, summary=said)
        if not row["lately"]:
            about = f"misused:{known.id}:{row['key_misuses']}"
            data = {"name": known.name, "key": b64(key)}
            await self._events.write(about, MISUSED, known.region, known.id, data)


class UplinkKey:
    """The key behind one uplink: what its edge says of the next one, and the end of the one it came with."""

    def __init__(self, keys: EdgeKeys, edge: EdgeIdentity, proven: Proven) -> None:
        self._keys = keys
        self._edge = edge
        self._came_with = proven.key
        self._left_s = proven.left_s

    async def heard(self, generation: int, said: NewKey) -> KeyTaken | None:
        """The answer; None where the database is away, and the edge is to say it again."""
        try:
            taken = await self._keys.take(self._edge, generation, self._came_with, said)
        except DATABASE_ERRORS as error:
            log.info("uplink.not_noted", edge=str(self._edge.edge_id), error=type(error).__name__)
            return None
        if taken.taken:
            self._came_with, self._left_s = unb64(said.public_key), None
        return taken

    def wanted(self) -> KeyWanted | None:
        return self._keys.wanted(self._edge.edge_id)

    async def over(self) -> None:
        """Raises `Closed` once the key it came with holds no more, unless its edge has shown the present one since."""
        if self._left_s is not None:
            await asyncio.sleep(max(0.0, self._left_s))
        if self._left_s is not None:
            raise Closed(
                "unauthorized", "the key that this uplink came with was replaced", "sign with the present one"
            )
        await asyncio.Event().wait()


def retired() -> Unauthenticated:
    return Unauthenticated(
        "This key of the edge was replaced, and holds no more.",
        code=EDGE_KEY_RETIRED,
        fix="Start the edge with the newest copy of its VOXPLANE_EDGE_DATA, or with an empty one and a new enrolment token.",
    )


def _public(raw: Any) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes(raw))
