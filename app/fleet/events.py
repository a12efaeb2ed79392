"""The fleet's events: a log of their own, for operators. Written once each, read in the order that never skips.

Decides how an event is written (its key is deterministic, so that any number of instances may try), and reads below the durable
horizon as the feeds of calls do: by (feed_xid, n), where n numbers the events. What is worth an event is decided elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from app import cursors
from app.clock import Clock, rfc3339
from app.connection import is_away
from app.db import Database
from app.errors import BadRequest
from app.hints import Hints
from app.ids import new_id
from app.log.filters import digest_of
from app.log.horizon import PROVEN, Horizon, StaleServer
from app.log.positions import check_reached, expired
from regions.wire import ids

CURSOR_KIND = "fleet"
TOPIC = "fleet.events"
PAGE_MAX = 200
POLL_S = 1.0
N_MAX = (1 << 62) - 1

FLEET_EVENT_TYPES = (
    "region.suspect", "region.down", "region.recovered", "edge.registered", "edge.suspect", "edge.lost", "edge.recovered",
    "edge.evacuating", "edge.drained", "edge.stopped", "edge.revoked",
    "edge.key_rotated", "edge.key_misused",
    "drill.started", "drill.stopped", "drill.finished",
)  # fmt: skip

WRITE = """
insert into vx.fleet_events (key, id, type, region, edge_id, data) values ($1, $2, $3, $4, $5, $6)
on conflict (key) do nothing
"""
# No row at all where this server has not seen the horizon; one of nulls where it has, and there is no event.
SELECT_PAGE = f"""
select e.*, k.feed_xid as kept_xid
  from (select where {PROVEN.format(proof="$6", xid="$3")}) proven
  cross join (select feed_xid from vx.kept where log = 'fleet') k
  left join lateral (
    select n, id, type, region, edge_id, at, data, feed_xid from vx.fleet_events
     where (feed_xid, n) > ($1, $2) and feed_xid < $3 and ($4::text[] is null or type = any($4))
     order by feed_xid, n limit $5) e on true
 order by e.feed_xid, e.n
"""
SELECT_LATEST = f"""
select e.* from (select where {PROVEN.format(proof="$5", xid="$3")}) proven
  left join lateral (
    select n, id, type, region, edge_id, at, data, feed_xid from vx.fleet_events
     where feed_xid < $3 and ($1::text is null or region = $1) and ($2::uuid is null or edge_id = $2)
     order by n desc limit $4) e on true
 order by e.n desc
"""


class FleetEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`edge` is null for events of a region. `timestamp`: RFC 3339, by the database's clock."""

    id: str
    type: str
    region: str
    edge: str | None
    timestamp: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class FleetPosition:
    """After this event; (0, 0) is the beginning."""

    feed_xid: int = 0
    n: int = 0


class FleetScope:
    """What a cursor of the fleet's log belongs to: the types that were asked for."""

    def __init__(self, types: list[str] | None) -> None:
        self._digest = digest_of(sorted(types)) if types else ""

    def cursor(self, at: FleetPosition) -> str:
        return cursors.encode(CURSOR_KIND, self._digest, at.feed_xid, at.n)

    def position(self, cursor: str) -> FleetPosition:
        """Raises `BadRequest` ``bad_cursor`` or ``cursor_mismatch``."""
        match cursors.decode(CURSOR_KIND, cursor):
            case [str(digest), int(feed_xid), int(n)] if 0 <= feed_xid < 1 << 62 and 0 <= n < 1 << 62:
                if digest != self._digest:
                    raise BadRequest(
                        "The cursor was made with other types.",
                        code="cursor_mismatch",
                        fix="Ask with the same types as before, or start again without the cursor.",
                    )
                return FleetPosition(feed_xid, n)
        raise BadRequest("The cursor cannot be read.", code="bad_cursor", fix=cursors.FIX)


class FleetEvents:
    def __init__(self, db: Database, horizon: Horizon, hints: Hints, clock: Clock) -> None:
        self._db = db
        self._horizon = horizon
        self._hints = hints
        self._clock = clock

    async def write(
        self, key: str, type_: str, region: str, edge_id: UUID | None, data: dict[str, Any]
    ) -> None:
        """Once per `key`, whoever else writes it too. Raises what the driver raises."""
        await self._db.pool("admin").execute(
            WRITE, key, new_id(self._db.cell), type_, region, edge_id, msgspec.json.encode(data).decode()
        )
        self._hints.wake(TOPIC)

    async def newest(self) -> FleetPosition:
        return _before(await self._horizon.read())

    async def page(
        self, after: FleetPosition, *, types: list[str] | None = None, limit: int = PAGE_MAX
    ) -> tuple[list[tuple[FleetPosition, FleetEvent]], FleetPosition]:
        """The events after `after`, and the position up to which has been looked. Raises `Gone` and `BadRequest` for a place that
        is too old, or ahead of the log."""
        horizon = await self._horizon.read()
        check_reached(after.feed_xid, horizon)
        found_rows = await self._db.pool("worker").fetch(
            SELECT_PAGE, after.feed_xid, after.n, horizon, types, limit, self._horizon.proof
        )
        rows = _proven(found_rows)
        if FleetPosition() < after <= FleetPosition(found_rows[0]["kept_xid"], N_MAX - 1):
            raise expired(FleetScope(types).cursor(FleetPosition()))
        found = [(FleetPosition(r["feed_xid"], r["n"]), _event(r)) for r in rows]
        return found, found[-1][0] if len(found) == limit else max(after, _before(horizon))

    async def latest(self, *, region: str | None = None, edge_id: UUID | None = None) -> list[FleetEvent]:
        """The newest first."""
        horizon = await self._horizon.read()
        rows = await self._db.pool("worker").fetch(
            SELECT_LATEST, region, edge_id, horizon, 20, self._horizon.proof
        )
        return [_event(r) for r in _proven(rows)]

    async def follow(
        self, after: FleetPosition, *, types: list[str] | None, look_every_s: float, stop: asyncio.Event
    ) -> AsyncGenerator[tuple[FleetPosition, FleetEvent | None], None]:
        """Every event after `after`, as it becomes durable; None with the position reached where none was given for
        `look_every_s`. Ends soon after `stop`."""
        wakes = self._hints.subscribe(TOPIC)
        woken, given_s = False, self._clock.monotonic_s()
        try:
            while not stop.is_set():
                try:
                    found, after = await self.page(after, types=types)
                except Exception as error:
                    if not is_away(error):
                        raise
                    # what comes is served when the log is back; the reader is told that we are still here
                    found = []
                for position, event in found:
                    yield position, event
                if self._clock.monotonic_s() - given_s >= look_every_s:
                    given_s = self._clock.monotonic_s()
                    yield after, None
                if not found:
                    woken = await wakes.wait(0.02 if woken else POLL_S)
        finally:
            wakes.close()


def _event(row: Any) -> FleetEvent:
    return FleetEvent(
        id=ids.encode(ids.EVENT, row["id"]),
        type=row["type"],
        region=row["region"],
        edge=ids.encode(ids.EDGE, row["edge_id"]) if row["edge_id"] is not None else None,
        timestamp=rfc3339(row["at"]),
        data=msgspec.json.decode(row["data"]),
    )


def _proven(rows: list[Any]) -> list[Any]:
    if not rows:
        raise StaleServer("this server has not seen the horizon")
    return [row for row in rows if row["n"] is not None]


def _before(horizon: int) -> FleetPosition:
    return FleetPosition(horizon - 1, N_MAX)
