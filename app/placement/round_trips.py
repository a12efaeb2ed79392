"""Round trips in PostgreSQL, so that what one instance learns all of them know: by network, between regions, to backends.

Nothing here is on the path of a request: it is written and read every few seconds, in bounded batches. Rows are said again and again
until their window is over, and read with some overlap, because a row is seen only when its transaction has ended: all of it may come
twice and change nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.db import Database
from app.placement.claims import Claim
from app.placement.witness import Value

BATCH = 2_000
OVERLAP_S = 10.0
LOAD_ROWS_MAX = 5_000_000

PUT_VALUES = """
insert into vx.round_trips (network, region, window_n, rtt_ms, reports)
select * from unnest($1::bigint[], $2::text[], $3::integer[], $4::real[], $5::integer[]) as r(n, r, w, t, c) order by 1, 2
on conflict (window_n, network, region) do update
   set rtt_ms = excluded.rtt_ms, reports = excluded.reports, at = clock_timestamp()
"""
PUT_LEGS = """
insert into vx.legs (region, kind, target, rtt_ms, jitter_ms, loss)
select * from unnest($1::text[], $2::text[], $3::text[], $4::real[], $5::real[], $6::real[]) as l(r, k, t, a, b, c) order by 1, 2, 3
on conflict (region, kind, target) do update
   set rtt_ms = excluded.rtt_ms, jitter_ms = excluded.jitter_ms, loss = excluded.loss, at = clock_timestamp()
"""
PUT_CLAIMS = """
insert into vx.probes (project_id, network, region, rtt_ms, jitter_ms, loss, at)
select $1::uuid, $2::bigint, *
  from unnest($3::text[], $4::real[], $5::real[], $6::real[], $7::timestamptz[]) as c(r, a, b, d, e) order by 3
on conflict (project_id, network, region) do update
   set rtt_ms = excluded.rtt_ms, jitter_ms = excluded.jitter_ms, loss = excluded.loss, at = excluded.at,
       stored_at = clock_timestamp()
 where probes.at <= excluded.at
"""
ALL_VALUES = f"""
select network, region, window_n, rtt_ms from vx.round_trips
 where (window_n, network, region) > ($1, $2, $3) order by window_n, network, region limit {BATCH * 5}
"""
NEW_VALUES = f"""
select network, region, window_n, rtt_ms from vx.round_trips where at >= $1 order by at limit {BATCH * 10}
"""
NEW_LEGS = """
select region, kind, target, rtt_ms, jitter_ms, loss, extract(epoch from clock_timestamp() - at)::float8 as age_s
  from vx.legs where at >= $1 order by at limit 50000
"""
NEW_CLAIMS = f"""
select project_id, network, region, rtt_ms, jitter_ms, loss, at from vx.probes
 where stored_at >= $1 order by stored_at limit {BATCH * 10}
"""
FORGET = [
    f"""delete from vx.round_trips where ctid = any(array(
          select ctid from vx.round_trips where window_n < $1 limit {BATCH * 5}))""",
    f"""delete from vx.legs where ctid = any(array(
          select ctid from vx.legs where at < clock_timestamp() - interval '1 day' limit {BATCH * 5}))""",
    f"""delete from vx.probes where ctid = any(array(
          select ctid from vx.probes where stored_at < clock_timestamp() - interval '10 minutes' limit {BATCH * 5}))""",
]


@dataclass(frozen=True, slots=True)
class Leg:
    """A way that edges measure. `kind`: ``mesh``, where `target` is a region, or ``backend``, where it is ``host:port``."""

    region: str
    kind: str
    target: str
    rtt_ms: float
    jitter_ms: float
    loss: float
    age_s: float = 0.0


class RoundTrips:
    """All methods raise what the driver raises."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put_values(self, values: list[Value]) -> None:
        await self._db.pool("worker").execute(
            PUT_VALUES,
            [v.network for v in values],
            [v.region for v in values],
            [v.window for v in values],
            [v.rtt_ms for v in values],
            [v.reports for v in values],
        )

    async def put_legs(self, legs: list[Leg]) -> None:
        await self._db.pool("worker").execute(
            PUT_LEGS,
            [leg.region for leg in legs],
            [leg.kind for leg in legs],
            [leg.target for leg in legs],
            [leg.rtt_ms for leg in legs],
            [leg.jitter_ms for leg in legs],
            [leg.loss for leg in legs],
        )

    async def put_claims(self, project_id: UUID, network: int, claims: list[Claim]) -> None:
        """One for each region at most. What is older than what is there changes nothing."""
        async with self._db.project_driver(project_id) as connection:
            await connection.execute(
                PUT_CLAIMS,
                project_id,
                network,
                [c.region for c in claims],
                [c.rtt_ms for c in claims],
                [c.jitter_ms for c in claims],
                [c.loss for c in claims],
                [c.at for c in claims],
            )

    async def all_values(self, since_window: int) -> AsyncIterator[list[Value]]:
        """From the oldest window on, in batches, `LOAD_ROWS_MAX` at most."""
        after: tuple[int, int, str] = (since_window, -1, "")
        for _ in range(LOAD_ROWS_MAX // (BATCH * 5)):
            rows = await self._db.pool("worker").fetch(ALL_VALUES, *after)
            if not rows:
                return
            yield [Value(r[0], r[1], r[2], r[3], 0) for r in rows]
            after = (rows[-1]["window_n"], rows[-1]["network"], rows[-1]["region"])

    async def new_values(self, since: datetime) -> list[Value]:
        rows = await self._db.pool("worker").fetch(NEW_VALUES, since)
        return [Value(r[0], r[1], r[2], r[3], 0) for r in rows]

    async def new_legs(self, since: datetime) -> list[Leg]:
        return [Leg(*row) for row in await self._db.pool("worker").fetch(NEW_LEGS, since)]

    async def new_claims(self, since: datetime) -> list[tuple[UUID, int, Claim]]:
        rows = await self._db.pool("worker").fetch(NEW_CLAIMS, since)
        return [(r[0], r[1], Claim(*r[2:])) for r in rows]

    async def forget(self, before_window: int) -> None:
        pool = self._db.pool("worker")
        await pool.execute(FORGET[0], before_window)
        await pool.execute(FORGET[1])
        await pool.execute(FORGET[2])

    async def now(self) -> datetime:
        """The database's clock: what `at` was written by."""
        at: datetime = await self._db.pool("worker").fetchval("select clock_timestamp()")
        return at
