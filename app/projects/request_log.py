"""The requests of a project, for its developers to look at: method, route, status, time taken, id, key. No body, no path.

Decides how many are kept, and for how long. They are noted in memory and written in batches beside the work: no request waits
for the log, and what it cannot take is counted on the next line of that project (`left_out`). An instance that dies takes its last
second with it, and a database server that is replaced all of it: this is to look at, not to account by.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import text

from app import cursors
from app.buckets import Buckets
from app.clock import Clock, rfc3339
from app.connection import DATABASE_ERRORS
from app.db import Database
from app.errors import BadRequest
from app.ids import new_id
from app.projects.auth import Principal
from app.projects.shapes import RequestView
from app.supervisor import wait_for_stop
from app.times import unix_ms
from regions.wire import ids

log = structlog.get_logger()

KEPT_DAYS = 3
WAITING_MAX = 4_096
BATCH = 1_000
FLUSH_EVERY_S = 1.0
TURN_EVERY_S = 3_600.0
BURST, PER_S = 200.0, 50.0
"""So many of a project's requests are kept per instance at once, and each second; of the others the number."""
CURSOR_KIND = "requests"
LAST = UUID(int=(1 << 128) - 1)

INSERT = """
insert into vx.requests (id, project_id, at, request_id, method, route, status, ms, key_id, left_out)
select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::integer[],
                     $9::uuid[], $10::integer[])
"""
TURN = "select vx.turn_requests($1, $2)"
COLUMNS = "r.id, r.at, r.request_id, r.method, r.route, r.status, r.ms, r.key_id, r.left_out"
SELECT = {
    failed: text(
        f"select {COLUMNS} from vx.requests r where r.project_id = :project and r.id < :before {only}"
        " order by r.id desc limit :limit"
    )
    for failed, only in ((False, ""), (True, "and r.status >= 400"))
}


class Noted(NamedTuple):
    """As it stands in the table, but for its id, which is made of `at` when it is written."""

    project_id: UUID
    at: datetime
    request_id: str
    method: str
    route: str
    status: int
    ms: int
    key_id: UUID
    left_out: int


class RequestLog:
    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._waiting: deque[Noted] = deque()
        self._left_out: Counter[UUID] = Counter()
        self._buckets = Buckets(burst=BURST, per_s=PER_S)

    def note(
        self, principal: Principal, request_id: str, method: str, route: str, status: int, ms: float
    ) -> None:
        """Never waits, never raises."""
        project_id = principal.project_id
        full = len(self._waiting) >= WAITING_MAX
        if full or not self._buckets.take(project_id, self._clock.monotonic_s()):
            if project_id in self._left_out or len(self._left_out) < WAITING_MAX:
                self._left_out[project_id] += 1
            return
        self._waiting.append(
            Noted(
                project_id, self._clock.now(), request_id, method, route, status, round(ms),
                principal.key_id, self._left_out.pop(project_id, 0),
            )
        )  # fmt: skip

    async def worker(self, stop: asyncio.Event) -> None:
        stopping, turned_s = False, -TURN_EVERY_S
        while not stopping:
            stopping = await wait_for_stop(stop, FLUSH_EVERY_S)
            try:
                if self._clock.monotonic_s() - turned_s >= TURN_EVERY_S:
                    await self._db.pool("worker").execute(TURN, self._clock.now(), KEPT_DAYS)
                    turned_s = self._clock.monotonic_s()
                await self.flush()
            except DATABASE_ERRORS as error:
                # what waits is bounded, and the next round tries again
                log.info("requests.not_written", error=type(error).__name__)
            except asyncpg.CheckViolationError:
                # a clock that was set to a day without a partition
                self._waiting.clear()
                turned_s = -TURN_EVERY_S

    async def flush(self) -> None:
        while self._waiting:
            batch = [self._waiting[i] for i in range(min(BATCH, len(self._waiting)))]
            async with self._db.pool("worker").acquire() as connection, connection.transaction():
                await connection.execute("set local synchronous_commit to off")
                # sorted: those of one millisecond keep their order
                named = sorted(new_id(self._db.cell, unix_ms(r.at)) for r in batch)
                await connection.execute(INSERT, named, *map(list, zip(*batch, strict=True)))
            for _ in batch:
                self._waiting.popleft()

    async def page(
        self, principal: Principal, cursor: str | None, limit: int, *, failed: bool
    ) -> tuple[list[RequestView], str | None]:
        """The newest first, and where to go on. Raises `BadRequest`."""
        asked: dict[str, Any] = {
            "project": principal.project_id, "before": _place(cursor) if cursor else LAST, "limit": limit,
        }  # fmt: skip
        async with self._db.project(principal.project_id) as connection:
            rows = (await connection.execute(SELECT[failed], asked)).all()
        views = [
            RequestView(
                request_id=r.request_id,
                at=rfc3339(r.at),
                method=r.method,
                route=r.route,
                status=r.status,
                duration_ms=r.ms,
                key_id=ids.encode(ids.KEY, r.key_id),
                left_out=r.left_out,
            )
            for r in rows
        ]
        return views, cursors.encode(CURSOR_KIND, rows[-1].id.hex) if len(rows) == limit else None


def _place(cursor: str) -> UUID:
    match cursors.decode(CURSOR_KIND, cursor):
        case [str(text)] if len(text) == 32:
            try:
                return UUID(hex=text)
            except ValueError:
                pass
    raise BadRequest("The cursor cannot be read.", code="bad_cursor", fix=cursors.FIX)
