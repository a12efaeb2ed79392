"""Calls that may be over without having ended, and what their edges say when they are asked.

Decides what makes a call overdue and whom to ask about it; whether it may be ended is decided in the database, under the
call's lock (``vx.nobody_holds``). Rows stay in here. A call is overdue from the moment one of these is seen:

1. nobody has attached in time                                  → ``no_answer``
2. its owner has let it go because the caller was not heard     → ``caller_lost``
3. its owner has restarted, or every grant has expired          → ``edge_lost``

It is not any more once it has moved to another epoch, was answered after all, an edge says it holds it, or it has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import Database
from app.fleet.verdicts import DOWN_AFTER_S
from regions.wire.ticket import CLOCK_SKEW_S

GRACE_S = CLOCK_SKEW_S + 30
"""The ticket's clock skew, and a while for events on their way."""
PATIENCE_S = 45.0
"""So long a caller that was lost may come back by itself before anybody is asked."""
ASK_AGAIN_S = 15.0
BATCH = 500

# Who is late is found by `attach_by` (grants expire after it), whose owner has restarted by the edges that there are: in both cases
# without a look at the calls that are in order. What is noted already does not count towards the limit.
NOTE = f"""
insert into vx.overdue (call_id, reason, epoch)
select c.id, case when c.answered_at is null then 'no_answer' else 'edge_lost' end, c.epoch
  from (
    select k.id, k.answered_at, k.epoch
      from vx.calls k
     where k.ended_at is null and k.attach_by < now() - interval '{GRACE_S} seconds'
       and (k.answered_at is null or k.grants_expire_at < now() - interval '{GRACE_S} seconds')
    union all
    select k.id, k.answered_at, k.epoch
      from vx.edges e cross join lateral (
        select l.id, l.answered_at, l.epoch from vx.calls l
         where l.ended_at is null and l.edge_id = e.id and l.grant_incarnations[l.epoch] < e.incarnation
        union all
        select l.id, l.answered_at, l.epoch from vx.calls l
         where l.ended_at is null and l.edge_id = e.id and l.grant_incarnations[l.epoch] > e.incarnation) k
     where k.answered_at is not null) c
 where not exists (select from vx.overdue o where o.call_id = c.id)
 limit {BATCH}
on conflict do nothing
"""
NOTE_LAPSED = """
insert into vx.overdue (call_id, reason, epoch)
select c.id, 'caller_lost', c.epoch
  from unnest($2::uuid[], $3::int[]) l(call_id, epoch) join vx.calls c on c.id = l.call_id and c.epoch = l.epoch
 where c.ended_at is null and c.answered_at is not null and c.grant_edges[c.epoch] = $1
on conflict do nothing
"""
# Few calls are overdue and many run, which the planner does not know: `offset 0` has it look up the call of each overdue one. What
# it would do else costs as much as all running calls together, every time.
_CALL = "cross join lateral (select * from vx.calls k where k.id = o.call_id offset 0) c"

DROP = f"""
delete from vx.overdue where call_id = any(array(
  select o.call_id
    from vx.overdue o {_CALL}
   where c.ended_at is not null or c.epoch <> o.epoch or o.reason = 'no_answer' and c.answered_at is not null
      or exists (select from vx.denials d where d.call_id = o.call_id and d.answer = 'held')))
"""
# Edges that are not heard are not asked: they would find the question of an hour ago when they come back.
ASK = f"""
insert into vx.denials as d (call_id, edge_id, incarnation, epoch)
select c.id, g.edge, g.incarnation, max(g.epoch)
  from vx.overdue o {_CALL}
 cross join unnest(c.grant_edges, c.grant_incarnations) with ordinality g(edge, incarnation, epoch)
  join vx.edges e on e.id = g.edge and e.incarnation = g.incarnation
 where c.ended_at is null and e.seen_at > clock_timestamp() - interval '{DOWN_AFTER_S} seconds'
   and (o.reason = 'no_answer' or o.since < clock_timestamp() - make_interval(secs => $1))
   and not exists (select from vx.denials d
                    where d.call_id = c.id and d.edge_id = g.edge and d.incarnation = g.incarnation and d.epoch >= g.epoch
                      and (d.answer is not null or d.asked_at >= clock_timestamp() - interval '{ASK_AGAIN_S} seconds'))
 group by 1, 2, 3 limit {BATCH}
on conflict (call_id, edge_id, incarnation) do update
   set epoch = excluded.epoch, asked_at = clock_timestamp(), answer = null, answered_at = null
 where d.epoch < excluded.epoch
    or d.answer is null and d.asked_at < clock_timestamp() - interval '{ASK_AGAIN_S} seconds'
returning call_id, edge_id, epoch
"""
ANSWER = """
update vx.denials d set answer = a.answer, answered_at = clock_timestamp()
  from unnest($3::uuid[], $4::int[], $5::text[]) a(call_id, epoch, answer)
 where d.call_id = a.call_id and d.edge_id = $1 and d.incarnation = $2 and d.epoch = a.epoch
"""
# The same, with the call as a value of its own type, which the function takes.
SELECT_OVER = f"""
select (o.call).id, (o.call).project_id, o.reason
  from (select o.*, (select k from vx.calls k where k.id = o.call_id) as call from vx.overdue o offset 0) o
 where (o.call).ended_at is null and (o.reason = 'no_answer' or o.since < clock_timestamp() - make_interval(secs => $1))
   and vx.nobody_holds(o.call, interval '{GRACE_S} seconds')
 limit {BATCH}
"""
SELECT_WAITING = f"""
select c.id, c.project_id, o.reason, o.since, c.grants_expire_at, g.edge, e.region, d.asked_at, d.answer,
       e.seen_at > clock_timestamp() - interval '{DOWN_AFTER_S} seconds' as heard
  from (select * from vx.overdue order by since limit $1) o {_CALL}
 cross join lateral (select distinct edge, incarnation from unnest(c.grant_edges, c.grant_incarnations) u(edge, incarnation)) g
  left join vx.edges e on e.id = g.edge and e.incarnation = g.incarnation
  left join vx.denials d on d.call_id = c.id and d.edge_id = g.edge and d.incarnation = g.incarnation
 where c.ended_at is null
 order by o.since, c.id, g.edge
"""


