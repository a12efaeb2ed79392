"""What a cell must know of the fleet, copied from the home cell: regions, edges and their lives, drains.

A cell decides by itself, in its own transactions, whether anybody holds a call (`vx.nobody_holds`), and no transaction spans two
clusters. So each cell has a copy of the rows that such a decision joins. Three rules keep an old copy from doing harm:

1. An edge's life is never older than one that was there: its generation, which the home cell counts, only grows.
2. A call is given to an edge in a life that its own cell's copy is known to have: `shown` lets no new call go to others. So
   where the copy has another life than a grant names, that life has ended.
3. An edge is as silent here as it was at home, or more: a copy that stands still makes edges silent, and whoever is silent
   is not asked and ends nothing.

Every instance copies; they write the same. What is copied is at most `EVERY_S` and two round trips old while both cells answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import structlog

from app.cells.mirror_plan import DrainChanges, DrainRow, plan_drains
from app.connection import DATABASE_ERRORS, is_away
from app.db import Database
from app.fleet.desired import Commands
from app.fleet.drain_store import DRAINS_TOPIC, END, SELECT_OPEN
from app.fleet.view import Fleet, FleetView
from app.hints import Hints
from app.supervisor import wait_for_stop

log = structlog.get_logger()

EVERY_S = 0.5
SHOW_EVERY_S = 0.25
DRAINS_MAX = 500

SELECT_REGIONS = "select id, name, jurisdiction, latitude, longitude, admin_state from vx.regions order by id"
SELECT_EDGES = """
select id, region, name, incarnation, public_key, media_url, http_url, capacity_calls, admin_state, generation, stopped, webrtc,
       extract(epoch from clock_timestamp() - seen_at)::float8 as silent_s
  from vx.edges order by id
"""
SELECT_DRAINS = f"""
select id, region, edge_id, incarnation, verdict, kind, force_at, total, started_at, outcome
  from vx.drains where ended_at is null or ended_at > clock_timestamp() - interval '1 day'
 order by ended_at is not null, started_at desc limit {DRAINS_MAX}
"""
SELECT_KEPT_FROM = "select clock_timestamp() - interval '1 day'"
SELECT_HERE = """
select id, region, edge_id, incarnation, verdict, kind, force_at, total, started_at, outcome
  from vx.drains where ended_at is null or id = any($1::uuid[])
"""
PUT_REGIONS = """
insert into vx.regions as r (id, name, jurisdiction, latitude, longitude, admin_state)
select * from unnest($1::text[], $2::text[], $3::text[], $4::float8[], $5::float8[], $6::text[]) g(id, n, j, la, lo, a) order by g.id
on conflict (id) do update
   set name = excluded.name, jurisdiction = excluded.jurisdiction, latitude = excluded.latitude,
       longitude = excluded.longitude, admin_state = excluded.admin_state, version = r.version + 1
 where (r.name, r.jurisdiction, r.latitude, r.longitude, r.admin_state)
       is distinct from (excluded.name, excluded.jurisdiction, excluded.latitude, excluded.longitude, excluded.admin_state)
"""
# In the order of their ids: two that write the same wait for each other in one direction.
PUT_EDGES = """
insert into vx.edges as e (id, region, name, incarnation, public_key, media_url, http_url, capacity_calls, admin_state, generation,
                           stopped, webrtc, seen_at)
select g.id, g.region, g.name, g.incarnation, g.public_key, g.media_url, g.http_url, g.capacity, g.admin_state, g.generation,
       g.stopped, g.webrtc, clock_timestamp() - make_interval(secs => g.silent_s)
  from unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::bytea[], $6::text[], $7::text[], $8::int[], $9::text[],
              $10::bigint[], $11::uuid[], $12::boolean[], $13::float8[])
       g(id, region, name, incarnation, public_key, media_url, http_url, capacity, admin_state, generation, stopped, webrtc, silent_s)
 order by g.id
on conflict (id) do update
   set name = excluded.name, incarnation = excluded.incarnation, public_key = excluded.public_key, media_url = excluded.media_url,
       http_url = excluded.http_url, capacity_calls = excluded.capacity_calls, admin_state = excluded.admin_state,
       generation = excluded.generation, stopped = excluded.stopped, webrtc = excluded.webrtc,
       seen_at = greatest(e.seen_at, excluded.seen_at)
 where e.generation < excluded.generation
    or e.generation = excluded.generation
       and (e.seen_at < excluded.seen_at - interval '0.5 seconds' or e.admin_state <> excluded.admin_state
         or e.stopped is distinct from excluded.stopped or e.public_key <> excluded.public_key)
