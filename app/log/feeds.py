"""Reads events in the order that never skips: (feed_xid, call, seq), below the durable horizon.

A position is the last event a reader has got. The same position serves every instance and every kind of feed. What was dropped
for its age is known in the same moment as what is read, so that a place behind which something is missing is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from app.clock import Clock
from app.connection import is_away
from app.db import COMMAND_DEADLINE_S, Database
from app.errors import Gone
from app.hints import Hints
from app.log.filters import EVERYTHING, EventFilter
from app.log.horizon import PROVEN, Horizon, StaleServer
from app.log.positions import BEGINNING, Position, Scope, before, check_kept, check_reached, scope_of
from app.log.rows import EVENT_COLUMNS, to_public
from app.vault import Vault
from regions.wire.events import PublicEvent

PAGE_MAX = 200
POLL_S = 1.0
BEHIND_S = 0.02

SELECT_FEED = "select * from vx.feed_page($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
# No row at all where this server has not seen the horizon; one of nulls where it has, and there is no event.
SELECT_CALL_EVENTS = f"""
select e.*, (select calls_from from vx.kept where log = 'events') as kept_from
  from (select where {PROVEN.format(proof="$5", xid="$3")}) proven
  left join lateral (
    select {EVENT_COLUMNS} from vx.events where call_id = $1 and seq > $2 and feed_xid < $3 order by seq limit $4) e on true
 order by e.seq
"""
SELECT_KEPT = "select feed_xid from vx.kept where log = 'events'"
SELECT_METADATA = "select id, metadata from vx.calls where id = any($1::uuid[])"

# A mark says which transactions had begun at its time: what is stored later has a greater number. Clocks of two servers may differ
# by less than the ten seconds.
SELECT_MARK = """
select coalesce((select xid from vx.feed_marks where at <= $1::timestamptz - interval '10 seconds' order by at desc limit 1), 0)
"""
SELECT_FIRST = """
select e.feed_xid, e.call_id, e.seq from vx.events e
 where e.project_id = $1 and e.feed_xid >= $2 and e.feed_xid < $3 and e.stored_at >= $4
 order by e.feed_xid, e.call_id, e.seq limit 1
