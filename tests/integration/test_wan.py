"""The emulated network: it delays, keeps the order, lets a stream end as it should, and hides a cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from app.local.wan import Link

WITHIN_S = 15


@dataclass
class Server:
    """Echoes; `farewell` is sent when the client has said its last word."""

    farewell: bytes = b""
    port: int = 0
    open: int = 0
    arrived: list[float] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while data := await reader.read(65_536):
                self.arrived.append(asyncio.get_running_loop().time())
                writer.write(data)
                await writer.drain()
            writer.write(self.farewell)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Server]:
        async with await asyncio.start_server(self.serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self


@asynccontextmanager
async def linked(
    one_way_ms: float, server: Server
) -> AsyncIterator[tuple[Link, asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(WITHIN_S), server.run(), Link("127.0.0.1", server.port, one_way_ms) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        yield link, reader, writer
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_each_way_takes_the_one_way_delay() -> None:
    server = Server()
    async with linked(60, server) as (_, reader, writer):
        loop = asyncio.get_running_loop()
        writer.write(b"opened")
        await reader.readexactly(6)
        sent = loop.time()
        writer.write(b"there")
        assert await reader.readexactly(5) == b"there"
        assert server.arrived[-1] - sent >= 0.06
        assert loop.time() - server.arrived[-1] >= 0.06


async def test_a_long_stream_comes_whole_and_in_order() -> None:
    data = bytes(range(256)) * 16_384
    async with linked(5, Server()) as (_, reader, writer):
        writer.write(data)
        sending = asyncio.create_task(writer.drain())
        assert await reader.readexactly(len(data)) == data
        await sending


async def test_one_side_may_end_and_still_hear_the_other() -> None:
    async with linked(5, Server(farewell=b"farewell")) as (_, reader, writer):
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hellofarewell"


async def test_a_side_that_breaks_off_breaks_the_other() -> None:
    server = Server()
    async with linked(5, server) as (link, reader, writer):
        writer.write(b"hello")
        await reader.readexactly(5)
        writer.transport.abort()
        while server.open or link._pairs:
            await asyncio.sleep(0.005)


async def test_nobody_there_is_heard_as_a_closed_socket() -> None:
    async with asyncio.timeout(WITHIN_S), Server().run() as server:
        port = server.port
    async with asyncio.timeout(WITHIN_S), Link("127.0.0.1", port, 1) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        assert await reader.read() == b""
        writer.close()


async def test_a_cut_hides_everything_and_healing_brings_it() -> None:
    server = Server(farewell=b"farewell")
    async with linked(1, server) as (link, reader, writer):
        writer.write(b"before")
        await reader.readexactly(6)
        link.cut()
        writer.write(b"meanwhile")
        writer.write_eof()
        early = asyncio.create_task(reader.read(1))
        done, _ = await asyncio.wait({early}, timeout=0.1)
        assert not done
        assert (server.open, len(server.arrived)) == (1, 1)
        link.heal()
        assert await early + await reader.read() == b"meanwhilefarewell"


async def test_closing_a_link_closes_what_it_carries() -> None:
    server = Server()
    async with asyncio.timeout(WITHIN_S), server.run():
        async with Link("127.0.0.1", server.port, 1) as link:
            reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
            writer.write(b"hello")
            await reader.readexactly(5)
            link.cut()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        while server.open:
            await asyncio.sleep(0.005)
        writer.close()
        assert not link._pairs


async def test_one_way_may_be_cut_alone() -> None:
    server = Server(farewell=b"farewell")
    async with linked(1, server) as (link, reader, writer):
        writer.write(b"before")
        await reader.readexactly(6)
        link.cut("back")
        writer.write(b"meanwhile")
        while len(server.arrived) < 2:
            await asyncio.sleep(0.005)
        early = asyncio.create_task(reader.readexactly(9))
        done, _ = await asyncio.wait({early}, timeout=0.1)
        assert not done, "the answer is held back"
        link.heal()
        assert await early == b"meanwhile"
        link.cut("out")
        writer.write(b"too late")
        done, _ = await asyncio.wait({asyncio.create_task(reader.read(1))}, timeout=0.1)
        assert not done
        assert len(server.arrived) == 2


async def test_a_reset_breaks_off_both_sides_and_lets_new_ones_in() -> None:
    server = Server()
    async with linked(1, server) as (link, reader, writer):
        writer.write(b"hello")
        await reader.readexactly(5)
        link.reset()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        while server.open:
            await asyncio.sleep(0.005)
        again, more = await asyncio.open_connection("127.0.0.1", link.port)
        more.write(b"hello")
        assert await again.readexactly(5) == b"hello"
        more.close()


async def test_both_sides_may_end_at_the_same_moment() -> None:
    came, end = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await end.wait()
        writer.write_eof()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(WITHIN_S), server, Link("127.0.0.1", port, 0) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        await came.wait()
        link.cut()
        end.set()
        writer.write_eof()
        for _ in range(50):
            await asyncio.sleep(0.001)
        (pair,) = link._pairs
        link.heal()
        await asyncio.wait({pair})
        assert pair.exception() is None
        assert await reader.read() == b""
        writer.close()
