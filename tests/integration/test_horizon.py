"""What the durable horizon has let through stays behind it, also where the server is killed right after it was read."""

from __future__ import annotations

import asyncio
import signal
from contextlib import aclosing
from uuid import uuid4

import asyncpg
import pytest

from app.db import Database
from app.errors import BadRequest
from app.local.postgres import Postgres
from app.log.feeds import Feeds
from app.log.horizon import Bound, Horizon
from app.migrate import migrate
from tests.support.api import Api, Project
from tests.support.engines import Engines
from tests.support.placement import project_uuid


async def test_a_number_that_a_crash_makes_the_server_give_out_again_was_never_passed(
    engines: Engines,
) -> None:
    """A transaction that wrote nothing, or was rolled back, leaves a record that nobody waits for: without it the server forgets
    that its number was used. An event under that number would stand behind every reader that had passed it."""
    folder = engines.folder / f"crashed-{uuid4().hex[:8]}"
    lazily = {"wal_writer_delay": "10s"}
    async with Postgres(folder, fsync=False, settings=lazily) as postgres:
        await migrate(postgres.dsn)
        connection = await asyncpg.connect(postgres.dsn)
        async with Database.open(postgres.dsn) as db:
            horizon = Horizon(db)
            await horizon.read()
            for _ in range(20):
                await connection.fetchval("select pg_current_xact_id()::text")
            passed = await horizon.read()
            postgres.process.send_signal(signal.SIGKILL)
            postgres.process.wait()
    async with Postgres(folder, fsync=False) as again:
        connection = await asyncpg.connect(again.dsn)
        following = int(await connection.fetchval("select pg_current_xact_id()::text"))
        await connection.close()
    assert following >= passed


async def test_a_reader_that_has_passed_what_a_database_that_was_set_back_comes_to_again_is_told(
    api: Api, project: Project
) -> None:
    """What is written there under the numbers it has passed would never reach it, and it would not know."""
    control = api.control
    horizon = Horizon(control.db)
    feeds = Feeds(control.db, control.vault, control.clock, control.hints, horizon)
    newest, project_id = await feeds.newest(), project_uuid(project)
    follow = feeds.follow(project_id, newest, look_every_s=0.05, stop=asyncio.Event(), is_newest=True)
    async with aclosing(follow), asyncio.timeout(10):
        assert (await anext(follow))[1] == []

        async def set_back(_: bool) -> tuple[Bound, bool]:
            return Bound(newest.feed_xid - 100, newest.feed_xid - 100), False

        horizon._read = set_back  # type: ignore[method-assign]
        with pytest.raises(BadRequest, match="ahead of the log"):
            await feeds.page(project_id, newest)
        with pytest.raises(BadRequest, match="ahead of the log"):
            [found async for _, found in follow]
