"""Calls that run and their standbys, in the database. Works as the worker role; rows stay in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from app.db import Database
from app.fleet.standbys import Renewal
from app.fleet.view import EdgeState, Fleet

CALLS_MAX = 200

# Calls with fewer standbys that may be counted on than the fleet could give them: $1 to $4 are the good edges, their lives, regions
# and jurisdictions, $5 the owners that can hand a ticket on. Nearly all calls have two good ones in two other regions, which two
# look-ups by hash tell; only the others are counted out.
SELECT_EXPOSED = f"""
with good as (
  select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) g(edge, incarnation, region, jurisdiction)
), unsure as materialized (
  select c.id, c.epoch, c.epoch_granted, c.edge_id, c.region, c.request, c.placement,
         c.grant_edges[c.epoch + 1 :] as edges, c.grant_incarnations[c.epoch + 1 :] as incarnations
    from vx.calls c
    left join good a on a.edge = c.grant_edges[c.epoch + 1] and a.incarnation = c.grant_incarnations[c.epoch + 1]
    left join good b on b.edge = c.grant_edges[c.epoch + 2] and b.incarnation = c.grant_incarnations[c.epoch + 2]
   where c.ended_at is null and c.answered_at is not null and c.edge_id = any($5::uuid[])
     and (a.region <> c.region and b.region <> c.region and a.region <> b.region) is not true
)
select c.id, c.epoch, c.epoch_granted, c.edge_id, c.request, c.placement -> 'candidates' as candidates, c.edges, c.incarnations
  from unsure c
 cross join lateral (
   select count(distinct g.region) filter (where g.region <> c.region) as strong, count(distinct g.edge) as every
     from unnest(c.edges, c.incarnations) s(edge, incarnation)
     join good g on g.edge = s.edge and g.incarnation = s.incarnation and g.edge <> c.edge_id) has
 cross join lateral (
   select count(distinct g.region) filter (where g.region <> c.region) as strong, count(*) as every
     from good g
    where g.edge <> c.edge_id
      and (coalesce(c.request #> '{{regions,allow}}', '[]') = '[]' or c.request #> '{{regions,allow}}' ? g.region)
      and (coalesce(c.request #> '{{regions,jurisdictions}}', '[]') = '[]'
           or c.request #> '{{regions,jurisdictions}}' ? g.jurisdiction)) could
 where (has.strong < least(2, could.strong) or has.every < least(2, could.every))
   and not exists (select from vx.moves m where m.call_id = c.id and m.outcome is null)
 order by hashtextextended(c.id::text, $6) limit {CALLS_MAX}
"""
RENEW = "select call_id, epoch from vx.renew_standbys($1, $2, $3, $4, $5, $6, $7, $8)"


@dataclass(frozen=True, slots=True)
class Exposed:
    """`request`, `candidates` (of its first placement): as they were stored. `standbys`: (edge, incarnation)
    of each grant above its epoch."""

    call_id: UUID
    epoch: int
    granted: int
    edge_id: UUID
    standbys: tuple[tuple[UUID, UUID], ...]
    request: bytes
    candidates: bytes


class StandbyStore:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def exposed(self, fleet: Fleet, good: Sequence[EdgeState], seed: int) -> list[Exposed]:
        """In another order each time: those that nothing can be done for must not stand before those that can be helped."""
        rows = await self._db.pool("worker").fetch(
            SELECT_EXPOSED,
            [e.id for e in good],
            [e.incarnation for e in good],
            [e.region for e in good],
            [fleet.regions[e.region].jurisdiction for e in good],
            [e.id for e in fleet.edges if e.health != "down"],
            seed,
        )
        return [
            Exposed(
                r["id"],
                r["epoch"],
                r["epoch_granted"],
                r["edge_id"],
                tuple(zip(r["edges"], r["incarnations"], strict=True)),
                r["request"].encode(),
                r["candidates"].encode(),
            )
            for r in rows
        ]

    async def renew(self, owner: UUID, renewals: Sequence[Renewal]) -> list[UUID]:
        """The calls of this edge that have new grants now, and a ticket on its way: others may have been quicker."""

        def nth(i: int, part: str) -> list[UUID | None]:
            return [getattr(r.edges[i], part) if i < len(r.edges) else None for r in renewals]

        rows = await self._db.pool("worker").fetch(
            RENEW, owner, [r.call.call_id for r in renewals], [r.call.epoch for r in renewals],
            [r.call.granted for r in renewals], nth(0, "id"), nth(0, "incarnation"), nth(1, "id"), nth(1, "incarnation"),
        )  # fmt: skip
        return [r["call_id"] for r in rows]
