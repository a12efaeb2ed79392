"""Lines of deliveries in SQL: who waits behind whom, and that nobody is forgotten when a settling and a new event cross."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.ids import new_id
from app.webhooks import claims
from app.webhooks.claims import GIVE_BACK, RELEASE_EXPIRED
from app.webhooks.settle import SETTLE
from regions.wire import ids as wire
from tests.support.api import Api, Project

STATES = "select seq, state from vx.deliveries where call_id = $1 order by seq"
QUEUE = (
    "insert into vx.deliveries (call_id, webhook_id, seq, project_id, state, next_at)"
    " values ($1, $2, $3, $4, vx.first_state($1, $2), now() + interval '1 day')"
)
CLAIM = (
    "update vx.deliveries set state = 'in_flight', attempts = 1, claimed_by = $3, claimed_until = now() + interval '1 day'"
    " where call_id = $1 and seq = $2"
)
PILE_UP = """
insert into vx.deliveries (call_id, webhook_id, seq, project_id, jurisdictions)
select uuidv7(), $1, 1, $2, '{nowhere}' from generate_series(1, $3::integer)
"""
READ = "select sum(seq_tup_read + idx_tup_fetch)::integer from pg_stat_xact_user_tables where relname like 'deliveries%'"
WAITS = "select count(*) from pg_stat_activity where pid = $1 and wait_event_type = 'Lock'"


@dataclass
class Line:
    """A line that no worker of an instance touches: its endpoint does not exist, and its claims are long."""

    one: asyncpg.Connection
    other: asyncpg.Connection
    project: UUID
    call: UUID = field(default_factory=new_id)
    webhook: UUID = field(default_factory=uuid4)
    worker: UUID = field(default_factory=uuid4)

    async def put(self, seq: int, connection: asyncpg.Connection | None = None) -> None:
        await (connection or self.one).execute(QUEUE, self.call, self.webhook, seq, self.project)

    async def claim(self, seq: int) -> None:
        await self.one.execute(CLAIM, self.call, seq, self.worker)

    async def settle(
        self, seq: int, state: str = "delivered", connection: asyncpg.Connection | None = None
    ) -> None:
        at = datetime.now(UTC)
        await (connection or self.one).execute(
            SETTLE, self.worker, [self.call], [self.webhook], [seq], [1], [self.project], [at], [5], [204], [None], [None],
            [state], [at + timedelta(days=1)], [None],
        )  # fmt: skip

    async def states(self) -> dict[int, str]:
        return {r["seq"]: r["state"] for r in await self.one.fetch(STATES, self.call)}


@pytest.fixture
async def line(api: Api, project: Project) -> AsyncIterator[Line]:
    one, other = [await asyncpg.connect(api.settings.database_url) for _ in range(2)]
    try:
        line = Line(one, other, wire.decode(wire.PROJECT, project.id))
        yield line
        await other.execute("delete from vx.deliveries where call_id = $1", line.call)
    finally:
        await one.close()
        await other.close()


async def test_whoever_settles_the_first_makes_the_next_one_due(line: Line) -> None:
    for seq in (1, 2, 3):
        await line.put(seq)
    assert await line.states() == {1: "pending", 2: "queued", 3: "queued"}
    await line.claim(1)
    await line.settle(1)
    assert await line.states() == {1: "delivered", 2: "pending", 3: "queued"}


@pytest.mark.parametrize(
    ("state", "after"), [("pending", "queued"), ("parked", "pending"), ("failed", "pending")]
)
async def test_one_that_is_tried_again_holds_the_next_and_one_that_is_parked_does_not(
    line: Line, state: str, after: str
) -> None:
    await line.put(1)
    await line.put(2)
    await line.claim(1)
    await line.settle(1, state)
    assert await line.states() == {1: state, 2: after}


async def test_a_claim_that_was_taken_over_settles_and_wakes_nothing(line: Line) -> None:
    await line.put(1)
    await line.put(2)
    await line.claim(1)
    line.worker = uuid4()
    await line.settle(1)
    assert await line.states() == {1: "in_flight", 2: "queued"}


async def test_a_settling_waits_for_the_event_that_is_being_queued_behind(line: Line) -> None:
    await line.put(1)
    await line.claim(1)
    transaction = line.other.transaction()
    await transaction.start()
    await line.put(2, line.other)
    settling = asyncio.create_task(line.settle(1))
    async with asyncio.timeout(10):
        while not await line.other.fetchval(WAITS, line.one.get_server_pid()):
            await asyncio.sleep(0.01)
    await transaction.commit()
    await settling
    assert await line.states() == {1: "delivered", 2: "pending"}


async def test_an_event_behind_one_that_is_being_settled_is_due_by_itself(line: Line) -> None:
    await line.put(1)
    await line.put(2)
    await line.claim(1)
    transaction = line.other.transaction()
    await transaction.start()
    await line.settle(1, connection=line.other)
    async with asyncio.timeout(5):
        await line.put(3)
    await transaction.commit()
    assert await line.states() == {1: "delivered", 2: "pending", 3: "pending"}


@pytest.mark.parametrize("statement", [RELEASE_EXPIRED, GIVE_BACK])
async def test_a_parked_one_that_comes_back_is_parked(line: Line, statement: str) -> None:
    await line.put(1)
    await line.claim(1)
    # in one transaction: no worker of an instance sees it come back
    async with line.one.transaction():
        await line.one.execute(
            "update vx.deliveries set parked = true, claimed_until = now() - interval '1 s' where call_id = $1",
            line.call,
        )
        await line.one.execute(statement, *([line.worker, [], [], []] if statement == GIVE_BACK else []))
        assert await line.states() == {1: "parked"}


async def test_a_claim_reads_what_it_takes_and_not_what_waits(api: Api, project: Project) -> None:
    """Nobody here sends from the place that these have to be sent from, so that they lie until they are claimed below."""
    hook, waiting, most = uuid4(), 3_000, 20
    owner = await asyncpg.connect(api.settings.database_url)
    try:
        await owner.execute(PILE_UP, hook, wire.decode(wire.PROJECT, project.id), waiting)
        async with api.control.db.pool("worker").acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            before = await connection.fetchval(READ)
            claimed = await connection.fetch(
                claims.CLAIM, uuid4(), most, [hook], [most], most, ["nowhere"], 5.0
            )
            read = await connection.fetchval(READ) - before
            await transaction.rollback()
    finally:
        await owner.execute("delete from vx.deliveries where webhook_id = $1", hook)
        await owner.close()
    assert len(claimed) == most
    assert read < waiting / 2
