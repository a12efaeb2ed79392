"""A PostgreSQL that can be told to wait for a standby which does not exist, and whose waits can be cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

WAITING = "select pid from pg_stat_activity where wait_event = 'SyncRep' and datname = current_database()"
CUT = "select count(pg_cancel_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep' and application_name like $1"


@dataclass(slots=True)
class Quorum:
    """Over a superuser's connection to the database under test."""

    url: str
    superuser: asyncpg.Connection

    async def require(self) -> None:
        """Returns once commits do wait: the setting is there before the server heeds it."""
        await self._set("'nobody_there'")
        probe = await asyncpg.connect(self.url)
        try:
            while True:
                writing = asyncio.create_task(
                    probe.execute("select pg_logical_emit_message(true, 'test', '')")
                )
                while not writing.done():
                    if (pid := probe.get_server_pid()) in await self.waiting():
                        await self.superuser.execute("select pg_cancel_backend($1)", pid)
                        await writing
                        return
                    await asyncio.sleep(0.002)
        finally:
            await probe.close()

    async def lift(self) -> None:
        """All that waits goes on."""
        await self._set("''")
        while await self.waiting():
            await asyncio.sleep(0.002)

    async def _set(self, names: str) -> None:
        await self.superuser.execute(f"alter system set synchronous_standby_names = {names}")
        await self.superuser.execute("select pg_reload_conf()")

    async def waiting(self) -> list[int]:
        return [row["pid"] for row in await self.superuser.fetch(WAITING)]

    @asynccontextmanager
    async def cutting(self, who: str = "%") -> AsyncIterator[Callable[[], int]]:
        """Cuts every wait of sessions named like `who` short, as soon as it begins. Gives the number of waits that were cut."""
        cut = 0

        async def always() -> None:
            nonlocal cut
            connection = await asyncpg.connect(self.url)
            try:
                while True:
                    cut += await connection.fetchval(CUT, who)
                    await asyncio.sleep(0.005)
            finally:
                await connection.close()

        task = asyncio.create_task(always())
        try:
            yield lambda: cut
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def quorum(url: str) -> AsyncIterator[Quorum]:
    superuser = await asyncpg.connect(url)
    try:
        made = Quorum(url, superuser)
        yield made
        await made.lift()
    finally:
        await superuser.close()
