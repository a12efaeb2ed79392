"""The durable horizon: below it every event is both complete (no writer older is still running) and durable.

Visible is not durable. Where PostgreSQL acknowledges only after a quorum of standbys, a commit whose wait was cut short is
visible and perhaps on one copy only. So the horizon is what was visible before a marker was written whose own commit was
acknowledged. Without synchronous standbys what is visible is flushed, and the oldest running transaction alone decides.
"""

from __future__ import annotations

import asyncio

from app.clock import Clock
from app.db import Database
from app.ids import new_id

MODE_EVERY_S = 10.0

SELECT_MODE = "select current_setting('synchronous_standby_names') <> ''"
SELECT_XMIN = "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
PUT_MARKER = """
insert into vx.horizon (writer, xid, at) values ($1, pg_snapshot_xmin(pg_current_snapshot())::text::bigint, clock_timestamp())
on conflict (writer) do update set xid = excluded.xid, at = excluded.at
returning xid
"""


class Horizon:
    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._writer = new_id(db.cell)
        self._marked = asyncio.Lock()
        self._replicated = False
        self._mode_read_s = -MODE_EVERY_S

    async def read(self) -> int:
        """Events with a feed_xid below this may be served. Raises what the driver raises: then nothing may be."""
        pool = self._db.pool("worker")
        if self._clock.monotonic_s() - self._mode_read_s >= MODE_EVERY_S:
            self._replicated = bool(await pool.fetchval(SELECT_MODE))
            self._mode_read_s = self._clock.monotonic_s()
        if not self._replicated:
            return int(await pool.fetchval(SELECT_XMIN))
        async with self._marked:
            return int(await pool.fetchval(PUT_MARKER, self._writer))
