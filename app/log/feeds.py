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
from app.log.acked import Acked
from app.log.filters import EVERYTHING, EventFilter
from app.log.horizon import PROVEN, Horizon, StaleServer
from app.log.looking import Looking
from app.log.positions import BEGINNING, Position, Scope, before, check_kept, check_reached, scope_of
from app.log.rows import EVENT_COLUMNS, WRAPPED, to_public
from app.vault import Vault
from regions.wire.events import PublicEvent

PAGE_MAX = 200
POLL_S = 1.0
BEHIND_S = 0.02

SELECT_FEED = "select * from vx.feed_page($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
# No row at all where this server has not seen the horizon; one of nulls where it has, and there is no event.
SELECT_CALL_EVENTS = f"""
select e.*, (select calls_from from vx.kept where log = 'events') as kept_from
  from (select where {PROVEN.format(proof="$5", xid="$3")}) proven
  left join lateral (
    select {EVENT_COLUMNS}, {WRAPPED} from vx.events e
     where call_id = $1 and seq > $2 and feed_xid < $3 order by seq limit $4) e on true
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


class Own(NamedTuple):
    """What of a feed is known to be durable without the horizon (`Acked`). `whole`: nothing else has been committed that it would
    show. `below`, `upto`: nothing that began before the one is still running; what had been committed lies below the other."""

    found: Found
    whole: bool
    below: int
    upto: int


class Feeds:
    """`acked`: what is known to be durable; none where it is not known."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        clock: Clock,
        hints: Hints,
        horizon: Horizon,
        acked: Acked | None = None,
    ) -> None:
        self._acked = acked or Acked()
        self._clock = clock
        self._db = db
        self._vault = vault
        self._hints = hints
        self._horizon = horizon

    async def newest(self) -> Position:
        """Where a reader stands that wants only what comes."""
        return before(await self._horizon.read())

    def is_newest(self, place: Position) -> bool:
        """Whether nothing has been looked at here that lies behind it."""
        return place >= before(self._horizon.reached)

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
        horizon = await self._horizon.read()
        check_reached(after.feed_xid, horizon)
        return await self._page(project_id, after, horizon, wanted, limit)

    async def _page(
        self,
        project_id: UUID,
        after: Position,
        horizon: int,
        wanted: EventFilter = EVERYTHING,
        limit: int = PAGE_MAX,
    ) -> tuple[Found, Position]:
        rows, _ = await self._rows(project_id, after, horizon, wanted, limit)
        found = await self._found(rows)
        return found, found[-1][0] if len(found) == limit else max(after, before(horizon))

    async def _own(self, project_id: UUID, after: Position, horizon: int) -> Own:
        """`horizon`: the last that was read."""
        rows, first = await self._rows(project_id, after, horizon, EVERYTHING, PAGE_MAX, whole=True)
        sure = self._acked.sure(rows, horizon)
        return Own(await self._found(rows[:sure]), sure == len(rows), first["below"], first["upto"])

    async def _rows(
        self,
        project_id: UUID,
        after: Position,
        horizon: int,
        wanted: EventFilter,
        limit: int,
        *,
        whole: bool = False,
    ) -> tuple[list[Any], Any]:
        """The events' rows, and one that says what holds of them all. `whole`: also what lies above the horizon."""
        metadata = msgspec.json.encode(dict(wanted.metadata)).decode() if wanted.metadata else None
        async with asyncio.timeout(COMMAND_DEADLINE_S):
            rows = await self._db.pool("api").fetch(
                SELECT_FEED, project_id, after.feed_xid, after.call_id, after.seq, horizon, wanted.types_list, limit,
                self._horizon.proof, metadata, wanted.call_id, whole,
            )  # fmt: skip
        events = _proven(rows)
        check_kept(after, rows[0]["kept_xid"], scope_of(project_id, wanted).cursor(BEGINNING))
        return events, rows[0]

    async def _found(self, rows: list[Any]) -> Found:
        events = await to_public(self._vault, rows)
        return [
            (Position(r["feed_xid"], r["call_id"], r["seq"]), e) for r, e in zip(rows, events, strict=True)
        ]

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
        look_every_s: float,
        stop: asyncio.Event,
        is_newest: bool = False,
    ) -> AsyncGenerator[tuple[Position, Found], None]:
        """Every event after `after`, as it becomes durable, those that are found together together, and the position that is
        reached with them; without an event where none was given for `look_every_s`. Ends soon after `stop`. `is_newest`:
        `after` is what `newest` has given, and need not be asked for again. Raises `BadRequest` where the database was set back."""
        wakes = self._hints.subscribe(f"feed:{project_id}")
        looking, given_s = Looking(self._horizon, self._acked, wakes), self._clock.monotonic_s()
        horizon, wanted_xid = 0, 0
        reached = marked = after.feed_xid + 1 if is_newest else 0
        noted, woken, own, pause_s = self._acked.noted, True, is_newest, BEHIND_S
        try:
            while not stop.is_set():
                found, again = Found(), False
                try:
                    # what was acknowledged to an instance is durable: no marker is waited for
                    if not horizon and marked and (own or self._acked.noted != noted):
                        noted = self._acked.noted
                        found, own, reached, upto = await self._own(project_id, after, marked)
                        wanted_xid = max(wanted_xid, upto)
                        after = found[-1][0] if found else after
                        again = len(found) == PAGE_MAX or not own
                        if own:
                            looking.leave()
                    if not found and not own:
                        # what a horizon covers is served page by page: to read the next one may take a commit at a quorum
                        if not horizon:
                            bound = await looking.bound(noted if marked else None)
                            if bound is None:
                                continue
                            horizon, wanted_xid = bound.xid, max(wanted_xid, bound.upto if woken else 0)
                        found, after = await self._page(project_id, await looking.checked(after), horizon)
                        reached = marked = horizon
                        again = len(found) == PAGE_MAX
                        horizon = horizon if again else 0
                except Exception as error:
                    if not is_away(error):
                        raise
                    # what comes is served when the log is back; the reader is told that we are still here
                    found, horizon, own, again = [], 0, False, False
                if found:
                    yield after, found
                if self._clock.monotonic_s() - given_s >= look_every_s:
                    given_s = self._clock.monotonic_s()
                    yield after, []
                if not again:
                    # a writer that is still running may hold back what we were woken for: look again soon, then less often
                    behind = reached < wanted_xid
                    woken = looking.take_missed() or await wakes.wait(pause_s if behind else POLL_S)
                    own = own and behind
                    pause_s = BEHIND_S if woken else min(2 * pause_s, POLL_S)
        finally:
            looking.leave()
            wakes.close()


def _proven(rows: list[Any]) -> list[Any]:
    """The events among them. Raises `StaleServer`: what is behind the position on that server is not known."""
    if not rows:
        raise StaleServer("this server has not seen the horizon")
    return [row for row in rows if row["call_id"] is not None]
