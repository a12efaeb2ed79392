"""Drills in the database: their rows, the calls they may cut, and what the log has of those that were. Rows stay in here.

Commands to edges work as the admin role, what is read of calls and the log as the worker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.db import Database
from app.fleet.drill_plan import Candidate, Followed, Halt
from app.fleet.drill_report import Moment, Result, Seen
from app.fleet.drill_shapes import MARK, DrillRequest
from regions.wire.uplink import Cut

CLAIM_S = 5.0
"""A round takes less; an instance that dies in one is succeeded after so long."""
CANDIDATES_MAX = 10_000
LISTED_MAX = 50

COLUMNS = """d.id, d.region, d.edge_id, d.request, d.total, d.wave, d.started_at, d.deadline_at, d.halt, d.reason, d.ended_at,
 d.verdict, d.deadline_at <= clock_timestamp() as late"""
SELECT_RUNNING = "select id from vx.drills where ended_at is null"
SELECT_DRAINS = "select exists (select from vx.drains where ended_at is null and drained_at is null)"
START = """
insert into vx.drills (id, region, edge_id, request, total, deadline_at)
values ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6))
"""
SELECT_DRILL = f"select {COLUMNS} from vx.drills d where d.id = $1"
SELECT_DRILLS = f"select {COLUMNS} from vx.drills d order by d.started_at desc limit {LISTED_MAX}"
CLAIM = f"""
update vx.drills d set claimed_until = clock_timestamp() + make_interval(secs => {CLAIM_S})
 where d.id = (select id from vx.drills where ended_at is null and claimed_until < clock_timestamp() limit 1
                for update skip locked)
returning {COLUMNS}
"""
RELEASE = "update vx.drills set claimed_until = clock_timestamp() + make_interval(secs => $2) where id = $1"
HALT = """
update vx.drills set halt = $2, reason = $3, claimed_until = '-infinity' where id = $1 and ended_at is null and halt is null
returning true
"""
FINISH = """
update vx.drills set verdict = $2, reason = $3, ended_at = clock_timestamp() where id = $1 and ended_at is null returning true
"""
# The wave that was decided on, once: of two instances that both believe it is their turn the second finds it begun.
NEXT_WAVE = """
with d as (update vx.drills set wave = $2 where id = $1 and wave = $2 - 1 and halt is null and ended_at is null returning id)
insert into vx.drill_calls (drill_id, call_id, wave, region, edge_id, epoch)
select d.id, g.call_id, $2, g.region, g.edge_id, g.epoch
  from d, unnest($3::uuid[], $4::text[], $5::uuid[], $6::integer[]) g(call_id, region, edge_id, epoch)
on conflict do nothing
"""
# One edge at a time: with two, this and the heartbeats could wait for each other.
ASK = """
with due as (
  update vx.drill_calls set asks = asks + 1, asked_at = clock_timestamp()
   where drill_id = $1 and edge_id = $2 and call_id = any($3::uuid[]) and told_at is null and outcome is null
  returning call_id, epoch
), numbered as (
  select call_id, epoch, row_number() over (order by call_id) as i, count(*) over () as n from due
), v as (
  update vx.edges set desired_version = desired_version + (select count(*) from due) where id = $2 and exists (select from due)
  returning desired_version
)
insert into vx.desired (edge_id, version, kind, call_id, body)
select $2, v.desired_version - g.n + g.i, 'cut', g.call_id, jsonb_build_object('epoch', g.epoch::text, 'how', $4::text)
  from v, numbered g
"""
SELECT_WANTED = """
select d.call_id from vx.drill_calls d join vx.drills r on r.id = d.drill_id
 where r.ended_at is null and r.halt is null and d.call_id = any($1::uuid[])
   and d.told_at is null and d.outcome is null