@dataclass(frozen=True, slots=True)
class Question:
    """To be put to the edge: does it hold the call, by a grant up to `epoch`?"""

    call_id: UUID
    edge_id: UUID
    epoch: int


@dataclass(frozen=True, slots=True)
class Over:
    """A call that nobody holds, as far as is known without its lock."""

    call_id: UUID
    project_id: UUID
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One edge that may hold an overdue call. `answer`: ``denied``, ``asked``, ``silent`` (not heard, so not asked), ``restarted``
    (it refuses the grants of before) or ``due``."""

    edge_id: UUID
    region: str | None
    answer: str
    asked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    call_id: UUID
    project_id: UUID
    reason: str
    since: datetime
    grants_expire_at: datetime
    edges: list[Asked]


class Overdue:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def note(self) -> None:
        """Looks for calls that are overdue, and lets go of those that are not any more."""
        pool = self._db.pool("worker")
        await pool.execute(DROP)
        await pool.execute(NOTE)

    async def lapsed(self, edge_id: UUID, calls: list[tuple[UUID, int]]) -> None:
        """The edge has let go of these (call, epoch): nothing where they are not its own any more."""
        await self._db.pool("worker").execute(
            NOTE_LAPSED, edge_id, [c for c, _ in calls], [e for _, e in calls]
        )

    async def questions(self, patience_s: float = PATIENCE_S) -> list[Question]:
        """Whom to ask now; each is given once, and again where it stays without an answer."""
        rows = await self._db.pool("worker").fetch(ASK, patience_s)
        return [Question(r["call_id"], r["edge_id"], r["epoch"]) for r in rows]

    async def answered(self, edge_id: UUID, incarnation: UUID, answers: list[tuple[UUID, int, bool]]) -> None:
        """`answers`: call, the epoch of the question, whether the edge denies."""
        await self._db.pool("worker").execute(
            ANSWER,
            edge_id,
            incarnation,
            [call for call, _, _ in answers],
            [epoch for _, epoch, _ in answers],
            ["denied" if denies else "held" for _, _, denies in answers],
        )

    async def over(self, patience_s: float = PATIENCE_S) -> list[Over]:
        rows = await self._db.pool("worker").fetch(SELECT_OVER, patience_s)
        return [Over(r["id"], r["project_id"], r["reason"]) for r in rows]

    async def waiting(self, limit: int) -> list[Waiting]:
        """The overdue calls, the longest first."""
        found: dict[UUID, Waiting] = {}
        for r in await self._db.pool("worker").fetch(SELECT_WAITING, limit):
            call = found.setdefault(
                r["id"],
                Waiting(
                    call_id=r["id"],
                    project_id=r["project_id"],
                    reason=r["reason"],
                    since=r["since"],
                    grants_expire_at=r["grants_expire_at"],
                    edges=[],
                ),
            )
            call.edges.append(
                Asked(edge_id=r["edge"], region=r["region"], answer=_answer(r), asked_at=r["asked_at"])
            )
        return list(found.values())


def _answer(row: Any) -> str:
    if row["region"] is None:
        return "restarted"
    if row["answer"] is not None:
        return str(row["answer"])
    if not row["heard"]:
        return "silent"
    return "asked" if row["asked_at"] is not None else "due"
