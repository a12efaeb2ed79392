"""The way to PostgreSQL: one pool per role, each with deadlines; Core for the ordinary, the driver for the hot.

Decides how connections are made, bounded and given up, and how a project is named in a transaction; and that a database which
remembers to be another cell is not used. Leaves every
statement to the `store` modules. asyncpg has no deadline of its own, so every pool carries one: a dead socket costs
seconds, not for ever. When one connection shows that its server takes no more writes, all are made anew, so that an
instance follows the primary by itself.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import event, text
from sqlalchemy.exc import DisconnectionError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.cells.identity import check_cell
from app.connection import Connection, has_moved, trouble_of
from app.pools import open_pool
from app.primary import Hosts

log = structlog.get_logger()

Role = Literal["api", "keys", "append", "worker", "admin"]

COMMAND_DEADLINE_S = 5.0
TRANSACTION_DEADLINE_MS = 5_000
EXPIRE_EVERY_S = 0.5
TROUBLE_SHOWN_S = 3.0
NOW = "select clock_timestamp()"

POOL_MAX: dict[Role, int] = {"api": 6, "keys": 2, "append": 8, "worker": 4, "admin": 3}
CORE_ROLES: tuple[Role, ...] = ("api", "admin", "worker")


class Database:
    """One cell. Open it with `async with Database.open(url) as db`.

    `urls` may name a login of its own for a role; else the one URL serves all and the role is set at connection time.
    """

    def __init__(self, cell: int, jurisdiction: str = "") -> None:
        self.cell = cell
        self.jurisdiction = jurisdiction
        self._pools: dict[Role, asyncpg.Pool] = {}
        self._engines: dict[Role, AsyncEngine] = {}
        self._generation = 0
        self._expired_s = -EXPIRE_EVERY_S
        self._trouble: tuple[float, str] = (-TROUBLE_SHOWN_S, "")

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        cell: int = 0,
        jurisdiction: str = "",
        urls: dict[str, str] | None = None,
        application: str = "voxplane",
    ) -> AsyncIterator[Database]:
        """`jurisdiction`: where the cell lies; empty where the deployment names none."""
        db = cls(cell, jurisdiction)
        hosts: dict[str, Hosts] = {}
        try:
            for role, size in POOL_MAX.items():
                dsn = (urls or {}).get(role, url)
                servers = hosts.setdefault(dsn, Hosts(dsn))
                connect = db._connector(servers, session_settings(role, application))
                db._pools[role] = await open_pool(role, size, connect)
                if role in CORE_ROLES:
                    db._engines[role] = create_async_engine(
                        "postgresql+asyncpg://",
                        async_creator=connect,
                        pool_size=2,
                        max_overflow=size,
                        pool_timeout=COMMAND_DEADLINE_S,
                        pool_recycle=300,
                    )
                    event.listen(db._engines[role].sync_engine, "checkout", db._check_out)
            yield db
        finally:
            for engine in db._engines.values():
                await engine.dispose()
            for pool in db._pools.values():
                pool.terminate()

    @property
    def trouble(self) -> str:
        """What a statement has met within the last seconds (see `app.connection.trouble_of`); empty: nothing."""
        at_s, name = self._trouble
        return name if time.monotonic() - at_s < TROUBLE_SHOWN_S else ""

    def _connector(self, hosts: Hosts, settings: dict[str, str]) -> Callable[..., Awaitable[Connection]]:
        """The same for the driver's pools, which say more than is wanted here, and for the toolkit's."""

        async def on_trouble(connection: Connection, error: BaseException) -> None:
            await self._note(hosts, connection, error)

        async def connect(*_: Any, **__: Any) -> Connection:
            try:
                connection: Connection = await hosts.connect(
                    command_timeout=COMMAND_DEADLINE_S,
                    server_settings=settings,
                    statement_cache_size=200,
                    connection_class=Connection,
                )
                await self._check_cell(connection)
            except Exception as error:
                self._shows(error)
                raise
            connection.on_trouble = on_trouble
            connection.generation = self._generation
            return connection

        return connect

    async def _check_cell(self, connection: Connection) -> None:
        try:
            await check_cell(connection, self.cell, self.jurisdiction)
        except BaseException:
            connection.terminate()
            raise

    async def _note(self, hosts: Hosts, connection: Connection, error: BaseException) -> None:
        self._shows(error)
        if not has_moved(error) or connection.generation != self._generation:
            return
        now_s = time.monotonic()
        if now_s - self._expired_s < EXPIRE_EVERY_S:
            return
        self._expired_s = now_s
        self._generation += 1
        hosts.distrust()
        for pool in self._pools.values():
            await pool.expire_connections()
        log.warning("database.reconnecting", why=trouble_of(error), error=type(error).__name__)

    def _shows(self, error: BaseException) -> None:
        name = trouble_of(error)
        if name:
            self._trouble = (time.monotonic(), name)

    def _check_out(self, connection: Any, _: Any, __: Any) -> None:
        """The toolkit's pools: what is closed or expired is made anew before it is handed out."""
        driver: Connection = connection.driver_connection
        if driver.is_closed() or driver.generation != self._generation:
            raise DisconnectionError("expired")

    def pool(self, role: Role) -> asyncpg.Pool:
        """The driver's pool for hot statements. JSON goes in and comes out as text."""
        return self._pools[role]

    async def earlier(self, now: datetime) -> datetime:
        """Of this time and the database's. What is destroyed for its age is old by both: a clock that is ahead destroys nothing."""
        theirs: datetime = await self.pool("worker").fetchval(NOW)
        return min(now, theirs)

    @asynccontextmanager
    async def transaction(self, role: Role) -> AsyncIterator[AsyncConnection]:
        """A Core transaction as `role` that names no project: as `api` it sees no project's rows."""
        async with self._begin(role) as connection:
            yield connection

    @asynccontextmanager
    async def project(self, project_id: UUID) -> AsyncIterator[AsyncConnection]:
        """A Core transaction as `api` in which row-level security shows one project and nothing else."""
        async with self._begin("api") as connection:
            await connection.execute(SET_PROJECT, {"project": str(project_id)})
            yield connection

    @asynccontextmanager
    async def _begin(self, role: Role) -> AsyncIterator[AsyncConnection]:
        try:
            connection = await self._engines[role].connect()
        except InvalidRequestError as error:
            # what was made anew has been lost again before it could be handed out
            raise ConnectionError(str(error)) from None
        try:
            async with connection.begin():
                yield connection
        finally:
            await connection.close()

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
        # the functions whose plans are the same for every value say so themselves
        "plan_cache_mode": "auto",
    }
