"""Whether an append costs the same in a log of ten thousand events and of ten million.

The log is filled by the server itself, half of it in the week in which calls are made now, half in the four before; what is
measured are real appends from an edge's uplink, as processor time, so that it is not the disk's mood. The statements keep the plans
that were made while the log was small. At the end a week is dropped, as old weeks are: nothing is ever deleted from a partition.
"""

from __future__ import annotations

import shutil
import statistics
import time
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.local.deployment import Deployment
from regions.wire import ids
from tests.bench.report import Figure
from tests.bench.scripted import Costs, ScriptedEdge, placed, uplink
from tests.bench.support import deployed, idle

SMALL, LARGE = 10_000, 10_000_000
ROUNDS = 5
EXCHANGES = 10
PER_CALL = 20
STEP = 500_000
WEEKS_BEFORE = 4
FILL_WITHIN_S = 600.0
BYTES_PER_EVENT = 1_200
"""With its indexes and its share of the log that is written ahead: about twice of what is found."""

PARTITIONS = f"select vx.ensure_partitions(now() - interval '{WEEKS_BEFORE} weeks', {WEEKS_BEFORE + 2})"
# a call in two is of this week, until now; the others are spread over the weeks before
FILL = f"""
with calls as (
  select (lpad(to_hex((extract(epoch from case when c % 2 = 0
                         then date_trunc('week', now()) + (now() - date_trunc('week', now())) * (c::float8 / $3)
                         else date_trunc('week', now()) - interval '1 week' * (0.01 + {WEEKS_BEFORE - 0.02} * c / $3) end)
                       * 1000)::bigint), 12, '0') || '70008' || substr(md5(c::text), 1, 15))::uuid as id
    from generate_series($1::integer, $2::integer) c
), put as (
  insert into vx.calls (id, project_id, state, epoch, epoch_granted, grant_edges, grant_incarnations, grants_expire_at, attach_by,
                        seq, feed_xid, request, placement, max_duration_s, created_at, ended_at)
  select id, $4, 'completed', 2, 1, array[id], array[id], now(), now(), {PER_CALL}, 1, '{{}}', '{{}}', 60, now(), now() from calls
)
insert into vx.events (call_id, seq, project_id, id, type, epoch, source, origin_epoch, origin_n, region, at, data, hash, feed_xid)
select id, s, $4, gen_random_uuid(), 'speech.started', 1, 'edge', 1, s, 'us-east', now(), '{{"offset_ms": 15000}}',
       substr(uuid_send(id), 1, 16), 1
  from calls, generate_series(1, {PER_CALL}) s
"""
WEEK_BEFORE = "select to_char(now() - interval '1 week', '\"events_\"IYYY\"w\"IW')"


@dataclass(slots=True)
class Filling:
    connection: asyncpg.Connection
    project: UUID
    calls: int
    made: int = 0

    async def up_to(self, events: int) -> None:
        """Or as far as the time allows."""
        deadline = time.monotonic() + FILL_WITHIN_S
        while self.made * PER_CALL < events and time.monotonic() < deadline:
            upto = min(self.made + STEP // PER_CALL, events // PER_CALL)
            await self.connection.execute(FILL, self.made + 1, upto, self.calls, self.project)
            self.made = upto
        # what so many rows leave to be cleared up is the filling's, and not of the appends that are measured next
        await self.connection.execute("vacuum analyze vx.events")
        await self.connection.execute("vacuum analyze vx.calls")
        await self.connection.execute("checkpoint")


async def measure(events: int = LARGE) -> list[Figure]:
    async with deployed(regions=2) as deployment, uplink(deployment) as edge:
        assert deployment.postgres is not None
        free = shutil.disk_usage(deployment.folder).free
        if free < 2 * events * BYTES_PER_EVENT:
            raise RuntimeError(
                f"{free / 1e9:.0f} GB are free, {2 * events * BYTES_PER_EVENT / 1e9:.0f} are wanted"
            )
        project, key = await deployment.create_project("bench")
        connection = await asyncpg.connect(
            deployment.postgres.dsn, server_settings={"synchronous_commit": "off"}
        )
        try:
            await connection.execute(PARTITIONS)
            filling = Filling(connection, ids.decode(ids.PROJECT, project), events // PER_CALL)
            await filling.up_to(SMALL)
            small = await cost_us(deployment, edge, key)
            await filling.up_to(events)
            large = await cost_us(deployment, edge, key)
            stored = filling.made * PER_CALL
            size = await connection.fetchval("select pg_database_size(current_database())")
            began = time.perf_counter()
            await connection.execute(f"drop table vx.{await connection.fetchval(WEEK_BEFORE)}")
            dropped_s = time.perf_counter() - began
        finally:
            await connection.close()
    how = (
        f"processor time of an event at {stored:,} stored events ({large:.1f} µs) over that at {SMALL:,} ({small:.1f} µs); "
        f"{size / 1e9:.1f} GB, a week dropped in {dropped_s:.2f} s"
    )
    return [
        Figure(
            family="append",
            name="append.flatness",
            value=large / small,
            unit="×",
            how=how,
            target=1.2,
            at_most=True,
        )
    ]


async def cost_us(deployment: Deployment, edge: ScriptedEdge, key: str) -> float:
    """Of an event, in the instance and the database; the first round warms both."""
    found: list[float] = []
    pids = [api.pid for api in deployment.apis]
    for _ in range(ROUNDS + 1):
        await edge.load.tell({"calls": await placed(deployment, key, edge.id)})
        await idle(pids)
        before = Costs.now(deployment, EXCHANGES)
        await edge.write(EXCHANGES)
        await idle(pids)
        spent = Costs.now(deployment, EXCHANGES) - before
        found.append(spent.api_us + spent.db_us)
    return statistics.median(found[1:])