"""
TOLD = """
update vx.drill_calls d
   set told_at = clock_timestamp(), cut_at = to_timestamp(g.at_ms / 1000.0), acked_seq = g.acked_seq, unacked = g.unacked::jsonb,
       outcome = case when not g.held then 'untouched' end, settled_at = case when not g.held then clock_timestamp() end
  from unnest($2::uuid[], $3::integer[], $4::boolean[], $5::bigint[], $6::integer[], $7::text[])
       g(call_id, epoch, held, at_ms, acked_seq, unacked)
 where d.edge_id = $1 and d.call_id = g.call_id and d.epoch = g.epoch and d.told_at is null and d.outcome is null
   and exists (select from vx.drills r where r.id = d.drill_id and r.ended_at is null)
"""
SELECT_CANDIDATES = f"""
select c.id, c.epoch, c.edge_id, c.region, g.edges, g.incarnations
  from vx.calls c cross join lateral (
    select array_agg(u.edge order by u.epoch) as edges, array_agg(u.incarnation order by u.epoch) as incarnations
      from unnest(c.grant_edges, c.grant_incarnations) with ordinality u(edge, incarnation, epoch) where u.epoch > c.epoch) g
 where c.edge_id = any($1::uuid[]) and c.ended_at is null and c.answered_at is not null and c.state = 'in_progress'
   and case when $2::text is null then not c.metadata ? '{MARK}' else c.metadata ->> '{MARK}' = $2 end
   and not exists (select from vx.moves m where m.call_id = c.id and m.outcome is null)
   and not exists (select from vx.drill_calls d where d.call_id = c.id and d.drill_id = $3)
 order by hashtextextended(c.id::text, $4) limit {CANDIDATES_MAX}
"""
SELECT_FOLLOWED = """
select call_id, wave, asks, outcome, result, extract(epoch from clock_timestamp() - coalesce(asked_at, chosen_at))::float8 as asked_s,
       extract(epoch from clock_timestamp() - told_at)::float8 * 1000 as cut_ms
  from vx.drill_calls where drill_id = $1
"""
# What the log has of the calls that were cut and are not settled.
SELECT_SEEN = """
select d.call_id, d.epoch, d.region, d.edge_id, d.noted, c.project_id, c.ended_at is not null as ended, c.end_reason, d.cut_at,
       d.told_at, extract(epoch from clock_timestamp() - d.told_at)::float8 as since_s, d.acked_seq as acked, p.present,
       jsonb_array_length(d.unacked) as unacked, k.kept, t.epoch as to_epoch, c.grant_edges[t.epoch] as to_edge,
       t.region as to_region, b.at as back_at, b.stored_at as back_stored_at,
       s.at as served_at, s.stored_at as served_stored_at,
       extract(epoch from clock_timestamp() - s.stored_at)::float8 as since_served_s
  from vx.drill_calls d join vx.calls c on c.id = d.call_id
 cross join lateral (select count(*)::integer as present from vx.events e
                      where e.call_id = d.call_id and e.seq <= d.acked_seq and e.epoch <= d.epoch) p
 cross join lateral (select count(*)::integer as kept from jsonb_array_elements(d.unacked) u join vx.events e
                         on e.call_id = d.call_id and e.origin_epoch = (u ->> 0)::integer and e.origin_n = (u ->> 1)::integer) k
  left join lateral (select e.epoch, e.region from vx.events e where e.call_id = d.call_id and e.epoch > d.epoch
                        and e.type in ('call.reconnecting', 'call.moved') order by e.seq limit 1) t on true
  left join lateral (select e.at, e.stored_at from vx.events e where e.call_id = d.call_id and e.epoch > d.epoch
                        and e.type = 'agent.connected' and e.origin_epoch > d.epoch order by e.seq limit 1) s on true
  left join lateral (select e.at, e.stored_at from vx.events e where e.call_id = d.call_id and e.epoch > d.epoch
                        and e.type = 'call.reconnected' and e.origin_epoch > d.epoch order by e.seq limit 1) b on true
 where d.drill_id = $1 and d.told_at is not null and d.outcome is null
