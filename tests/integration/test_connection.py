"""A connection whose server has ended: what its next user is told, and that the pool goes on with another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from app.connection import is_away
from app.db import Database
from tests.support.edges import until


class Relay:
    """Carries what the server says, and keeps its end to itself: between the two, a connection looks open and is not."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: list[asyncio.StreamWriter] = []
        self.ended = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for writer in self._writers:
                writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, far_writer]
        there = asyncio.create_task(self._carry(reader, far_writer))
        await self._carry(far_reader, writer)
        self.ended += 1
        there.cancel()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except ConnectionError:
            return


async def test_a_server_that_says_goodbye_on_an_idle_connection_is_away(database_url: str) -> None:
    parsed = urlsplit(database_url)
    relay = Relay(parsed.port or 0)
    async with asyncio.timeout(30), relay.listening() as port:
        netloc = f"{parsed.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
        async with Database.open(urlunsplit(parsed._replace(netloc=netloc))) as db:
            pool = db.pool("worker")
            pid = await pool.fetchval("select pg_backend_pid()")
            other = await asyncpg.connect(database_url)
            await other.execute("select pg_terminate_backend($1)", pid)
            await other.close()
            await until(lambda: relay.ended, "the server has not ended the connection")

            with pytest.raises(asyncpg.ConnectionDoesNotExistError) as caught:
                await pool.fetchval("select 1")
            assert is_away(caught.value)
            assert await pool.fetchval("select 1") == 1
