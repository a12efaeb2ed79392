"""Drains and moves in the database. Operators' commands work as the admin role, rounds as the worker; rows stay in here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.db import Database
from app.fleet.plan import Ask, Stuck
from app.fleet.view import COUNTED_S
from regions.wire.ticket import MovedFor

DRAINS_TOPIC = "drains"
CLAIM_S = 5.0
"""A round takes less; an instance that dies in one is succeeded after so long."""
MOVE_LATE_S = 15.0
"""A move that is so long past its deadline came to nothing, where its edge has not said so before."""
AGAIN_S = 2.0
"""A call that nobody took is asked again after so long: what refused it has said meanwhile how full it is."""
FORGIVEN_S = 60.0
"""Of what failed before, a quarter counts: who was full for a while is asked again, and who never takes a call is not for ever."""
LEAVING_MAX = 400
LOCK = "select pg_advisory_xact_lock(7423002)"

COLUMNS = """d.id, d.region, d.edge_id, d.incarnation, d.verdict, d.kind, d.force_at, d.total, d.started_at, d.drained_at, d.ended_at,
 d.outcome, d.stuck, d.force_at <= clock_timestamp() as late"""
SELECT_RUNNING = f"""
select {COLUMNS} from vx.drains d where d.region = $1 and d.edge_id is not distinct from $2 and d.ended_at is null for update
"""
SELECT_ALL = f"""
select {COLUMNS} from vx.drains d order by d.ended_at is not null, d.started_at desc limit $1
"""
SELECT_NEWEST = f"""
select {COLUMNS} from vx.drains d where d.region = $1 and d.edge_id is not distinct from $2 order by d.started_at desc limit 1
"""
SET_REGION = (
    "update vx.regions set admin_state = $2, version = version + 1 where id = $1 and admin_state <> $2"
)
SET_EDGE = "update vx.edges set admin_state = $2, version = version + 1 where id = $1 and admin_state <> $2"
START = """
insert into vx.drains (id, region, edge_id, incarnation, kind, force_at, total)
values ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6), $7)
on conflict do nothing
"""
# What an operator changes is the operator's from then on.
CHANGE = """
update vx.drains set kind = $2, verdict = null, force_at = clock_timestamp() + make_interval(secs => $3),
       claimed_until = '-infinity'
 where id = $1
"""
# An edge that is told to stop does not wait for what an operator has set, and an operator's drain of it goes on as its own.
STOPPING = """
update vx.drains set incarnation = $2, force_at = least(force_at, clock_timestamp() + make_interval(secs => $3))
 where edge_id = $1 and ended_at is null and incarnation is null returning id
"""
STOPPED = "update vx.edges set stopped = incarnation where id = $1 and incarnation = $2 returning region"
END = """
with d as (update vx.drains set ended_at = clock_timestamp(), outcome = $2 where id = $1 and ended_at is null returning id)
update vx.moves m set outcome = 'canceled', done_at = clock_timestamp() from d where m.drain_id = d.id and m.outcome is null
returning m.call_id, m.from_edge, m.epoch
"""
CLAIM = f"""
update vx.drains d set claimed_until = clock_timestamp() + make_interval(secs => {CLAIM_S})
 where d.id = (select id from vx.drains where ended_at is null and claimed_until < clock_timestamp()
                order by claimed_until limit 1 for update skip locked)
returning {COLUMNS}
"""
RELEASE = """
update vx.drains d set claimed_until = clock_timestamp() + make_interval(secs => $2), stuck = $3,
       drained_at = case when $4 then coalesce(d.drained_at, clock_timestamp()) else d.drained_at end
  from vx.drains was where d.id = $1 and was.id = d.id
returning case when was.drained_at is null then extract(epoch from d.drained_at - d.started_at)::float8 end as took_s
"""
COUNT_CALLS = """
select count(*)::integer from vx.calls where edge_id = any($1::uuid[]) and ended_at is null and answered_at is not null
"""
COUNT_OPEN = """
select count(m.call_id)::integer as asked, count(*)::integer as live
  from vx.calls c left join vx.moves m on m.call_id = c.id and m.outcome is null
 where c.edge_id = any($1::uuid[]) and c.ended_at is null and c.answered_at is not null
