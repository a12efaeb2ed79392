"""Looks after endpoints: disables what has done nothing but fail for five days, warns before, and bounds what waits for each.

Decides by what the database has counted; one instance at a time does it. An endpoint for which too many deliveries wait is *full*:
no more are queued for it, and once half of them are through, what it missed meanwhile is queued again from the log. So the
backlog is bounded and nothing is dropped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
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
UNNAMED_S = 15
"""No instance takes an endpoint for known so long without having looked (`named.FRESH_S`)."""
NO_SENDER_S, NO_SENDER_BATCH = 30, 500
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
BOUND = """least($1::integer, coalesce((
  select case when q.limits -> 'unbounded' ? 'webhook_backlog' then $1 else (q.limits ->> 'webhook_backlog')::integer end
    from vx.quotas q where q.project_id = w.project_id), $2::integer))"""
"""The project's quota, where it has one or is unbounded, else the deployment's default. Never above what holds for every endpoint."""
FILL = f"""
update vx.webhooks w set full_since = clock_timestamp()
 where w.waiting > 0 and w.full_since is null and w.deleted_at is null and w.waiting >= {BOUND}
returning w.id, w.waiting
"""
# The window begins a minute earlier: what was being written when it filled is looked at again, and not queued twice.
REOPEN = f"""
with opened as (
  update vx.webhooks w set full_since = null
    from (select w.id, w.full_since from vx.webhooks w where w.full_since is not null and w.waiting <= {BOUND} / 2 and w.enabled
             and w.deleted_at is null for no key update of w skip locked limit 1) f
   where w.id = f.id
  returning w.id, w.project_id, f.full_since
)
insert into vx.replays (id, project_id, webhook_id, what, since, until, call_id, next_at)
select $3, o.project_id, o.id, 'missing', o.full_since - interval '1 minute', clock_timestamp() + interval '1 minute',
       vx.first_uuid_at(o.full_since - interval '26 hours'),
       clock_timestamp() + make_interval(secs => $4) from opened o
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
# What its call allows to be sent from elsewhere alone, and nobody there has sent: said once, where it is looked for.
NO_SENDER = f"""
update vx.deliveries d
   set last_error = 'is to be sent from ' || array_to_string(d.jurisdictions, ' or ') || ', and nobody there has sent it yet'
  from (select n.call_id, n.webhook_id, n.seq from vx.deliveries n
         where n.state in ('pending', 'parked') and n.jurisdictions <> '{{}}' and n.last_error is null
           and n.next_at < clock_timestamp() - interval '{NO_SENDER_S} seconds'
         limit {NO_SENDER_BATCH} for no key update skip locked) n
 where d.call_id = n.call_id and d.webhook_id = n.webhook_id and d.seq = n.seq
returning d.webhook_id, d.jurisdictions
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

# What erased calls alone have named, once nothing waits for it any more: a URL may say whom its call was about.
FORGET = f"""
update vx.webhooks w
   set url = vx.origin_of(w.url), headers = null, unnamed_at = null, enabled = false,
       deleted_at = coalesce(w.deleted_at, clock_timestamp())
 where w.id in (
  select h.id from vx.webhooks h
   where h.unnamed_at < clock_timestamp() - interval '{UNNAMED_S} seconds' and (h.waiting = 0 or h.deleted_at is not null)
     and not exists (select from vx.calls c where c.webhook_id = h.id and c.erased_at is null)
   order by h.unnamed_at limit 500 for no key update skip locked)
returning w.id
"""


class Upkeep:
    def __init__(
        self,
        db: Database,
        hints: Hints,
        *,
        backlog_max: int = BACKLOG_MAX,
        late_s: float = LATE_S,
        default_backlog: int | None = None,
    ) -> None:
        """`default_backlog`: of a project that has no quota of its own."""
        self._db = db
        self._hints = hints
        self._backlog_max = backlog_max
        self._default = min(default_backlog or backlog_max, backlog_max)
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
            filled = await connection.fetch(FILL, self._backlog_max, self._default)
            reopened = await connection.fetch(
                REOPEN, self._backlog_max, self._default, new_id(self._db.cell), self._late_s
            )
            warned = await connection.fetch(WARN, list(WARN_AT_PERCENT))
            disabled = await connection.fetch(DISABLE, DISABLED_REASON)
            unsent = await connection.fetch(NO_SENDER)
            await connection.execute(RECLAIM)
            forgotten = await connection.fetch(FORGET)
        self._say(filled, reopened, warned, disabled)
        for (webhook_id, places), count in Counter(
            (r["webhook_id"], tuple(r["jurisdictions"])) for r in unsent
        ).items():
            log.warning(
                "webhook.no_sender",
                webhook=ids.encode(ids.WEBHOOK, webhook_id),
                jurisdictions=places,
                deliveries=count,
            )
        if reopened:
            self._hints.wake(TOPIC)
        if disabled or forgotten:
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
