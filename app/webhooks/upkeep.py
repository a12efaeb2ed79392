"""Looks after endpoints: disables what has done nothing but fail for five days, warns before, and bounds what waits for each.

Decides by what the database has counted; one instance at a time does it. An endpoint for which too many deliveries wait is *full*:
no more are queued for it, and once half of them are through, what it missed meanwhile is queued again from the log. So the
backlog is bounded and nothing is dropped.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from app.db import Database
from app.hints import Hints
from app.ids import new_id
from app.supervisor import wait_for_stop
from app.webhooks.recovery import TOPIC
from app.webhooks.service import CHANGED
from regions.wire import ids

log = structlog.get_logger()

EVERY_S = 5.0
BACKLOG_MAX = 100_000
DISABLE_AFTER_H = 120
LATE_S = 10.0
"""What was written as the endpoint was opened, by whoever still saw it full, is committed after so long."""
NAMED_KEPT_D = 30
WARN_AT_PERCENT = (50, 70, 90)
DISABLED_REASON = "nothing but failures for five days"

ALONE = "select pg_try_advisory_xact_lock(7423002)"
COUNT = """
with waiting as (
  select d.webhook_id, count(*)::integer as n from vx.deliveries d
   where d.state in ('queued', 'pending', 'in_flight', 'parked') group by d.webhook_id
)
update vx.webhooks w set waiting = c.n
  from (select h.id, coalesce(k.n, 0) as n from vx.webhooks h left join waiting k on k.webhook_id = h.id
         where h.waiting > 0 or k.n is not null) c
 where w.id = c.id and w.waiting <> c.n
"""
FILL = """
update vx.webhooks set full_since = clock_timestamp() where waiting >= $1 and full_since is null and deleted_at is null
returning id, waiting
"""
# The window begins a minute earlier: what was being written when it filled is looked at again, and not queued twice.
REOPEN = """
with opened as (
  update vx.webhooks w set full_since = null
    from (select id, full_since from vx.webhooks where full_since is not null and waiting <= $1 / 2 and enabled
             and deleted_at is null for no key update skip locked limit 1) f
   where w.id = f.id
  returning w.id, w.project_id, f.full_since
)
insert into vx.replays (id, project_id, webhook_id, what, since, until, call_id, next_at)
select $2, o.project_id, o.id, 'missing', o.full_since - interval '1 minute', clock_timestamp() + interval '1 minute',
       vx.first_uuid_at(o.full_since - interval '26 hours'),
       clock_timestamp() + make_interval(secs => $3) from opened o
returning webhook_id
"""
WARN = f"""
update vx.webhooks w set warned = p.percent
  from (select h.id, max(k.percent) as percent from vx.webhooks h
          join unnest($1::integer[]) k(percent)
            on h.failing_since < clock_timestamp() - make_interval(secs => k.percent * 36 * {DISABLE_AFTER_H})
         where h.enabled and h.deleted_at is null group by h.id) p
 where w.id = p.id and w.warned < p.percent
returning w.id, w.warned
"""
DISABLE = f"""
update vx.webhooks set enabled = false, disabled_reason = $1
 where enabled and failing_since < clock_timestamp() - interval '{DISABLE_AFTER_H} hours'
returning id
"""

# What calls have named, and none for as long as events can be replayed.
RECLAIM = f"""
update vx.webhooks w set deleted_at = clock_timestamp(), enabled = false where w.id in (
  select h.id from vx.webhooks h
   where h.scope = 'call' and h.deleted_at is null and h.named_at < clock_timestamp() - interval '{NAMED_KEPT_D} days'
     and h.waiting = 0
     and not exists (select from vx.deliveries d where d.webhook_id = h.id and d.state in ('pending', 'parked'))
   order by h.named_at limit 500 for no key update skip locked)
"""


class Upkeep:
    def __init__(
        self, db: Database, hints: Hints, *, backlog_max: int = BACKLOG_MAX, late_s: float = LATE_S
    ) -> None:
        self._db = db
        self._hints = hints
        self._backlog_max = backlog_max
        self._late_s = late_s

    async def worker(self, stop: asyncio.Event) -> None:
        while not await wait_for_stop(stop, EVERY_S):
            await self.round()

    async def round(self) -> None:
        """Does nothing where another instance is at it."""
        async with self._db.pool("worker").acquire() as connection, connection.transaction():
            if not await connection.fetchval(ALONE):
                return
            await connection.execute(COUNT)
            filled = await connection.fetch(FILL, self._backlog_max)
            reopened = await connection.fetch(REOPEN, self._backlog_max, new_id(self._db.cell), self._late_s)
            warned = await connection.fetch(WARN, list(WARN_AT_PERCENT))
            disabled = await connection.fetch(DISABLE, DISABLED_REASON)
            await connection.execute(RECLAIM)
        self._say(filled, reopened, warned, disabled)
        if reopened:
            self._hints.wake(TOPIC)
        if disabled:
            self._hints.wake(CHANGED)

    def _say(self, filled: list[Any], reopened: list[Any], warned: list[Any], disabled: list[Any]) -> None:
        for row in filled:
            log.warning("webhook.full", webhook=ids.encode(ids.WEBHOOK, row["id"]), waiting=row["waiting"])
        for row in reopened:
            log.info("webhook.reopened", webhook=ids.encode(ids.WEBHOOK, row["webhook_id"]))
        for row in warned:
            percent = row["warned"]
            log.warning("webhook.failing", webhook=ids.encode(ids.WEBHOOK, row["id"]), percent=percent)
        for row in disabled:
            log.warning(
                "webhook.disabled", webhook=ids.encode(ids.WEBHOOK, row["id"]), reason=DISABLED_REASON
            )
