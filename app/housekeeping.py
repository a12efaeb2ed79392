"""What time leaves behind: partitions are made ahead, idempotency records and used tokens are dropped when they are old."""

from __future__ import annotations

import asyncio

from app.db import Database
from app.supervisor import wait_for_stop

EVERY_S = 600.0
WEEKS_AHEAD = 4
IDEMPOTENCY_KEPT = "48 hours"
MOVES_KEPT = "7 days"
BATCH = 10_000

DROP_RECORDS = f"""
delete from vx.idempotency where ctid = any(array(
  select ctid from vx.idempotency where created_at < now() - interval '{IDEMPOTENCY_KEPT}' limit {BATCH}))
"""
DROP_MOVES = f"""
delete from vx.moves where ctid = any(array(
  select ctid from vx.moves where done_at < now() - interval '{MOVES_KEPT}' limit {BATCH}))
"""
DROP_DRILLS = "delete from vx.drills where ended_at < now() - interval '90 days'"
DROP_FLEET_EVENTS = "delete from vx.fleet_events where at < now() - interval '90 days'"
DROP_TOKENS = "delete from vx.used_tokens where expires_at < now()"


class Housekeeping:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def worker(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            pool = self._db.pool("worker")
            await pool.execute("select vx.ensure_partitions(now(), $1)", WEEKS_AHEAD)
            await pool.execute(DROP_RECORDS)
            await pool.execute(DROP_TOKENS)
            await pool.execute(DROP_MOVES)
            await pool.execute(DROP_FLEET_EVENTS)
            await pool.execute(DROP_DRILLS)
            await wait_for_stop(stop, EVERY_S)
