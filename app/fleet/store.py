"""What the fleet keeps in the database, one function per statement. Works as the admin role; rows stay in here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.db import Database
from regions.wire.uplink import Command, Load, RegisterRequest

# A token's single use: the insert is the check.
USE_TOKEN = (
    "insert into vx.used_tokens (jti, expires_at) values ($1, $2) on conflict do nothing returning true"
)

SELECT_EDGE = """
select id, region, name, incarnation, public_key, extract(epoch from clock_timestamp() - seen_at)::float8 as silent_s,
       revoked_at is not null as revoked
  from vx.edges where region = $1 and name = $2
"""
SELECT_EDGE_BY_ID = (
    "select id, region, name, incarnation, public_key, 0::float8 as silent_s, revoked_at is not null as revoked "
    "from vx.edges where id = $1"
)

# A registration replaces the incarnation and voids the uplinks of the one before. The key is another only after a fresh enrolment:
# who registers with one that holds for its overlap does not bring it back.
PUT_EDGE = """
insert into vx.edges (id, region, name, incarnation, public_key, media_url, http_url, capacity_calls, software, webrtc)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict (region, name) do update
   set incarnation = excluded.incarnation, media_url = excluded.media_url,
       http_url = excluded.http_url, capacity_calls = excluded.capacity_calls, software = excluded.software,
       webrtc = excluded.webrtc,
       public_key = case when $11 then excluded.public_key else vx.edges.public_key end,
       key_since = case when $11 and excluded.public_key <> vx.edges.public_key then now() else vx.edges.key_since end,
       generation = vx.edges.generation + 1, calls = 0, registered_at = now(), seen_at = clock_timestamp(),
       version = vx.edges.version + 1
returning id
"""
# Another key takes the name over: what held before it ends at once, and is known for ever.
RETIRE_KEYS = """
with taken as (
  update vx.edges set key_asked_at = null, key_overlap_s = null, key_before_until = null
   where region = $1 and name = $2 and public_key <> $3 returning id, public_key, key_since),
ended as (
  update vx.edge_keys k set valid_until = least(k.valid_until, clock_timestamp()) from taken t where k.edge_id = t.id)
insert into vx.edge_keys (public_key, edge_id, since, valid_until)
select public_key, id, key_since, clock_timestamp() from taken on conflict do nothing
"""
# What a revocation leaves behind: the keys that never come back, and which of a region's enrolment tokens still count.
SELECT_ENROLMENT = """
select r.enrol_version,
       exists (select from vx.edges e where e.revoked_at is not null
                  and (e.public_key = $2 or e.id = (select k.edge_id from vx.edge_keys k where k.public_key = $2))) as key_revoked,
       exists (select from vx.edge_keys k where k.public_key = $2) as key_retired
  from vx.regions r where r.id = $1
"""

# A new uplink of the present incarnation; the older ones find their generation gone at the next heartbeat.
NEXT_GENERATION = """
update vx.edges set generation = generation + 1, seen_at = clock_timestamp(), calls = $3, stopped = null
 where id = $1 and incarnation = $2 and revoked_at is null returning generation
"""

HOLDS = "select exists (select from vx.edges where id = $1 and generation = $2 and revoked_at is null)"

# One statement for all uplinks of an instance. Rows whose generation has passed are not returned: superseded.
HEARTBEATS = """
update vx.edges e set seen_at = clock_timestamp(), calls = h.calls, capacity_calls = h.capacity, load = h.load
  from unnest($1::uuid[], $2::bigint[], $3::int[], $4::int[], $5::jsonb[]) as h(id, generation, calls, capacity, load)
 where e.id = h.id and e.generation = h.generation
returning e.id
"""

ADD_COMMAND = """
with v as (update vx.edges set desired_version = desired_version + 1 where id = $1 returning desired_version)
insert into vx.desired (edge_id, version, kind, call_id, body) select $1, v.desired_version, $2, $3, $4 from v
returning version
"""
SELECT_COMMANDS = """
select version, kind, call_id, body from vx.desired where edge_id = $1 and version > $2 order by version limit 200
"""
SELECT_AGES = """
select version, extract(epoch from clock_timestamp() - created_at)::float8 as age_s
  from vx.desired where edge_id = $1 and version = any($2::bigint[])
