"""A wide-area network on one machine: TCP links with a delay, that can be cut.

Decides only when bytes arrive: each chunk after the link's one-way delay, in order, many under way at once. A link that is
cut drops everything silently, as a network does. Runs in the process that uses it, or in one of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType

CHUNK_BYTES = 64 * 1024
QUEUED_BYTES_MAX = 1 << 20


@dataclass(slots=True)
class Link:
    """Listens on `port` (0: any) and forwards to (target_host, target_port) with `one_way_ms` each way."""

    target_host: str
    target_port: int
    one_way_ms: float
    port: int = 0
    cut_off: bool = False
    _server: asyncio.Server | None = None
    _pairs: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Link:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for pair in list(self._pairs):
            pair.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    def cut(self) -> None:
        """From now on nothing arrives, and nothing says so."""
        self.cut_off = True

    def heal(self) -> None:
        self.cut_off = False

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._pairs.add(task)
        task.add_done_callback(self._pairs.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_writer: asyncio.StreamWriter | None = None
        try:
            # a handshake takes a round trip
            await asyncio.sleep(2 * self.one_way_ms / 1000)
            far_reader, far_writer = await asyncio.open_connection(self.target_host, self.target_port)
            await asyncio.gather(self._pipe(reader, far_writer), self._pipe(far_reader, writer))
        except OSError:
            pass
        finally:
            for end in (writer, far_writer):
                if end is not None:
                    end.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction: a reader that notes when each chunk is due, and a writer that waits for it."""
        loop = asyncio.get_running_loop()
        queue: deque[tuple[float, bytes]] = deque()
        came, left = asyncio.Event(), asyncio.Event()
        queued = 0

        async def read() -> None:
            nonlocal queued
            while True:
                try:
                    chunk = await reader.read(CHUNK_BYTES)
                except OSError:
                    chunk = b""
                if self.cut_off and chunk:
                    continue
                queue.append((loop.time() + self.one_way_ms / 1000, chunk))
                queued += len(chunk)
                came.set()
                if not chunk:
                    return
                while queued > QUEUED_BYTES_MAX:
                    left.clear()
                    await left.wait()

        reading = asyncio.create_task(read())
        try:
            while True:
                while not queue:
                    came.clear()
                    await came.wait()
                due, chunk = queue.popleft()
                pause_s = due - loop.time()
                if pause_s > 0:
                    await asyncio.sleep(pause_s)
                if not chunk:
                    if writer.can_write_eof() and not writer.is_closing():
                        writer.write_eof()
                    # the other direction of a WebSocket has nothing left to say: close it all
                    raise ConnectionResetError
                queued -= len(chunk)
                left.set()
                writer.write(chunk)
                await writer.drain()
        finally:
            reading.cancel()
