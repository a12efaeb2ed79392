"""What time leaves behind: partitions are made ahead; events, calls, deliveries and what belongs to them go when they are old.

What is dropped of a log that readers follow is written down in the same moment (`vx.kept`), so that a cursor from before is told.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import asyncpg
import structlog

from app.clock import Clock
from app.db import Database
from app.supervisor import wait_for_stop

log = structlog.get_logger()

EVERY_S = 600.0
MARK_EVERY_S = 10.0
"""So finely a feed can be entered by time; the rest is looked through."""
WEEKS_AHEAD = 4
IDEMPOTENCY_KEPT = "48 hours"
MOVES_KEPT = "7 days"
EVENTS_KEPT_D = 30
CALLS_KEPT_D = 90
REPLAYS_KEPT = "90 days"
FLEET_EVENTS_KEPT = "90 days"
BATCH = 10_000

DROP_RECORDS = f"""
delete from vx.idempotency where ctid = any(array(
  select ctid from vx.idempotency where created_at < now() - interval '{IDEMPOTENCY_KEPT}' limit {BATCH}))
"""
DROP_MOVES = f"""
delete from vx.moves where ctid = any(array(
  select ctid from vx.moves where done_at < now() - interval '{MOVES_KEPT}' limit {BATCH}))
"""
DROP_USAGE = """
delete from vx.usage_owners o where o.day < current_date - 400 and not exists (select from vx.calls c where c.id = o.call_id)
"""
"""What each owner has carried; the sums stay. Not of a call that is still there, whatever day its edge's clock said that it ended
on: folded again, it would stand in the sums twice."""
DROP_DRILLS = "delete from vx.drills where ended_at < now() - interval '90 days'"
DROP_FLEET_EVENTS = f"""
with gone as (
  delete from vx.fleet_events where ctid = any(array(
    select ctid from vx.fleet_events where at < now() - interval '{FLEET_EVENTS_KEPT}' order by at limit {BATCH}))
  returning feed_xid)
update vx.kept set feed_xid = greatest(feed_xid, (select max(feed_xid) from gone)) where log = 'fleet'
"""
DROP_EVENTS = "select vx.drop_events($1)"
DROP_CALLS = "select vx.drop_calls($1, $2)"
DROP_REPLAYS = f"""
delete from vx.replays where ctid = any(array(
  select ctid from vx.replays where done_at < now() - interval '{REPLAYS_KEPT}' limit {BATCH}))
"""
# No delivery is left of an endpoint that was removed so long ago.
DROP_WEBHOOKS = f"""
delete from vx.webhooks where id = any(array(
  select w.id from vx.webhooks w
   where w.deleted_at < now() - interval '{REPLAYS_KEPT}'
     and not exists (select from vx.replays r where r.webhook_id = w.id) limit {BATCH}))
"""
# The snapshot is older than the time that is written with it.
MARK = f"""
insert into vx.feed_marks (at, xid)
select clock_timestamp(), pg_snapshot_xmax(pg_current_snapshot())::text::bigint
 where not exists (select from vx.feed_marks where at > clock_timestamp() - interval '{MARK_EVERY_S - 1:g} seconds')
on conflict do nothing
"""
DROP_MARKS = "delete from vx.feed_marks where at < now() - interval '40 days'"
DROP_TOKENS = "delete from vx.used_tokens where expires_at < now()"


class Housekeeping:
    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        events_kept_d: int = EVENTS_KEPT_D,
        calls_kept_d: int = CALLS_KEPT_D,
    ) -> None:
        self._db = db
        self._clock = clock
        self._events_kept = timedelta(days=events_kept_d)
        self._calls_kept = timedelta(days=calls_kept_d)

    async def worker(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            pool = self._db.pool("worker")
            await pool.execute("select vx.ensure_partitions(now(), $1)", WEEKS_AHEAD)
            await pool.execute(DROP_RECORDS)
            await pool.execute(DROP_TOKENS)
            await pool.execute(DROP_MOVES)
            await pool.execute(DROP_MARKS)
            await pool.execute(DROP_FLEET_EVENTS)
            await self.drop_events()
            await self.drop_calls()
            await pool.execute(DROP_REPLAYS)
            await pool.execute(DROP_WEBHOOKS)
            await pool.execute(DROP_DRILLS)
            await pool.execute(DROP_USAGE)
            await wait_for_stop(stop, EVERY_S)

    async def marks(self, stop: asyncio.Event) -> None:
        """By which feeds are entered by time. One instance's are enough; each looks whether there is one."""
        while not stop.is_set():
            await self._db.pool("worker").execute(MARK)
            await wait_for_stop(stop, MARK_EVERY_S)

    async def drop_events(self) -> None:
        """With their deliveries, a week at a time. Where the tables are busy, another time."""
        await self._drop("events", DROP_EVENTS, await self._now() - self._events_kept)

    async def drop_calls(self) -> None:
        """Whose events are gone."""
        await self._drop("calls", DROP_CALLS, await self._now() - self._calls_kept, BATCH)

    async def _now(self) -> datetime:
        return await self._db.earlier(self._clock.now())

    async def _drop(self, what: str, statement: str, *given: object) -> None:
        try:
            while await self._db.pool("worker").fetchval(statement, *given):
                log.info(f"{what}.dropped")
        except asyncpg.LockNotAvailableError:
            log.info(f"{what}.drop_put_off")
