"""The calls that live now, looked at once for all who have a map open on this instance.

Decides how fresh that is: a look is at most `FRESH_S` old. Read below no horizon: a picture of now, which acknowledges nothing. Of a
project through its own row-level security; of all, for operators, counts and no call's content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from app.clock import Clock
from app.console.map_plan import Seen, Shift
from app.db import Database
from app.fleet.view import Fleet

FRESH_S = 0.25
CALLS_MAX = 20_000
KEPT_SCOPES_MAX = 200

LIVE = """
select id, epoch, state, region, grant_edges[epoch + 1] as standby from vx.calls
 where ended_at is null and edge_id is not null limit $1
"""
NEAR = """
select id, (select c->>'region' from jsonb_array_elements(placement->'candidates') c
             order by (c->>'rtt_ms')::float8 limit 1) as near
  from vx.calls where id = any($1::uuid[])
"""
RECENT = """
select distinct on (e.call_id) e.call_id, e.epoch, e.type, e.stored_at, c.region,
       c.grant_edges[(e.data->>'from_epoch')::integer] as before
  from vx.events e join vx.calls c on c.id = e.call_id
 where e.call_id = any($1::uuid[]) and e.type in ('call.reconnecting', 'call.moved') and e.stored_at >= $2
   and e.data->>'from_epoch' <> e.data->>'to_epoch' order by e.call_id, e.seq desc
"""
HOW = """
select distinct on (call_id) call_id, type, stored_at from vx.events
 where call_id = any($1::uuid[]) and type in ('call.reconnecting', 'call.moved') order by call_id, seq desc
"""


@dataclass(slots=True)
class _Scope:
    calls: dict[UUID, Seen] = field(default_factory=dict)
    near: dict[UUID, str] = field(default_factory=dict)
    read_s: float = -FRESH_S
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class CallWatch:
    """Of one cell."""

    def __init__(self, db: Database, clock: Clock, fleet: Callable[[], Fleet]) -> None:
        self._db = db
        self._clock = clock
        self._fleet = fleet
        self._scopes: dict[UUID | None, _Scope] = {}

    async def look(self, project_id: UUID | None) -> dict[UUID, Seen]:
        """All calls of the project that live, or of all projects for None; `CALLS_MAX` at most. Not to be changed."""
        scope = self._scopes.get(project_id)
        if scope is None:
            if len(self._scopes) >= KEPT_SCOPES_MAX:
                self._scopes.pop(next(iter(self._scopes)))
            scope = self._scopes[project_id] = _Scope()
        async with scope.lock:
            if self._clock.monotonic_s() - scope.read_s >= FRESH_S:
                scope.calls = await self._read(project_id, scope)
                scope.read_s = self._clock.monotonic_s()
        return scope.calls

    async def recent(
        self, project_id: UUID | None, calls: list[UUID], since: datetime
    ) -> tuple[list[Shift], dict[UUID, tuple[str, datetime]]]:
        """Of these calls, those that have changed their owner since: from where to where the last time, and how, as of `how`."""
        if not calls:
            return [], {}
        rows = await self._fetch(project_id, RECENT, calls, since)
        regions = {e.id: e.region for e in self._fleet().edges}
        shifts = [
            Shift(
                call=r["call_id"], epoch=r["epoch"], start=regions.get(r["before"], ""), end=r["region"] or ""
            )
            for r in rows
        ]
        return shifts, {r["call_id"]: (r["type"], r["stored_at"]) for r in rows}

    async def how(self, project_id: UUID | None, shifts: list[Shift]) -> dict[UUID, tuple[str, Any]]:
        """Of each call: its newest change of owner, ``call.reconnecting`` or ``call.moved``, and when it was stored."""
        if not shifts:
            return {}
        rows = await self._fetch(project_id, HOW, [s.call for s in shifts])
        return {r["call_id"]: (r["type"], r["stored_at"]) for r in rows}

    async def _read(self, project_id: UUID | None, scope: _Scope) -> dict[UUID, Seen]:
        rows = await self._fetch(project_id, LIVE, CALLS_MAX)
        new = [r["id"] for r in rows if r["id"] not in scope.near]
        near = {r["id"]: scope.near[r["id"]] for r in rows if r["id"] in scope.near}
        if new:
            near |= {r["id"]: r["near"] or "" for r in await self._fetch(project_id, NEAR, new)}
        scope.near = near
        regions = {e.id: e.region for e in self._fleet().edges}
        return {
            r["id"]: Seen(
                epoch=r["epoch"],
                region=r["region"] or "",
                state=r["state"],
                near=near.get(r["id"], ""),
                standby=regions.get(r["standby"], ""),
            )
            for r in rows
        }

    async def _fetch(self, project_id: UUID | None, statement: str, *given: Any) -> list[Any]:
        if project_id is None:
            found: list[Any] = await self._db.pool("worker").fetch(statement, *given)
            return found
        async with self._db.project_driver(project_id) as connection:
            rows: list[Any] = await connection.fetch(statement, *given)
        return rows