"""
# In another order each time: those that cannot go must not stand before those that can.
SELECT_LEAVING = f"""
select c.id, c.epoch, c.edge_id, c.request, c.placement -> 'candidates' as candidates,
       (select greatest(count(*) filter (where f.done_at > clock_timestamp() - make_interval(secs => {FORGIVEN_S})), count(*) / 4)
          from vx.moves f where f.call_id = c.id and f.drain_id = $2 and f.outcome = 'failed')::integer as failures
  from vx.calls c
 where c.edge_id = any($1::uuid[]) and c.ended_at is null and c.answered_at is not null
   and not exists (select from vx.moves m where m.call_id = c.id
                      and (m.outcome is null or m.drain_id = $2 and m.outcome = 'failed'
                             and m.done_at > clock_timestamp() - make_interval(secs => {AGAIN_S})))
 order by hashtextextended(c.id::text, $3) limit {LEAVING_MAX}
"""
# What was asked for a gain keeps no drain waiting.
SETTLE = f"""
update vx.moves m set done_at = clock_timestamp(),
       outcome = case when c.epoch >= m.epoch and c.ended_at is null or c.edge_id <> m.from_edge then 'moved'
                      when c.ended_at is not null then 'ended'
                      when greatest(m.force_at, m.asked_at) < clock_timestamp() - make_interval(secs => {MOVE_LATE_S})
                      then 'failed' else 'canceled' end
  from vx.calls c
 where m.outcome is null and c.id = m.call_id
   and (c.ended_at is not null or c.epoch >= m.epoch or c.edge_id <> m.from_edge
     or m.why is not null and exists (
          select from vx.drains d join vx.edges e on e.id = m.from_edge
           where d.ended_at is null and d.region = e.region and coalesce(d.edge_id, e.id) = e.id)
     or greatest(m.force_at, m.asked_at) < clock_timestamp() - make_interval(secs => {MOVE_LATE_S}))
"""
# What a project asked for keeps no drain waiting past its deadline: it goes where it was to go, but by then.
HURRY = """
update vx.moves m set force_at = d.force_at
  from vx.drains d join vx.edges e on e.region = d.region and coalesce(d.edge_id, e.id) = e.id
 where d.id = $1 and d.ended_at is null and m.from_edge = e.id
   and m.outcome is null and m.drain_id is null and m.why is null and m.force_at > d.force_at
returning m.call_id, m.from_edge, m.epoch
"""
# Said by the edge that has the call: it need not be waited for.
NOT_TAKEN = """
update vx.moves m set outcome = 'failed', done_at = clock_timestamp()
  from unnest($2::uuid[], $3::integer[]) g(call_id, epoch)
 where m.call_id = g.call_id and m.epoch = g.epoch and m.from_edge = $1 and m.outcome is null
   and exists (select from vx.calls c where c.id = m.call_id and c.ended_at is null and c.epoch < m.epoch)
returning m.call_id
"""
RESERVED = f"""
select to_edge, count(*)::integer as calls,
       count(*) filter (where outcome is null and force_at <= clock_timestamp())::integer as hurried
  from vx.moves
 where outcome is null or outcome = 'moved' and done_at > clock_timestamp() - make_interval(secs => {COUNTED_S})
 group by to_edge
"""
MOVE = f"""
select call_id, epoch from vx.move_calls($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, make_interval(secs => {COUNTED_S}))
"""
SELECT_MOVE = "select call_id, epoch, to_edge, force_at from vx.moves where call_id = $1 and outcome is null"
SELECT_MOVES = """
select m.call_id, m.epoch, m.grants, m.why,
       greatest(0, extract(epoch from coalesce(d.force_at, m.force_at) - clock_timestamp()) * 1000)::float8 as within_ms
  from unnest($1::uuid[], $2::integer[]) g(call_id, epoch)
  join vx.moves m on m.call_id = g.call_id and m.epoch = g.epoch and m.outcome is null
  left join vx.drains d on d.id = m.drain_id
 where d.ended_at is null
"""
PROGRESS = """
select outcome, count(*)::integer as calls from vx.moves where drain_id = $1 group by outcome
"""


# What an edge is told again when its deadline has changed.
SELECT_OPEN = "select call_id, from_edge, epoch from vx.moves where drain_id = $1 and outcome is null"


class StuckCall(msgspec.Struct, frozen=True, kw_only=True):
    call_id: UUID
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """`edge_id` None: the whole region. `incarnation`: of an edge that was told to stop. `verdict`: the version of the detector's
    that began it. `late`: `force_at` has passed."""

    id: UUID
    region: str
    edge_id: UUID | None
    incarnation: UUID | None
    verdict: int | None
    kind: str
    force_at: datetime
    total: int
    started_at: datetime
    drained_at: datetime | None
    ended_at: datetime | None
    outcome: str | None
    stuck: tuple[StuckCall, ...]
    late: bool

    @property
    def by(self) -> str:
        """``edge`` where it was told to stop, ``detector`` where its verdict asks for it, else ``operator``."""
        if self.incarnation is not None:
            return "edge"
        return "operator" if self.verdict is None else "detector"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A call that is not being moved yet. `request`, `candidates` (of its first placement): as they were stored."""

    call_id: UUID
    epoch: int
    edge_id: UUID
    request: bytes
    candidates: bytes
    failures: int