"""
SELECT_LIVES = "select id, incarnation from vx.edges"
BEGIN_DRAIN = """
insert into vx.drains (id, region, edge_id, incarnation, verdict, kind, force_at, total, started_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing
"""
CHANGE_DRAIN = """
update vx.drains set incarnation = $2, verdict = $3, kind = $4, force_at = $5, claimed_until = '-infinity'
 where id = $1 and ended_at is null
"""


class CellFleet(FleetView):
    """The home cell's view, as far as one other cell's copy goes. `lives`: the (edge, incarnation) that the copy has."""

    def __init__(self, source: FleetView) -> None:
        self._source = source
        self.lives: frozenset[tuple[UUID, UUID]] = frozenset()
        self.show()

    def show(self) -> None:
        self.look = self._source.look
        self.now = shown(self._source.now, self.lives)

    async def refresh(self) -> None:
        """Raises what the driver raises, of the home cell."""
        await self._source.refresh()
        self.show()

    async def worker(self, stop: asyncio.Event) -> None:
        """By itself, so that a cell which is away keeps nobody from seeing that an edge has gone."""
        while not await wait_for_stop(stop, SHOW_EVERY_S):
            self.show()


class Mirror:
    """Of one cell that is not the home cell. `fleet`: what its services place by."""

    def __init__(
        self, home: Database, db: Database, fleet: CellFleet, commands: Commands, hints: Hints
    ) -> None:
        self._home = home
        self._db = db
        self._fleet = fleet
        self._commands = commands
        self._hints = hints
        self._away = False

    async def round(self) -> None:
        """Raises what the driver raises, of either cell."""
        async with self._home.pool("admin").acquire() as connection:
            kept_from = await connection.fetchval(SELECT_KEPT_FROM)
            regions = await connection.fetch(SELECT_REGIONS)
            edges = await connection.fetch(SELECT_EDGES)
            drains = [_drain(r) for r in await connection.fetch(SELECT_DRAINS)]
        async with self._db.pool("admin").acquire() as connection:
            await connection.execute(PUT_REGIONS, *_columns(regions, 6))
            await connection.execute(PUT_EDGES, *_columns(edges, 13))
            lives = await connection.fetch(SELECT_LIVES)
            here = [_drain(r) for r in await connection.fetch(SELECT_HERE, [d.id for d in drains])]
        self._fleet.lives = frozenset((r["id"], r["incarnation"]) for r in lives)
        self._fleet.show()
        await self._follow(plan_drains(drains, here, kept_from))

    async def _follow(self, changes: DrainChanges) -> None:
        pool = self._db.pool("admin")
        moves: list[Any] = []
        for drain_id, outcome in changes.end:
            moves += await pool.fetch(END, drain_id, outcome)
        for drain in changes.change:
            await pool.execute(
                CHANGE_DRAIN, drain.id, drain.incarnation, drain.verdict, drain.kind, drain.force_at
            )
            moves += await pool.fetch(SELECT_OPEN, drain.id)
        for drain in changes.begin:
            await pool.execute(
                BEGIN_DRAIN, drain.id, drain.region, drain.edge_id, drain.incarnation, drain.verdict,
                drain.kind, drain.force_at, drain.total, drain.started_at,
            )  # fmt: skip
        # their edges learn of the new deadline, or that the move is off: which of the two is looked up when it is sent
        for move in moves:
            await self._commands.move(move["call_id"], move["from_edge"], move["epoch"])
        if changes.begin or changes.change:
            self._hints.wake(DRAINS_TOPIC)

    async def worker(self, stop: asyncio.Event) -> None:
        while True:
            try:
                await self.round()
            except DATABASE_ERRORS as error:
                if not is_away(error):
                    raise
                if not self._away:
                    log.warning("cell.not_mirrored", cell=self._db.cell, error=type(error).__name__)
                self._away = True
            else:
                self._away = False
            if await wait_for_stop(stop, EVERY_S):
                return


def shown(fleet: Fleet, lives: frozenset[tuple[UUID, UUID]]) -> Fleet:
    """Edges whose present life the cell does not have yet take no new calls from it; all else is as it is."""
    return Fleet(
        regions=fleet.regions,
        edges=tuple(e if (e.id, e.incarnation) in lives else replace(e, draining=True) for e in fleet.edges),
    )


def _drain(row: Any) -> DrainRow:
    return DrainRow(**dict(row))


def _columns(rows: Sequence[Any], width: int) -> list[list[Any]]:
    return [[row[i] for row in rows] for i in range(width)]
