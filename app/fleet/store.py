"""What the fleet keeps in the database, one function per statement. Works as the admin role; rows stay in here."""

from __future__ import annotations

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
select id, region, name, incarnation, public_key, extract(epoch from clock_timestamp() - seen_at)::float8 as silent_s
  from vx.edges where region = $1 and name = $2
"""
SELECT_EDGE_BY_ID = (
    "select id, region, name, incarnation, public_key, 0::float8 as silent_s from vx.edges where id = $1"
)

# A registration replaces the incarnation and voids the uplinks of the one before.
PUT_EDGE = """
insert into vx.edges (id, region, name, incarnation, public_key, media_url, http_url, capacity_calls, software)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (region, name) do update
   set incarnation = excluded.incarnation, public_key = excluded.public_key, media_url = excluded.media_url,
       http_url = excluded.http_url, capacity_calls = excluded.capacity_calls, software = excluded.software,
       generation = vx.edges.generation + 1, calls = 0, registered_at = now(), seen_at = clock_timestamp(),
       version = vx.edges.version + 1
returning id
"""

# A new uplink of the present incarnation; the older ones find their generation gone at the next heartbeat.
NEXT_GENERATION = """
update vx.edges set generation = generation + 1, seen_at = clock_timestamp(), calls = $3, stopped = null
 where id = $1 and incarnation = $2 returning generation
"""

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

    async def put_edge(
        self, edge_id: UUID, incarnation: UUID, public_key: bytes, body: RegisterRequest
    ) -> UUID:
        """The edge's id: the one it had before, where its name was known."""
        return await self._pool.fetchval(  # type: ignore[no-any-return]
            PUT_EDGE, edge_id, body.region, body.name, incarnation, public_key, body.listeners.media_url,
            body.listeners.http_url, body.capacity_calls, body.version,
        )  # fmt: skip

    async def next_generation(self, edge_id: UUID, incarnation: UUID, calls: int) -> int | None:
        """None where this incarnation is not the newest any more."""
        return await self._pool.fetchval(NEXT_GENERATION, edge_id, incarnation, calls)  # type: ignore[no-any-return]

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

    async def commands_done(self, edge_id: UUID, version: int) -> None:
        await self._pool.execute(COMMANDS_DONE, edge_id, version)


def _known(row: Any) -> KnownEdge | None:
    if row is None:
        return None
    return KnownEdge(
        row["id"], row["region"], row["name"], row["incarnation"], row["public_key"], row["silent_s"]
    )