@dataclass(frozen=True, slots=True)
class Granted:
    """A move that is open: the first of its epochs, how many, and how long the end of a turn may be waited for.
    `why`: of a move for a gain, which is not forced when the time is over."""

    call_id: UUID
    epoch: int
    grants: int
    within_ms: int
    why: MovedFor | None


_why = msgspec.json.Decoder(MovedFor)
_stuck = msgspec.json.Decoder(tuple[StuckCall, ...])
Asked = tuple[UUID, UUID, int]
"""A call that was asked to move: its id, the edge that has it, the first epoch of its move."""


class DrainStore:
    def __init__(self, db: Database) -> None:
        self._db = db

    # ------------------------------------------------------------------------------------------- commands

    @asynccontextmanager
    async def commanding(self) -> AsyncIterator[Any]:
        """A transaction of its own: commands to the fleet are decided one after the other, in all instances."""
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            await connection.execute(LOCK)
            yield connection

    async def running(self, connection: Any, region: str, edge_id: UUID | None) -> Drain | None:
        return _drain(await connection.fetchrow(SELECT_RUNNING, region, edge_id))

    async def set_state(self, connection: Any, region: str, edge_id: UUID | None, state: str) -> None:
        if edge_id is None:
            await connection.execute(SET_REGION, region, state)
        else:
            await connection.execute(SET_EDGE, edge_id, state)

    async def start(
        self, connection: Any, drain_id: UUID, region: str, edge_id: UUID | None, incarnation: UUID | None,
        kind: str, within_s: float, total: int,
    ) -> None:  # fmt: skip
        await connection.execute(START, drain_id, region, edge_id, incarnation, kind, within_s, total)

    async def change(self, connection: Any, drain_id: UUID, kind: str, within_s: float) -> None:
        await connection.execute(CHANGE, drain_id, kind, within_s)

    async def stopping(self, connection: Any, edge_id: UUID, incarnation: UUID, within_s: float) -> bool:
        """An operator's drain of the edge becomes its own; False where there is none."""
        return bool(await connection.fetchval(STOPPING, edge_id, incarnation, within_s))

    async def stopped(self, edge_id: UUID, incarnation: UUID) -> str | None:
        """The edge's region; None where this incarnation is not the newest."""
        return await self._db.pool("admin").fetchval(STOPPED, edge_id, incarnation)  # type: ignore[no-any-return]

    async def under_way(self, drain_id: UUID) -> list[Asked]:
        rows = await self._db.pool("admin").fetch(SELECT_OPEN, drain_id)
        return [(r["call_id"], r["from_edge"], r["epoch"]) for r in rows]

    async def end(self, connection: Any, drain_id: UUID, outcome: str) -> list[Asked]:
        """The moves that are off with it."""
        rows = await connection.fetch(END, drain_id, outcome)
        return [(r["call_id"], r["from_edge"], r["epoch"]) for r in rows]

    async def newest(self, region: str, edge_id: UUID | None) -> Drain | None:
        return _drain(await self._db.pool("admin").fetchrow(SELECT_NEWEST, region, edge_id))

    async def all(self, limit: int) -> list[Drain]:
        """Those that run first, the newest of each first."""
        rows = await self._db.pool("admin").fetch(SELECT_ALL, limit)
        return [drain for r in rows if (drain := _drain(r)) is not None]

    async def progress(self, drain_id: UUID) -> dict[str | None, int]:
        """Moves by outcome; None: under way."""
        rows = await self._db.pool("admin").fetch(PROGRESS, drain_id)
        return {r["outcome"]: r["calls"] for r in rows}

    async def count_calls(self, edges: Sequence[UUID]) -> int:
        """Calls that have been answered and have not ended."""
        return await self._db.pool("worker").fetchval(COUNT_CALLS, list(edges))  # type: ignore[no-any-return]

    # --------------------------------------------------------------------------------------------- rounds

    async def claim(self) -> Drain | None:
        """The drain whose turn it is, for a few seconds; None where all are taken care of."""
        return _drain(await self._db.pool("worker").fetchrow(CLAIM))

    async def release(
        self, drain_id: UUID, pause_s: float, stuck: Sequence[Stuck], *, drained: bool
    ) -> float | None:
        """How long it took, where this was the round in which the last call had left."""
        shown = msgspec.json.encode([StuckCall(call_id=s.call_id, why=s.why) for s in stuck]).decode()
        return await self._db.pool("worker").fetchval(RELEASE, drain_id, pause_s, shown, drained)  # type: ignore[no-any-return]

    async def settle(self) -> None:
        """Moves that have ended, one way or the other."""
        await self._db.pool("worker").execute(SETTLE)

    async def not_taken(self, from_edge: UUID, moves: Sequence[tuple[UUID, int]]) -> int:
        """How many of these (call, first epoch) have come to nothing by it."""
        calls, epochs = [c for c, _ in moves], [e for _, e in moves]
        return len(await self._db.pool("worker").fetch(NOT_TAKEN, from_edge, calls, epochs))

    async def hurry(self, drain_id: UUID) -> list[Asked]:
        """Moves that others have asked for, and that were to wait for longer than the drain does."""
        rows = await self._db.pool("worker").fetch(HURRY, drain_id)
        return [(r["call_id"], r["from_edge"], r["epoch"]) for r in rows]

    async def open(self, edges: Sequence[UUID]) -> tuple[int, int]:
        """(calls that are being moved, all that are there)."""
        row = await self._db.pool("worker").fetchrow(COUNT_OPEN, list(edges))
        return row["asked"], row["live"]

    async def leaving(self, edges: Sequence[UUID], drain_id: UUID, seed: int) -> list[Candidate]:
        rows = await self._db.pool("worker").fetch(SELECT_LEAVING, list(edges), drain_id, seed)
        return [
            Candidate(
                r["id"],
                r["epoch"],
                r["edge_id"],
                r["request"].encode(),
                r["candidates"].encode(),
                r["failures"],
            )
            for r in rows
        ]

    async def reserved(self) -> tuple[dict[UUID, int], dict[UUID, int]]:
        """Places that moves will fill, by the edge that takes them; and of these such as are under way and late."""
        rows = await self._db.pool("worker").fetch(RESERVED)
        return {r["to_edge"]: r["calls"] for r in rows}, {r["to_edge"]: r["hurried"] for r in rows}

    async def move(
        self,
        drain_id: UUID | None,
        from_edge: UUID,
        force_at: datetime,
        asks: Sequence[Ask],
        reserved: Mapping[UUID, int],
        why: MovedFor | None = None,
    ) -> dict[UUID, int]:
        """Call → its first new epoch, for those that are asked now. `reserved`: as it was read before it was decided where they go;
        one whose place somebody else has given away since then is not asked. `why`: of all, where it is for a gain."""

        def nth(i: int, part: str) -> list[UUID | None]:
            return [getattr(a.edges[i], part) if i < len(a.edges) else None for a in asks]

        rows = await self._db.pool("admin").fetch(
            MOVE, drain_id, from_edge, force_at, [a.call.call_id for a in asks], [a.call.epoch for a in asks],
            nth(0, "id"), nth(0, "incarnation"), nth(1, "id"), nth(1, "incarnation"), nth(2, "id"), nth(2, "incarnation"),
            msgspec.json.encode(why).decode() if why is not None else None,
            [reserved.get(a.edges[0].id, 0) for a in asks],
        )  # fmt: skip
        return {r["call_id"]: r["epoch"] for r in rows}

    async def open_move(self, call_id: UUID) -> tuple[int, UUID, datetime] | None:
        """(epoch, edge, deadline) of the call's move."""
        row = await self._db.pool("admin").fetchrow(SELECT_MOVE, call_id)
        return (row["epoch"], row["to_edge"], row["force_at"]) if row is not None else None

    async def granted(self, moves: Sequence[tuple[UUID, int]]) -> dict[UUID, Granted]:
        """The open ones among these (call, epoch)."""
        rows = await self._db.pool("admin").fetch(SELECT_MOVES, [c for c, _ in moves], [e for _, e in moves])
        return {
            r["call_id"]: Granted(
                r["call_id"],
                r["epoch"],
                r["grants"],
                int(r["within_ms"]),
                _why.decode(r["why"]) if r["why"] else None,
            )
            for r in rows
        }


def _drain(row: Any) -> Drain | None:
    if row is None:
        return None
    given = {k: row[k] for k in Drain.__slots__ if k != "stuck"}
    return Drain(**given, stuck=_stuck.decode(row["stuck"]))
