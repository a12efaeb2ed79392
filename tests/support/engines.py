"""The engines that tests run on: a real PostgreSQL with a migrated template, and real Valkeys, one per region."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import redis.asyncio as redis

from app.local.postgres import Postgres
from app.local.valkey import Valkey
from app.migrate import migrate

TEMPLATE = "template_vx"
REGIONS = ("us-east", "eu-west")


@dataclass(slots=True)
class Engines:
    """Started once per test process. Databases are clones of one template, so that a fresh one costs milliseconds."""

    folder: Path
    postgres: Postgres
    valkeys: dict[str, Valkey]
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def redis_urls(self) -> dict[str, str]:
        return {region: valkey.url for region, valkey in self.valkeys.items()}

    @asynccontextmanager
    async def database(self, *, template: str = TEMPLATE) -> AsyncIterator[str]:
        """The URL of a fresh database, dropped at the end; `template0` for one without a schema."""
        name = f"vx_{os.getpid()}_{next(self._numbers)}"
        await self.execute(f"create database {name} template {template}")
        try:
            yield self.postgres.dsn_of(name)
        finally:
            await self.execute(f"drop database {name} with (force)")

    async def execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.postgres.dsn_of("postgres"), timeout=10)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def flush(self) -> None:
        for url in self.redis_urls.values():
            async with redis.from_url(url) as client:
                await client.flushall()


@contextmanager
def running_engines() -> Iterator[Engines]:
    """Below the system's temporary folder and not pytest's, which the engines' user may not enter."""
    folder = Path(tempfile.mkdtemp(prefix="voxplane-test-"))
    folder.chmod(0o755)
    postgres = Postgres(folder / "postgres", fsync=False, max_connections=300, database=TEMPLATE)
    valkeys = {region: Valkey(folder / f"valkey-{region}") for region in REGIONS}
    stack = AsyncExitStack()

    async def start() -> None:
        for engine in (postgres, *valkeys.values()):
            await stack.enter_async_context(engine)
        await migrate(postgres.dsn)

    with asyncio.Runner() as runner:
        try:
            runner.run(start())
            yield Engines(folder, postgres, valkeys)
        finally:
            runner.run(stack.aclose())
            shutil.rmtree(folder, ignore_errors=True)
