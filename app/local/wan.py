"""A wide-area network on one machine: TCP links with a delay, that can be cut.

Decides only when bytes arrive: each chunk after the link's one-way delay, in order, many under way at once. While a link is
cut nothing arrives, and nothing says so: no data, no end of a stream. What was sent meanwhile arrives when it is healed, as
TCP would send it again. A link can be cut one way only; then no connection comes about either, for that takes both.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

CHUNK_BYTES = 64 * 1024
QUEUED_BYTES_MAX = 1 << 20
LINGER_S = 5.0
"""How long one direction may go on after the other has ended."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Way = Literal["both", "out", "back"]
"""`out`: what the side that connected sends; `back`: what it gets."""


@dataclass(slots=True)
class Link:
    """Listens on `port` (0: any) and forwards to (target_host, target_port) with `one_way_ms` each way."""

    target_host: str
    target_port: int
    one_way_ms: float
    port: int = 0
    _out: asyncio.Event = field(default_factory=asyncio.Event)
    _back: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _pairs: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Link:
        self.heal()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        self._server.close()
        self.reset()
        await asyncio.gather(*self._pairs, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self, way: Way = "both") -> None:
        """From now on nothing arrives (that way), and nothing says so."""
        if way in ("both", "out"):
            self._out.clear()
        if way in ("both", "back"):
            self._back.clear()

    def heal(self) -> None:
        self._out.set()
        self._back.set()

    def reset(self) -> None:
        """Breaks off every connection (RST, to both sides); new ones may come."""
        for pair in list(self._pairs):
            pair.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._pairs.add(task)
        task.add_done_callback(self._pairs.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection; a side that breaks off breaks the other, a side that ends lets the other finish."""
        ends = [writer]
        try:
            # a handshake takes a round trip
            await asyncio.sleep(2 * self.one_way_ms / 1000)
            await self._out.wait()
            await self._back.wait()
            far_reader, far_writer = await asyncio.open_connection(self.target_host, self.target_port)
            ends.append(far_writer)
            out = asyncio.create_task(self._pipe(reader, far_writer, self._out))
            back = asyncio.create_task(self._pipe(far_reader, writer, self._back))
            both = {out, back}
            try:
                done, rest = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if rest and all(direction.exception() is None for direction in done):
                    await asyncio.wait(rest, timeout=LINGER_S + self.one_way_ms / 1000)
            finally:
                for direction in both:
                    direction.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        except OSError:
            pass
        except asyncio.CancelledError:
            for end in ends:
                _break_off(end)
            raise
        finally:
            for end in ends:
                end.transport.abort()

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, whole: asyncio.Event
    ) -> None:
        """One direction, to its end: a reader that notes when each chunk is due, and a writer that waits for it."""
        queue = _Queue()
        reading = asyncio.create_task(self._read(reader, queue))
        try:
            while True:
                due, chunk = await queue.next()
                pause_s = due - asyncio.get_running_loop().time()
                if pause_s > 0:
                    await asyncio.sleep(pause_s)
                await whole.wait()
                if not chunk:
                    writer.write_eof()
                    await writer.drain()
                    return reading.result()
                writer.write(chunk)
                await writer.drain()
                queue.took(len(chunk))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader, queue: _Queue) -> None:
        """Raises `OSError` where the sender broke off: the end of the stream stands in the queue in both cases."""
        loop = asyncio.get_running_loop()
        chunk = b"-"
        while chunk:
            await queue.room()
            try:
                chunk = await reader.read(CHUNK_BYTES)
            except OSError:
                queue.add(loop.time() + self.one_way_ms / 1000, b"")
                raise
            queue.add(loop.time() + self.one_way_ms / 1000, chunk)


def _break_off(end: asyncio.StreamWriter) -> None:
    """The close that follows is a reset."""
    with contextlib.suppress(OSError):
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


class _Queue:
    """Chunks under way, with the time each is due; bounded."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._came, self._left = asyncio.Event(), asyncio.Event()
        self._bytes = 0

    def add(self, due: float, chunk: bytes) -> None:
        self._chunks.append((due, chunk))
        self._bytes += len(chunk)
        self._came.set()

    async def next(self) -> tuple[float, bytes]:
        while not self._chunks:
            self._came.clear()
            await self._came.wait()
        return self._chunks.popleft()

    def took(self, size: int) -> None:
        self._bytes -= size
        self._left.set()

    async def room(self) -> None:
        while self._bytes > QUEUED_BYTES_MAX:
            self._left.clear()
            await self._left.wait()
