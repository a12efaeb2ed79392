"""Calls that have asked to be moved for a gain, in the database. Works as the worker role; rows stay in here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from app.db import Database

PAGE = 500
CALLS_MAX = 20_000

SELECT_WATCHED = f"""
select c.id, c.project_id, c.epoch, c.edge_id, c.region, c.request, c.placement -> 'candidates' as candidates,
       (select extract(epoch from clock_timestamp() - max(m.asked_at)) from vx.moves m where m.call_id = c.id)::float8 as moved_ago_s
  from vx.calls c
 where c.ended_at is null and c.request #> '{{regions,move_for_gain}}' = 'true'
   and c.answered_at is not null and c.edge_id is not null and c.region = any($1::text[]) and c.id > $2
   and not exists (select from vx.moves m where m.call_id = c.id and m.outcome is null)
 order by c.id limit {PAGE}
"""
_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Watched:
    """`request`, `candidates` (of its first placement): as they were stored. `moved_ago_s`: since its last move was asked for."""

    call_id: UUID
    project_id: UUID
    epoch: int
    edge_id: UUID
    region: str
    request: bytes
    candidates: bytes
    moved_ago_s: float | None


class GainStore:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def watched(self, regions: Sequence[str]) -> AsyncIterator[Watched]:
        """Calls in progress in these regions that are not being moved; `CALLS_MAX` of them at most, always the same first."""
        after, count = _FIRST, 0
        while count < CALLS_MAX:
            rows = await self._db.pool("worker").fetch(SELECT_WATCHED, list(regions), after)
            for r in rows:
                yield Watched(
                    r["id"],
                    r["project_id"],
                    r["epoch"],
                    r["edge_id"],
                    r["region"],
                    r["request"].encode(),
                    r["candidates"].encode(),
                    r["moved_ago_s"],
                )
            if len(rows) < PAGE:
                return
            after, count = rows[-1]["id"], count + len(rows)
