"""Gives every call its final event. Decides which calls can be ended without asking: those whose grants have run out.

Lost contact alone never ends a call. Three cases, all beyond doubt:

1. Nobody attached until the time to attach had passed (plus the ticket's clock skew, and a while for events on their way),
   and every edge that was granted an epoch is heard (it would have told of an attach) or has restarted: `no_answer`.
2. Every grant has expired: no edge can own the call any more: `edge_lost`.
3. Every edge that was granted an epoch has restarted since: a restarted edge refuses the grants of before: `edge_lost`.
"""

from __future__ import annotations

import asyncio

import structlog

from app.db import Database
from app.fleet.detector import DOWN_AFTER_S
from app.log.append import Appender
from app.supervisor import wait_for_stop
from regions.wire import ids
from regions.wire.events import EndReason, Source
from regions.wire.ticket import CLOCK_SKEW_S

log = structlog.get_logger()

EVERY_S = 2.0
GRACE_S = 30
BATCH = 100

SELECT_OVERDUE = f"""
select id, project_id, case when answered_at is null then 'no_answer' else 'edge_lost' end as reason
  from vx.calls c
 where ended_at is null
   and (grants_expire_at < now() - interval '{CLOCK_SKEW_S + GRACE_S} seconds'
     or (answered_at is null and attach_by < now() - interval '{CLOCK_SKEW_S + GRACE_S} seconds' and not exists (
           select from unnest(c.grant_edges, c.grant_incarnations) g(edge, incarnation)
             join vx.edges e on e.id = g.edge and e.incarnation = g.incarnation
            where e.seen_at < clock_timestamp() - interval '{DOWN_AFTER_S} seconds'))
     or (answered_at is not null and created_at < now() - interval '{GRACE_S} seconds' and not exists (
           select from unnest(c.grant_edges, c.grant_incarnations) g(edge, incarnation)
             join vx.edges e on e.id = g.edge and e.incarnation = g.incarnation)))
 order by id limit {BATCH}
"""


class Reconciler:
    def __init__(self, db: Database, appender: Appender) -> None:
        self._db = db
        self._appender = appender

    async def worker(self, stop: asyncio.Event) -> None:
        while not await wait_for_stop(stop, EVERY_S):
            for row in await self._db.pool("worker").fetch(SELECT_OVERDUE):
                outcome = await self._appender.control(
                    row["project_id"],
                    row["id"],
                    type="call.ended",
                    data={"end_reason": EndReason(row["reason"]).value},
                    source=Source.CONTROL,
                    source_key="reconcile",
                )
                log.info(
                    "call.reconciled",
                    call=ids.encode(ids.CALL, row["id"]),
                    reason=row["reason"],
                    outcome=outcome.status,
                )