"""
NOTED = "update vx.drill_calls set noted = true where drill_id = $1 and call_id = any($2::uuid[])"
SETTLE = """
update vx.drill_calls d set outcome = g.outcome, result = g.result::jsonb, settled_at = clock_timestamp()
  from unnest($2::uuid[], $3::text[], $4::text[]) g(call_id, outcome, result)
 where d.drill_id = $1 and d.call_id = g.call_id and d.outcome is null
"""
SELECT_CALLS = """
select call_id, wave, region, edge_id, epoch, cut_at, outcome, result from vx.drill_calls where drill_id = $1
 order by wave, call_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """`edge_id` None: the whole region. `late`: its time is over."""

    id: UUID
    region: str
    edge_id: UUID | None
    request: DrillRequest
    total: int
    wave: int
    started_at: datetime
    deadline_at: datetime
    halt: str | None
    reason: str
    ended_at: datetime | None
    verdict: str | None
    late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCall:
    """A call that was cut and is not settled. `noted`: its own log says so already."""

    call_id: UUID
    project_id: UUID
    region: str
    edge_id: UUID
    epoch: int
    noted: bool
    seen: Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow:
    call_id: UUID
    wave: int
    region: str
    edge_id: UUID
    epoch: int
    cut_at: datetime | None
    result: Result | None


_request = msgspec.json.Decoder(DrillRequest)
_result = msgspec.json.Decoder(Result)


