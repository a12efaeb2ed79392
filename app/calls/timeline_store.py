"""The statements behind the timeline. Rows stay in here; what comes out is durable, see `app.log.horizon`."""

from __future__ import annotations

import asyncio
from typing import Any

from app.calls.store import StoredCall
from app.calls.timeline import (
    ATTEMPTS_MAX,
    EVENTS_MAX,
    LATE_MAX,
    MOVES_MAX,
    Seen,
    SeenAttempt,
    SeenEvent,
    SeenLate,
    SeenMove,
)
from app.db import COMMAND_DEADLINE_S, Database
from app.log.horizon import Horizon

SELECT_EVENTS = """
select seq, type, epoch, region, at, stored_at, case when content is null then data end as data from vx.events
 where call_id = $1 and (type like 'call.%' or type like 'agent.%' or type = any('{events.lost,turn.answered,turn.budget_exceeded}'))
 order by seq limit $2
"""
SELECT_LATE = """
select origin_epoch, origin_n, type, edge_id, region, at, stored_at from vx.late_events
 where call_id = $1 order by origin_epoch, origin_n limit $2
"""
SELECT_ATTEMPTS = """
select a.webhook_id, a.seq, e.type, a.attempt, a.at, a.duration_ms, a.status, a.error
  from vx.delivery_attempts a left join vx.events e on e.call_id = a.call_id and e.seq = a.seq
 where a.call_id = $1 order by a.at, a.webhook_id, a.seq, a.attempt limit $2
"""
SELECT_MOVES = """
select epoch, drain_id is not null as drained, from_edge, to_edge, force_at, asked_at, done_at, outcome from vx.moves
 where call_id = $1 order by epoch limit $2
"""
SELECT_EXPIRED = "select $1::uuid < calls_from from vx.kept where log = 'events'"
SELECT_UPTO = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


class Timelines:
    def __init__(self, db: Database, horizon: Horizon) -> None:
        self._db = db
        self._horizon = horizon

    async def read(self, call: StoredCall, *, deliveries: bool) -> Seen:
        """Of a call that was read as its project's. `deliveries`: whether the reader may see webhooks."""
        attempts: list[Any] = []
        async with asyncio.timeout(COMMAND_DEADLINE_S):
            async with self._db.project_driver(call.project_id) as connection:
                events = await connection.fetch(SELECT_EVENTS, call.id, EVENTS_MAX + 1)
                late = await connection.fetch(SELECT_LATE, call.id, LATE_MAX + 1)
                if deliveries:
                    attempts = await connection.fetch(SELECT_ATTEMPTS, call.id, ATTEMPTS_MAX + 1)
                expired = await connection.fetchval(SELECT_EXPIRED, call.id)
                upto = await connection.fetchval(SELECT_UPTO)
            # drains are the operator's, and so is the table; the call is the project's, which has been looked at
            moves = await self._db.pool("admin").fetch(SELECT_MOVES, call.id, MOVES_MAX + 1)
        await self._horizon.cover(upto)
        return Seen(
            events=[_event(row) for row in events],
            late=[_late(row) for row in late],
            attempts=[SeenAttempt(**row) for row in attempts] if deliveries else None,
            moves=[SeenMove(**row) for row in moves],
            expired=bool(expired),
        )


def _event(row: Any) -> SeenEvent:
    return SeenEvent(
        seq=row["seq"],
        type=row["type"],
        epoch=row["epoch"],
        region=row["region"],
        at=row["at"],
        stored_at=row["stored_at"],
        data=row["data"].encode() if row["data"] else None,
    )


def _late(row: Any) -> SeenLate:
    return SeenLate(
        epoch=row["origin_epoch"],
        n=row["origin_n"],
        type=row["type"],
        edge_id=row["edge_id"],
        region=row["region"],
        at=row["at"],
        stored_at=row["stored_at"],
    )
