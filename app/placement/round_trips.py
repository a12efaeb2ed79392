"""Round trips in PostgreSQL, so that what one instance learns all of them know: by network, between regions, to backends.

Nothing here is on the path of a request: it is written and read every few seconds, in bounded batches. Rows are said again and again
until their window is over, and read with some overlap, because a row is seen only when its transaction has ended: all of it may come
twice and change nothing. What is new is read page by page, each beginning after the last row of the one before, so that a burst
which is larger than a page is read to its end; up to a moment that lies in the past, so that there is one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from app.db import Database
from app.placement.witness import Value

BATCH = 2_000
PAGE = 2_000
"""Rows that are decoded at once, between two requests."""
FORGOTTEN_AT_ONCE = 10_000
STRETCH = 100_000
OVERLAP_S = 10.0
LOAD_ROWS_MAX = 5_000_000
WINDOW_N_MAX = (1 << 31) - 1
FORGET_PAGES_MAX = 200
"""So many pages are forgotten at a time; what is left is too old to be read, and goes the next time."""

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
ALL_VALUES = f"""
select network, region, window_n, rtt_ms from vx.round_trips
 where (window_n, network, region) > ($1, $2, $3) order by window_n, network, region limit {PAGE}
"""
# The row that lies a stretch before another, from the newest back.
STRETCH_BACK = """
select window_n, network, region from vx.round_trips
 where (window_n, network, region) < ($1, $2, $3) and window_n >= $4
 order by window_n desc, network desc, region desc offset $5 limit 1
"""
NEW_VALUES = f"""
select network, region, window_n, rtt_ms, at from vx.round_trips
 where (at, window_n, network, region) > ($1, $2, $3, $4) and at < $5 order by at, window_n, network, region limit {PAGE}
"""
NEW_LEGS = f"""
select region, kind, target, rtt_ms, jitter_ms, loss, extract(epoch from clock_timestamp() - at)::float8 as age_s, at
  from vx.legs
 where (at, region, kind, target) > ($1, $2, $3, $4) and at < $5 order by at, region, kind, target limit {PAGE}
"""
FORGET = [
    f"""delete from vx.round_trips where ctid = any(array(
          select ctid from vx.round_trips where window_n < $1 limit {FORGOTTEN_AT_ONCE}))""",
    f"""delete from vx.legs where ctid = any(array(
          select ctid from vx.legs where at < clock_timestamp() - interval '1 day' limit {FORGOTTEN_AT_ONCE}))""",
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
    """All methods raise what the driver raises. `load_rows_max`: so many values at most are read at the start."""

    def __init__(self, db: Database, load_rows_max: int = LOAD_ROWS_MAX) -> None:
        self._db = db
        self._load_rows_max = load_rows_max

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

    async def all_values(self, since_window: int) -> AsyncIterator[list[Value]]:
        """Page by page, from the oldest window on: an older one that came after a newer would not be learned. Where there are more
        than `load_rows_max` it is the oldest windows that are left out."""
        pool = self._db.pool("worker")
        after: tuple[int, int, str] = (await self._first_window(since_window), -1, "")
        for _ in range(-(-self._load_rows_max // PAGE)):
            rows = await pool.fetch(ALL_VALUES, *after)
            if not rows:
                return
            yield [Value(r[0], r[1], r[2], r[3], 0) for r in rows]
            after = (rows[-1]["window_n"], rows[-1]["network"], rows[-1]["region"])

    async def _first_window(self, since_window: int) -> int:
        """The oldest from which on all can be loaded. In stretches, for no statement may take long."""
        pool, stretch = self._db.pool("worker"), min(STRETCH, self._load_rows_max)
        before: tuple[int, int, str] = (WINDOW_N_MAX, 0, "")
        newest = await pool.fetchrow(STRETCH_BACK, *before, since_window, 0)
        for _ in range(self._load_rows_max // stretch):
            row = await pool.fetchrow(STRETCH_BACK, *before, since_window, stretch - 1)
            if row is None:
                return since_window
            before = (row["window_n"], row["network"], row["region"])
        # the window in which the room ends is left out, but for the newest, of which there is as much as fits
        oldest: int = min(before[0] + 1, newest["window_n"])
        return oldest

    async def new_values(self, since: datetime, until: datetime) -> AsyncIterator[list[Value]]:
        """All that was written from `since` to before `until`, page by page."""
        after: tuple[datetime, int, int, str] = (since, -1, -1, "")
        while rows := await self._db.pool("worker").fetch(NEW_VALUES, *after, until):
            yield [Value(r[0], r[1], r[2], r[3], 0) for r in rows]
            after = (rows[-1]["at"], rows[-1]["window_n"], rows[-1]["network"], rows[-1]["region"])

    async def new_legs(self, since: datetime, until: datetime) -> AsyncIterator[list[Leg]]:
        """The same of ways."""
        after: tuple[datetime, str, str, str] = (since, "", "", "")
        while rows := await self._db.pool("worker").fetch(NEW_LEGS, *after, until):
            yield [Leg(*row[:7]) for row in rows]
            after = (rows[-1]["at"], rows[-1]["region"], rows[-1]["kind"], rows[-1]["target"])

    async def forget(self, before_window: int) -> None:
        await in_pages(self._db.pool("worker"), FORGET[0], before_window)
        await in_pages(self._db.pool("worker"), FORGET[1])

    async def now(self) -> datetime:
        """The database's clock: what `at` was written by."""
        at: datetime = await self._db.pool("worker").fetchval("select clock_timestamp()")
        return at


async def in_pages(pool: asyncpg.Pool, statement: str, *values: Any) -> int:
    """Runs a statement that deletes a page until nothing is left to delete, `FORGET_PAGES_MAX` times at most; how many rows went."""
    rows = 0
    for _ in range(FORGET_PAGES_MAX):
        gone = int((await pool.execute(statement, *values)).rpartition(" ")[2])
        rows += gone
        if not gone:
            break
    return rows
