"""What is only known by looking: how late the event loop is, what waits in a cell, whether its database acknowledges writes.

Decides how often is looked. Every instance looks for itself and says the same of a cell, but for its own pools and its own loop;
what is counted in the database is counted along indexes, and up to a bound.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from app.connection import DATABASE_ERRORS, trouble_of
from app.db import POOL_MAX
from app.supervisor import wait_for_stop
from app.telemetry import (
    calls_live,
    database_replicated,
    database_trouble_total,
    database_up,
    erasure_oldest_seconds,
    loop_lag_seconds,
    pool_connections,
    webhook_backlog,
    webhook_oldest_seconds,
    workers_failing,
)

if TYPE_CHECKING:
    from app.control import Control

log = structlog.get_logger()

PROVE_EVERY_S = 5.0
COUNT_EVERY = 3
"""Once in so many looks."""
LOOP_EVERY_S = 0.25
LIVE_STATES = ("queued", "ringing", "in_progress", "reconnecting")
WAITING_STATES = ("queued", "pending", "in_flight", "parked")
COUNTED_MAX = 100_000

SELECT_LIVE = "select state, count(*) as calls from vx.calls where ended_at is null group by state"
SELECT_WAITING = f"""
select state, count(*) as deliveries,
       extract(epoch from clock_timestamp() - min(next_at) filter (where state in ('pending', 'parked')))::float8 as due_s
  from (select state, next_at from vx.deliveries where state in ('queued', 'pending', 'in_flight', 'parked')
         limit {COUNTED_MAX}) d
 group by state
"""
SELECT_ERASURES = """
select coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::float8 from vx.erasures where state <> 'done'
"""
SELECT_MODE = "select current_setting('synchronous_standby_names') <> ''"


async def loop_worker(stop: asyncio.Event) -> None:
    """Asks to be woken, and says how late that was."""
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        due_s = loop.time() + LOOP_EVERY_S
        await asyncio.sleep(LOOP_EVERY_S)
        loop_lag_seconds.observe(max(0.0, loop.time() - due_s))


@dataclass(slots=True)
class Gauges:
    """Of one cell."""

    control: Control
    _looks: int = field(default=0, init=False)

    async def worker(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.look()
            await wait_for_stop(stop, PROVE_EVERY_S)

    async def look(self) -> None:
        """Never raises for a database that is away: that is what it is there to say."""
        control, cell = self.control, str(self.control.cell.number)
        workers_failing.labels(cell).set(len(control.supervisor.unhealthy))
        self._pools(cell)
        try:
            await control.horizon.prove()
            replicated = await control.db.pool("worker").fetchval(SELECT_MODE)
            if self._looks % COUNT_EVERY == 0:
                await self._count(cell)
        except DATABASE_ERRORS as error:
            database_up.labels(cell).set(0)
            database_trouble_total.labels(cell, trouble_of(error) or "other").inc()
            return
        self._looks += 1
        database_up.labels(cell).set(1)
        database_replicated.labels(cell).set(replicated)

    def _pools(self, cell: str) -> None:
        for role in POOL_MAX:
            pool: Any = self.control.db.pool(role)
            idle = pool.get_idle_size()
            pool_connections.labels(cell, role, "idle").set(idle)
            pool_connections.labels(cell, role, "used").set(pool.get_size() - idle)

    async def _count(self, cell: str) -> None:
        pool = self.control.db.pool("worker")
        live = {row["state"]: row["calls"] for row in await pool.fetch(SELECT_LIVE)}
        for state in LIVE_STATES:
            calls_live.labels(cell, state).set(live.get(state, 0))
        waiting = {row["state"]: row for row in await pool.fetch(SELECT_WAITING)}
        for state in WAITING_STATES:
            webhook_backlog.labels(cell, state).set(waiting[state]["deliveries"] if state in waiting else 0)
        due_s = max((row["due_s"] or 0.0 for row in waiting.values()), default=0.0)
        webhook_oldest_seconds.labels(cell).set(max(0.0, due_s))
        erasure_oldest_seconds.labels(cell).set(max(0.0, await pool.fetchval(SELECT_ERASURES)))