class DrillStore:
    def __init__(self, db: Database) -> None:
        self._db = db

    # ------------------------------------------------------------------------------------------- commands

    async def running(self, connection: Any) -> UUID | None:
        return await connection.fetchval(SELECT_RUNNING)  # type: ignore[no-any-return]

    async def start(
        self, connection: Any, drill_id: UUID, region: str, edge_id: UUID | None, request: DrillRequest, total: int
    ) -> None:  # fmt: skip
        wanted = msgspec.json.encode(request).decode()
        await connection.execute(START, drill_id, region, edge_id, wanted, total, request.time_limit_s)

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Any]:
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            yield connection

    async def halt(self, drill_id: UUID, halt: Halt, connection: Any = None) -> bool:
        """False where it was halted before, or has ended."""
        driver = connection or self._db.pool("admin")
        return bool(await driver.fetchval(HALT, drill_id, halt.verdict, halt.reason))

    async def finish(self, drill_id: UUID, halt: Halt) -> bool:
        return bool(await self._db.pool("worker").fetchval(FINISH, drill_id, halt.verdict, halt.reason))

    async def drill(self, drill_id: UUID) -> Drill | None:
        return _drill(await self._db.pool("admin").fetchrow(SELECT_DRILL, drill_id))

    async def drills(self) -> list[Drill]:
        """The newest first."""
        rows = await self._db.pool("admin").fetch(SELECT_DRILLS)
        return [drill for row in rows if (drill := _drill(row)) is not None]

    async def calls(self, drill_id: UUID) -> list[CallRow]:
        return [_call(row) for row in await self._db.pool("admin").fetch(SELECT_CALLS, drill_id)]

    # --------------------------------------------------------------------------------------------- rounds

    async def claim(self) -> Drill | None:
        return _drill(await self._db.pool("worker").fetchrow(CLAIM))

    async def release(self, drill_id: UUID, pause_s: float) -> None:
        await self._db.pool("worker").execute(RELEASE, drill_id, pause_s)

    async def drains(self) -> bool:
        """Whether calls are being moved off anything."""
        return bool(await self._db.pool("worker").fetchval(SELECT_DRAINS))

    async def candidates(
        self, edges: Sequence[UUID], label: str | None, drill_id: UUID, seed: int
    ) -> list[Candidate]:
        """`label`: of synthetic calls; None: all others."""
        rows = await self._db.pool("worker").fetch(SELECT_CANDIDATES, list(edges), label, drill_id, seed)
        return [
            Candidate(
                call_id=r["id"], epoch=r["epoch"], edge_id=r["edge_id"], region=r["region"],
                standbys=tuple(zip(r["edges"] or (), r["incarnations"] or (), strict=True)),
            )
            for r in rows
        ]  # fmt: skip

    async def next_wave(self, drill_id: UUID, wave: int, calls: Sequence[Candidate]) -> None:
        """Nothing where the wave was begun already."""
        await self._db.pool("admin").execute(
            NEXT_WAVE, drill_id, wave, [c.call_id for c in calls], [c.region for c in calls], [c.edge_id for c in calls],
            [c.epoch for c in calls],
        )  # fmt: skip

    async def ask(self, drill_id: UUID, edge_id: UUID, calls: Sequence[UUID], how: str) -> None:
        await self._db.pool("admin").execute(ASK, drill_id, edge_id, list(calls), how)

    async def wanted(self, calls: Sequence[UUID]) -> set[UUID]:
        """Raises what the driver raises."""
        rows = await self._db.pool("admin").fetch(SELECT_WANTED, list(calls))
        return {row["call_id"] for row in rows}

    async def told(self, edge_id: UUID, cut: Sequence[Cut], calls: Sequence[UUID]) -> None:
        """What the edge says of `calls`, in their order. Raises what the driver raises."""
        await self._db.pool("admin").execute(
            TOLD, edge_id, list(calls), [c.epoch for c in cut], [c.held for c in cut], [c.at_ms for c in cut],
            [c.acked_seq for c in cut], [msgspec.json.encode(c.unacked).decode() for c in cut],
        )  # fmt: skip

    async def followed(self, drill_id: UUID) -> list[Followed]:
        rows = await self._db.pool("worker").fetch(SELECT_FOLLOWED, drill_id)
        return [
            Followed(
                call_id=r["call_id"], wave=r["wave"], asks=r["asks"], asked_s=r["asked_s"], cut_ms=r["cut_ms"],
                fate=result.fate if (result := _result_of(r)) is not None else None,
            )
            for r in rows
        ]  # fmt: skip

    async def open_calls(self, drill_id: UUID) -> list[OpenCall]:
        return [_open(row) for row in await self._db.pool("worker").fetch(SELECT_SEEN, drill_id)]

    async def noted(self, drill_id: UUID, calls: Sequence[UUID]) -> None:
        await self._db.pool("worker").execute(NOTED, drill_id, list(calls))

    async def settle(self, drill_id: UUID, results: dict[UUID, Result]) -> None:
        await self._db.pool("worker").execute(
            SETTLE, drill_id, list(results), [r.outcome for r in results.values()],
            [msgspec.json.encode(r).decode() for r in results.values()],
        )  # fmt: skip


def _drill(row: Any) -> Drill | None:
    if row is None:
        return None
    given = {k: row[k] for k in Drill.__slots__ if k != "request"}
    return Drill(**given, request=_request.decode(row["request"]))


def _result_of(row: Any) -> Result | None:
    if row["outcome"] is None:
        return None
    return _result.decode(row["result"]) if row["result"] is not None else Result(outcome=row["outcome"])


def _call(row: Any) -> CallRow:
    given = {k: row[k] for k in CallRow.__slots__ if k != "result"}
    return CallRow(**given, result=_result_of(row))


def _open(row: Any) -> OpenCall:
    read = {k: row[k] for k in Seen.__slots__ if k not in ("back", "served")}
    seen = Seen(**read, back=_moment(row, "back"), served=_moment(row, "served"))
    return OpenCall(**{k: row[k] for k in OpenCall.__slots__ if k != "seen"}, seen=seen)


def _moment(row: Any, which: str) -> Moment | None:
    at = row[f"{which}_at"]
    return Moment(at=at, stored_at=row[f"{which}_stored_at"]) if at is not None else None