"""

_metadata = msgspec.json.Decoder(dict[str, str])
Found = list[tuple[Position, PublicEvent]]


class Place(NamedTuple):
    """`known`: there is an event behind it, so nothing more will come before it."""

    position: Position
    known: bool


class Feeds:
    def __init__(self, db: Database, vault: Vault, clock: Clock, hints: Hints, horizon: Horizon) -> None:
        self._clock = clock
        self._db = db
        self._vault = vault
        self._hints = hints
        self._horizon = horizon

    async def newest(self) -> Position:
        """Where a reader stands that wants only what comes."""
        return before(await self._horizon.read())

    async def at(self, project_id: UUID, time: datetime) -> Place:
        """The place just before the first event that was stored at `time` or later, in the order of the feed. It looks at what was
        stored within some 20 s before, and no further back."""
        horizon = await self._horizon.read()
        async with self._db.project_driver(project_id) as connection:
            await self._horizon.check(connection, horizon)
            mark = await connection.fetchval(SELECT_MARK, time)
            row = await connection.fetchrow(SELECT_FIRST, project_id, mark, horizon, time)
        if row is None:
            return Place(before(horizon), known=False)
        return Place(Position(row["feed_xid"], row["call_id"], row["seq"] - 1), known=True)

    async def check(self, project_id: UUID, after: Position, scope: Scope) -> None:
        """Raises what `page` raises for `after`, without reading a page."""
        check_reached(after.feed_xid, await self._horizon.read())
        async with self._db.project_driver(project_id) as connection:
            check_kept(after, await connection.fetchval(SELECT_KEPT), scope.cursor(BEGINNING))

    async def page(
        self, project_id: UUID, after: Position, *, wanted: EventFilter = EVERYTHING, limit: int = PAGE_MAX
    ) -> tuple[Found, Position]:
        """The events after `after`, and the position up to which has been looked: behind it nothing new will appear. Raises
        `Gone` and `BadRequest` for a place that is too old, or ahead of the log."""
        return await self._page(project_id, after, await self._horizon.read(), wanted, limit)

    async def _page(
        self, project_id: UUID, after: Position, horizon: int, wanted: EventFilter, limit: int
    ) -> tuple[Found, Position]:
        check_reached(after.feed_xid, horizon)
        metadata = msgspec.json.encode(dict(wanted.metadata)).decode() if wanted.metadata else None
        async with asyncio.timeout(COMMAND_DEADLINE_S):
            found_rows = await self._db.pool("api").fetch(
                SELECT_FEED, project_id, after.feed_xid, after.call_id, after.seq, horizon, wanted.types_list, limit,
                self._horizon.proof, metadata, wanted.call_id,
            )  # fmt: skip
        rows = _proven(found_rows)
        check_kept(after, found_rows[0]["kept_xid"], scope_of(project_id, wanted).cursor(BEGINNING))
        events = await to_public(self._vault, rows)
        found = [
            (Position(r["feed_xid"], r["call_id"], r["seq"]), e) for r, e in zip(rows, events, strict=True)
        ]
        return found, found[-1][0] if len(found) == limit else max(after, before(horizon))

    async def of_call(
        self, project_id: UUID, call_id: UUID, *, after_seq: int, limit: int
    ) -> list[PublicEvent]:
        """By `seq`. Raises `Gone` where there are none because they were dropped for their age."""
        horizon = await self._horizon.read()
        async with self._db.project_driver(project_id) as connection:
            rows = await connection.fetch(
                SELECT_CALL_EVENTS, call_id, after_seq, horizon, limit, self._horizon.proof
            )
        events = _proven(rows)
        if call_id < rows[0]["kept_from"]:
            raise Gone(
                "The events of this call are kept no longer.",
                code="events_expired",
                fix="Read the call itself.",
            )
        return await to_public(self._vault, events)

    async def metadata_of(self, project_id: UUID, calls: Iterable[UUID]) -> dict[UUID, dict[str, str]]:
        async with self._db.project_driver(project_id) as connection:
            rows = await connection.fetch(SELECT_METADATA, list(calls))
        return {row["id"]: _metadata.decode(row["metadata"]) for row in rows}

    async def follow(
        self,
        project_id: UUID,
        after: Position,
        *,
        wanted: EventFilter = EVERYTHING,
        look_every_s: float,
        stop: asyncio.Event,
    ) -> AsyncGenerator[tuple[Position, Found], None]:
        """Every event after `after`, as it becomes durable, those that are found together together, and the position that is
        reached with them; without an event where none was given for `look_every_s`. Ends soon after `stop`."""
        wakes = self._hints.subscribe(f"feed:{project_id}")
        pause_s, given_s = BEHIND_S, self._clock.monotonic_s()
        horizon = reached = wanted_xid = 0
        woken = True
        try:
            while not stop.is_set():
                try:
                    # what a horizon covers is served page by page: to read the next one may take a commit at a quorum
                    if not horizon:
                        bound = await self._horizon.look()
                        horizon, wanted_xid = bound.xid, max(wanted_xid, bound.upto if woken else 0)
                    found, after = await self._page(project_id, after, horizon, wanted, PAGE_MAX)
                    reached, horizon = horizon, horizon if len(found) == PAGE_MAX else 0
                except Exception as error:
                    if not is_away(error):
                        raise
                    # what comes is served when the log is back; the reader is told that we are still here
                    found, horizon = [], 0
                if found:
                    yield after, found
                if self._clock.monotonic_s() - given_s >= look_every_s:
                    given_s = self._clock.monotonic_s()
                    yield after, []
                if not horizon:
                    # a writer that is still running may hold back what we were woken for: look again soon, then less often
                    woken = await wakes.wait(pause_s if reached < wanted_xid else POLL_S)
                    pause_s = BEHIND_S if woken else min(2 * pause_s, POLL_S)
        finally:
            wakes.close()


def _proven(rows: list[Any]) -> list[Any]:
    """The events among them. Raises `StaleServer`: what is behind the position on that server is not known."""
    if not rows:
        raise StaleServer("this server has not seen the horizon")
    return [row for row in rows if row["call_id"] is not None]
