"""The durable horizon: below it every event is both complete (no writer older is still running) and durable.

Visible is not durable. Where PostgreSQL acknowledges only after a quorum of standbys, a commit whose wait was cut short is
visible and perhaps on one copy only. So the horizon is what was visible before a marker was written whose own commit was
acknowledged. Without synchronous standbys what is visible is flushed, and where all of the server's log is, the oldest running
transaction alone decides. Where it is not, a marker's commit flushes it: a transaction that wrote nothing, or was rolled back, is
not waited for by anybody, and a server that is killed before its record is flushed gives out its number again, to an event.
What holds is read in the statement itself: there is no moment in which an older answer counts.

The horizon says nothing about a server that has not seen it: a primary that was stopped, replaced, and goes on for a moment
shows commits that were lost. So who reads below a horizon asks the same server for its marker (`PROVEN`).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.connection import CommitUnknown
from app.db import Database
from app.ids import new_id
from app.telemetry import durable_seconds

DEADLINE_S = 2.0
ASK_S = 0.4

SELECT_MODE = "select current_setting('synchronous_standby_names') <> ''"
READ = """
with marked as (
  select where $2 or current_setting('synchronous_standby_names') <> ''
            or pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()
), put as (
  insert into vx.horizon (writer, xid, at)
  select $1, pg_snapshot_xmin(pg_current_snapshot())::text::bigint, clock_timestamp() from marked
  on conflict (writer) do update set xid = excluded.xid, at = excluded.at
  returning xid)
select coalesce((select xid from put), pg_snapshot_xmin(pg_current_snapshot())::text::bigint) as xid,
       exists (select from put) as marked,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint as upto
"""
PROVEN = "({proof}::uuid is null or exists (select from vx.horizon where writer = {proof} and xid >= {xid}))"
"""A condition for the statement that reads: the names of its parameters for `Horizon.proof` and for what `read` gave."""


SELECT_PROVEN = f"select {PROVEN.format(proof='$1', xid='$2')}"


@dataclass(frozen=True, slots=True)
class Bound:
    """Below `xid` all may be served. What had been committed lies below `upto`: a later bound that has reached that covers it."""

    xid: int
    upto: int


class StaleServer(ConnectionError):
    """The server that was asked has not seen the horizon: it is the primary no more. The same may be asked again."""


class Horizon:
    """Readers who come while a marker is on its way share the next one, so that a hundred of them cost two commits."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._writer = new_id(db.cell)
        self._took = durable_seconds.labels(str(db.cell))
        self._running: asyncio.Task[Bound] | None = None
        self._next: asyncio.Task[Bound] | None = None
        self.reached = 0
        """The newest bound that was read here."""
        self.falls = 0
        """How many times a bound lay before the one that had been read here last: the database was set back."""
        self.proof: UUID | None = None
        """Whose marker a server must show; None where the last bound needed none."""

    async def read(self) -> int:
        """Events with a feed_xid below this may be served. Raises what the driver raises: then nothing may be."""
        return (await self.look()).xid

    async def look(self) -> Bound:
        """The same, and up to where it may hold something back."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
            self._next.add_done_callback(_seen)
        return await asyncio.shield(self._next)

    async def cover(self, feed_xid: int) -> None:
        """Returns once all that was visible when this was called is durable. `feed_xid`: of the newest thing that was read."""
        if feed_xid >= self.reached:
            await self.read()

    async def check(self, connection: Any, xid: int) -> None:
        """Raises `StaleServer` where this connection's server has not seen the horizon at `xid`."""
        if not await connection.fetchval(SELECT_PROVEN, self.proof, xid):
            raise StaleServer("this server has not seen the horizon")

    async def prove(self) -> None:
        """Writes, whatever the mode: the primary takes writes, and acknowledges them."""
        await self._read(True)

    async def _after(self, running: asyncio.Task[Bound] | None) -> Bound:
        if running is not None:
            await asyncio.wait([running])
        self._running, self._next = self._next, None
        bound, marked = await self._read(False)
        self.proof = self._writer if marked else None
        self.falls += bound.xid < self.reached
        self.reached = bound.xid
        return bound

    async def _read(self, always: bool) -> tuple[Bound, bool]:
        """The bound, and whether a marker was written for it."""
        pool = self._db.pool("worker")
        try:
            async with asyncio.timeout(DEADLINE_S):
                began_s = time.perf_counter()
                row = await pool.fetchrow(READ, self._writer, always)
                if row["marked"]:
                    self._took.observe(time.perf_counter() - began_s)
                return Bound(int(row["xid"]), int(row["upto"])), bool(row["marked"])
        except TimeoutError:
            # a server that answers a question and not a commit is waiting for its standbys
            async with asyncio.timeout(ASK_S):
                if await pool.fetchval(SELECT_MODE):
                    raise CommitUnknown(f"no standby has acknowledged within {DEADLINE_S:g} s") from None
            raise


def _seen(task: asyncio.Task[Bound]) -> None:
    """Its readers have got the error; where all of them have left, no one need be told."""
    if not task.cancelled():
        task.exception()
