"""Reads events in the order that never skips: (feed_xid, call, seq), below the durable horizon.

A position is the last event a reader has got. The same position serves every instance and every kind of feed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app import cursors
from app.clock import Clock
from app.connection import is_away
from app.db import Database
from app.errors import BadRequest
from app.hints import Hints
from app.ids import parse
from app.log.horizon import PROVEN, Horizon, StaleServer
from app.log.rows import EVENT_COLUMNS, to_public
from app.vault import Vault
from regions.wire import ids
from regions.wire.events import PublicEvent

CURSOR_KIND = "feed"
PAGE_MAX = 200
POLL_S = 1.0
ZERO = UUID(int=0)

# No row at all where this server has not seen the horizon; one of nulls where it has, and there is no event.
SELECT_FEED = f"""
select e.* from (select where {PROVEN.format(proof="$8", xid="$5")}) proven
  left join lateral (
    select {EVENT_COLUMNS} from vx.events
     where project_id = $1 and (feed_xid, call_id, seq) > ($2, $3, $4) and feed_xid < $5
       and ($6::text[] is null or type = any($6))
     order by feed_xid, call_id, seq limit $7) e on true
 order by e.feed_xid, e.call_id, e.seq
"""
SELECT_CALL_EVENTS = f"""
select e.* from (select where {PROVEN.format(proof="$5", xid="$3")}) proven
  left join lateral (
    select {EVENT_COLUMNS} from vx.events where call_id = $1 and seq > $2 and feed_xid < $3 order by seq limit $4) e on true
 order by e.seq
"""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """After this event; (0, zero, 0) is the beginning."""

    feed_xid: int = 0
    call_id: UUID = ZERO
    seq: int = 0

    def cursor(self) -> str:
        return cursors.encode(CURSOR_KIND, self.feed_xid, ids.encode(ids.CALL, self.call_id), self.seq)


def position_of(cursor: str) -> Position:
    """Raises `BadRequest` ``bad_cursor``."""
    match cursors.decode(CURSOR_KIND, cursor):
        case [int(feed_xid), str(call), int(seq)] if 0 <= feed_xid < 1 << 62 and 0 <= seq < 1 << 31:
            call_id = parse(ids.CALL, call)
            if call_id is not None:
                return Position(feed_xid, call_id, seq)
    raise BadRequest("The cursor cannot be read.", code="bad_cursor", fix=cursors.FIX)


class Feeds:
    def __init__(self, db: Database, vault: Vault, clock: Clock, hints: Hints, horizon: Horizon) -> None:
        self._clock = clock
        self._db = db
        self._vault = vault
        self._hints = hints
        self._horizon = horizon

    async def newest(self) -> Position:
        """Where a reader stands that wants only what comes."""
        return _before(await self._horizon.read())

    async def page(
        self, project_id: UUID, after: Position, *, types: list[str] | None = None, limit: int = PAGE_MAX
    ) -> tuple[list[tuple[Position, PublicEvent]], Position]:
        """The events after `after`, and the position up to which has been looked: behind it nothing new will appear."""
        return await self._page(project_id, after, await self._horizon.read(), types, limit)

    async def _page(
        self, project_id: UUID, after: Position, horizon: int, types: list[str] | None, limit: int
    ) -> tuple[list[tuple[Position, PublicEvent]], Position]:
        async with self._db.project_driver(project_id) as connection:
            found_rows = await connection.fetch(
                SELECT_FEED, project_id, after.feed_xid, after.call_id, after.seq, horizon, types, limit, self._horizon.proof
            )  # fmt: skip
        rows = _proven(found_rows)
        events = await to_public(self._vault, rows)
        found = [
            (Position(r["feed_xid"], r["call_id"], r["seq"]), e) for r, e in zip(rows, events, strict=True)
        ]
        return found, found[-1][0] if len(found) == limit else max(after, _before(horizon))

    async def of_call(
        self, project_id: UUID, call_id: UUID, *, after_seq: int, limit: int
    ) -> list[PublicEvent]:
        horizon = await self._horizon.read()
        async with self._db.project_driver(project_id) as connection:
            rows = await connection.fetch(
                SELECT_CALL_EVENTS, call_id, after_seq, horizon, limit, self._horizon.proof
            )
        return await to_public(self._vault, _proven(rows))

    async def follow(
        self,
        project_id: UUID,
        after: Position,
        *,
        types: list[str] | None,
        look_every_s: float,
        stop: asyncio.Event,
    ) -> AsyncIterator[tuple[Position, list[tuple[Position, PublicEvent]]]]:
        """Every event after `after`, as it becomes durable, those that are found together together, and the position that is
        reached with them; without an event where none was given for `look_every_s`. Ends soon after `stop`."""
        wakes = self._hints.subscribe(f"feed:{project_id}")
        woken, given_s = False, self._clock.monotonic_s()
        horizon = 0
        try:
            while not stop.is_set():
                try:
                    # what a horizon covers is served page by page: to read the next one may take a commit at a quorum
                    horizon = horizon or await self._horizon.read()
                    found, after = await self._page(project_id, after, horizon, types, PAGE_MAX)
                    horizon = horizon if len(found) == PAGE_MAX else 0
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
                if not found:
                    # a writer that is still running may hold the horizon back: look again soon after a wake
                    woken = await wakes.wait(0.02 if woken else POLL_S)
        finally:
            wakes.close()


def _proven(rows: list[Any]) -> list[Any]:
    """The events among them. Raises `StaleServer`: what is behind the position on that server is not known."""
    if not rows:
        raise StaleServer("this server has not seen the horizon")
    return [row for row in rows if row["call_id"] is not None]


def _before(horizon: int) -> Position:
    """The last position there can be below the horizon."""
    return Position(horizon - 1, UUID(int=(1 << 128) - 1), (1 << 31) - 1)
