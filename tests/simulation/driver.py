"""The driver's surface as production uses it, over the modelled cluster: pools, connections, deadlines, transactions.

Decides nothing of what a statement does. A connection belongs to the member it was opened to; one whose member has died or
lost its role is broken, and the pool opens another to whoever is primary then. A deadline that passes raises `TimeoutError`
and asks the server to cancel; a commit that came with a warning raises `CommitUnknown`. As in `app.db`, one connection that
shows that its server is no use any more has all of its instance's opened anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any
from uuid import UUID

from app.connection import CommitUnknown, has_moved
from app.db import COMMAND_DEADLINE_S, EXPIRE_EVERY_S, POOL_MAX, Role
from app.primary import CONNECT_DEADLINE_S, NoPrimary
from tests.simulation.loop import Life
from tests.simulation.postgres import COMMIT, Block, Cluster, Member, Statement
from tests.simulation.tables import Row

CELL = 0
WARNINGS = True
"""Whether a warning on commit is heard."""


class Connection:
    """One at a time: `statement` is what it waits for."""

    def __init__(self, database: SimDatabase, cluster: Cluster, life: Life, member: Member) -> None:
        self.database = database
        self.expired_with = database.generation
        self.cluster = cluster
        self.life = life
        self.member = member
        self.generation = member.generation
        self.broken = False
        self.statement: Statement | None = None
        self._block: Block | None = None
        cluster.connections[self] = None

    async def fetch(self, text: str, *args: Any, timeout: float | None = None) -> list[Row]:
        return await self._run(text, args, timeout or COMMAND_DEADLINE_S)

    async def fetchrow(self, text: str, *args: Any, timeout: float | None = None) -> Row | None:
        rows = await self.fetch(text, *args, timeout=timeout)
        return rows[0] if rows else None

    async def fetchval(self, text: str, *args: Any, timeout: float | None = None) -> Any:
        row = await self.fetchrow(text, *args, timeout=timeout)
        return next(iter(row.values())) if row else None

    async def execute(self, text: str, *args: Any, timeout: float | None = None) -> str:
        await self.fetch(text, *args, timeout=timeout)
        return "OK"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Reads alone are statements like any other; from the first that locks or writes on they stand or fall together."""
        block = self._block = Block()
        try:
            yield
            if block.txn is not None:
                await self._run(COMMIT, (), COMMAND_DEADLINE_S)
        except BaseException:
            self.cluster.roll_back(self.member, block)
            raise
        finally:
            self._block = None

    async def _run(self, text: str, args: tuple[Any, ...], timeout_s: float) -> list[Row]:
        loop = self.cluster.loop
        future: asyncio.Future[list[Row]] = loop.create_future()

        def told(outcome: list[Row] | Exception, warned: bool) -> None:
            if future.done():
                return
            if isinstance(outcome, Exception):
                self.broken = True
                future.set_exception(outcome)
            elif warned and WARNINGS:
                future.set_exception(Unacknowledged(outcome))
            else:
                future.set_result(outcome)

        def late() -> None:
            if not future.done():
                self.cluster.cancel(self.member, statement)
                self.broken = True
                future.set_exception(TimeoutError())

        statement = self.statement = Statement(
            self.life, text, args, told, self.generation, block=self._block
        )
        self.cluster.submit(self.member, statement)
        timer = loop.call_later(timeout_s, late)
        try:
            return await future
        except asyncio.CancelledError:
            self.cluster.cancel(self.member, statement)
            self.broken = True
            raise
        except Exception as error:
            self.database.shows(error, self.expired_with)
            raise
        finally:
            self.statement = None
            timer.cancel()


class Unacknowledged(CommitUnknown):
    """`rows`: what production never sees, for the commit is unknown."""

    def __init__(self, rows: list[Row]) -> None:
        super().__init__("the wait for the standbys was cut short")
        self.rows = rows


class Pool:
    def __init__(self, database: SimDatabase, cluster: Cluster, life: Life, size: int) -> None:
        self._database = database
        self._cluster = cluster
        self._life = life
        self._free = size
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()

    def acquire(self, *, timeout: float | None = None) -> _Acquired:
        return _Acquired(self)

    async def fetch(self, text: str, *args: Any, timeout: float | None = None) -> list[Row]:
        async with self.acquire() as connection:
            return await connection.fetch(text, *args, timeout=timeout)

    async def fetchrow(self, text: str, *args: Any, timeout: float | None = None) -> Row | None:
        async with self.acquire() as connection:
            return await connection.fetchrow(text, *args, timeout=timeout)

    async def fetchval(self, text: str, *args: Any, timeout: float | None = None) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchval(text, *args, timeout=timeout)

    async def execute(self, text: str, *args: Any, timeout: float | None = None) -> str:
        async with self.acquire() as connection:
            return await connection.execute(text, *args, timeout=timeout)

    async def take(self) -> Connection:
        while self._free == 0:
            waits = self._cluster.loop.create_future()
            self._waiting.append(waits)
            try:
                await waits
            except asyncio.CancelledError:
                if waits.done() and not waits.cancelled():
                    self._wake()
                raise
        self._free -= 1
        try:
            while self._idle:
                connection = self._idle.pop()
                if not connection.broken and connection.expired_with == self._database.generation:
                    return connection
                self._cluster.connections.pop(connection, None)
            return await self._open()
        except BaseException:
            self._free += 1
            self._wake()
            raise

    def give_back(self, connection: Connection) -> None:
        self._free += 1
        if connection.broken:
            self._cluster.connections.pop(connection, None)
        else:
            self._idle.append(connection)
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            waits = self._waiting.popleft()
            if not waits.done():
                waits.set_result(None)
                return

    async def _open(self) -> Connection:
        """To the primary. The hosts are asked in turn; while none says that it is the one, there is no connection."""
        loop = self._cluster.loop
        member = self._cluster.found_by(self._life.machine)
        if member is None:
            await asyncio.sleep(0.1)
            member = self._cluster.found_by(self._life.machine)
            if member is None:
                hidden = self._cluster.primary
                if hidden is not None and hidden.life.alive:
                    await asyncio.sleep(CONNECT_DEADLINE_S - 0.1)
                    raise TimeoutError
                raise NoPrimary("no host of the cluster takes writes")
        if loop.now > 0:
            await asyncio.sleep(2 * self._cluster.network.latency_s(self._life.machine, member.machine))
        return Connection(self._database, self._cluster, self._life, member)


class _Acquired:
    """What `pool.acquire()` gives: to be entered, or awaited."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection: Connection | None = None

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.take()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._connection is not None
        self._pool.give_back(self._connection)


class SimDatabase:
    """`app.db.Database` of one instance."""

    def __init__(self, cluster: Cluster, life: Life) -> None:
        self.cell = CELL
        self.generation = 0
        self._loop = cluster.loop
        self._expired_s = -EXPIRE_EVERY_S
        self._pools = {role: Pool(self, cluster, life, size) for role, size in POOL_MAX.items()}

    def shows(self, error: Exception, generation: int) -> None:
        """What a statement has met: where another server may take writes by now, no connection of before is used again."""
        if (
            has_moved(error)
            and generation == self.generation
            and self._loop.now - self._expired_s >= EXPIRE_EVERY_S
        ):
            self._expired_s = self._loop.now
            self.generation += 1

    def pool(self, role: Role) -> Pool:
        return self._pools[role]

    @asynccontextmanager
    async def project_driver(self, project_id: UUID) -> AsyncIterator[Connection]:
        async with self._pools["api"].acquire(timeout=COMMAND_DEADLINE_S) as connection:
            yield connection
