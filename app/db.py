"""The way to PostgreSQL: one pool per role, each with deadlines; Core for the ordinary, the driver for the hot.

Decides how connections are made and bounded and how a project is named in a transaction. Leaves every statement to
the `store` modules. asyncpg has no deadline of its own, so every pool carries one: a dead socket costs seconds, not
for ever.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

Role = Literal["api", "keys", "append", "worker", "admin"]

COMMAND_DEADLINE_S = 5.0
CONNECT_DEADLINE_S = 5.0
TRANSACTION_DEADLINE_MS = 5_000

POOL_MAX: dict[Role, int] = {"api": 6, "keys": 2, "append": 4, "worker": 4, "admin": 3}
CORE_ROLES: tuple[Role, ...] = ("api", "admin", "worker")


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # untyped driver
    """Returned to its pool without the driver's usual round trip that undoes session state: our statements leave none (what
    they set is local to the transaction, and none listens or takes session locks). An open transaction is still rolled back."""

    def get_reset_query(self) -> str:
        return ""


class Database:
    """One cell. Open it with `async with Database.open(url) as db`.

    `urls` may name a login of its own for a role; else the one URL serves all and the role is set at connection time.
    """

    def __init__(self, cell: int, pools: dict[Role, asyncpg.Pool], engines: dict[Role, AsyncEngine]) -> None:
        self.cell = cell
        self._pools = pools
        self._engines = engines

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, cell: int = 0, urls: dict[str, str] | None = None, application: str = "voxplane"
    ) -> AsyncIterator[Database]:
        pools: dict[Role, asyncpg.Pool] = {}
        engines: dict[Role, AsyncEngine] = {}
        try:
            for role, size in POOL_MAX.items():
                settings = session_settings(role, application)
                dsn = (urls or {}).get(role, url)
                pools[role] = await asyncpg.create_pool(
                    dsn,
                    min_size=0,
                    max_size=size,
                    timeout=CONNECT_DEADLINE_S,
                    command_timeout=COMMAND_DEADLINE_S,
                    server_settings=settings,
                    max_inactive_connection_lifetime=300,
                    statement_cache_size=200,
                    connection_class=_Connection,
                )
                if role in CORE_ROLES:
                    engines[role] = create_async_engine(
                        "postgresql+asyncpg://",
                        async_creator=connector(dsn, settings),
                        pool_size=2,
                        max_overflow=size,
                        pool_timeout=COMMAND_DEADLINE_S,
                        pool_recycle=300,
                    )
            yield cls(cell, pools, engines)
        finally:
            for engine in engines.values():
                await engine.dispose()
            for pool in pools.values():
                pool.terminate()

    def pool(self, role: Role) -> asyncpg.Pool:
        """The driver's pool for hot statements. JSON goes in and comes out as text."""
        return self._pools[role]

    @asynccontextmanager
    async def transaction(self, role: Role) -> AsyncIterator[AsyncConnection]:
        """A Core transaction as `role` that names no project: as `api` it sees no project's rows."""
        async with self._engines[role].begin() as connection:
            yield connection

    @asynccontextmanager
    async def project(self, project_id: UUID) -> AsyncIterator[AsyncConnection]:
        """A Core transaction as `api` in which row-level security shows one project and nothing else."""
        async with self._engines["api"].begin() as connection:
            await connection.execute(SET_PROJECT, {"project": str(project_id)})
            yield connection

    @asynccontextmanager
    async def project_driver(self, project_id: UUID) -> AsyncIterator[Any]:
        """The same on a driver connection."""
        async with (
            self._pools["api"].acquire(timeout=COMMAND_DEADLINE_S) as connection,
            connection.transaction(),
        ):
            await connection.execute("select set_config('vx.project', $1, true)", str(project_id))
            yield connection


SET_PROJECT = text("select set_config('vx.project', :project, true)")


def connector(dsn: str, settings: dict[str, str]) -> Callable[[], Awaitable[Any]]:
    """The driver reads the URL by itself: `sslmode` and several hosts mean the same here as in its pools."""

    async def connect() -> Any:
        return await asyncpg.connect(
            dsn, timeout=CONNECT_DEADLINE_S, command_timeout=COMMAND_DEADLINE_S, server_settings=settings
        )

    return connect


def session_settings(role: Role, application: str) -> dict[str, str]:
    """What every session of `role` starts with; `RESET ALL` returns to it."""
    return {
        "role": f"vx_{role}",
        "application_name": f"{application}:{role}",
        "search_path": "vx",
        "timezone": "UTC",
        "statement_timeout": str(TRANSACTION_DEADLINE_MS),
        "idle_in_transaction_session_timeout": str(TRANSACTION_DEADLINE_MS),
        "lock_timeout": "2000",
        # plans of the hot functions are the same for every value: do not plan them anew
        "plan_cache_mode": "auto",
    }