"""
COMMANDS_DONE = """
with e as (update vx.edges set done_version = greatest(done_version, $2) where id = $1)
delete from vx.desired where edge_id = $1 and version <= $2
"""


@dataclass(frozen=True, slots=True)
class KnownEdge:
    id: UUID
    region: str
    name: str
    incarnation: UUID
    public_key: bytes
    silent_s: float
    revoked: bool


@dataclass(frozen=True, slots=True)
class Enrolment:
    """`version`: of the enrolment tokens that the region takes. `key_revoked`: the edge's key is one that was revoked; `key_retired`:
    one that was replaced."""

    version: int
    key_revoked: bool
    key_retired: bool


@dataclass(frozen=True, slots=True)
class Beat:
    edge_id: UUID
    generation: int
    load: Load


class FleetStore:
    def __init__(self, db: Database) -> None:
        self._db = db

    @property
    def _pool(self) -> asyncpg.Pool:
        return self._db.pool("admin")

    async def use_token(self, jti: str, expires_at: datetime) -> bool:
        """False where the token was used before."""
        return bool(await self._pool.fetchval(USE_TOKEN, jti, expires_at))

    async def edge_named(self, region: str, name: str) -> KnownEdge | None:
        return _known(await self._pool.fetchrow(SELECT_EDGE, region, name))

    async def edge(self, edge_id: UUID) -> KnownEdge | None:
        return _known(await self._pool.fetchrow(SELECT_EDGE_BY_ID, edge_id))

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Any]:
        async with self._pool.acquire() as connection, connection.transaction():
            yield connection

    async def enrolment(self, region: str, public_key: bytes = b"") -> Enrolment | None:
        """None where there is no such region."""
        row = await self._pool.fetchrow(SELECT_ENROLMENT, region, public_key)
        return Enrolment(*row) if row is not None else None

    async def retire_keys(self, connection: Any, region: str, name: str, public_key: bytes) -> None:
        """Of the edge of that name, if there is one and this is another key."""
        await connection.execute(RETIRE_KEYS, region, name, public_key)

    async def put_edge(
        self,
        connection: Any,
        edge_id: UUID,
        incarnation: UUID,
        public_key: bytes,
        body: RegisterRequest,
        *,
        new_key: bool = True,
    ) -> UUID:
        """The edge's id: the one it had before, where its name was known; its key stays then, but for a `new_key`. Raises
        `asyncpg.UniqueViolationError` where it was revoked meanwhile."""
        return await connection.fetchval(  # type: ignore[no-any-return]
            PUT_EDGE, edge_id, body.region, body.name, incarnation, public_key, body.listeners.media_url,
            body.listeners.http_url, body.capacity_calls, body.version, body.listeners.webrtc,
            new_key,
        )  # fmt: skip

    async def next_generation(self, edge_id: UUID, incarnation: UUID, calls: int) -> int | None:
        """None where this incarnation is not the newest any more."""
        return await self._pool.fetchval(NEXT_GENERATION, edge_id, incarnation, calls)  # type: ignore[no-any-return]

    async def holds(self, edge_id: UUID, generation: int) -> bool:
        """Whether this uplink of the edge is still the one that counts: asked before it is given what only the trusted may know."""
        return bool(await self._pool.fetchval(HOLDS, edge_id, generation))

    async def heartbeats(self, beats: list[Beat]) -> set[UUID]:
        """The edges whose generation still holds."""
        rows = await self._pool.fetch(
            HEARTBEATS,
            [b.edge_id for b in beats],
            [b.generation for b in beats],
            [b.load.calls for b in beats],
            [b.load.capacity_calls for b in beats],
            [msgspec.json.encode(b.load).decode() for b in beats],
        )
        return {row["id"] for row in rows}

    async def add_command(self, edge_id: UUID, kind: str, call_id: UUID | None, body: dict[str, str]) -> None:
        await self._pool.fetchval(ADD_COMMAND, edge_id, kind, call_id, msgspec.json.encode(body).decode())

    async def commands(self, edge_id: UUID, above: int) -> list[tuple[Command, UUID | None]]:
        rows = await self._pool.fetch(SELECT_COMMANDS, edge_id, above)
        return [
            (Command(version=r["version"], kind=r["kind"], body=msgspec.json.decode(r["body"])), r["call_id"])
            for r in rows
        ]

    async def ages(self, edge_id: UUID, versions: list[int]) -> dict[int, float]:
        """For how many seconds each of these commands has been here; those that are here no more are left out."""
        rows = await self._pool.fetch(SELECT_AGES, edge_id, versions)
        return {row["version"]: row["age_s"] for row in rows}

    async def commands_done(self, edge_id: UUID, version: int) -> None:
        await self._pool.execute(COMMANDS_DONE, edge_id, version)


def _known(row: Any) -> KnownEdge | None:
    if row is None:
        return None
    return KnownEdge(
        row["id"],
        row["region"],
        row["name"],
        row["incarnation"],
        row["public_key"],
        row["silent_s"],
        row["revoked"],
    )
