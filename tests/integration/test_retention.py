"""What is old goes, with all that belongs to it; a call that has not ended stays, and so does its week."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from app.clock import SystemClock
from app.housekeeping import DROP_REPLAYS, DROP_WEBHOOKS, Housekeeping
from app.settings import Settings
from regions.wire import ids
from tests.support.api import Api, Project, serving
from tests.support.calls import create_call, owners_in
from tests.support.engines import Engines
from tests.support.fleet import three_regions
from tests.support.hooks import patiently, superuser

TABLES = {
    "calls": "id", "events": "call_id", "late_events": "call_id", "deliveries": "call_id", "delivery_attempts": "call_id",
    "call_labels": "call_id",
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(engines: Engines, module_settings: Callable[[str], Settings]) -> AsyncIterator[Api]:
    """An instance that leaves the housework to the tests: else it may do it in the midst of one."""

    async def leaves_it(_: Housekeeping, stop: asyncio.Event) -> None:
        await stop.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Housekeeping, "worker", leaves_it)
        async with engines.database() as url, serving(module_settings(url)) as served:
            yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


def call_of(at: datetime, n: int = 0) -> UUID:
    return UUID(int=int(at.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | n)


async def old_call(
    database: asyncpg.Connection,
    project: Project,
    call: UUID,
    *,
    ended: bool = True,  # type: ignore[type-arg]
) -> None:
    """With an event, a delivery and an attempt."""
    mine = ids.decode(ids.PROJECT, project.id)
    hook = uuid4()
    await database.execute(
        "insert into vx.calls (id, project_id, state, epoch, epoch_granted, grant_edges, grant_incarnations, grants_expire_at,"
        " attach_by, seq, feed_xid, request, placement, max_duration_s, created_at, ended_at)"
        " values ($1, $2, 'completed', 1, 1, '{}', '{}', 'infinity', 'infinity', 1, 1, '{}', '{}', 60, now() - interval '200 days',"
        " case when $3 then now() - interval '199 days' end)",
        call, mine, ended,
    )  # fmt: skip
    await database.execute(
        "insert into vx.events (call_id, seq, project_id, id, type, epoch, source, at, hash, feed_xid)"
        " values ($1, 1, $2, $3, 'call.created', 1, 'control', now(), '', 1)",
        call, mine, uuid4(),
    )  # fmt: skip
    await database.execute(
        "insert into vx.deliveries (call_id, webhook_id, seq, project_id, state) values ($1, $2, 1, $3, 'delivered')",
        call, hook, mine,
    )  # fmt: skip
    await database.execute(
        "insert into vx.delivery_attempts (call_id, webhook_id, seq, attempt, project_id, at, duration_ms)"
        " values ($1, $2, 1, 1, $3, now(), 1)",
        call, hook, mine,
    )  # fmt: skip
    await database.execute(
        "insert into vx.call_labels (label, call_id, project_id) values ($3, $1, $2)", call, mine, call.int & 0xFFFF
    )  # fmt: skip


async def left(database: asyncpg.Connection, call: UUID) -> set[str]:  # type: ignore[type-arg]
    return {
        table
        for table, key in TABLES.items()
        if await database.fetchval(f"select exists (select from vx.{table} where {key} = $1)", call)
    }


async def leaves(
    database: asyncpg.Connection,  # type: ignore[type-arg]
    call: UUID,
    tables: set[str],
    *drops: Callable[[], Awaitable[None]],
) -> None:
    """Does that housework until so much is left of the call: where somebody reads a table for long, it is put off."""
    with suppress(TimeoutError):
        async with asyncio.timeout(20):
            while await left(database, call) != tables:
                for drop in drops:
                    await drop()
    assert await left(database, call) == tables


class Ahead(SystemClock):
    def now(self) -> datetime:
        return super().now() + timedelta(days=60)


async def test_a_week_goes_with_its_deliveries_and_later_its_calls(api: Api, project: Project) -> None:
    at = datetime.now(UTC) - timedelta(days=150)
    call, young = call_of(at), call_of(datetime.now(UTC))
    housework = Housekeeping(api.control.db, api.control.clock)
    async with superuser(api) as database:
        await patiently(database, "select vx.ensure_partitions($1, 1)", at)
        await old_call(database, project, call)
        await old_call(database, project, young)
        path = f"/v1/calls/{ids.encode(ids.CALL, call)}"
        await housework.drop_calls()
        assert len(await left(database, call)) == 5, "its events are kept, and so is it"
        await leaves(database, call, {"calls", "call_labels"}, housework.drop_events)
        await Housekeeping(api.control.db, api.control.clock, calls_kept_d=200).drop_calls()
        assert await left(database, call) == {"calls", "call_labels"}
        await leaves(database, call, set(), housework.drop_calls)
        await Housekeeping(api.control.db, Ahead()).drop_events()
        assert len(await left(database, young)) == 5, "one instance's clock is not enough"
    assert (await project.client.get(path)).status_code == 404


async def test_usage_outlives_the_events_that_it_was_folded_from(api: Api, project: Project) -> None:
    at = datetime.now(UTC) - timedelta(days=150)
    call = call_of(at)
    path = f"/v1/calls/{ids.encode(ids.CALL, call)}/usage"
    asked = {"from": at.date().isoformat(), "to": (at + timedelta(days=2)).date().isoformat()}
    like = await create_call(project, await owners_in(api, ("eu-west",)))
    async with superuser(api) as database:
        await patiently(database, "select vx.ensure_partitions($1, 1)", at)
        await old_call(database, project, call)
        await database.execute(
            "update vx.calls c set request = l.request, placement = l.placement from vx.calls l where c.id = $1 and l.id = $2",
            call, ids.decode(ids.CALL, like.id),
        )  # fmt: skip
        of_owner = (call, ids.decode(ids.PROJECT, project.id), at.date())
        await database.execute(
            "insert into vx.usage_owners select $1, 1, $2, $3, 'eu-west', 'websocket', '', '', true, 1, 60000, 50000" + ", 0" * 9,
            *of_owner,
        )  # fmt: skip
        await database.execute("select vx.add_usage(array[$1::uuid], 1)", call)
        housework = Housekeeping(api.control.db, api.control.clock)
        await leaves(database, call, {"calls", "call_labels"}, housework.drop_events)
        for _ in range(2):
            found = (await project.client.get(path)).json()
            assert (found["total"]["calls"], found["total"]["caller_ms"]) == (1, 60_000), found
            assert [o["region"] for o in found["owners"]] == ["eu-west"]
            sums = (await project.client.get("/v1/usage", params=asked)).json()["total"]
            assert (sums["calls"], sums["caller_ms"], sums["agent_ms"]) == (1, 60_000, 50_000)
            # a word that comes so late that there is nothing left to fold it with
            await database.execute("insert into vx.usage_due (call_id, project_id) values ($1, $2)", *of_owner[:2])  # fmt: skip
            while await database.fetchval("select count(*) from vx.usage_due"):
                await database.fetchval("select vx.fold_usage(100)")
        await leaves(database, call, set(), housework.drop_calls)


async def test_a_call_that_has_not_ended_keeps_its_week(api: Api, project: Project) -> None:
    at = datetime.now(UTC) - timedelta(days=150)
    open_, over = call_of(at), call_of(at, 1)
    housework = Housekeeping(api.control.db, api.control.clock)
    async with superuser(api) as database:
        await patiently(database, "select vx.ensure_partitions($1, 1)", at)
        await old_call(database, project, open_, ended=False)
        await old_call(database, project, over)
        await housework.drop_events()
        await housework.drop_calls()
        assert len(await left(database, open_)) == len(await left(database, over)) == 5
        await database.execute(
            "update vx.calls set ended_at = now() - interval '100 days' where id = $1", open_
        )
        for call in (open_, over):
            await leaves(database, call, set(), housework.drop_events, housework.drop_calls)


async def test_what_a_clock_far_off_has_written_goes_too(api: Api, project: Project) -> None:
    at = datetime(2001, 1, 1, tzinfo=UTC)
    open_, over = call_of(at), call_of(at, 1)
    async with superuser(api) as database:
        await old_call(database, project, open_, ended=False)
        await old_call(database, project, over)
        await leaves(database, over, set(), Housekeeping(api.control.db, api.control.clock).drop_calls)
        assert len(await left(database, open_)) == 5
        await database.execute("delete from vx.calls where id = $1", open_)


async def test_removed_endpoints_go_once_nothing_names_them(api: Api, project: Project) -> None:
    made = [
        (await project.client.post("/v1/webhooks", json={"url": f"http://127.0.0.1:9/{n}"})).json()["id"]
        for n in range(3)
    ]
    hooks = [ids.decode(ids.WEBHOOK, hook) for hook in made]
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    await project.client.post(f"/v1/webhooks/{made[1]}/recover", json={"since": since})
    pool = api.control.db.pool("worker")
    async with superuser(api) as database:
        gone = "update vx.webhooks set deleted_at = now() - interval '91 days' where id = any($1::uuid[])"
        await database.execute(gone, hooks[:2])

        async def kept() -> set[UUID]:
            await pool.execute(DROP_REPLAYS)
            await pool.execute(DROP_WEBHOOKS)
            return {
                r["id"] for r in await database.fetch("select id from vx.webhooks where id = any($1)", hooks)
            }

        assert await kept() == set(hooks[1:])
        old = (
            "update vx.replays set done_at = now() - interval '91 days', state = 'done' where webhook_id = $1"
        )
        await database.execute(old, hooks[1])
        assert await kept() == {hooks[2]}


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Pacific/Kiritimati"])
async def test_weeks_are_the_same_wherever_the_server_is(engines: Engines, zone: str) -> None:
    """Also where its clocks are put forward or back in one of them: the first ones are made in the server's own zone."""

    async def weeks(zone: str) -> list[tuple[str, str]]:
        async with engines.database() as url:
            database = await asyncpg.connect(url)
            try:
                await database.execute(f"set timezone to '{zone}'")
                for first in (datetime(2029, 3, 1, tzinfo=UTC), datetime(2029, 10, 15, tzinfo=UTC)):
                    for later in range(5):
                        at = first + timedelta(weeks=later)
                        await database.execute("select vx.ensure_partitions($1, 4)", at)
                made = await database.fetch(
                    "select relname, pg_get_expr(relpartbound, oid) as bound from pg_class"
                    " where relname ~ '^events_2029w' and relkind = 'r' order by 1"
                )
            finally:
                await database.close()
        return [(r["relname"], r["bound"]) for r in made]

    utc = await weeks("UTC")
    assert len(utc) == 16
    assert await weeks(zone) == utc
